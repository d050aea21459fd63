"""The main dataflow: telemetry in, incident revisions and remediation intents out. Wiring only.

Live and replay are this one flow; what differs is the source, the sinks and whether a recovery store is attached. Stages
are plain objects (``flows.stages``); here they are wrapped for Bytewax. Step ids are an interface: a renamed step loses
its state.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import bytewax.operators as op
import orjson
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import Sink

from connectors.kafka_sink import OutRecord
from detectors.river_models import RiverPanel
from detectors.series import SeriesScreen
from detectors.span_behaviour import SpanBehaviour
from detectors.templates import TemplateMiner
from flows.anomalies import anomaly_rows
from flows.detect_stage import DetectStage
from flows.incident_stage import Diagnosis, IncidentStage
from flows.layout import Layout
from flows.messages import Addressed
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
    on_batch: Callable[[Batch], None] | None = None  # progress and metrics of this process


class DecideLogic(StatefulBatchLogic[RootCauseEvent, Intent, bytes]):
    """Incident revisions to intents, per environment."""

    def __init__(self, build: Callable[[], Decider], resume: bytes | None) -> None:
        self._decider: Decider = pickle.loads(resume) if resume is not None else build()  # noqa: S301 - as above

    def on_batch(self, values: list[RootCauseEvent]) -> tuple[list[Intent], bool]:
        """Decide each revision."""
        return [intent for event in values for intent in self._decider.process(event)], StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        """The decider's state."""
        return pickle.dumps(self._decider, protocol=5)


def build_flow(source: FixedPartitionedSource[SourceItem, Any], job: Job, outputs: Outputs) -> Dataflow:
    """The dataflow over a source."""
    flow = Dataflow("mendstream")
    items = op.input("telemetry", flow, source)
    if outputs.dead_letters is not None:
        letters = op.filter_map("dead_letters", items, _letters)
        op.output("write_dead_letters", letters, outputs.dead_letters)
    routed = op.flat_map("route", items, partial(_route, job))

    mined = _stage("mine_logs", _to("logs", routed), partial(_log_stage, job))
    traced = _stage("assemble_traces", _to("traces", routed, mined), partial(_trace_stage, job))
    found = _stage("judge", _to("detect", routed, mined, traced), partial(_detect_stage, job))
    told = _stage("correlate", _to("incidents", routed, mined, found), partial(_incident_stage, job))

    if outputs.anomalies is not None:
        rows = op.flat_map("anomalies", found, partial(anomaly_rows, bucket_ns=_bucket_ns(job)))
        op.output("write_anomalies", rows, outputs.anomalies)
    events = op.filter_map("revisions", told, _event)
    if outputs.root_causes is not None:
        op.output(
            "write_root_causes", op.map("root_cause_out", events, partial(_event_out, outputs)), outputs.root_causes
        )
    if outputs.diagnoses is not None:
        diagnoses = op.filter_map("diagnoses", told, _diagnosis)
        op.output("write_diagnoses", diagnoses, outputs.diagnoses)
    if job.decider is not None and outputs.intents is not None:
        keyed = op.key_on("by_environment", events, lambda event: event.source)
        intents = op.stateful_batch("decide", keyed, partial(DecideLogic, job.decider))
        out = op.map("intent_out", intents, partial(_intent_out, outputs))
        op.output("write_intents", out, outputs.intents)
    return flow


def _stage(step: str, up: KeyedStream[Any], build: Callable[[str], Any]) -> Any:
    """A sharded stage; each key of the stream is one shard."""
    held = op.stateful_batch(step, up, lambda resume: _Named(build, resume))
    return op.map(f"{step}_out", held, lambda pair: pair[1])


class _Named(StatefulBatchLogic[Any, Any, bytes]):
    """Builds its stage at the first message: Bytewax tells a logic its key only with the values."""

    def __init__(self, build: Callable[[str], Any], resume: bytes | None) -> None:
        self._build = build
        self._stage = pickle.loads(resume) if resume is not None else None  # noqa: S301 - our own recovery store

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        if self._stage is None:
            self._stage = self._build(values[0][0])
        return self._stage.feed([message for _, message in values]), StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        return pickle.dumps(self._stage, protocol=5)


def _to(stage: str, *streams: Any) -> KeyedStream[Any]:
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
    return job.layout.route(item)


def _letters(item: SourceItem) -> tuple[str, DeadLetters] | None:
    return (item.partition, item) if isinstance(item, DeadLetters) else None


def _event(told: RootCauseEvent | Diagnosis) -> RootCauseEvent | None:
    return told if isinstance(told, RootCauseEvent) else None


def _diagnosis(told: RootCauseEvent | Diagnosis) -> tuple[str, bytes] | None:
    return (told.window, orjson.dumps(told.to_json())) if isinstance(told, Diagnosis) else None


def _event_out(outputs: Outputs, event: RootCauseEvent) -> Any:
    value = orjson.dumps(event.to_json())
    if outputs.records:
        return OutRecord(key=event.partitionkey.encode(), value=value, headers=_JSON_HEADERS)
    return event.partitionkey, value


def _intent_out(outputs: Outputs, keyed: tuple[str, Intent]) -> Any:
    intent = keyed[1]
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
    )


def _bucket_ns(job: Job) -> int:
    return int(job.settings.stream.bucket_s * _NS)
