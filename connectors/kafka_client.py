"""kafka-python's clients behind small typed protocols, made from our settings; the only module that imports it.

Consumers never reset their offset by themselves and never create topics: both would hide a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import kafka
import kafka.errors

from connectors.config import KafkaConfig

KafkaError: Final[type[Exception]] = kafka.errors.KafkaError
KafkaTimeoutError: Final[type[Exception]] = kafka.errors.KafkaTimeoutError
ClientOffsetOutOfRangeError: Final[type[Exception]] = kafka.errors.OffsetOutOfRangeError
MessageSizeTooLargeError: Final[type[Exception]] = kafka.errors.MessageSizeTooLargeError
RecordListTooLargeError: Final[type[Exception]] = kafka.errors.RecordListTooLargeError
TopicAlreadyExistsError: Final[type[Exception]] = kafka.errors.TopicAlreadyExistsError


class TopicPartition(NamedTuple):
    """Which partition of which topic; equal to kafka-python's own."""

    topic: str
    partition: int


class Record(Protocol):
    """A consumed message."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # ms since the epoch, -1 when the producer gave none
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Consumer(Protocol):
    """The part of ``kafka.KafkaConsumer`` that is used here."""

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Read these partitions and no others."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at this offset."""

    def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> dict[TopicPartition, list[Record]]:
        """What has arrived, waiting for it no longer than said."""

    def position(self, partition: TopicPartition) -> int | None:
        """Offset of the next message to hand out."""

    def highwater(self, partition: TopicPartition) -> int | None:
        """End of the partition as the last fetch saw it, None before the first."""

    def beginning_offsets(
        self, partitions: Sequence[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """First offsets held, asked of the brokers."""

    def end_offsets(
        self, partitions: Sequence[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Offsets after the last message, asked of the brokers."""

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Partition numbers of a topic, empty when it does not exist."""

    def close(self, *, autocommit: bool = True) -> None:
        """End the connection."""


class SentRecord(Protocol):
    """A delivery under way."""

    def get(self, timeout: float | None = None) -> object:
        """Where the message went, once it did; raises what went wrong."""


class Producer(Protocol):
    """The part of ``kafka.KafkaProducer`` that is used here."""

    def send(
        self,
        topic: str,
        value: bytes | None = None,
        *,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> SentRecord:
        """Hand a message over for delivery."""

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything handed over is delivered or has failed."""

    def partitions_for(self, topic: str) -> set[int]:
        """Partition numbers of a topic."""

    def close(self, timeout: float | None = None) -> None:
        """Deliver what is left and end the connection."""


def topic_partition(topic: str, partition: int) -> TopicPartition:
    """kafka-python's own pair, typed as ours: its consumers check the class."""
    made: TopicPartition = kafka.TopicPartition(topic, partition)
    return made


def make_consumer(config: KafkaConfig, **overrides: Any) -> Consumer:  # noqa: ANN401 - kafka-python's settings are of any type
    """A consumer without a group that raises when its offset is out of range."""
    settings: dict[str, Any] = {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "max_partition_fetch_bytes": config.max_poll_bytes,
        "metrics_enabled": False,
    }
    made: Consumer = kafka.KafkaConsumer(**(settings | config.connection() | config.consumer_options | overrides))
    return made


def make_producer(config: KafkaConfig, **overrides: Any) -> Producer:  # noqa: ANN401 - as above
    """A producer that waits for all replicas and, where the brokers can, does not write a message twice."""
    settings: dict[str, Any] = {
        "acks": "all",
        "compression_type": None if config.compression == "none" else config.compression,
        "max_request_size": config.max_message_bytes,
        "delivery_timeout_ms": int(config.delivery_timeout_s * 1000),
        "request_timeout_ms": min(30_000, int(config.delivery_timeout_s * 1000)),
        "metrics_enabled": False,
    }
    made: Producer = kafka.KafkaProducer(**(settings | config.connection() | config.producer_options | overrides))
    return made


def create_topics(
    config: KafkaConfig, partitions: dict[str, int], *, topic_configs: dict[str, str] | None = None
) -> None:
    """Create topics that do not exist yet, with the cluster's default replication factor."""
    admin = kafka.KafkaAdminClient(**config.connection())
    try:
        for topic, count in partitions.items():
            try:
                admin.create_topics({topic: {"num_partitions": count, "configs": topic_configs or {}}})
            except TopicAlreadyExistsError:
                continue
        admin.wait_for_topics(list(partitions))
    finally:
        admin.close()
