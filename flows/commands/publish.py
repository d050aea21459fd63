"""A recording as live telemetry: OTLP messages on Kafka, as a Collector would have written them, at any speed.

What is read back from the topics are the very rows that replaying the recording gives. Labels are not published.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import polars as pl
import typer

from connectors.cloudevents import encode_change
from connectors.config import KafkaConfig
from connectors.errors import DeliveryError
from connectors.kafka_client import KafkaError, Producer, SentRecord, create_topics, make_producer
from connectors.recording import RecordingSource, iterate
from flows.commands.common import ConfigOption, consoles, fail, remedies, settings_from
from signals.batch import Batch
from signals.ids import format_trace_id
from signals.otlp import Encoding
from signals.otlp_encode import encode
from signals.schema import EVENT_TIME, Signal

_NS: Final = 1_000_000_000
_SLICE_NS: Final = _NS  # event time in one message at most, like an exporter's batch timeout
_READ_ROWS: Final = 10_000
_IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024  # handed to the producer before its deliveries are checked
_HEADROOM: Final = 1_024  # of a message's size for what Kafka adds


class Spread(StrEnum):
    """How rows are spread over a topic's partitions."""

    TRACE = "trace"  # a trace stays in one partition, others by service; keys are null
    KEYED = "keyed"  # one message per trace, keyed by it, as the Collector's partition_traces_by_id
    ROUND_ROBIN = "round_robin"  # messages in turn: a trace is torn apart, as with the Collector's defaults


@dataclass(frozen=True, slots=True)
class Progress:
    """How far publishing has come."""

    signal: Signal
    rows: int
    event_ns: int  # event time of the last of them


