"""The long-lived remediation program: intents and incident revisions in from Kafka, actions, outcomes out.

A plain consumer group with manual commits, and not a dataflow: the rates are a few messages a minute, the state is the
database, and an action must be committed to it *before* it happens, which an engine that snapshots at epochs cannot
promise. Offsets are committed after the database write, so a crash repeats messages and never loses one; repeats change
nothing, because everything is keyed by id.

One thread reads, so that revocations are seen while a playbook runs; another one acts.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Protocol, cast

import orjson
import structlog
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from pydantic import ValidationError

from connectors.config import KafkaConfig
from connectors.errors import TopicError
from connectors.kafka_client import Consumer, Record, TopicPartition, create_topics, make_consumer
from connectors.kafka_sink import KafkaWriter, OutRecord, dead_letter_record
from incidents.memory import Memory
from incidents.model import RootCauseEvent
from remediation.config import RemediationConfig
from remediation.executor import Executor
from remediation.intents import Intent, Outcome
from remediation.journal import Journal
from remediation.outbox import drain
from remediation.runners import Registry, default_registry
from remediation.world import WorldFiles
from signals.batch import DeadLetter

_log = structlog.get_logger("mendstream.remediation")
_METADATA_AGE_MS: Final = 10_000
_GROUP_CHANGES: Final = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
_CONTENT_TYPE: Final = (("content-type", b"application/cloudevents+json"),)


class GroupConsumer(Protocol):
    """The part of ``kafka.KafkaConsumer`` that a consumer group needs."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read these topics together with the rest of the group."""

    def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> dict[TopicPartition, list[Record]]:
        """What has arrived, waiting for it no longer than said."""

    def commit(self) -> None:
        """Commit the offsets of everything polled."""

    def close(self, *, autocommit: bool = True) -> None:
        """Leave the group."""


