"""Outputs: a recording that has exactly the format's columns, OTLP for Kafka, and the command in front of both."""

import json

import orjson
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from connectors.cloudevents import decode_change
from connectors.config import KafkaConfig
from connectors.iterate import iterate
from connectors.kafka_client import make_consumer, topic_partition
from connectors.recording import RecordingSource
from flows.commands.simulate import simulate as command
from signals.batch import Batch
from signals.otlp import Encoding, decode
from signals.otlp_encode import encode
from signals.schema import Signal
from simulator import MemorySink, SimulationConfig, simulate
from simulator.kafka import KafkaSink
from simulator.writer import OutputExistsError, RecordingSink

COLUMNS = {
    "spans": {
        "trace_id": pl.String,
        "span_id": pl.String,
        "parent_span_id": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "name": pl.String,
        "kind": pl.Int8,
        "start_unix_ns": pl.Int64,
        "duration_ns": pl.Int64,
        "status_code": pl.Int8,
        "attributes": pl.String,
    },
    "logs": {
        "time_unix_ns": pl.Int64,
        "service": pl.String,
        "instance": pl.String,
        "severity": pl.Int8,
        "body": pl.String,
        "trace_id": pl.String,
        "span_id": pl.String,
    },
    "metrics": {
        "time_unix_ns": pl.Int64,
        "service": pl.String,
        "instance": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "attributes": pl.String,
    },
}
CONFIG = SimulationConfig(minutes=3, rate=10, faults="demo")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "shop"
    summary = simulate(CONFIG, RecordingSink(path, part_ns=40 * 10**9, with_topology=True))
    return path, summary


def test_a_recording_has_exactly_the_columns_of_the_format(recording):
    path, summary = recording
    rows = {"spans": summary.spans, "logs": summary.logs, "metrics": summary.metrics}
    for signal, columns in COLUMNS.items():
        frame = pl.concat([pl.read_parquet(file) for file in sorted((path / signal).glob("*.parquet"))])
        assert dict(frame.schema) == columns
        assert frame.height == rows[signal]
    assert not list(path.glob("*/*.unfinished"))


def test_rows_are_in_order_of_time_within_a_file_and_over_files(recording):
    path, _ = recording
    for signal, columns in COLUMNS.items():
        time = next(name for name in columns if name.endswith("unix_ns"))
        files = sorted((path / signal).glob("*.parquet"))
        assert len(files) >= 4
        times = pl.concat([pl.read_parquet(file)[time] for file in files])
        assert times.is_sorted()


def test_ids_are_lower_case_hexadecimal_and_absent_ones_null(recording):
    path, _ = recording
    spans, logs = (pl.read_parquet(path / signal / "*.parquet") for signal in ("spans", "logs"))
    assert spans["trace_id"].str.contains("^[0-9a-f]{32}$").all()
    assert spans["span_id"].str.contains("^[0-9a-f]{16}$").all()
    assert 0 < spans["parent_span_id"].null_count() < spans.height / 5
    assert spans["attributes"].str.json_path_match("$['service.version']").is_not_null().all()
    assert 0 < logs["trace_id"].null_count() == logs["span_id"].null_count()


def test_changes_labels_and_description_are_beside_the_telemetry(recording):
    path, summary = recording
    changes = [decode_change(line, default_environment="?") for line in (path / "changes.jsonl").open("rb")]
    assert [(c.service, c.version, c.environment) for c in changes] == [
        ("catalog", "1.4.1", "shop-sim"),
        ("catalog", "1.4.0", "shop-sim"),
        ("shipping", "1.4.1", "shop-sim"),
    ]
    labels = [json.loads(line) for line in (path / "faults.jsonl").open()]
    assert [label["kind"] for label in labels] == ["bad_deploy", "gray_failure", "dependency_outage", "benign"]
    about = json.loads((path / "recording.json").read_bytes())
    assert (about["name"], about["environment"]) == ("shop", "shop-sim")
    assert (about["start_unix_ns"], about["end_unix_ns"]) == (summary.start_ns, summary.end_ns)
    assert about["signals"] == ["spans", "logs", "metrics", "changes"]
    graph = json.loads((path / "topology.json").read_bytes())
    assert {"caller": "checkout", "callee": "payment"} in graph["edges"]


def test_the_same_simulation_writes_the_same_bytes(tmp_path):
    config = SimulationConfig(minutes=0.5, rate=10)
    for name in ("a", "b"):
        simulate(config, RecordingSink(tmp_path / name / "rec"))
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_with_a_recording_is_not_overwritten(recording):
    with pytest.raises(OutputExistsError, match="already holds a recording"):
        RecordingSink(recording[0])


def test_reading_the_recording_gives_the_simulation_again(recording):
    path, _ = recording
    memory = MemorySink()
    simulate(CONFIG, memory)
    read = [item for item in iterate(RecordingSource(path)) if isinstance(item, Batch)]
    for signal, key in ((Signal.SPANS, "span_id"), (Signal.LOGS, "body"), (Signal.METRICS, "metric")):
        got = pl.concat([batch.frame for batch in read if batch.signal is signal])
        time = "end_ns" if signal is Signal.SPANS else "time_ns"
        # Recordings hold no version of log lines, and a span called only GET is read with its path.
        same = [c for c in got.columns if c != "name" and (c != "version" or signal is Signal.SPANS)]
        order = [time, key, "instance", "attributes"] if signal is Signal.METRICS else [time, key, "instance"]
        expected = memory.frame(signal).select(same).sort(order)
        assert got.select(same).sort(order).equals(expected)
    spans = pl.concat([batch.frame for batch in read if batch.signal is Signal.SPANS])
    assert "GET /pages/product/{}" in set(spans.filter(pl.col.service == "gateway")["name"])
    assert {"GET", "POST"}.isdisjoint(spans.filter(pl.col.peer != "redis:redis")["name"])


