"""What every source promises, checked on every source: recordings, OTLP files and Kafka."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
import zstandard
from bytewax.inputs import FixedPartitionedSource
from polars.testing import assert_frame_equal

from connectors.cloudevents import encode_change
from connectors.kafka_client import make_producer
from connectors.kafka_source import KafkaSource
from connectors.otlp_files import OtlpFileSource
from connectors.recording import RecordingSource, RecordingWriter
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetters
from signals.otlp import Encoding
from signals.otlp_encode import encode
from signals.schema import EVENT_TIME, SCHEMAS, Signal
from tests.support.telemetry import FRAMES

Make = Callable[[int], FixedPartitionedSource[Any, Any]]  # the size of a batch, in the source's own unit


def recording_source(tmp_path, kafka_config) -> Make:
    with RecordingWriter(tmp_path / "recording", environment="test", file_rows=150) as writer:
        for signal, frame in FRAMES.items():
            for part in frame.iter_slices(100):
                writer.add_frame(signal, part)
    return lambda size: RecordingSource(tmp_path / "recording", batch_rows=size * 7)


def json_lines_source(tmp_path, kafka_config) -> Make:
    for signal in (Signal.SPANS, Signal.LOGS, Signal.METRICS):
        values = encode(signal, FRAMES[signal], encoding=Encoding.OTLP_JSON, max_rows=20)
        (tmp_path / f"{signal}.jsonl").write_bytes(b"\n".join(values) + b"\n")
    return lambda size: OtlpFileSource(sorted(tmp_path.glob("*.jsonl")), environment="x", batch_bytes=size * 4_000)


def framed_zstd_source(tmp_path, kafka_config) -> Make:
    for signal in (Signal.SPANS, Signal.LOGS, Signal.METRICS):
        values = encode(signal, FRAMES[signal], max_rows=20)
        framed = b"".join(struct.pack(">I", len(value)) + value for value in values)
        (tmp_path / f"{signal}.otlp.zst").write_bytes(zstandard.compress(framed))
    return lambda size: OtlpFileSource(sorted(tmp_path.glob("*.zst")), environment="x", batch_bytes=size * 2_000)


def kafka_source(tmp_path, kafka_config) -> Make:
    config = kafka_config(partitions=2)
    producer = make_producer(config)
    for signal, topic, encoding in config.topics.inputs():
        frame = FRAMES[signal]
        values = (
            [encode_change(row, source="/test") for row in frame.iter_rows(named=True)]
            if encoding is None
            else encode(signal, frame, encoding=encoding, max_rows=20)
        )
        for number, value in enumerate(values):
            producer.send(topic, value, partition=number % 2)
    producer.close()
    return lambda size: KafkaSource(
        config.model_copy(update={"max_poll_records": size}), environment="x", stop_at_end=True
    )


SOURCES = {
    "recording": recording_source,
    "json lines": json_lines_source,
    "framed zstd": framed_zstd_source,
    "kafka": pytest.param(kafka_source, marks=pytest.mark.kafka),
}


@pytest.fixture(params=SOURCES.values(), ids=SOURCES.keys())
def make(request, tmp_path) -> Make:
    return request.param(tmp_path, request.getfixturevalue("kafka_config") if request.param is kafka_source else None)


@dataclass
class Step:
    """What one turn of a partition gave, and the snapshot after it, as the recovery store would hold it."""

    items: list[Any]
    snapshot: bytes


def run(source, part: str, state: Any = None) -> list[Step]:
    """All turns of one partition, others left alone; turns that gave nothing are not listed."""
    partition = source.build_part("test", part, state)
    steps = []
    for _ in range(20_000):
        try:
            items = list(partition.next_batch())
        except StopIteration:
            break
        if items:
            steps.append(Step(items, pickle.dumps(partition.snapshot())))
    else:
        pytest.fail("the partition does not end")
    partition.close()
    return steps


def batches(steps: list[Step]) -> list[Batch]:
    return [item for step in steps for item in step.items if isinstance(item, Batch)]


def rows(steps: list[Step], signal: Signal) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=SCHEMAS[signal]), *(batch.frame for batch in batches(steps))])


def test_partition_names_are_known_beforehand_and_name_the_batches(make):
    source = make(3)
    assert source.partition_names() == source.list_parts()
    by_signal = {name: signal for signal, names in source.partitions_by_signal().items() for name in names}
    assert set(by_signal) == set(source.partition_names())
    for part in source.list_parts():
        for batch in batches(run(make(3), part)):
            assert (batch.partition, batch.signal) == (part, by_signal[part])


def test_frames_have_the_schema_of_their_signal(make):
    source = make(3)
    for part in source.list_parts():
        for batch in batches(run(source, part)):
            assert batch.frame.schema == SCHEMAS[batch.signal]


def test_every_row_arrives_once(make):
    source = make(3)
    got: dict[Signal, list[pl.DataFrame]] = {}
    for part in source.list_parts():
        for batch in batches(run(source, part)):
            got.setdefault(batch.signal, []).append(batch.frame)
    for signal, parts in got.items():
        keys = [name for name, kind in SCHEMAS[signal].items() if not isinstance(kind, pl.List)]
        assert_frame_equal(pl.concat(parts).sort(keys), FRAMES[signal].sort(keys))


def test_the_watermark_never_decreases_and_no_later_row_is_older(make):
    for part in make(2).list_parts():
        watermark = NO_WATERMARK
        for batch in batches(run(make(2), part)):
            if batch.frame.height:
                assert batch.frame[EVENT_TIME[batch.signal]].min() >= watermark
            assert batch.watermark_ns >= watermark
            watermark = batch.watermark_ns
        assert watermark == END_OF_STREAM


def test_a_resume_from_any_snapshot_continues_exactly(make):
    for part in make(1).list_parts():
        steps = run(make(1), part)
        signal = batches(steps)[0].signal
        for place in sorted({0, 1, len(steps) // 2, len(steps) - 2, len(steps) - 1} & set(range(len(steps)))):
            again = run(make(4), part, pickle.loads(steps[place].snapshot))  # noqa: S301 - our own bytes
            assert_frame_equal(rows(again, signal), rows(steps[place + 1 :], signal))
            before = batches(steps[: place + 1])[-1].watermark_ns
            assert before == END_OF_STREAM or batches(again)[0].watermark_ns >= before


def test_the_size_of_batches_changes_nothing_but_the_cut(make):
    for part in make(1).list_parts():
        small, large = run(make(1), part), run(make(50), part)
        signal = batches(small)[0].signal
        assert_frame_equal(rows(small, signal), rows(large, signal))
        assert len(small) >= len(large)


def test_items_and_snapshots_cross_processes(make):
    source = make(5)
    for part in source.list_parts():
        for step in run(source, part):
            for item in step.items:
                twin = pickle.loads(pickle.dumps(item))  # noqa: S301 - our own bytes
                if isinstance(item, Batch):
                    assert_frame_equal(twin.frame, item.frame)
                    assert twin.watermark_ns == item.watermark_ns
                else:
                    assert twin == item


def test_a_requested_stop_ends_without_the_end_of_stream_and_a_later_start_continues(make):
    source = make(1)
    part = next(name for name in source.list_parts() if "change" not in name)
    whole = run(make(1), part)
    partition = source.build_part("test", part, None)
    steps = []
    while not steps:
        steps = [Step(items, b"") for items in [list(partition.next_batch())] if items]
    source.request_stop()
    with pytest.raises(StopIteration):
        partition.next_batch()
    assert batches(steps)[-1].watermark_ns != END_OF_STREAM
    rest = run(make(1), part, partition.snapshot())
    partition.close()
    signal = batches(whole)[0].signal
    assert_frame_equal(rows([*steps, *rest], signal), rows(whole, signal))


def test_sound_data_gives_no_dead_letters(make):
    source = make(3)
    for part in source.list_parts():
        assert not [item for step in run(source, part) for item in step.items if isinstance(item, DeadLetters)]
