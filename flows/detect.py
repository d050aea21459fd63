"""The main dataflow: telemetry in, incident revisions and remediation intents out. Wiring only.

Live and replay are this one flow; what differs is the source, the sinks and whether a recovery store is attached.
Stages are plain objects (``flows.stages``); here they are wrapped for Bytewax. Step ids are an interface: a renamed
step loses its state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import bytewax.operators as op
import orjson
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource
from bytewax.operators import KeyedStream
from bytewax.outputs import Sink

from connectors.kafka_sink import OutRecord
from delivery.change import Assessment
from detectors.river_models import RiverPanel
from detectors.series import SeriesScreen
from detectors.span_behaviour import SpanBehaviour
from detectors.templates import TemplateMiner
from flows.anomalies import anomaly_rows
from flows.detect_stage import DetectStage
from flows.engine import DecideLogic, StageLogic
from flows.incident_stage import Diagnosis, IncidentStage, Told
from flows.layout import Layout
from flows.messages import Addressed
from flows.observer import FlowObserver, Unobserved
from flows.settings import Settings
from flows.stages import LogStage, TraceStage
from flows.windows import Window
from incidents.model import Provenance, RootCauseEvent
from remediation.decide import Decider
from remediation.intents import Intent
from signals.batch import Batch, DeadLetters, SourceItem
from topology.assembly import TraceAssembler

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go; None leaves a stream unwritten."""

    root_causes: Sink[Any] | None = None
    intents: Sink[Any] | None = None
    dead_letters: Sink[Any] | None = None
    diagnoses: Sink[Any] | None = None
    assessments: Sink[Any] | None = None  # risks of changes
    memory: Sink[RootCauseEvent] | None = None  # takes revisions as they are
    anomalies: Sink[Any] | None = None  # takes rows of ``flows.anomalies``
    records: bool = False  # sinks take Kafka records (else lines of JSON)


@dataclass(frozen=True, slots=True)
class Job:
    """What one run of the flow is told beside its settings."""

    settings: Settings
    layout: Layout
    provenance: Provenance
    decider: Callable[[], Decider] | None = None
    known_edges: tuple[tuple[str, str], ...] = ()
    windows: tuple[Window, ...] = ()
    on_batch: Callable[[Batch], None] | None = None  # progress of a replay
    observer: FlowObserver = field(default_factory=Unobserved)


def build_flow(source: FixedPartitionedSource[SourceItem, Any], job: Job, outputs: Outputs) -> Dataflow:
    """The dataflow over a source."""
    flow = Dataflow("mendstream")
    items = op.input("telemetry", flow, source)
    if outputs.dead_letters is not None:
        letters = op.filter_map("dead_letters", items, partial(_letters, job, outputs))
        op.output("write_dead_letters", letters, outputs.dead_letters)
    routed = op.flat_map("route", items, partial(_route, job))

    mined = _stage("mine_logs", _to("logs", routed), partial(_log_stage, job), job.observer)
    traced = _stage("assemble_traces", _to("traces", routed, mined), partial(_trace_stage, job), job.observer)
    found = _stage("judge", _to("detect", routed, mined, traced), partial(_detect_stage, job), job.observer)
    told = _stage("correlate", _to("incidents", routed, mined, found), partial(_incident_stage, job), job.observer)

    if outputs.anomalies is not None:
        rows = op.flat_map("anomalies", found, partial(anomaly_rows, bucket_ns=_bucket_ns(job)))
        op.output("write_anomalies", rows, outputs.anomalies)
    events = op.filter_map("revisions", told, _event)
    if outputs.root_causes is not None:
        out = op.map("root_cause_out", events, partial(_event_out, job, outputs))
        op.output("write_root_causes", out, outputs.root_causes)
    if outputs.memory is not None:
        op.output("remember", events, outputs.memory)
    if outputs.diagnoses is not None:
        diagnoses = op.filter_map("diagnoses", told, _diagnosis)
        op.output("write_diagnoses", diagnoses, outputs.diagnoses)
    if outputs.assessments is not None:
        assessments = op.filter_map("assessments", told, _assessment)
        op.output("write_assessments", assessments, outputs.assessments)
    if job.decider is not None and outputs.intents is not None:
        keyed = op.key_on("by_environment", events, lambda event: event.source)
        intents = op.stateful_batch("decide", keyed, partial(DecideLogic, job.decider))
        out = op.map("intent_out", intents, partial(_intent_out, job, outputs))
        op.output("write_intents", out, outputs.intents)
    return flow