@pytest.mark.kafka
def test_a_real_kafka_holds_what_was_simulated(kafka_config):
    config = kafka_config(partitions=2)
    simulation = SimulationConfig(minutes=0.2, rate=10, metric_form="otlp", faults="none", namespace="shop")
    summary = simulate(simulation, KafkaSink(config), slice_s=2.0)
    consumer = make_consumer(config)
    try:
        for signal, topic, encoding in config.topics.inputs():
            if signal is Signal.CHANGES:
                continue
            places = [topic_partition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
            consumer.assign(places)
            for place in places:
                consumer.seek(place, 0)
            ends, values = consumer.end_offsets(places), []
            while any((consumer.position(place) or 0) < ends[place] for place in places):
                for records in consumer.poll(timeout_ms=500).values():
                    values += [record.value for record in records]
            frame = decode(signal, encoding, values).frame
            assert frame.height == {"spans": summary.spans, "logs": summary.logs, "metrics": summary.metrics}[signal]
            assert set(frame["environment"]) == {"shop-sim"}
            assert set(frame["namespace"]) == {"shop"}
    finally:
        consumer.close()


class _Sent:
    def get(self, timeout=None):
        return None


class _Refused:
    def get(self, timeout=None):
        raise TimeoutError("broker is gone")


class _Producer:
    """Keeps what is sent."""

    def __init__(self, result=_Sent):
        self.messages = []
        self.result = result
        self.closed = False

    def send(self, topic, value=None, **_):
        self.messages.append((topic, value))
        return self.result()

    def flush(self, timeout=None):
        pass

    def close(self, timeout=None):
        self.closed = True


def test_kafka_gets_otlp_that_is_the_simulation_in_order_of_end():
    config = SimulationConfig(minutes=0.5, rate=10, metric_form="otlp", namespace="shop")
    producer, memory = _Producer(), MemorySink()
    simulate(config, KafkaSink(KafkaConfig(), producer=producer), slice_s=1.0)
    simulate(config, memory, slice_s=1.0)
    assert producer.closed
    sent = {topic: [value for name, value in producer.messages if name == topic] for topic, _ in producer.messages}
    assert set(sent) == {"otlp_spans", "otlp_logs", "otlp_metrics", "changes"}
    for part in memory.parts:
        assert part.frames.spans["end_ns"].is_sorted()
    for topic, signal in (("otlp_spans", Signal.SPANS), ("otlp_logs", Signal.LOGS), ("otlp_metrics", Signal.METRICS)):
        expected = [
            message
            for part in memory.parts
            for message in encode(signal, part.frames.by_signal()[signal], encoding=Encoding.OTLP_PROTO, max_rows=400)
        ]
        assert sent[topic] == expected
    assert [orjson.loads(value) for value in sent["changes"]] == memory.changes


def test_kafka_is_fed_at_the_speed_asked_for():
    now = [0.0]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    sink = KafkaSink(KafkaConfig(), speed=4.0, producer=_Producer(), clock=lambda: now[0], sleep=sleep)
    simulate(SimulationConfig(minutes=0.5, rate=2), sink, slice_s=1.0)
    assert sum(slept) == pytest.approx(29 / 4.0)
    assert max(slept) == pytest.approx(0.25)


def test_a_delivery_that_fails_is_not_lost_silently():
    sink = KafkaSink(KafkaConfig(), producer=_Producer(_Refused))
    with pytest.raises(TimeoutError, match="broker is gone"):
        simulate(SimulationConfig(minutes=0.2, rate=2), sink)


@pytest.fixture
def cli():
    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, list(arguments))


def test_the_command_writes_a_recording_and_says_what_to_do_next(cli, tmp_path):
    out = tmp_path / "demo"
    result = cli(
        "--out", str(out), "--minutes", "0.3", "--rate", "5", "--faults", "none", "--start", "2026-01-05T09:00Z"
    )
    assert result.exit_code == 0, result.output
    assert f"mendstream replay {out}" in result.output
    assert json.loads((out / "recording.json").read_bytes())["start_unix_ns"] == 1_767_603_600 * 10**9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--out DIR or --to-kafka"),
        (("--out", "x", "--to-kafka", "y"), "--out DIR or --to-kafka"),
        (("--out", "x", "--minutes", "-1"), "--minutes"),
        (("--out", "x", "--start", "noon"), "'noon'"),
        (("--out", "x", "--faults", "nothere.yaml"), "nothere.yaml"),
    ],
)
def test_the_command_names_the_option_that_is_wrong(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "x").exists()


def test_the_command_names_the_key_of_a_schedule_that_is_wrong(cli, tmp_path):
    schedule = tmp_path / "s.yaml"
    schedule.write_text("faults: [{kind: error, service: cartt, start: 1, duration: 1}]")
    result = cli("--out", str(tmp_path / "x"), "--minutes", "1", "--faults", str(schedule))
    assert result.exit_code == 2
    assert "faults[0].service" in result.output
    assert not (tmp_path / "x").exists()
