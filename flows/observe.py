"""The pipeline's own metrics, for Prometheus: one registry per process, fed by source, stages and outputs.

Nothing here decides a result, so the wall clock may be read. Label values are topics, signals, stages and words of our
own; text from telemetry never becomes a label.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client import Counter as Count

from flows.stages import Vitals
from incidents.model import RootCauseEvent
from remediation.intents import Intent
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetters
from signals.schema import Signal

_NS: Final = 1_000_000_000
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SOURCE: Final = "source"


@dataclass(slots=True)
class Tally:
    """The few figures that a status line and the health check need."""

    rows: Counter[Signal] = field(default_factory=Counter)
    lag: dict[str, int] = field(default_factory=dict)  # messages, by source partition
    watermarks: dict[tuple[str, str], int] = field(default_factory=dict)  # event time, by (stage, shard or partition)
    incidents: dict[str, int] = field(default_factory=dict)  # open ones, by shard
    letters: int = 0
    turned_at: float | None = None  # monotonic clock at the last turn of the source
    busy_at: float | None = None  # monotonic clock at the last thing a stage did

    def behind_s(self, stage: str, now_s: float) -> float | None:
        """Wall-clock time minus the least watermark of a stage; None before it has one, 0 at the end of the stream."""
        marks = [mark for (name, _), mark in self.watermarks.items() if name == stage and mark > NO_WATERMARK]
        if not marks:
            return None
        low = min(marks)
        return 0.0 if low >= END_OF_STREAM else now_s - low / _NS


class Telemetry:
    """Source observer and flow observer of one process.

    Args:
        signals: The signal of each input topic.
        wall: Seconds since the epoch, for event-time delay.
        monotonic: Seconds, for health.
    """

    def __init__(
        self,
        signals: Mapping[str, Signal],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = CollectorRegistry()
        self.tally = Tally()
        self._signals, self._wall, self._monotonic = signals, wall, monotonic
        ProcessCollector(registry=self.registry)
        self._make_input_metrics()
        self._make_stage_metrics()
        self._make_output_metrics()

    def _make_input_metrics(self) -> None:
        registry = self.registry
        self._rows = Count("mendstream_rows", "Rows read and decoded", ["signal"], registry=registry)
        self._skipped = Count(
            "mendstream_rows_skipped", "Rows left out at decoding, by reason", ["signal", "reason"], registry=registry
        )
        self._messages = Count("mendstream_messages", "Kafka messages read", ["signal"], registry=registry)
        self._bytes = Count("mendstream_read_bytes", "Bytes of message values read", ["signal"], registry=registry)
        self._letters = Count(
            "mendstream_dead_letters", "Messages that could not be decoded", ["topic"], registry=registry
        )
        self._lag = Gauge(
            "mendstream_consumer_lag_messages", "Messages not read yet", ["topic", "partition"], registry=registry
        )
        self._end = Gauge(
            "mendstream_consumer_end_offset", "End of the partition", ["topic", "partition"], registry=registry
        )
        self._position = Gauge(
            "mendstream_consumer_position_offset",
            "Offset of the next message to read",
            ["topic", "partition"],
            registry=registry,
        )

    def _make_stage_metrics(self) -> None:
        registry = self.registry
        self._delay = Gauge(
            "mendstream_event_time_delay_seconds",
            "Wall-clock time minus the least watermark of the stage's shards in this process",
            ["stage"],
            registry=registry,
        )
        self._seconds = Histogram(
            "mendstream_stage_seconds",
            "Time a shard took for the messages it was given at once",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._late = Gauge(
            "mendstream_late_rows",
            "Rows dropped because their bucket had closed; counted over restarts",
            ["stage", "shard"],
            registry=registry,
        )
        self._size = Gauge(
            "mendstream_state_entries",
            "What a shard holds: buffered rows, templates, series, open incidents, edges",
            ["stage", "shard", "of"],
            registry=registry,
        )
        self._snapshot_seconds = Histogram(
            "mendstream_snapshot_seconds",
            "Time to serialise a shard's state",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._snapshot_bytes = Gauge(
            "mendstream_snapshot_bytes", "Size of a shard's last snapshot", ["stage", "shard"], registry=registry
        )

    def _make_output_metrics(self) -> None:
        registry = self.registry
        self._revisions = Count(
            "mendstream_incident_revisions", "Incident revisions emitted, by state", ["state"], registry=registry
        )
        self._open = Gauge("mendstream_open_incidents", "Incidents that are open now", registry=registry)
        self._intents = Count("mendstream_intents", "Remediation intents emitted", ["mode", "state"], registry=registry)
        self.memory_failures = Count(
            "mendstream_memory_failures", "Incident revisions that could not be stored at once", registry=registry
        )

    # -- the source ---------------------------------------------------------------------------------------------------

    def on_poll(
        self, partition: str, *, records: int, size_bytes: int, position: int, end_offset: int, watermark_ns: int
    ) -> None:
        """A poll of a Kafka partition, with or without messages."""
        topic, _, number = partition.rpartition("/")
        self.tally.turned_at = self._monotonic()
        self.tally.lag[partition] = end_offset - position
        self._lag.labels(topic, number).set(end_offset - position)
        self._end.labels(topic, number).set(end_offset)
        self._position.labels(topic, number).set(position)
        self._watermark(SOURCE, partition, watermark_ns)
        signal = self._signals.get(topic)
        if records and signal is not None:
            self._messages.labels(signal.value).inc(records)
            self._bytes.labels(signal.value).inc(size_bytes)

    # -- the flow -----------------------------------------------------------------------------------------------------

    def on_batch(self, batch: Batch) -> None:
        """Count rows, and those left out."""
        signal = batch.signal
        self.tally.turned_at = self._monotonic()
        self.tally.rows[signal] += batch.frame.height
        self._rows.labels(signal.value).inc(batch.frame.height)
        for reason, count in batch.skipped.items():
            self._skipped.labels(signal.value, reason).inc(count)
        if batch.idle:  # holds nobody back, so it is not behind either
            self.tally.watermarks.pop((SOURCE, batch.partition), None)
        else:
            self._watermark(SOURCE, batch.partition, batch.watermark_ns)

    def on_letters(self, letters: DeadLetters) -> None:
        """Count dead letters."""
        self.tally.letters += len(letters.letters)
        for letter in letters.letters:
            self._letters.labels(letter.topic).inc()

    def on_stage(self, step: str, shard: str, seconds: float, vitals: Vitals) -> None:
        """Time spent, and how the shard is."""
        self.tally.busy_at = self._monotonic()
        self._seconds.labels(step).observe(seconds)
        self._late.labels(step, shard).set(vitals.late)
        for name, size in vitals.sizes.items():
            self._size.labels(step, shard, name).set(size)
        if "open_incidents" in vitals.sizes:
            self.tally.incidents[shard] = vitals.sizes["open_incidents"]
            self._open.set(sum(self.tally.incidents.values()))
        self._watermark(step, shard, vitals.watermark_ns)

    def on_snapshot(self, step: str, shard: str, seconds: float, size_bytes: int) -> None:
        """Time and size of a snapshot."""
        self._snapshot_seconds.labels(step).observe(seconds)
        self._snapshot_bytes.labels(step, shard).set(size_bytes)

    def on_event(self, event: RootCauseEvent) -> None:
        """Count a revision."""
        self._revisions.labels(str(event.data.incident.state)).inc()

    def on_intent(self, intent: Intent) -> None:
        """Count an intent."""
        self._intents.labels(intent.data.mode, intent.data.state).inc()

    def _watermark(self, stage: str, shard: str, watermark_ns: int) -> None:
        if watermark_ns <= NO_WATERMARK:
            return
        if not any(name == stage for name, _ in self.tally.watermarks):
            # Worked out when it is asked for, so that a stage that stands still falls behind.
            self._delay.labels(stage).set_function(lambda: self.tally.behind_s(stage, self._wall()) or 0.0)
        self.tally.watermarks[stage, shard] = watermark_ns