def publish_recording(
    path: Path | str,
    config: KafkaConfig,
    *,
    speed: float = 0.0,
    partitions: int = 4,
    spread: Spread = Spread.TRACE,
    max_rows: int = 500,
    on_progress: Callable[[Progress], None] = lambda _: None,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Counter[Signal]:
    """Publish a recording to the input topics of ``config``; every partition gets its messages in event-time order.

    Args:
        path: The recording's folder.
        config: Brokers, topics and their encodings. Topics that are missing are created; null ones are left out.
        speed: Event time per wall time: 1 as it happened, 10 ten times as fast, 0 as fast as it goes.
        partitions: Partitions of topics that are created.
        spread: How rows are spread over partitions.
        max_rows: Rows in one message, at most.
        on_progress: Is told after every step.
        wall: Clock of message timestamps, seconds since the epoch.
        monotonic: Clock of the speed, seconds.
        sleep: Waits until a step is due.

    Returns:
        Rows published per signal.

    Raises:
        RecordingError: The folder is no recording.
        DeliveryError: A message was not written.
    """
    source = RecordingSource(path, batch_rows=_READ_ROWS, keep_attributes=True)
    topics = {signal: (topic, encoding) for signal, topic, encoding in config.topics.inputs()}
    create_topics(config, {topic: partitions for topic, _ in topics.values()})
    sender = _Sender(config, wall)
    counts: Counter[Signal] = Counter()
    began: tuple[float, int] | None = None
    try:
        for item in iterate(source):
            if not isinstance(item, Batch) or item.signal not in topics:
                continue
            topic, encoding = topics[item.signal]
            name, limit = f"/{source.recording.name}", config.max_message_bytes - _HEADROOM
            writer = _Writer(item.signal, encoding, spread, max_rows, limit, name)
            for step in _steps(item):
                event_ns = int(step[EVENT_TIME[item.signal]][-1])
                if speed > 0:
                    began = began or (monotonic(), event_ns)
                    sleep(max(0.0, began[0] + (event_ns - began[1]) / _NS / speed - monotonic()))
                for message in writer.messages(step, sender.partitions(topic)):
                    sender.send(topic, message, event_ns)
                counts[item.signal] += step.height
                on_progress(Progress(item.signal, counts[item.signal], event_ns))
        sender.check()
    finally:
        sender.close()
    return counts


@dataclass(frozen=True, slots=True)
class _Message:
    value: bytes
    partition: int | None
    key: bytes | None = None


def _steps(batch: Batch) -> Iterator[pl.DataFrame]:
    """The batch's rows, at most a second of event time at once."""
    times = batch.frame[EVENT_TIME[batch.signal]]
    for _, part in batch.frame.group_by(times // _SLICE_NS, maintain_order=True):
        yield part


@dataclass(frozen=True, slots=True)
class _Writer:
    """Turns rows of one signal into messages for a topic."""

    signal: Signal
    encoding: Encoding | None
    spread: Spread
    max_rows: int
    max_bytes: int
    source: str

    def messages(self, rows: pl.DataFrame, partitions: int) -> Iterator[_Message]:
        """The rows as messages, in event-time order within every partition."""
        if self.encoding is None:
            for row in rows.iter_rows(named=True):
                yield _Message(encode_change(row, source=self.source), 0)
        elif self.spread is Spread.ROUND_ROBIN:
            yield from (_Message(value, None) for value in self._encode(rows, self.encoding))
        elif self.spread is Spread.KEYED and self.signal is Signal.SPANS:
            for (hi, lo), trace in rows.group_by("trace_hi", "trace_lo", maintain_order=True):
                key = format_trace_id(hi, lo).encode()
                yield from (_Message(value, None, key) for value in self._encode(trace, self.encoding))
        else:
            place = self._place(rows, partitions).alias("partition")
            for (partition,), part in rows.group_by(place, maintain_order=True):
                yield from (_Message(value, int(partition)) for value in self._encode(part, self.encoding))

    def _place(self, rows: pl.DataFrame, partitions: int) -> pl.Series:
        if self.signal is Signal.SPANS:
            return rows["trace_lo"] % partitions
        services = rows["service"].unique().to_list()
        numbers = [zlib.crc32(service.encode()) % partitions for service in services]
        return rows["service"].replace_strict(services, numbers, return_dtype=pl.Int64)

    def _encode(self, rows: pl.DataFrame, encoding: Encoding) -> Iterator[bytes]:
        for part in rows.iter_slices(self.max_rows):
            for value in encode(self.signal, part, encoding=encoding, max_rows=self.max_rows):
                if len(value) <= self.max_bytes or part.height == 1:
                    yield value
                else:
                    half = part.height // 2
                    yield from self._encode(part.head(half), encoding)
                    yield from self._encode(part.slice(half), encoding)


class _Sender:
    """Hands messages to a producer and looks at every delivery, some megabytes at a time."""

    def __init__(self, config: KafkaConfig, wall: Callable[[], float]) -> None:
        self._producer: Producer = make_producer(config, linger_ms=20, batch_size=262_144)
        self._wall = wall
        self._sent: list[tuple[str, SentRecord]] = []
        self._bytes = 0
        self._counts: dict[str, int] = {}
        self._turn: Counter[str] = Counter()

    def partitions(self, topic: str) -> int:
        """How many partitions the topic really has."""
        if topic not in self._counts:
            self._counts[topic] = max(1, len(self._producer.partitions_for(topic)))
        return self._counts[topic]

    def send(self, topic: str, message: _Message, event_ns: int) -> None:
        """Write a message; its timestamp is now, or its event time where that lies ahead."""
        partition = message.partition
        if partition is None and message.key is None:
            partition = self._turn[topic] % self.partitions(topic)
            self._turn[topic] += 1
        stamp = max(int(self._wall() * 1000), event_ns // 1_000_000 + 1)
        try:
            sent = self._producer.send(topic, message.value, key=message.key, partition=partition, timestamp_ms=stamp)
        except KafkaError as error:
            raise DeliveryError(
                f"topic {topic!r}: a message of {len(message.value)} bytes was not accepted; publish with fewer rows "
                f"per message, or raise kafka.max_message_bytes and the topic's max.message.bytes ({error})"
            ) from error
        self._sent.append((topic, sent))
        self._bytes += len(message.value)
        if self._bytes >= _IN_FLIGHT_BYTES:
            self.check()

    def check(self) -> None:
        """Wait for everything sent so far and raise what went wrong."""
        self._producer.flush()
        for topic, sent in self._sent:
            try:
                sent.get(timeout=5.0)
            except KafkaError as error:
                raise DeliveryError(f"topic {topic!r}: a message was not written ({error})") from error
        self._sent.clear()
        self._bytes = 0

    def close(self) -> None:
        """End the connection."""
        self._producer.close()


def publish(
    recording: Annotated[Path, typer.Argument(help="Folder of the recording.")],
    *,
    config: ConfigOption = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="host:port[,host:port], above the settings.")
    ] = None,
    speed: Annotated[float, typer.Option(min=0.0, help="1 as it happened, 10 ten times as fast, 0 at once.")] = 0.0,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of topics that are created.")] = 4,
    spread: Annotated[Spread, typer.Option(help="How rows are spread over partitions.")] = Spread.TRACE,
) -> None:
    """Publish a recording to Kafka as OTLP telemetry."""
    from rich.progress import MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    kafka = settings_from(config).kafka
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    printed, progress = consoles()
    with remedies():
        try:
            kafka = kafka.changed(bootstrap_servers=bootstrap_servers) if bootstrap_servers else kafka
            with Display(*columns, console=progress, transient=True) as display:
                tasks = {signal: display.add_task(signal.value, total=None) for signal in Signal}
                counts = publish_recording(
                    recording,
                    kafka,
                    speed=speed,
                    partitions=partitions,
                    spread=spread,
                    on_progress=lambda done: display.update(tasks[done.signal], completed=done.rows),
                )
        except (KafkaError, ValueError) as error:
            raise fail(f"Kafka at {', '.join(kafka.bootstrap_servers)}: {error}") from error
    said = ", ".join(f"{count:,} {signal}" for signal, count in counts.items()) or "nothing"
    printed.print(f"Published {said} to {', '.join(kafka.bootstrap_servers)}.", markup=False, highlight=False)
