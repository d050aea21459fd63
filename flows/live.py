"""The live job: the main dataflow between Kafka topics, with its recovery store, in this process.

Not here: several processes (``flows.supervise``) and the command line.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

from connectors.config import KafkaConfig
from connectors.errors import TopicError
from connectors.kafka_client import create_topics, make_consumer
from connectors.kafka_sink import DeadLetterKafkaSink, KafkaSink
from connectors.kafka_source import KafkaSource
from connectors.recording_reader import load_topology
from flows.detect import Job, Outputs, build_flow
from flows.layout import Layout
from flows.memory_sink import MemorySink
from flows.observe import Telemetry
from flows.recovery import recovery_config
from flows.replay import decider_of
from flows.settings import Settings
from flows.version import VERSION
from incidents.memory import Memory
from incidents.model import Provenance
from signals.schema import Signal

#: A revision says all there is to say of its incident and is keyed by it, so a compacted topic is the state of all
#: incidents; every revision stays for at least a week, for consumers that want the history or were away.
ROOT_CAUSES_CONFIG: Final = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(7 * 24 * 3600 * 1000)}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Which process of how many this is; addresses are those of all of them."""

    process: int = 0
    addresses: tuple[str, ...] = ()


def telemetry_for(kafka: KafkaConfig) -> Telemetry:
    """Metrics that know the input topics."""
    return Telemetry({topic: signal for signal, topic, _ in kafka.topics.inputs()})


def ensure_outputs(kafka: KafkaConfig) -> None:
    """Check that the topics written to exist; with ``missing_topics: create`` make those that do not.

    ``root_causes`` is made compacted (see ROOT_CAUSES_CONFIG). ``remediation_intents`` and ``dead_letters`` are not:
    their keys (a service; whatever the sender chose) do not stand for one thing that is replaced, so they keep the
    broker's retention. There is no ignoring a missing output.

    Raises:
        TopicError: A topic does not exist and may not be made.
    """
    topics = kafka.topics
    consumer = make_consumer(kafka)
    try:
        names = (topics.root_causes, topics.remediation_intents, topics.dead_letters)
        missing = [name for name in names if not consumer.partitions_for_topic(name)]
    finally:
        consumer.close(autocommit=False)
    if missing and kafka.missing_topics != "create":
        raise TopicError(
            f"output topics do not exist at {', '.join(kafka.bootstrap_servers)}: {', '.join(missing)}; create "
            f"them, or set kafka.missing_topics to 'create'"
        )
    for name in missing:
        configs = ROOT_CAUSES_CONFIG if name == topics.root_causes else {}
        create_topics(kafka, {name: kafka.new_topic_partitions}, topic_configs=configs)
        _log.info("topic created", topic=name, partitions=kafka.new_topic_partitions)


def known_edges(file: Path | None) -> tuple[tuple[str, str], ...]:
    """The edges of a topology file."""
    return tuple(load_topology(file)[1]) if file is not None else ()


def live_source(settings: Settings, telemetry: Telemetry, *, stop_at_end: bool) -> KafkaSource:
    """The input topics of the settings."""
    return KafkaSource(settings.kafka, environment=settings.environment, stop_at_end=stop_at_end, observer=telemetry)


def live_flow(
    settings: Settings, source: KafkaSource, telemetry: Telemetry, known: Sequence[tuple[str, str]] = ()
) -> Dataflow:
    """The main dataflow with everything written to Kafka, and incidents to the database too.

    Raises:
        TopicError: An input topic does not exist.
        documents.DocumentError: The policy or a playbook is refused.
    """
    kafka = settings.kafka
    partitions: dict[Signal, tuple[str, ...]] = source.partitions_by_signal()
    job = Job(
        settings,
        Layout(settings.stream.shards, partitions),
        Provenance(mode="live", pipeline=VERSION, config_hash=settings.digest),
        decider=decider_of(settings),
        known_edges=tuple(known),
        observer=telemetry,
    )
    outputs = Outputs(
        root_causes=KafkaSink(kafka, kafka.topics.root_causes),
        intents=KafkaSink(kafka, kafka.topics.remediation_intents),
        dead_letters=DeadLetterKafkaSink(kafka),
        memory=MemorySink(lambda: Memory(settings.remediation.database), telemetry.memory_failures.inc),
        records=True,
    )
    return build_flow(source, job, outputs)


def run_flow(flow: Dataflow, settings: Settings, place: Place, store: Path | None) -> None:
    """Run until the source ends: asked to stop, or at the end of the input. Raises what went wrong."""
    several = len(place.addresses) > 1
    run: Callable[..., None] = cli_main  # untyped in Bytewax
    run(
        flow,
        process_id=place.process if several else None,
        addresses=list(place.addresses) if several else None,
        epoch_interval=dt.timedelta(seconds=settings.stream.snapshot_s),
        recovery_config=recovery_config(store) if store is not None else None,
    )


def stopper(source: KafkaSource) -> Callable[[str], None]:
    """Asks a source to end, and says why, once."""
    told: list[str] = []

    def stop(why: str) -> None:
        if not told:
            told.append(why)
            _log.info("stopping: draining what was read, saving state", reason=why)
        source.request_stop()

    return stop
