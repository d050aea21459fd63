"""Telemetry from Kafka: one Bytewax partition per Kafka partition, each poll decoded into one columnar batch.

Every partition has a consumer of its own. That costs a connection and a thread per partition, and gives natural
back-pressure (who does not poll does not fetch), independent failure and resume, and no sharing between worker threads,
which kafka-python's consumers do not allow. Offsets and watermark are the resume state; Kafka's consumer groups are not
used, since Bytewax's recovery store is what the offsets must agree with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from bytewax.inputs import FixedPartitionedSource

from connectors.config import KafkaConfig
from connectors.decoding import Format
from connectors.end_offsets import EndOffsets
from connectors.errors import TopicError
from connectors.gate import EventTimeGate
from connectors.kafka_client import Consumer, TopicPartition, create_topics, make_consumer, topic_partition
from connectors.kafka_partition import (
    METADATA_TIMEOUT_MS,
    KafkaPartition,
    KafkaPosition,
    NoObserver,
    SourceObserver,
    recover_offset,
)
from signals.batch import SourceItem
from signals.schema import Signal

_log = structlog.get_logger(__name__)


class KafkaSource(FixedPartitionedSource[SourceItem, KafkaPosition]):
    """The input topics of a ``KafkaConfig`` as one Bytewax source; partitions are named ``topic/partition``.

    Args:
        config: Connection, topics and limits.
        environment: Environment of telemetry that names none.
        stop_at_end: Read up to the ends the partitions have when they are built, then end each with END_OF_STREAM.
        keep_attributes: Whether frames carry the extra column ``signals.schema.ATTRIBUTES``.
        signals: Read only these; all that are configured when None.
        observer: Is told of every poll.
        monotonic: Clock of idleness, seconds.
    """

    def __init__(
        self,
        config: KafkaConfig,
        *,
        environment: str,
        stop_at_end: bool = False,
        keep_attributes: bool = False,
        signals: frozenset[Signal] | None = None,
        observer: SourceObserver | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._stop_at_end = stop_at_end
        self._observer = observer or NoObserver()
        self._monotonic = monotonic
        self._gate = EventTimeGate(config.max_ahead_s)
        self._ends = EndOffsets(config)
        self._stop = threading.Event()
        self._formats = {
            topic: Format(signal, encoding, environment, keep_attributes and signal in {Signal.SPANS, Signal.LOGS})
            for signal, topic, encoding in config.topics.inputs()
            if signals is None or signal in signals
        }
        self._partitions: list[str] | None = None

    def partition_names(self) -> list[str]:
        """Every partition of every input topic, sorted by topic and number; asked of the brokers once.

        Raises:
            TopicError: A topic does not exist and ``missing_topics`` is ``fail``.
        """
        if self._partitions is None:
            self._partitions = _list_partitions(self._config, list(self._formats))
        return list(self._partitions)

    def partitions_by_signal(self) -> dict[Signal, tuple[str, ...]]:
        """The partition names of each signal that is read."""
        by_signal: dict[Signal, list[str]] = {}
        for name in self.partition_names():
            by_signal.setdefault(self._formats[name.rpartition("/")[0]].signal, []).append(name)
        return {signal: tuple(names) for signal, names in by_signal.items()}

    def list_parts(self) -> list[str]:
        """As ``partition_names``: every worker can reach every partition."""
        return self.partition_names()

    def request_stop(self) -> None:
        """Let every partition end at its next turn, without END_OF_STREAM, so that a later start continues."""
        self._stop.set()

    def build_part(self, step_id: str, for_part: str, resume_state: KafkaPosition | None) -> KafkaPartition:  # noqa: ARG002 - Bytewax's signature
        """Open one partition where it stopped, or at a first start where ``auto_offset_reset`` says.

        Raises:
            OffsetOutOfRangeError: The offset to continue at is not in the topic, and losing data was not allowed.
        """
        topic, _, number = for_part.rpartition("/")
        where = topic_partition(topic, int(number))
        consumer = make_consumer(self._config)
        consumer.assign([where])
        position = _start(consumer, where, resume_state, self._config)
        consumer.seek(where, position.offset)
        end = consumer.end_offsets([where], timeout_ms=METADATA_TIMEOUT_MS)[where] if self._stop_at_end else None
        return KafkaPartition(
            name=for_part,
            where=where,
            what=self._formats[topic],
            config=self._config,
            consumer=consumer,
            position=position,
            end_offset=end,
            gate=self._gate,
            ends=self._ends,
            stop=self._stop,
            observer=self._observer,
            monotonic=self._monotonic,
        )


def _list_partitions(config: KafkaConfig, topics: Sequence[str]) -> list[str]:
    consumer = make_consumer(config)
    try:
        found = {topic: consumer.partitions_for_topic(topic) for topic in topics}
        missing = [topic for topic, partitions in found.items() if not partitions]
        if missing and config.missing_topics == "create":
            create_topics(config, dict.fromkeys(missing, config.new_topic_partitions))
            found |= {topic: set(range(config.new_topic_partitions)) for topic in missing}
        elif missing and config.missing_topics == "fail":
            raise TopicError(
                f"Kafka topic {missing[0]!r} does not exist at {', '.join(config.bootstrap_servers)}; create it, "
                f"correct its name under kafka.topics or set it to null there, or set kafka.missing_topics to "
                f"'create' or 'ignore'"
            )
        elif missing:
            _log.warning("input topics do not exist and are not read", topics=missing)
    finally:
        consumer.close(autocommit=False)
    return [f"{topic}/{number}" for topic in sorted(found) for number in sorted(found[topic])]


def _start(
    consumer: Consumer, where: TopicPartition, resume: KafkaPosition | None, config: KafkaConfig
) -> KafkaPosition:
    first = consumer.beginning_offsets([where], timeout_ms=METADATA_TIMEOUT_MS)[where]
    last = consumer.end_offsets([where], timeout_ms=METADATA_TIMEOUT_MS)[where]
    if resume is None:
        return KafkaPosition(first if config.auto_offset_reset == "earliest" else last)
    if first <= resume.offset <= last:
        return resume
    return replace(resume, offset=recover_offset(consumer, where, resume, config, None))