class Intake:
    """Writes what was read into the database; what cannot be read becomes a dead letter. ``counters`` by topic."""

    def __init__(
        self, config: KafkaConfig, executor: Executor, memory: Memory, reject: Callable[[DeadLetter], None]
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._topics = config.topics
        self._executor = executor
        self._memory = memory
        self._reject = reject

    def take(self, polled: Mapping[TopicPartition, Sequence[Record]]) -> int:
        """Take one poll in: incident revisions first, so that preconditions see the newest. How many messages."""
        records = [record for found in polled.values() for record in found]
        for record in records:
            if record.topic == self._topics.root_causes:
                self._try(record, self._remember)
        for record in records:
            if record.topic == self._topics.remediation_intents:
                self._try(record, self._submit)
        return len(records)

    def _remember(self, value: bytes) -> None:
        self._memory.record(RootCauseEvent.model_validate_json(value))

    def _submit(self, value: bytes) -> None:
        self._executor.submit([Intent.model_validate_json(value)])

    def _try(self, record: Record, take: Callable[[bytes], None]) -> None:
        try:
            take(record.value or b"")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = f"{'.'.join(str(part) for part in first['loc']) or 'message'}: {first['msg']}"
            self.counters[f"{record.topic}_dead"] += 1
            _log.warning("remediation_dead_letter", topic=record.topic, offset=record.offset, reason=reason)
            value, key = record.value or b"", record.key
            self._reject(DeadLetter(record.topic, record.partition, record.offset, reason, value, key))
        else:
            self.counters[record.topic] += 1


class Actor:
    """Runs what may run, round after round, in a thread of its own; a failure of a round ends the program."""

    def __init__(self, executor: Executor, stop: threading.Event, poll_s: float) -> None:
        self.error: Exception | None = None
        self._executor = executor
        self._stop = stop
        self._poll_s = poll_s
        self._thread = threading.Thread(target=self._run, name="remediation-actor")

    def __enter__(self) -> Actor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the step under way: half a change is worse than a whole one."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._executor.tick()
            except Exception as error:  # noqa: BLE001 - handed to the reading thread, which raises it
                self.error = error
                self._stop.set()
            self._stop.wait(self._poll_s)


class Outlet:
    """Publishes outcomes and dead letters, every delivery checked."""

    def __init__(self, config: KafkaConfig) -> None:
        self._outcomes = KafkaWriter(config, config.topics.remediation_outcomes)
        self._dead = KafkaWriter(config, config.topics.dead_letters)

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes, keyed like their intents. Raises ``connectors.errors.DeliveryError``."""
        self._outcomes.write([_outcome_record(outcome) for outcome in outcomes])

    def reject(self, letter: DeadLetter) -> None:
        """Write a dead letter. Raises ``connectors.errors.DeliveryError``."""
        self._dead.write([dead_letter_record(letter)])

    def close(self) -> None:
        """End the connections."""
        self._outcomes.close()
        self._dead.close()


def _outcome_record(outcome: Outcome) -> OutRecord:
    return OutRecord(outcome.partitionkey.encode(), orjson.dumps(outcome.to_json()), _CONTENT_TYPE)


def run(
    config: RemediationConfig,
    kafka: KafkaConfig,
    *,
    stop: threading.Event,
    clock: Callable[[], int] = time.time_ns,
    registry: Registry | None = None,
) -> None:
    """Consume, act and publish until ``stop`` is set; then finish the step under way, publish, commit and return.

    Args:
        config: policy, playbooks, database.
        kafka: brokers and topics.
        stop: set by a signal handler, or by a test.
        clock: UTC epoch nanoseconds.
        registry: runners; the default ones if None.

    Raises:
        remediation.documents.DocumentError: when the policy or a playbook is refused.
        remediation.runners.RunnerError: when a playbook needs what no runner offers.
        incidents.store.StoreError: when the database cannot be used.
        connectors.errors.TopicError: when a topic does not exist and must not be made.
        connectors.errors.DeliveryError: when an outcome cannot be published; it stays in the database.
    """
    with ExitStack() as stack:
        stack.callback(_log.info, "remediation_stopped")
        memory, journal = Memory(config.database), Journal(config.database)
        stack.callback(memory.close)
        stack.callback(journal.close)
        world = WorldFiles(config, registry or default_registry(), memory)
        executor = Executor(journal, world, clock=clock, settings=config, stopping=stop.is_set)
        consumer = _consumer(kafka, config.consumer_group)
        stack.callback(consumer.close, autocommit=False)
        outlet = Outlet(kafka)
        stack.callback(outlet.close)
        executor.recover()
        intake = Intake(kafka, executor, memory, outlet.reject)
        publish = _drainer(journal, memory, outlet)
        with Actor(executor, stop, config.poll_s) as actor:
            _log.info("remediation_started", policy=world().policy.name, executor=config.executor)
            _read(consumer, intake, stop, config.poll_s, publish)
        publish()
        if actor.error is not None:
            raise actor.error


def _drainer(journal: Journal, memory: Memory, outlet: Outlet) -> Callable[[], None]:
    def publish() -> None:
        drain(journal, memory, outlet.publish)

    return publish


def _read(
    consumer: GroupConsumer, intake: Intake, stop: threading.Event, poll_s: float, publish: Callable[[], None]
) -> None:
    while not stop.is_set():
        polled = consumer.poll(timeout_ms=int(poll_s * 1000), max_records=200)
        if intake.take(polled):
            _commit(consumer)
        publish()


def _commit(consumer: GroupConsumer) -> None:
    """Commit what was polled; when the group is changing it cannot be, and is read again, which changes nothing."""
    try:
        consumer.commit()
    except _GROUP_CHANGES as error:
        _log.info("remediation_commit_postponed", reason=type(error).__name__)


def _consumer(kafka: KafkaConfig, group: str) -> GroupConsumer:
    """A member of the group, with the topics' partitions known before it joins.

    A group is assigned what its leader knows of, so a leader without metadata yet would assign nothing; partitions and
    topics that are added later are seen within ``_METADATA_AGE_MS``.

    Raises:
        TopicError: when a topic does not exist and ``missing_topics`` is ``fail``.
    """
    options = {"group_id": group, "auto_offset_reset": "earliest", "metadata_max_age_ms": _METADATA_AGE_MS}
    made = make_consumer(kafka, **options)
    try:
        _ensure_topics(kafka, made)
        for topic in _inputs(kafka):
            made.partitions_for_topic(topic)
    except Exception:
        made.close(autocommit=False)
        raise
    consumer = cast(GroupConsumer, made)
    consumer.subscribe(_inputs(kafka))
    return consumer


def _inputs(kafka: KafkaConfig) -> list[str]:
    return [kafka.topics.remediation_intents, kafka.topics.root_causes]


def _ensure_topics(kafka: KafkaConfig, consumer: Consumer) -> None:
    topics = [*_inputs(kafka), kafka.topics.remediation_outcomes, kafka.topics.dead_letters]
    missing = [topic for topic in topics if not consumer.partitions_for_topic(topic)]
    if missing and kafka.missing_topics == "create":
        create_topics(kafka, dict.fromkeys(missing, kafka.new_topic_partitions))
    elif missing and kafka.missing_topics == "fail":
        raise TopicError(
            f"Kafka topics do not exist at {', '.join(kafka.bootstrap_servers)}: {', '.join(missing)}; create them, "
            "correct their names under kafka.topics, or set kafka.missing_topics to 'create' or 'ignore'"
        )
    elif missing:
        _log.warning("remediation_topics_missing", topics=missing)
