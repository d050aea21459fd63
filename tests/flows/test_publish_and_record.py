"""Publishing recordings to Kafka and recording from it."""

from __future__ import annotations

import itertools
import signal as os_signals
import subprocess
import sys
import time

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer import Typer
from typer.testing import CliRunner

from connectors.kafka_source import KafkaSource
from connectors.recording import RecordingSource, RecordingWriter, iterate
from flows.commands.publish import Spread, publish, publish_recording
from flows.recorder import MetricsInOrder, record_stream
from signals.batch import END_OF_STREAM, Batch
from signals.schema import EVENT_TIME, Signal
from tests.support.telemetry import FRAMES, SECOND, START_NS, gauges

pytestmark = pytest.mark.kafka


@pytest.fixture
def recording(tmp_path):
    with RecordingWriter(tmp_path / "recording", environment="test") as writer:
        for signal, frame in FRAMES.items():
            writer.add_frame(signal, frame)
    return tmp_path / "recording"


def frames(source) -> dict[Signal, pl.DataFrame]:
    found: dict[Signal, list[pl.DataFrame]] = {}
    for item in iterate(source):
        assert isinstance(item, Batch)
        found.setdefault(item.signal, []).append(item.frame)
    return {signal: pl.concat(parts) for signal, parts in found.items()}


def same_rows(left: pl.DataFrame, right: pl.DataFrame) -> None:
    keys = [name for name, kind in left.schema.items() if not isinstance(kind, pl.List)]
    assert_frame_equal(left.sort(keys), right.sort(keys))


@pytest.mark.parametrize("spread", Spread)
def test_published_rows_are_read_back_and_every_partition_is_in_event_time_order(recording, kafka_config, spread):
    config = kafka_config(partitions=3, max_poll_records=1)
    counts = publish_recording(recording, config, spread=spread, max_rows=50)
    assert counts == {signal: frame.height for signal, frame in FRAMES.items()}
    by_partition: dict[str, list[Batch]] = {}
    for batch in iterate(KafkaSource(config, environment="elsewhere", stop_at_end=True)):
        by_partition.setdefault(batch.partition, []).append(batch)
    for signal, expected in FRAMES.items():
        batches = [batch for parts in by_partition.values() for batch in parts if batch.signal is signal]
        same_rows(expected, pl.concat([batch.frame for batch in batches]))
    disorder = SECOND if spread is Spread.KEYED else 0  # one message per trace, within a step of one second
    for parts in by_partition.values():
        times = [batch.frame[EVENT_TIME[batch.signal]] for batch in parts if batch.frame.height]
        assert all(after.min() >= before.max() - disorder for before, after in itertools.pairwise(times))


def test_a_trace_stays_in_one_partition_unless_it_is_torn_apart_on_purpose(recording, kafka_config):
    def partitions_per_trace(spread):
        config = kafka_config(partitions=3)
        publish_recording(recording, config, spread=spread, max_rows=7)
        source = KafkaSource(config, environment="x", stop_at_end=True, signals=frozenset({Signal.SPANS}))
        rows = [item.frame.select("trace_lo", p=pl.lit(item.partition)) for item in iterate(source)]
        return pl.concat(rows).group_by("trace_lo").agg(pl.col("p").n_unique())["p"].max()

    with RecordingWriter(recording.parent / "torn", environment="test") as writer:
        writer.add_frame(
            Signal.SPANS,
            FRAMES[Signal.SPANS].with_columns(trace_lo=pl.col("span_id") % 5, trace_hi=pl.lit(1, pl.UInt64)),
        )
    recording = recording.parent / "torn"
    assert partitions_per_trace(Spread.TRACE) == 1
    assert partitions_per_trace(Spread.KEYED) == 1
    assert partitions_per_trace(Spread.ROUND_ROBIN) > 1


def test_the_speed_is_event_time_over_wall_time(recording, kafka_config):
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    publish_recording(recording, kafka_config(), speed=4, monotonic=lambda: now[0], sleep=sleep)
    assert sum(slept) == pytest.approx(60 / 4, rel=0.05)


