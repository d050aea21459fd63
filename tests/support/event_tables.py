"""The tables of ``docs/consume.md`` that list every field of the root-cause event, generated from its models."""

from __future__ import annotations

import re
import types
import typing
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from incidents import model as event_model
from incidents.model import RootCauseData, RootCauseEvent

#: Fields whose model gives no description of its own.
MEANING = {
    "RootCauseEvent.specversion": "CloudEvents version",
    "RootCauseEvent.type": "what kind of event this is",
    "RootCauseEvent.id": "`<incident>/r<revision>`: the same for the same input, so repeats can be dropped",
    "RootCauseEvent.source": "which pipeline says so, with its environment",
    "RootCauseEvent.subject": "`incident/<id>`",
    "RootCauseEvent.datacontenttype": "media type of `data`",
    "RootCauseEvent.dataschema": "names the JSON Schema of `data`",
    "RootCauseEvent.partitionkey": "the incident id, which is also the Kafka key",
    "RootCauseEvent.correlationid": "the incident id; remediation intents and outcomes carry it too",
    "RootCauseEvent.sequence": "the revision with ten digits, so that text order is revision order",
    "RootCauseEvent.severitytext": "`ERROR` while it lasts, `INFO` once it is over",
    "RootCauseEvent.data": "see below",
    "RootCauseData.incident": "identity and lifecycle",
    "RootCauseData.severity": "how much it hurts",
    "RootCauseData.verdict": "how sure the ranking is",
    "RootCauseData.candidates": "possible causes, best first; empty where none stands out",
    "RootCauseData.evidence": "every observation that candidates refer to",
    "RootCauseData.impact": "what it hurts",
    "RootCauseData.novelty": "whether something like it was seen before",
    "RootCauseData.data_quality": "what the answer was missing",
    "RootCauseData.graph": "call edges around the incident, for drawing it",
    "RootCauseData.timelines": "signals over the minutes around it, for drawing them",
    "RootCauseData.provenance": "how the answer came to be",
    "IncidentHeader.id": "stays the same over all revisions",
    "IncidentHeader.revision": "counts up from 1",
    "IncidentHeader.state": "where it is in its life",
    "IncidentHeader.ended_at": "set once it is resolved or merged",
    "IncidentHeader.merged_into": "id of the incident it turned out to be part of",
    "Candidate.rank": "1 is the best",
    "Candidate.entity": "OpenTelemetry attributes: `service.name` and, where known, namespace, environment, instance",
    "Candidate.fault_kind": "what kind of thing went wrong",
    "Candidate.confidence": "calibrated probability that this is the cause",
    "Candidate.calibration": "what the confidence is worth",
    "Candidate.change": "the change just before onset, if it is blamed",
    "Calibration.method": "how scores became probabilities",
    "Calibration.n": "on how many incidents; 0 says it is a prior, not yet a measurement",
    "ChangeRef.id": "id of the change event",
    "ChangeRef.type": "its CDEvents type",
    "ChangeRef.version": "what was brought in",
    "ChangeRef.at": "when",
    "Evidence.id": "what candidates refer to",
    "Evidence.signal": "where it was seen",
    "Evidence.window": "from, to",
    "Evidence.observed": "what was seen",
    "Evidence.direction": "`new` was never seen before, `gone` is no longer seen",
    "Evidence.detector": "which detector said so",
    "Evidence.refs": "where to look for oneself",
    "EvidenceRefs.kafka": "ranges of offsets that held the telemetry",
    "EvidenceRefs.trace_ids": "example traces",
    "EvidenceRefs.log_template": "the log line with its variable parts masked",
    "EvidenceRefs.log_example": "one line as it was written",
    "EvidenceRefs.url": "a page about it",
    "KafkaRef.topic": "topic",
    "KafkaRef.partition": "partition",
    "KafkaRef.offsets": "first, last",
    "DetectorRef.name": "detector",
    "DetectorRef.version": "its version",
    "Impact.slo": "error budgets that burn",
    "Impact.error_requests": "requests that failed",
    "Impact.slow_requests": "requests that were slower than usual",
    "SloImpact.name": "objective",
    "SloImpact.burn_rate": "how many times faster than sustainable",
    "Novelty.label": "how often its fingerprint was seen",
    "Novelty.similar": "earlier incidents like it",
    "SimilarIncident.incident": "its id",
    "SimilarIncident.similarity": "1 is the same fingerprint",
    "SimilarIncident.resolution": "what ended it",
    "DataQuality.late_dropped": "rows that came after their bucket had closed",
    "DataQuality.missing_signals": "`<signal>:<service>`, such as `spans:redis` for a service that sends no spans",
    "DataQuality.graph_age_s": "seconds since the service graph last learnt something",
    "DataQuality.unpaired_span_ratio": "share of spans whose parent never came",
    "Provenance.mode": "live or replay",
    "Provenance.pipeline": "version of the pipeline",
    "Provenance.config_hash": "digest of its configuration",
    "Provenance.input_offsets": "by `topic/partition`, how far the input was read",
    "GraphEdge.caller": "who calls",
    "GraphEdge.callee": "who is called",
    "GraphEdge.errors": "calls that failed",
    "GraphEdge.on_path": "whether the fault spread along it",
    "TimelinePoint.at": "start of the bucket",
    "TimelinePoint.value": "value",
    "Timeline.name": "what is measured",
    "Timeline.entity": "whose",
    "Timeline.unit": "UCUM",
    "Timeline.points": "in time order",
}


