"""One Kafka partition as a Bytewax source partition: bounded polls, watermark, idleness, and where to continue.

``connectors.kafka_source`` opens these. Nothing here waits for the network.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog
from bytewax.inputs import StatefulSourcePartition

from connectors.config import KafkaConfig
from connectors.decoding import Format, Message, decode_messages
from connectors.end_offsets import EndOffsets
from connectors.errors import OffsetOutOfRangeError
from connectors.gate import EventTimeGate
from connectors.kafka_client import ClientOffsetOutOfRangeError, Consumer, Record, TopicPartition
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetter, DeadLetters, SourceItem
from signals.schema import EVENT_TIME, empty

_NS: Final = 1_000_000_000
METADATA_TIMEOUT_MS: Final = 30_000
_FIRST_POLL_RECORDS: Final = 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaPosition:
    """Resume state of one partition."""

    offset: int  # of the next message
    watermark_ns: int = NO_WATERMARK


class SourceObserver(Protocol):
    """Is told of every poll; the default tells nobody."""

    def on_poll(
        self, partition: str, *, records: int, size_bytes: int, position: int, end_offset: int, watermark_ns: int
    ) -> None:
        """A poll gave so many messages and bytes; ``end_offset - position`` messages are still unread."""


class NoObserver:
    """Ignores everything."""

    def on_poll(
        self, partition: str, *, records: int, size_bytes: int, position: int, end_offset: int, watermark_ns: int
    ) -> None:
        """Nothing to do."""


class KafkaPartition(StatefulSourcePartition[SourceItem, KafkaPosition]):
    """Reads one Kafka partition; see ``KafkaSource``."""

    def __init__(
        self,
        *,
        name: str,
        where: TopicPartition,
        what: Format,
        config: KafkaConfig,
        consumer: Consumer,
        position: KafkaPosition,
        end_offset: int | None,
        gate: EventTimeGate,
        ends: EndOffsets,
        stop: threading.Event,
        observer: SourceObserver,
        monotonic: Callable[[], float],
    ) -> None:
        self._name, self._where, self._what, self._config = name, where, what, config
        self._consumer, self._at, self._end_offset = consumer, position, end_offset
        self._gate, self._ends, self._stop = gate, ends, stop
        self._observer, self._monotonic = observer, monotonic
        self._asked_end: Future[int] | None = None
        self._idle = False
        self._silent_since: float | None = None  # None while there may be more to read
        self._ended = False
        self._told = position.watermark_ns == NO_WATERMARK  # whether the watermark resumed from was passed on
        self._pause_s = 0.0
        # Running mean, to turn the byte limit into one of records; how large they are is not known before the first.
        self._record_bytes = config.max_poll_bytes / _FIRST_POLL_RECORDS
        gate.join(name, position.watermark_ns)
        ends.join()

    def next_batch(self) -> list[SourceItem]:
        """One poll: a batch, and dead letters if there were any; nothing while others must catch up first."""
        if self._ended or self._stop.is_set():
            self._gate.leave(self._name)
            raise StopIteration
        self._pause_s = 0.0
        if self._end_offset is not None and self._at.offset >= self._end_offset:
            return self._finish()
        if not self._gate.may_poll(self._name):
            self._pause_s = self._config.poll_interval_ms / 1000
            return []
        records = self._poll()
        if records:
            return self._take(records)
        self._pause_s = self._config.poll_interval_ms / 1000
        self._skip_unreadable()
        return self._when_silent()

    def next_awake(self) -> dt.datetime | None:
        """When to poll again: at once while data flows, after a pause when there was none."""
        if not self._pause_s:
            return None
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self._pause_s)

    def snapshot(self) -> KafkaPosition:
        """Where to continue."""
        return self._at

    def close(self) -> None:
        """End the partition's connection."""
        self._gate.leave(self._name)
        self._ends.leave()
        self._consumer.close(autocommit=False)

    def _poll(self) -> list[Record]:
        limit = min(self._config.max_poll_records, max(1, int(self._config.max_poll_bytes / self._record_bytes)))
        try:
            records = self._consumer.poll(0, max_records=limit).get(self._where, [])
        except ClientOffsetOutOfRangeError as error:
            self._at = replace(
                self._at, offset=recover_offset(self._consumer, self._where, self._at, self._config, error)
            )
            self._consumer.seek(self._where, self._at.offset)
            return []
        if self._end_offset is not None:
            records = [record for record in records if record.offset < self._end_offset]
        return records

    def _take(self, records: Sequence[Record]) -> list[SourceItem]:
        messages = [Message(record.value, record.timestamp, record.headers) for record in records]
        size = sum(len(record.value or b"") for record in records)
        self._record_bytes = max(1.0, 0.5 * self._record_bytes + 0.5 * size / len(records))
        decoded = decode_messages(self._what, messages, max_future_ns=int(self._config.max_future_s * _NS))
        newest = decoded.frame[EVENT_TIME[self._what.signal]].max() if decoded.frame.height else None
        watermark = self._at.watermark_ns
        if isinstance(newest, int):
            watermark = max(watermark, newest - int(self._config.allowed_lateness_s * _NS))
        self._at = KafkaPosition(records[-1].offset + 1, watermark)
        self._idle, self._silent_since, self._told, self._asked_end = False, None, True, None
        self._gate.advance(self._name, watermark)
        self._observe(len(records), size)
        items: list[SourceItem] = [
            Batch(
                self._what.signal,
                self._name,
                decoded.frame,
                watermark,
                first_offset=records[0].offset,
                last_offset=records[-1].offset,
                skipped=decoded.skipped,
            )
        ]
        if decoded.bad:
            letters = tuple(_letter(records[place], reason) for place, reason in decoded.bad)
            items.append(DeadLetters(self._name, letters))
        return items

    def _skip_unreadable(self) -> None:
        """Follow the consumer over transaction markers and compacted records, which it never hands out."""
        position = self._consumer.position(self._where)
        if position is not None and position > self._at.offset:
            self._at = replace(self._at, offset=position)

    def _when_silent(self) -> list[SourceItem]:
        """After a poll without data: idle when that has lasted, and the first word of a resumed partition."""
        now = self._monotonic()
        end = self._consumer.highwater(self._where)
        if end is None or self._at.offset < end:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif not self._idle and now - self._silent_since >= self._config.idle_timeout_s and self._at_end():
            self._idle = True
            self._gate.advance(self._name, self._at.watermark_ns, idle=True)
            return [self._empty()]
        self._observe(0, 0)
        if not self._told:
            self._told = True
            return [self._empty()]
        return []

    def _at_end(self) -> bool:
        """Whether the brokers say that there is nothing more; asked in the background, so False at first."""
        if self._asked_end is None:
            self._asked_end = self._ends.ask(self._where)
        if not self._asked_end.done():
            return False
        asked, self._asked_end = self._asked_end, None
        if asked.exception() is None and asked.result() <= self._at.offset:
            return True
        self._silent_since = None  # there is more, or nobody answers: not silence, but ignorance
        return False

    def _finish(self) -> list[SourceItem]:
        self._ended = True
        self._gate.leave(self._name)
        return [replace(self._empty(), watermark_ns=END_OF_STREAM)]

    def _empty(self) -> Batch:
        return Batch(self._what.signal, self._name, empty(self._what.signal), self._at.watermark_ns, idle=self._idle)

    def _observe(self, records: int, size: int) -> None:
        end = self._consumer.highwater(self._where)
        if end is None:
            return  # no fetch has come back yet, so nobody knows the lag
        self._observer.on_poll(
            self._name,
            records=records,
            size_bytes=size,
            position=self._at.offset,
            end_offset=max(end, self._at.offset),
            watermark_ns=self._at.watermark_ns,
        )


