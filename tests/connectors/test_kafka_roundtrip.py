"""Recordings through a real Kafka: what is read back are the rows that replaying gives."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from connectors.config import KafkaConfig
from connectors.kafka_source import KafkaSource
from connectors.recording import RecordingSource, RecordingWriter, iterate
from flows.commands.publish import publish_recording
from signals.batch import Batch
from signals.schema import Signal

pytestmark = [pytest.mark.kafka, pytest.mark.recordings]

NAMES = [
    "boutique-dev",
    "onlineboutique-0822",
    "onlineboutique-0823",
    "petshop-high",
    "petshop-low",
    "trainticket-0129",
    "trainticket-0130",
]


def frames(source) -> dict[Signal, pl.DataFrame]:
    """All rows of a source by signal; fails on dead letters."""
    found: dict[Signal, list[pl.DataFrame]] = {}
    for item in iterate(source):
        assert isinstance(item, Batch), item
        found.setdefault(item.signal, []).append(item.frame)
    return {signal: pl.concat(parts) for signal, parts in found.items()}


def same_rows(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Both frames hold the same rows, in whatever order."""
    keys = [name for name, kind in left.schema.items() if not isinstance(kind, pl.List)]
    assert_frame_equal(left.sort(keys), right.sort(keys))


def slice_of(recording: Path, target: Path, rows: int) -> Path:
    """The first rows of every signal of a recording, as a recording."""
    with RecordingWriter(target, environment=RecordingSource(recording).recording.environment) as writer:
        left = dict.fromkeys(Signal, rows)
        for item in iterate(RecordingSource(recording, batch_rows=rows, keep_attributes=True)):
            if isinstance(item, Batch):
                writer.add_frame(item.signal, item.frame.head(left[item.signal]))
                left[item.signal] = max(0, left[item.signal] - item.frame.height)
            if not any(left[signal] for signal in (Signal.SPANS, Signal.METRICS)):
                break
    return target


@pytest.mark.parametrize("name", NAMES)
def test_published_recording_decodes_to_the_rows_that_replay_gives(name, recordings, tmp_path, kafka_config):
    recording = slice_of(recordings / name, tmp_path / name, 4_000)
    config: KafkaConfig = kafka_config(partitions=3)
    expected = frames(RecordingSource(recording))
    publish_recording(recording, config)
    read = frames(KafkaSource(config, environment="elsewhere", stop_at_end=True))
    assert {signal for signal, frame in read.items() if frame.height} == set(expected)
    for signal, frame in expected.items():
        same_rows(frame, read[signal])
