"""The root-cause event: what the pipeline tells the world, one CloudEvent per incident revision.

These models are the contract: the JSON Schema in ``docs/schemas`` is generated from them, and whatever is emitted
validates against it. Times are event time, RFC 3339 with nanoseconds, so that a replay says the same as the live job.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

EVENT_TYPE: Final = "io.mendstream.root_cause.v1"
DATA_SCHEMA: Final = "mendstream:schemas/root_cause/v1"

Rfc3339 = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$", description="RFC 3339, UTC, nanoseconds")
]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
#: OpenTelemetry attributes that name an entity: service.name and, where known, namespace, environment, instance.
EntityAttributes = dict[str, str]


def rfc3339(ns: int) -> str:
    """UTC epoch nanoseconds as RFC 3339 with nine decimals.

    >>> rfc3339(1795410220229965107)
    '2026-11-23T05:03:40.229965107Z'
    """
    seconds, nanos = divmod(ns, 1_000_000_000)
    moment = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def epoch_ns(text: str) -> int:
    """The inverse of ``rfc3339``.

    >>> epoch_ns("2026-11-23T05:03:40.229965107Z")
    1795410220229965107
    """
    base, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(dt.datetime.fromisoformat(base).replace(tzinfo=dt.UTC).timestamp())
    return seconds * 1_000_000_000 + int((fraction + "000000000")[:9])


class State(StrEnum):
    """Where an incident is in its life."""

    OPEN = "open"
    UPDATED = "updated"
    RESOLVED = "resolved"
    MERGED = "merged"


class Verdict(StrEnum):
    """How sure the ranking is; ``unknown`` is an honest answer."""

    IDENTIFIED = "identified"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"


class FaultKind(StrEnum):
    """What kind of thing went wrong, as far as the evidence shows."""

    LATENCY = "latency"  # its own work became slower
    ERROR = "error"  # it fails by itself
    SATURATION = "saturation"  # a resource is exhausted
    UNAVAILABLE = "unavailable"  # calls to it never arrive or are refused
    NETWORK = "network"  # the way to it, not it
    BEHAVIOUR = "behaviour"  # it does other things than before: other calls, other log lines
    CHANGE = "change"  # a deploy or configuration change just before onset
    LOAD = "load"  # more is asked of it than before
    UNKNOWN = "unknown"


class Model(BaseModel):
    """Base of every part of the event: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=True)


class IncidentHeader(Model):
    """Identity and lifecycle of the incident this event is a revision of."""

    id: str
    revision: Annotated[int, Field(ge=1)]
    state: State
    fingerprint: str = Field(description="Stable over recurrences: role on the graph, signals, fault kind, templates")
    started_at: Rfc3339 = Field(description="Estimated onset: start of the first deviating bucket")
    detected_at: Rfc3339 = Field(description="Close of the bucket that opened the incident")
    last_seen_at: Rfc3339 = Field(description="Close of the last bucket with evidence")
    ended_at: Rfc3339 | None = None
    merged_into: str | None = None


class Calibration(Model):
    """How the confidence was calibrated, and on how much; n = 0 says it is a prior, not yet a measurement."""

    method: str
    n: Annotated[int, Field(ge=0)]
    ece: Probability | None = Field(default=None, description="Expected calibration error; null when n is 0")


class ChangeRef(Model):
    """A change event close before onset."""

    id: str
    type: str
    version: str = ""
    at: Rfc3339


class Candidate(Model):
    """One possible root cause, best first."""

    rank: Annotated[int, Field(ge=1)]
    entity: EntityAttributes
    fault_kind: FaultKind
    score: float = Field(description="Ranking score, comparable within one revision only")
    confidence: Probability
    calibration: Calibration
    change: ChangeRef | None = None
    path: list[str] = Field(description="Services from an affected entry point to this candidate")
    evidence: list[str] = Field(description="Ids of evidence that speaks for it")
    counter_evidence: list[str] = Field(default_factory=list, description="Ids of evidence that speaks against it")


class KafkaRef(Model):
    """A range of offsets that held the telemetry."""

    topic: str
    partition: int
    offsets: tuple[int, int]


class EvidenceRefs(Model):
    """Where a person can look for themselves."""

    kafka: list[KafkaRef] = Field(default_factory=list)
    trace_ids: list[str] = Field(default_factory=list)
    log_template: str | None = None
    log_example: str | None = None
    url: str | None = None


