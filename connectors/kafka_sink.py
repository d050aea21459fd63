"""Records to Kafka with every delivery checked: what was not written raises, nothing is dropped on the way.

A batch is flushed before ``write_batch`` returns, so a snapshot never covers records that are still under way. After a
crash the last batches are written again (at least once): give records deterministic ids or keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from connectors.config import KafkaConfig
from connectors.errors import DeliveryError
from connectors.kafka_client import (
    KafkaError,
    MessageSizeTooLargeError,
    Producer,
    RecordListTooLargeError,
    SentRecord,
    make_producer,
)
from signals.batch import DeadLetter, DeadLetters

_EXTRA_S: Final = 5.0  # on top of the delivery timeout, which the producer itself keeps

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutRecord:
    """One record to write."""

    key: bytes | None
    value: bytes | None  # None deletes the key from a compacted topic
    headers: tuple[tuple[str, bytes], ...] = ()


class KafkaWriter:
    """Writes records to one topic and waits until they are there."""

    def __init__(self, config: KafkaConfig, topic: str, *, producer: Producer | None = None) -> None:
        self._config, self._topic = config, topic
        self._producer = producer or make_producer(config)

    def write(self, records: Sequence[OutRecord]) -> None:
        """Write the records in order, all of them.

        Raises:
            DeliveryError: A record was not written; what was accepted before it has been.
        """
        sent: list[tuple[OutRecord, SentRecord]] = []
        try:
            sent.extend((record, self._send(record)) for record in records)
        finally:
            # Also on the way out: what was accepted before a failure must not be left in a buffer.
            self._flush()
        for record, delivery in sent:
            try:
                delivery.get(timeout=_EXTRA_S)
            except KafkaError as error:
                raise self._failed(record, error) from error

    def close(self) -> None:
        """End the connection; everything has been delivered by then."""
        self._producer.close()

    def _send(self, record: OutRecord) -> SentRecord:
        try:
            return self._producer.send(self._topic, record.value, key=record.key, headers=list(record.headers))
        except KafkaError as error:
            raise self._failed(record, error) from error

    def _flush(self) -> None:
        try:
            self._producer.flush(timeout=self._config.delivery_timeout_s + _EXTRA_S)
        except KafkaError as error:
            raise DeliveryError(
                f"topic {self._topic!r}: records were not delivered within {self._config.delivery_timeout_s:.0f} s; "
                f"check that the brokers at {', '.join(self._config.bootstrap_servers)} are up ({error})"
            ) from error

    def _failed(self, record: OutRecord, error: Exception) -> DeliveryError:
        size = len(record.key or b"") + len(record.value or b"")
        place = f"topic {self._topic!r}: a record of {size} bytes (key {(record.key or b'')[:64]!r}) was not written"
        if isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError)):
            remedy = (
                f"it exceeds kafka.max_message_bytes ({self._config.max_message_bytes}) or the topic's "
                f"max.message.bytes; raise both, or let less into one record"
            )
        else:
            remedy = "check that the topic exists, may be written by this user and has enough replicas in sync"
        return DeliveryError(f"{place}; {remedy} ({type(error).__name__}: {error})")


class _KafkaSinkPartition(StatelessSinkPartition[OutRecord]):
    def __init__(self, writer: KafkaWriter) -> None:
        self._writer = writer

    def write_batch(self, items: list[OutRecord]) -> None:
        self._writer.write(items)

    def close(self) -> None:
        self._writer.close()


class KafkaSink(DynamicSink[OutRecord]):
    """Writes ``OutRecord`` items to one topic; raises ``DeliveryError`` for what could not be written."""

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._config, self._topic = config, topic

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _KafkaSinkPartition:  # noqa: ARG002 - Bytewax's signature
        """A producer for one worker."""
        return _KafkaSinkPartition(KafkaWriter(self._config, self._topic))


def dead_letter_record(letter: DeadLetter) -> OutRecord:
    """A dead letter as a record: key and value as they came, where it came from and why in headers.

    >>> dead_letter_record(DeadLetter("otlp_spans", 2, 7, "truncated", b"x")).headers[0]
    ('mendstream.reason', b'truncated')
    """
    headers = (
        ("mendstream.reason", letter.reason.encode()),
        ("mendstream.topic", letter.topic.encode()),
        ("mendstream.partition", str(letter.partition).encode()),
        ("mendstream.offset", str(letter.offset).encode()),
    )
    return OutRecord(letter.key, letter.value, headers)


class _DeadLetterKafkaPartition(StatelessSinkPartition[DeadLetters]):
    def __init__(self, config: KafkaConfig) -> None:
        self._topic, self._limit = config.topics.dead_letters, config.max_message_bytes
        self._writer = KafkaWriter(config, self._topic)

    def write_batch(self, items: list[DeadLetters]) -> None:
        self._writer.write([self._record(letter) for item in items for letter in item.letters])

    def close(self) -> None:
        self._writer.close()

    def _record(self, letter: DeadLetter) -> OutRecord:
        """The letter whole, or, where it alone would stop the job, its beginning, marked as cut."""
        record = dead_letter_record(letter)
        room = self._limit - 4_096  # for key, headers and framing
        size = len(letter.value) + len(letter.key or b"")
        if size <= room:
            return record
        _log.warning(
            "dead letter cut to fit", topic=letter.topic, partition=letter.partition, offset=letter.offset, size=size
        )
        headers = (*record.headers, ("mendstream.cut_from_bytes", str(len(letter.value)).encode()))
        return OutRecord((letter.key or b"")[:1_024], letter.value[: max(0, room - 1_024)], headers)


class DeadLetterKafkaSink(DynamicSink[DeadLetters]):
    """Writes dead letters to the topic ``topics.dead_letters``, values unchanged."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _DeadLetterKafkaPartition:  # noqa: ARG002 - Bytewax's signature
        """A producer for one worker."""
        return _DeadLetterKafkaPartition(self._config)
