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
from types import TracebackType
from typing import Final, Protocol, cast

import orjson
import structlog
from pydantic import ValidationError

from connectors.config import KafkaConfig
from connectors.kafka_client import Record, TopicPartition, make_consumer
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
        connectors.errors.DeliveryError: when an outcome cannot be published; it stays in the database.
    """
    memory, journal = Memory(config.database), Journal(config.database)
    world = WorldFiles(config, registry or default_registry(), memory)
    executor = Executor(journal, world, clock=clock, settings=config, stopping=stop.is_set)
    outlet = Outlet(kafka)
    consumer = _consumer(kafka, config.consumer_group)
    try:
        executor.recover()
        with Actor(executor, stop, config.poll_s) as actor:
            _log.info("remediation_started", policy=world().policy.name, executor=config.executor)
            _read(
                consumer,
                Intake(kafka, executor, memory, outlet.reject),
                stop,
                config.poll_s,
                _drainer(journal, memory, outlet),
            )
        drain(journal, memory, outlet.publish)
        if actor.error is not None:
            raise actor.error
    finally:
        consumer.close(autocommit=False)
        outlet.close()
        journal.close()
        memory.close()
        _log.info("remediation_stopped")


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
            consumer.commit()
        publish()


def _consumer(kafka: KafkaConfig, group: str) -> GroupConsumer:
    made = make_consumer(kafka, group_id=group, auto_offset_reset="earliest")
    consumer = cast(GroupConsumer, made)
    consumer.subscribe([kafka.topics.remediation_intents, kafka.topics.root_causes])
    return consumer