def recover_offset(
    consumer: Consumer, where: TopicPartition, at: KafkaPosition, config: KafkaConfig, cause: Exception | None
) -> int:
    """The offset to go on at when the wanted one is not there, or an error that says what can be done."""
    first = consumer.beginning_offsets([where], timeout_ms=METADATA_TIMEOUT_MS)[where]
    last = consumer.end_offsets([where], timeout_ms=METADATA_TIMEOUT_MS)[where]
    if config.on_offset_out_of_range == "earliest":
        _log.warning(
            "offset out of range, going on at the earliest",
            topic=where.topic,
            partition=where.partition,
            wanted=at.offset,
            earliest=first,
            lost=max(0, first - at.offset),
        )
        return first
    raise OffsetOutOfRangeError(
        f"{where.topic}/{where.partition}: the offset to continue at, {at.offset}, is not in the topic, which holds "
        f"{first} to {last}; messages expired while nobody read, or the topic was made anew. Set "
        f"kafka.on_offset_out_of_range to 'earliest' to go on with the gap, or start with a fresh recovery store; keep "
        f"messages longer (retention.ms) so that it does not happen again"
    ) from cause


def _letter(record: Record, reason: str) -> DeadLetter:
    return DeadLetter(record.topic, record.partition, record.offset, reason, record.value or b"", record.key)
