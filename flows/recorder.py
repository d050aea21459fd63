"""A stream into a recording: metrics in order of time, what could not be read counted; used by ``record``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from connectors.iterate import iterate
from connectors.kafka_source import KafkaSource
from connectors.recording_writer import RecordingWriter
from signals.batch import NO_WATERMARK, Batch, DeadLetters
from signals.metrics import MetricNormaliser
from signals.schema import Signal, empty

_SERIES_ORDER: Final = ("time_ns", "environment", "namespace", "service", "instance", "metric", "attributes")


@dataclass
class MetricsInOrder:
    """Holds metric rows until every metric partition has passed them, then normalises them in order of time.

    Counters become rates, which needs each series' points in order, and partitions are read at different speeds. How
    much is held is bounded by the source's event-time gate.
    """

    partitions: tuple[str, ...]
    normaliser: MetricNormaliser = field(default_factory=MetricNormaliser)

    def __post_init__(self) -> None:
        self._held = empty(Signal.METRICS)
        self._marks = dict.fromkeys(self.partitions, NO_WATERMARK)
        self._idle: set[str] = set()

    def add(self, batch: Batch) -> pl.DataFrame:
        """Take a batch in and give the series rows that nothing can come before any more, schema ``SERIES``."""
        self._marks[batch.partition] = batch.watermark_ns
        (self._idle.add if batch.idle else self._idle.discard)(batch.partition)
        self._held = pl.concat([self._held, batch.frame])
        active = [mark for name, mark in self._marks.items() if name not in self._idle]
        return self._release(min(active) if active else None)

    def flush(self) -> pl.DataFrame:
        """The series rows of everything that is still held."""
        return self._release(None)

    def _release(self, before_ns: int | None) -> pl.DataFrame:
        ready = pl.lit(value=True) if before_ns is None else pl.col("time_ns") < before_ns
        rows = self._held.filter(ready).sort(_SERIES_ORDER, maintain_order=True)
        self._held = self._held.filter(~ready)
        return self.normaliser.process(rows)


@dataclass
class Recorded:
    """What a recording got, and what it did not."""

    rows: Counter[Signal] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)  # messages that could not be read, by reason
    skipped: Counter[str] = field(default_factory=Counter)  # rows left out, by reason


def record_stream(
    source: KafkaSource,
    out: Path,
    *,
    environment: str,
    duration_s: float | None = None,
    on_progress: Callable[[Recorded], None] = lambda _: None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Recorded:
    """Write what a source gives to a new recording until the source ends, is asked to stop, or time is up.

    Args:
        source: Where to read; made with ``keep_attributes`` so that names and peers can be worked out again.
        out: Folder to write, without a recording in it yet.
        environment: Environment of ``recording.json``.
        duration_s: Seconds to record, without limit when None.
        on_progress: Is told after every batch.
        monotonic: Clock of the duration, seconds.
        sleep: Waits while there is nothing to read.

    Raises:
        RecordingError: The folder already holds a recording.
    """
    done = Recorded()
    deadline = None if duration_s is None else monotonic() + duration_s

    def stop_when_due() -> None:
        if deadline is not None and monotonic() >= deadline:
            source.request_stop()

    def wait(seconds: float) -> None:
        stop_when_due()
        sleep(seconds)

    metrics = MetricsInOrder(source.partitions_by_signal().get(Signal.METRICS, ()))
    with RecordingWriter(out, environment=environment) as writer:
        for item in iterate(source, sleep=wait):
            stop_when_due()
            if isinstance(item, DeadLetters):
                done.dead_letters.update(letter.reason for letter in item.letters)
                continue
            done.skipped.update(item.skipped)
            frame = metrics.add(item) if item.signal is Signal.METRICS else item.frame
            writer.add_frame(item.signal, frame)
            done.rows = writer.rows
            on_progress(done)
        writer.add_frame(Signal.METRICS, metrics.flush())
    done.skipped.update(metrics.normaliser.ignored)
    return done