def tables() -> str:
    """Markdown: one table for the envelope, one per part of ``data``, in the order in which they are met."""
    order: list[type[BaseModel]] = [RootCauseEvent, RootCauseData]
    for model in order:
        order.extend(part for field in model.model_fields.values() for part in _models(field.annotation, order))
    return "\n".join(_table(model) for model in order)


def _models(annotation: Any, known: list[type[BaseModel]]) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation in known else [annotation]
    return [part for one in typing.get_args(annotation) for part in _models(one, known)]


def _table(model: type[BaseModel]) -> str:
    name = "Envelope" if model is RootCauseEvent else "`data`" if model is RootCauseData else _title(model)
    summary = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    rows = [
        f"| `{field}` | {_field_type(info)} | {_meaning(model, field, info)} |"
        for field, info in model.model_fields.items()
    ]
    return "\n".join(
        [f"### {name}", "", re.sub("``", "`", summary), "", "| field | type | meaning |", "|---|---|---|", *rows, ""]
    )


def _title(model: type[BaseModel]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__).capitalize()


def _meaning(model: type[BaseModel], field: str, info: FieldInfo) -> str:
    told = MEANING.get(f"{model.__name__}.{field}") or info.description
    if told is None:
        raise KeyError(f"say what {model.__name__}.{field} means, in the model or in MEANING")
    return told[0].lower() + told[1:] if told.split()[0].istitle() else told


def _field_type(info: FieldInfo) -> str:
    return "time" if any(getattr(one, "pattern", None) for one in info.metadata) else _type(info.annotation)


def _type(annotation: Any) -> str:  # noqa: PLR0911 - one line per kind of annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == event_model.Rfc3339:
        return "time"
    if origin is Annotated:
        return _type(arguments[0])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join("null" if one is type(None) else _type(one) for one in arguments)
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return "[" + ", ".join(_type(one) for one in arguments) + "]"
    if origin is dict:
        return f"object of {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{one.value}`" for one in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{_title(annotation).lower() if annotation is not RootCauseData else 'data'}](#{_anchor(annotation)})"
    return {str: "text", int: "integer", float: "number", bool: "true, false"}[annotation]


def _anchor(model: type[BaseModel]) -> str:
    return "data" if model is RootCauseData else _title(model).lower().replace(" ", "-")