class DetectorRef(Model):
    """Which detector said so."""

    name: str
    version: str


class Evidence(Model):
    """One observation: what was expected, what was seen."""

    id: str
    signal: Literal["span", "log", "metric", "edge", "change", "topology"]
    name: str = Field(description="What deviated, e.g. 'exclusive time', 'calls B/op', a metric name, a log template")
    attributes: dict[str, str] = Field(description="service.name, instance, operation, caller/callee of an edge")
    window: tuple[Rfc3339, Rfc3339]
    observed: float
    expected: tuple[float, float] = Field(description="Interval that history makes likely")
    unit: str = Field(default="1", description="UCUM: '1' for shares, 's', '{request}/s', …")
    direction: Literal["up", "down", "new", "gone"]
    anomaly_score: Probability = Field(description="1 - p, the calibrated tail probability")
    detector: DetectorRef
    refs: EvidenceRefs = EvidenceRefs()
    statement: str = Field(description="The same as a sentence for people; plain text that may quote telemetry")


class SloImpact(Model):
    """Error-budget burn of one entry point."""

    name: str
    burn_rate: float


class Impact(Model):
    """What the incident hurts."""

    services: list[str] = Field(description="Services with evidence or downstream of the cause that deviate")
    entry_points: list[str] = Field(default_factory=list, description="Root operations that fail or slow down")
    slo: list[SloImpact] = Field(default_factory=list)
    error_requests: Annotated[int, Field(ge=0)] = 0
    slow_requests: Annotated[int, Field(ge=0)] = 0


class SimilarIncident(Model):
    """An earlier incident that looks like this one."""

    incident: str
    similarity: Probability
    resolution: str | None = None


class Novelty(Model):
    """Whether something like it was seen before."""

    label: Literal["known", "rare", "novel"]
    similar: list[SimilarIncident] = Field(default_factory=list)


class DataQuality(Model):
    """What the answer was missing."""

    late_dropped: int = 0
    missing_signals: list[str] = Field(default_factory=list)
    graph_age_s: float | None = None
    unpaired_span_ratio: Probability | None = None


class Provenance(Model):
    """How this answer came to be; the only part in which live and replay may differ."""

    mode: Literal["live", "replay"]
    pipeline: str
    config_hash: str
    input_offsets: dict[str, int] = Field(default_factory=dict)


class GraphEdge(Model):
    """One call edge around the incident, for drawing it."""

    caller: str
    callee: str
    requests: float = Field(description="Calls in the incident's window")
    errors: float = 0.0
    on_path: bool = False


class TimelinePoint(Model):
    """One bucket of one signal that spoke."""

    at: Rfc3339
    value: float


class Timeline(Model):
    """A signal over the minutes around the incident, for drawing it."""

    name: str
    entity: EntityAttributes
    unit: str = "1"
    points: list[TimelinePoint]


class RootCauseData(Model):
    """The ``data`` of a root-cause CloudEvent."""

    incident: IncidentHeader
    title: str = Field(description="One line for people: what broke, where")
    severity: Literal["critical", "major", "minor", "info"]
    verdict: Verdict
    candidates: list[Candidate]
    evidence: list[Evidence]
    impact: Impact
    novelty: Novelty
    data_quality: DataQuality = DataQuality()
    graph: list[GraphEdge] = Field(default_factory=list)
    timelines: list[Timeline] = Field(default_factory=list)
    provenance: Provenance


class RootCauseEvent(Model):
    """A CloudEvents 1.0 envelope (JSON format) around ``RootCauseData``."""

    specversion: Literal["1.0"] = "1.0"
    type: Literal["io.mendstream.root_cause.v1"] = EVENT_TYPE
    source: str
    id: str = Field(description="<incident>/r<revision>: the same for the same input, so repeats can be dropped")
    subject: str
    time: Rfc3339 = Field(description="Close of the bucket that decided this revision")
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: Literal["mendstream:schemas/root_cause/v1"] = DATA_SCHEMA
    partitionkey: str
    correlationid: str
    sequence: str
    severitytext: str = "ERROR"
    data: RootCauseData

    def to_json(self) -> dict[str, Any]:
        """The event as plain JSON types, nulls kept."""
        return self.model_dump(mode="json")