def _stage(step: str, up: KeyedStream[Any], build: Callable[[str], Any], observer: FlowObserver) -> Stream[Any]:
    """A sharded stage; each key of the stream is one shard."""
    held = op.stateful_batch(step, up, partial(StageLogic, step, build, observer))
    return op.map(f"{step}_out", held, lambda pair: pair[1])


def _to(stage: str, *streams: Stream[Any]) -> KeyedStream[Any]:
    """The messages addressed to a stage, keyed by shard; the shard's name goes along."""
    merged = op.merge(f"to_{stage}", *streams) if len(streams) > 1 else streams[0]
    prefix = f"{stage}-"
    return op.filter_map(
        f"only_{stage}", merged, lambda one: (one[0], tuple(one)) if one[0].startswith(prefix) else None
    )


def _route(job: Job, item: SourceItem) -> list[Addressed]:
    if not isinstance(item, Batch):
        return []
    if job.on_batch is not None:
        job.on_batch(item)
    job.observer.on_batch(item)
    return job.layout.route(item)


def _letters(job: Job, outputs: Outputs, item: SourceItem) -> DeadLetters | tuple[str, DeadLetters] | None:
    if not isinstance(item, DeadLetters):
        return None
    job.observer.on_letters(item)
    return item if outputs.records else (item.partition, item)


def _event(told: Told) -> RootCauseEvent | None:
    return told if isinstance(told, RootCauseEvent) else None


def _diagnosis(told: Told) -> tuple[str, bytes] | None:
    return (told.window, orjson.dumps(told.to_json())) if isinstance(told, Diagnosis) else None


def _assessment(told: Told) -> tuple[str, bytes] | None:
    return (told.service, orjson.dumps(told.to_json())) if isinstance(told, Assessment) else None


def _event_out(job: Job, outputs: Outputs, event: RootCauseEvent) -> OutRecord | tuple[str, bytes]:
    job.observer.on_event(event)
    value = orjson.dumps(event.to_json())
    if outputs.records:
        return OutRecord(key=event.partitionkey.encode(), value=value, headers=_JSON_HEADERS)
    return event.partitionkey, value


def _intent_out(job: Job, outputs: Outputs, keyed: tuple[str, Intent]) -> OutRecord | tuple[str, bytes]:
    intent = keyed[1]
    job.observer.on_intent(intent)
    value = orjson.dumps(intent.to_json())
    if outputs.records:
        return OutRecord(key=intent.partitionkey.encode(), value=value, headers=_JSON_HEADERS)
    return intent.partitionkey, value


_JSON_HEADERS: Final = (("content-type", b"application/cloudevents+json"),)


def _log_stage(job: Job, name: str) -> LogStage:
    return LogStage(name, job.layout, _bucket_ns(job), TemplateMiner(job.settings.detectors.templates))


def _trace_stage(job: Job, name: str) -> TraceStage:
    return TraceStage(name, job.layout, _bucket_ns(job), TraceAssembler(job.settings.assembly.build()))


def _detect_stage(job: Job, name: str) -> DetectStage:
    detectors = job.settings.detectors
    return DetectStage(
        name,
        job.layout,
        _bucket_ns(job),
        SpanBehaviour(job.settings.behaviour),
        SeriesScreen(detectors.series),
        RiverPanel(detectors.river),
        job.windows,
    )


def _incident_stage(job: Job, name: str) -> IncidentStage:
    return IncidentStage(
        name,
        job.layout,
        _bucket_ns(job),
        job.settings.source,
        job.provenance,
        job.settings.incidents,
        job.settings.ranking.build(),
        job.known_edges,
        job.windows,
        job.settings.delivery,
    )


def _bucket_ns(job: Job) -> int:
    return int(job.settings.stream.bucket_s * _NS)
