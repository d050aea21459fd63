"""Reading recordings: order, equality with the files, awkward rows, refusals, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from connectors.errors import RecordingError
from connectors.recording import RecordingSource, RecordingWriter, iterate, load_topology
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetters
from signals.names import operation_name, peer_name
from signals.schema import EVENT_TIME, Signal
from tests.support.telemetry import FRAMES, SECOND, START_NS, raw_span, write_spans

MINUTE = 60 * SECOND
NAMES = [
    "boutique-dev",
    "onlineboutique-0822",
    "onlineboutique-0823",
    "petshop-high",
    "petshop-low",
    "trainticket-0129",
    "trainticket-0130",
]


def items(path, **settings):
    return list(iterate(RecordingSource(path, **settings)))


def frame(path, signal=Signal.SPANS, **settings) -> pl.DataFrame:
    return pl.concat(
        [item.frame for item in items(path, **settings) if isinstance(item, Batch) and item.signal is signal]
    )


def skipped(path) -> dict[str, int]:
    total: dict[str, int] = {}
    for item in items(path):
        for reason, count in getattr(item, "skipped", {}).items():
            total[reason] = total.get(reason, 0) + count
    return total


# -- order and equality ------------------------------------------------------------------------------------------------


def test_spans_come_in_order_of_their_end_though_files_are_ordered_by_start(tmp_path):
    rows = [raw_span(START_NS + second * SECOND, (100 - second) * SECOND // 2) for second in range(100)]
    ends = frame(write_spans(tmp_path / "r", [rows]))["end_ns"]
    assert ends.is_sorted()
    assert sorted(row["start_unix_ns"] + row["duration_ns"] for row in rows) == ends.to_list()


def test_a_span_of_hours_arrives_when_it_ends_and_is_found_in_an_early_row_group(tmp_path):
    hour = 3_600 * SECOND
    short = [raw_span(START_NS + number * SECOND, SECOND // 2) for number in range(1, 7_000)]
    long = raw_span(START_NS, hour + SECOND // 4, name="backup")
    found = frame(write_spans(tmp_path / "r", [[long, *short]], row_group_size=100))
    assert found["end_ns"].is_sorted()
    assert found["name"].to_list().index("backup") == 3_600 - 1
    assert found.height == 7_000


def test_overlapping_and_unsorted_files_are_merged(tmp_path):
    random = np.random.default_rng(3)
    rows = [raw_span(START_NS + int(at), int(length)) for at, length in random.integers(0, MINUTE, (900, 2))]
    found = frame(write_spans(tmp_path / "r", [rows[:300], rows[300:301], rows[301:]]))
    assert found["end_ns"].to_list() == sorted(row["start_unix_ns"] + row["duration_ns"] for row in rows)


def test_rows_of_equal_time_keep_the_order_of_the_files_whatever_the_batches(tmp_path):
    rows = [raw_span(START_NS, 0, span_id=f"{number:016x}") for number in range(1, 400)]
    path = write_spans(tmp_path / "r", [rows[:150], rows[150:]])
    assert frame(path)["span_id"].to_list() == list(range(1, 400))
    assert_frame_equal(frame(path, batch_rows=7), frame(path))


def test_the_watermark_is_the_time_of_the_next_row(tmp_path):
    path = write_spans(tmp_path / "r", [[raw_span(START_NS + number * SECOND, 0) for number in range(10)]])
    marks = [item.watermark_ns for item in items(path, batch_rows=4)]
    assert marks == [START_NS + 4 * SECOND, START_NS + 8 * SECOND, END_OF_STREAM]


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_recorded_systems_are_read_completely_and_in_order(name, recordings):
    path = recordings / name
    whole: dict[Signal, list[pl.DataFrame]] = {}
    for batch in items(path):
        whole.setdefault(batch.signal, []).append(batch.frame)
    assert set(whole) == set(RecordingSource(path).recording.signals)
    for signal, parts in whole.items():
        got = pl.concat(parts)
        assert got[EVENT_TIME[signal]].is_sorted()
        if signal is Signal.SPANS:
            raw = pl.read_parquet(path / "spans" / "*.parquet", columns=["start_unix_ns", "duration_ns", "service"])
            assert_frame_equal(
                got.select("start_ns", "end_ns", "service").sort(pl.all()),
                raw.select(
                    start_ns="start_unix_ns",
                    end_ns=pl.col("start_unix_ns") + pl.col("duration_ns"),
                    service="service",
                ).sort(pl.all()),
            )
        elif signal is Signal.LOGS:
            raw = pl.read_parquet(path / "logs" / "*.parquet", columns=["time_unix_ns", "service", "body"])
            expected = raw.select(time_ns="time_unix_ns", service="service", body="body")
            assert_frame_equal(got.select(expected.columns), expected.sort("time_ns", maintain_order=True))
        elif signal is Signal.METRICS:
            raw = pl.read_parquet(path / "metrics" / "*.parquet").filter(pl.col("value").is_finite())
            expected = raw.select(time_ns="time_unix_ns", service="service", metric="metric", value="value")
            assert_frame_equal(got.select(expected.columns), expected.sort("time_ns", maintain_order=True))


@pytest.mark.recordings
def test_names_peers_versions_and_ids_are_those_of_the_rules_applied_row_by_row(recordings):
    path = recordings / "boutique-dev"
    raw = pl.scan_parquet(path / "spans" / "*.parquet").head(5_000).collect()
    got = {row["span_id"]: row for row in frame(path).filter(pl.col("start_ns") <= raw["start_unix_ns"][-1]).to_dicts()}
    for row in raw.to_dicts():
        attributes = orjson.loads(row["attributes"] or "{}")
        one = got[int(row["span_id"], 16)]
        assert one["name"] == operation_name(row["name"], attributes)
        assert one["peer"] == (peer_name(attributes) if row["kind"] in {3, 4, 5} else "")
        assert one["version"] == attributes.get("service.version", "")
        assert (one["trace_hi"] << 64 | one["trace_lo"]) == int(row["trace_id"], 16)
        assert one["parent_id"] == int(row["parent_span_id"] or "0", 16)


# -- awkward rows ------------------------------------------------------------------------------------------------------


def one(tmp_path: Path, **fields) -> dict:
    return frame(write_spans(tmp_path / "r", [[raw_span(START_NS, SECOND, **fields)]])).to_dicts()[0]


def test_nulls_become_the_defaults_of_the_schema(tmp_path):
    nothing = dict.fromkeys(("service", "instance", "name", "kind", "status_code", "trace_id", "span_id", "attributes"))
    row = one(tmp_path, **nothing)
    assert (row["service"], row["instance"], row["name"], row["kind"], row["status"]) == (
        "unknown_service",
        "",
        "",
        0,
        0,
    )
    assert (row["trace_hi"], row["trace_lo"], row["span_id"], row["environment"]) == (0, 0, 0, "test")


def test_values_outside_otlps_enumerations_become_unspecified(tmp_path):
    row = one(tmp_path, kind=77, status_code=-3)
    assert (row["kind"], row["status"]) == (0, 0)


@pytest.mark.parametrize(
    ("attributes", "version"),
    [
        ('{"service.version":"1.2"}', "1.2"),
        ('{"a":"{}","service.version": "1.2"}', "1.2"),
        ('{"note":"say \\"service.version\\":\\"9\\"","service.version":"1.2"}', "1.2"),
        ('{"nested":{"service.version":"9"}}', ""),
        ('{"nested":{"service.version":"9"},"service.version":"1.2"}', "1.2"),
        ('{"service.version":"a\\"b"}', 'a"b'),
        ('{"service.version":3}', "3"),
        ('{"service.version":null}', ""),
        (None, ""),
    ],
)
def test_the_version_is_the_attribute_and_nothing_that_looks_like_it(tmp_path, attributes, version):
    assert one(tmp_path, attributes=attributes)["version"] == version


def test_attributes_that_are_no_object_are_counted_and_say_nothing(tmp_path):
    broken = [raw_span(START_NS, 1, kind=3, attributes=text) for text in ("{", "[1]", '"x"')]
    path = write_spans(tmp_path / "r", [broken])
    assert skipped(path) == {"bad_attributes": 3}
    assert frame(path)["peer"].to_list() == ["", "", ""]


def test_rows_that_have_no_place_in_time_are_dropped_and_counted_once(tmp_path):
    rows = [raw_span(START_NS + SECOND, -5), raw_span(0, 1), raw_span(2**62, 1), raw_span(START_NS, 2**62 - START_NS)]
    path = write_spans(tmp_path / "r", [rows])
    assert frame(path).select("start_ns", "end_ns").rows() == [(START_NS + SECOND, START_NS + SECOND)]
    assert skipped(path) == {"no_time": 3, "negative_duration": 1}


def test_metric_values_that_are_not_finite_are_dropped_and_counted(tmp_path):
    (tmp_path / "metrics").mkdir()
    rows = {
        "time_unix_ns": [START_NS] * 4,
        "service": ["a"] * 4,
        "instance": [None] * 4,
        "metric": ["m"] * 4,
        "value": [1.0, float("nan"), float("inf"), None],
        "attributes": ['{"b":1,"a":2}', None, None, None],
    }
    pl.DataFrame(rows, schema_overrides={"instance": pl.String}).write_parquet(tmp_path / "metrics" / "m.parquet")
    (tmp_path / "recording.json").write_text('{"environment": "test"}')
    assert frame(tmp_path, Signal.METRICS).select("value", "attributes").rows() == [(1.0, '{"a":2,"b":1}')]
    assert skipped(tmp_path) == {"not_finite": 3}


def test_unusable_change_events_become_dead_letters_and_the_rest_flows(tmp_path):
    write_spans(tmp_path / "r", [[raw_span(START_NS, 1)]])
    good = {
        "specversion": "1.0",
        "id": "1",
        "source": "/x",
        "type": "t",
        "time": "2023-11-14T22:13:20Z",
        "subject": "cart",
    }
    lines = [b"{nonsense", orjson.dumps(good), b"", orjson.dumps(good | {"specversion": "0.3"})]
    (tmp_path / "r" / "changes.jsonl").write_bytes(b"\n".join(lines))
    found = items(tmp_path / "r")
    letters = [letter for item in found if isinstance(item, DeadLetters) for letter in item.letters]
    assert [letter.offset for letter in letters] == [0, 3]
    assert "specversion '0.3'" in letters[1].reason
    assert frame(tmp_path / "r", Signal.CHANGES)["service"].to_list() == ["cart"]


def test_an_empty_file_ends_at_once(tmp_path):
    assert [item.watermark_ns for item in items(write_spans(tmp_path / "r", [[]]))] == [END_OF_STREAM]


# -- several signals, topology, refusals -------------------------------------------------------------------------------


def test_signals_are_merged_in_event_time(tmp_path):
    with RecordingWriter(tmp_path / "r", environment="test") as writer:
        for signal, rows in FRAMES.items():
            writer.add_frame(signal, rows)
    source = RecordingSource(tmp_path / "r", batch_rows=20)
    marks = dict.fromkeys(source.partition_names(), NO_WATERMARK)
    for item in iterate(source):
        assert marks[item.partition] == min(marks.values()), "the one furthest behind is read next"
        marks[item.partition] = item.watermark_ns
    assert set(marks.values()) == {END_OF_STREAM}


def test_labels_are_never_opened(tmp_path):
    path = write_spans(tmp_path / "r", [[raw_span(START_NS, 1)]])
    (path / "faults.jsonl").mkdir()  # opening it as a file would raise
    assert frame(path).height == 1


def test_a_known_topology_is_read_with_nodes_that_only_edges_name(tmp_path):
    (tmp_path / "topology.json").write_text('{"nodes": ["a"], "edges": [{"caller": "a", "callee": "b"}]}')
    assert load_topology(tmp_path) == (["a", "b"], [("a", "b")])
    assert load_topology(tmp_path / "nowhere.json") == ([], [])


@pytest.mark.parametrize("text", ["{", "[]", '{"edges": [{"caller": "a"}]}', '{"nodes": []}'])
def test_a_broken_topology_says_what_it_must_look_like(tmp_path, text):
    (tmp_path / "topology.json").write_text(text)
    with pytest.raises(RecordingError, match="caller"):
        load_topology(tmp_path)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: None, "is no folder"),
        (lambda path: path.mkdir(), "no recording.json"),
        (lambda path: (path.mkdir(), (path / "recording.json").write_text("{}")), "holds no telemetry"),
        (lambda path: (path.mkdir(), (path / "recording.json").write_text("[")), "no readable JSON"),
    ],
)
def test_a_folder_that_is_no_recording_is_refused_with_what_is_missing(tmp_path, prepare, said):
    prepare(tmp_path / "r")
    with pytest.raises(RecordingError, match=said):
        RecordingSource(tmp_path / "r")


def test_missing_columns_and_broken_files_are_named(tmp_path):
    path = write_spans(tmp_path / "r", [[raw_span(START_NS, 1)]])
    file = path / "spans" / "part-0.parquet"
    pl.read_parquet(file).drop("kind").write_parquet(file)
    with pytest.raises(RecordingError, match="no column 'kind'"):
        items(path)
    file.write_bytes(b"PAR1 but not really")
    with pytest.raises(RecordingError, match=r"part-0\.parquet"):
        items(path)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again_with_namespaces_versions_and_several_environments(tmp_path):
    mixed = FRAMES[Signal.SPANS].with_columns(
        namespace=pl.lit("shop"),
        environment=pl.when(pl.col("kind") == 2).then(pl.lit("other")).otherwise("environment"),
    )
    with RecordingWriter(tmp_path / "r", environment="test", file_rows=100) as writer:
        writer.add_frame(Signal.SPANS, mixed)
        writer.add_frame(Signal.LOGS, FRAMES[Signal.LOGS])
        writer.add_frame(Signal.METRICS, FRAMES[Signal.METRICS])
        writer.add_frame(Signal.CHANGES, FRAMES[Signal.CHANGES])
    assert_frame_equal(frame(tmp_path / "r").sort("span_id"), mixed.sort("span_id"))
    for signal in (Signal.LOGS, Signal.METRICS, Signal.CHANGES):
        assert_frame_equal(frame(tmp_path / "r", signal), FRAMES[signal])


def test_files_roll_and_are_ordered_by_start_as_the_format_says(tmp_path):
    with RecordingWriter(tmp_path / "r", environment="test", file_rows=100) as writer:
        for part in FRAMES[Signal.SPANS].iter_slices(50):
            writer.add_frame(Signal.SPANS, part)
    files = sorted((tmp_path / "r" / "spans").iterdir())
    assert [file.name for file in files] == [f"part-{number:05d}.parquet" for number in range(6)]
    assert all(pl.read_parquet(file)["start_unix_ns"].is_sorted() for file in files)
    about = json.loads((tmp_path / "r" / "recording.json").read_text())
    assert about["end_unix_ns"] == FRAMES[Signal.SPANS]["end_ns"].max()
    assert about["signals"] == ["spans"]


def test_a_recording_is_never_written_over(tmp_path):
    RecordingWriter(tmp_path / "r", environment="test").close()
    with pytest.raises(RecordingError, match="already holds a recording"):
        RecordingWriter(tmp_path / "r", environment="test")


def test_metrics_that_were_not_normalised_are_counted_and_left_out(tmp_path):
    counters = FRAMES[Signal.METRICS].with_columns(shape=pl.lit(2, pl.Int8))
    with RecordingWriter(tmp_path / "r", environment="test") as writer:
        writer.add_frame(Signal.METRICS, counters)
    assert writer.left_out["metric_not_normalised"] == counters.height


# -- memory ------------------------------------------------------------------------------------------------------------

_MEASURE = """
import pathlib, re, sys
from connectors.recording import RecordingSource, iterate
rows = sum(item.frame.height for item in iterate(RecordingSource(sys.argv[1])))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(rows, int(peak.group(1)) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_a_million_spans_are_read_in_a_few_hundred_megabytes(tmp_path):
    count = 1_000_000
    start = START_NS + np.arange(count) * 2_000_000
    attributes = '{"server.address":"10.0.0.1","server.port":443,"filler":"' + "x" * 300 + '"}'
    frame_of = pl.DataFrame(
        {
            "trace_id": pl.Series(np.arange(1, count + 1)).cast(pl.String).str.zfill(32),
            "span_id": pl.Series(np.arange(1, count + 1)).cast(pl.String).str.zfill(16),
            "parent_span_id": pl.repeat(None, count, dtype=pl.String, eager=True),
            "service": pl.repeat("cart", count, eager=True),
            "instance": pl.repeat("cart-1", count, eager=True),
            "name": pl.repeat("op", count, eager=True),
            "kind": pl.repeat(3, count, dtype=pl.Int8, eager=True),
            "start_unix_ns": start,
            "duration_ns": np.random.default_rng(0).integers(0, 10**9, count),
            "status_code": pl.repeat(0, count, dtype=pl.Int8, eager=True),
            "attributes": pl.repeat(attributes, count, eager=True),
        }
    )
    (tmp_path / "spans").mkdir()
    frame_of.write_parquet(tmp_path / "spans" / "part-0.parquet", row_group_size=100_000)
    (tmp_path / "recording.json").write_text('{"environment": "test"}')
    done = subprocess.run([sys.executable, "-c", _MEASURE, tmp_path], capture_output=True, text=True, check=True)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == count
    assert megabytes < 450, f"{megabytes} MB"