def test_messages_that_would_be_too_large_are_split(recording, kafka_config):
    config = kafka_config(max_message_bytes=3_000, compression="none")
    publish_recording(recording, config, max_rows=500)
    same_rows(FRAMES[Signal.SPANS], frames(KafkaSource(config, environment="x", stop_at_end=True))[Signal.SPANS])


def test_the_publish_command_says_what_it_did_and_what_is_wrong(recording, kafka, tmp_path):
    app = Typer()
    app.command()(publish)
    settings = tmp_path / "settings.yaml"
    settings.write_text("kafka: {topics: {spans: {name: published-spans}, logs: null, metrics: null, changes: null}}")
    arguments = [str(recording), "--bootstrap-servers", kafka, "--config", str(settings)]
    done = CliRunner().invoke(app, arguments)
    assert "Published 600 spans" in done.output
    done = CliRunner().invoke(app, [str(tmp_path / "nowhere"), "--bootstrap-servers", kafka])
    assert done.exit_code == 1
    assert "is no folder" in " ".join(done.output.split())
    settings.write_text("kafka: {topicz: 1}")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "topicz" in done.output


# -- recording ---------------------------------------------------------------------------------------------------------


def test_what_is_recorded_replays_as_what_was_published(recording, kafka_config, tmp_path):
    config = kafka_config(partitions=2)
    publish_recording(recording, config)
    source = KafkaSource(config, environment="test", stop_at_end=True, keep_attributes=True)
    done = record_stream(source, tmp_path / "again", environment="test")
    assert dict(done.rows) == {signal: frame.height for signal, frame in FRAMES.items()}
    again = frames(RecordingSource(tmp_path / "again"))
    for signal, expected in FRAMES.items():
        same_rows(expected, again[signal])


def test_a_recording_ends_when_its_time_is_up(kafka_config, tmp_path):
    now = [0.0]

    def sleep(_):
        now[0] += 1

    source = KafkaSource(kafka_config(), environment="test")
    record_stream(source, tmp_path / "r", environment="test", duration_s=5, monotonic=lambda: now[0], sleep=sleep)
    assert (tmp_path / "r" / "recording.json").exists()
    assert now[0] == pytest.approx(5, abs=1)


def test_the_record_command_ends_cleanly_on_a_signal(recording, kafka_config, kafka, tmp_path):
    config = kafka_config()
    publish_recording(recording, config)
    topics = config.topics.model_dump(mode="json")
    (tmp_path / "settings.yaml").write_text(f"kafka: {{topics: {topics}, auto_offset_reset: earliest}}")
    code = "import typer; from flows.commands.record import record; typer.run(record)"
    arguments = [tmp_path / "out", "--bootstrap-servers", kafka, "--config", tmp_path / "settings.yaml"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    time.sleep(6)
    process.send_signal(os_signals.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "600 spans" in output
    same_rows(FRAMES[Signal.SPANS], frames(RecordingSource(tmp_path / "out"))[Signal.SPANS])


def test_counters_from_several_partitions_become_rates_in_order_of_time():
    counters = gauges(40).with_columns(shape=pl.lit(2, pl.Int8), attributes=pl.lit(""), start_ns=pl.lit(START_NS))
    one = counters.filter(pl.col("service") == "service-0")
    early, late = one.head(4), one.tail(4)
    order = MetricsInOrder(("m/0", "m/1"))
    first = order.add(Batch(Signal.METRICS, "m/1", late, END_OF_STREAM))
    assert first.is_empty()
    rest = order.add(Batch(Signal.METRICS, "m/0", early, END_OF_STREAM))
    straight = MetricsInOrder(("m/0",)).add(Batch(Signal.METRICS, "m/0", pl.concat([early, late]), END_OF_STREAM))
    assert_frame_equal(rest, straight)
    assert rest.height == 7, "eight points of one counter make seven rates"


def test_an_idle_metric_partition_holds_no_rates_back():
    order = MetricsInOrder(("m/0", "m/1"))
    assert order.add(Batch(Signal.METRICS, "m/0", gauges(10), END_OF_STREAM)).is_empty()
    assert order.add(Batch(Signal.METRICS, "m/1", gauges(0), 0, idle=True)).height == 10
