"""An incident as an event: candidates with path and evidence, impact, novelty, and what a person can draw from it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from incidents.config import IncidentConfig
from incidents.describe import evidence_id, evidence_of, fault_kind_of, telling_first
from incidents.incident import Incident, verdict_of
from incidents.model import (
    Calibration,
    Candidate,
    ChangeRef,
    DataQuality,
    Evidence,
    FaultKind,
    GraphEdge,
    Impact,
    IncidentHeader,
    Novelty,
    Provenance,
    RootCauseData,
    RootCauseEvent,
    SimilarIncident,
    State,
    Timeline,
    TimelinePoint,
    Verdict,
    rfc3339,
)
from incidents.report import Change, Golden, Template
from topology.graph import ServiceGraph
from topology.ranking import Channel, Credit, Suspect

#: A prior, not a measurement: how much of the total score the first must hold for how much confidence.
_PRIOR: Final = Calibration(method="prior", n=0, ece=None)

#: Entry traffic against the busiest stretch of the minutes before, from which it counts as a rush.
_RUSH: Final = 1.25

_TITLES: Final = {
    FaultKind.LATENCY: "is slow by itself",
    FaultKind.ERROR: "fails by itself",
    FaultKind.SATURATION: "has run out of a resource",
    FaultKind.UNAVAILABLE: "does not answer",
    FaultKind.NETWORK: "is reached slowly",
    FaultKind.BEHAVIOUR: "behaves differently",
    FaultKind.CHANGE: "went wrong after a change",
    FaultKind.LOAD: "is asked for more than before",
    FaultKind.UNKNOWN: "deviates",
}


@dataclass(slots=True)
class Context:
    """What the environment knows beside the incident itself."""

    environment: str
    source: str
    graph: ServiceGraph
    namespaces: dict[str, str] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    traces: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    golden: dict[str, deque[tuple[int, Golden]]] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)  # entry operation label -> service
    changes: deque[Change] = field(default_factory=lambda: deque(maxlen=1000))
    past: dict[str, list[str]] = field(default_factory=dict)  # fingerprint -> incident ids
    provenance: Provenance = field(default_factory=lambda: Provenance(mode="replay", pipeline="0", config_hash=""))


def build_event(incident: Incident, at_ns: int, context: Context, config: IncidentConfig) -> RootCauseEvent:
    """The event of an incident's newest revision, decided at event time ``at_ns``."""
    ranked = [one for one in incident.ranking() if one.score > 0]
    ranked = [one for one in ranked if one.score >= 0.05 * ranked[0].score][: config.max_candidates]
    verdict = verdict_of(ranked, config.identified_margin)
    shown = _observations(ranked, config.max_evidence)
    window = (incident.onset_ns, incident.last_seen_ns)
    evidence = [evidence_of(credit, window, context.templates, context.traces) for credit in shown.values()]
    candidates = [
        _candidate(rank, one, ranked=ranked, incident=incident, shown=shown, context=context, config=config)
        for rank, one in enumerate(ranked, start=1)
    ]
    print_ = fingerprint(candidates, evidence)
    header = IncidentHeader(
        id=incident.id,
        revision=incident.revision,
        state=incident.state,
        fingerprint=print_,
        started_at=rfc3339(incident.onset_ns),
        detected_at=rfc3339(incident.detected_ns),
        last_seen_at=rfc3339(incident.last_seen_ns),
        ended_at=rfc3339(incident.ended_ns) if incident.ended_ns else None,
        merged_into=incident.merged_into or None,
    )
    impact = _impact(incident)
    data = RootCauseData(
        incident=header,
        title=_title(candidates, verdict),
        severity=_severity(impact, load=bool(candidates) and candidates[0].fault_kind == FaultKind.LOAD),
        verdict=verdict,
        candidates=candidates,
        evidence=evidence,
        impact=impact,
        novelty=_novelty(print_, incident.id, context.past),
        data_quality=_data_quality(incident, candidates, context.graph),
        graph=_edges(incident, candidates, at_ns, context.graph),
        timelines=_timelines(candidates, context),
        provenance=context.provenance,
    )
    return RootCauseEvent(
        source=context.source,
        id=f"{incident.id}/r{incident.revision}",
        subject=f"incident/{incident.id}",
        time=rfc3339(at_ns),
        partitionkey=incident.id,
        correlationid=incident.id,
        sequence=f"{incident.revision:010d}",
        severitytext="INFO" if incident.state in (State.RESOLVED, State.MERGED) else "ERROR",
        data=data,
    )


def fingerprint(candidates: Sequence[Candidate], evidence: Iterable[Evidence]) -> str:
    """Stable over recurrences: the first candidate's service and fault kind, and the signals that speak of it."""
    if not candidates:
        return "unknown"
    first = candidates[0]
    mine = sorted({f"{one.signal}:{one.direction}" for one in evidence if one.id in first.evidence})
    text = "\x1f".join([first.entity.get("service.name", ""), first.fault_kind, *mine])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _observations(ranked: Sequence[Suspect], limit: int) -> dict[str, Credit]:
    """The observations worth telling: of the best candidates first, each once."""
    shown: dict[str, Credit] = {}
    for share, one in zip((6, 3, 2, 1, 1), ranked, strict=False):
        for credit in telling_first(one.credits)[:share]:
            if credit.weight > 0 and len(shown) < limit:
                shown.setdefault(evidence_id(credit), credit)
    return shown


def _candidate(
    rank: int,
    one: Suspect,
    *,
    ranked: Sequence[Suspect],
    incident: Incident,
    shown: Mapping[str, Credit],
    context: Context,
    config: IncidentConfig,
) -> Candidate:
    change = _change_before(one.service, incident.onset_ns, context.changes, config)
    mine = [key for key in (evidence_id(credit) for credit in telling_first(one.credits)) if key in shown]
    others = [key for key, credit in shown.items() if credit.service == one.explained_by] if one.explained_by else []
    return Candidate(
        rank=rank,
        entity=_entity(one, context),
        fault_kind=FaultKind.LOAD
        if change is None and incident.asked.get(one.service, 0.0) >= config.load_ratio
        else fault_kind_of(one.credits, changed=change is not None),
        score=round(one.score, 6),
        confidence=_confidence(one, ranked),
        calibration=_PRIOR,
        change=ChangeRef(id=change.id, type=change.type, version=change.version, at=rfc3339(change.at_ns))
        if change
        else None,
        path=_path(one.service, incident, context),
        evidence=list(dict.fromkeys(mine)),
        counter_evidence=list(dict.fromkeys(key for key in others if key not in mine)),
    )


def _entity(one: Suspect, context: Context) -> dict[str, str]:
    pairs = {
        "deployment.environment.name": context.environment,
        "service.namespace": context.namespaces.get(one.service, ""),
        "service.name": one.service,
        "service.instance.id": one.instance,
    }
    return {key: value for key, value in pairs.items() if value or key == "service.name"}


def _confidence(one: Suspect, ranked: Sequence[Suspect]) -> float:
    """Its share of all scores, less while the evidence is weak: 8 is where incidents open, 30 is strong."""
    total = sum(other.score for other in ranked)
    strength = one.score / (one.score + 4.0)
    return round(min(0.99, one.score / total * strength), 4) if total > 0 else 0.0


def _path(service: str, incident: Incident, context: Context) -> list[str]:
    """From an affected entry point (else any entry that reaches it) down to the service."""
    hurt = [context.entries[label] for label in sorted(incident.failed | incident.slow) if label in context.entries]
    for start in [*hurt, *sorted(set(context.entries.values()))]:
        path = context.graph.path(start, service)
        if path:
            return path
    within = frozenset(incident.services)
    upstream = context.graph.upstream(service, within)
    farthest = max(sorted(upstream), key=lambda name: upstream[name])
    return context.graph.path(farthest, service) or [service]


def more_asked(one: Suspect, context: Context) -> float:
    """How much more traffic enters towards a service than before: the last 3 buckets against the median of earlier.

    Counted at entry points only, since retries of a failing service multiply calls inside. 0 for deviations that more
    traffic does not bring about (calls refused, other behaviour), or without enough history.
    """
    if not one.credits or one.credits[0].channel in (Channel.LOST, Channel.ERROR, Channel.BEHAVIOUR):
        return 0.0
    entries = [name for name in context.graph.upstream(one.service) if not context.graph.callers.get(name)]
    ratios = []
    for name in sorted(entries):
        counts = [golden.requests for _, golden in context.golden.get(name, ())]
        if len(counts) >= 12:
            earlier, now = counts[:-6], sum(counts[-3:]) / 3
            usual = sorted(earlier)[len(earlier) // 2]
            busiest = max(sum(earlier[at : at + 3]) / 3 for at in range(len(earlier) - 2))
            # Traffic that rises and falls anyway is no rush: it must also stand out from the busiest stretch before.
            if usual > 0 and now >= _RUSH * busiest:
                ratios.append(now / usual)
    return max(ratios, default=0.0)


def _change_before(service: str, onset_ns: int, changes: Iterable[Change], config: IncidentConfig) -> Change | None:
    """The last change of the service in the window before onset; it may also lie in the onset's own buckets."""
    window = int(config.change_window_s * 1e9)
    near = [
        one for one in changes if one.service == service and onset_ns - window <= one.at_ns <= onset_ns + 30_000_000_000
    ]
    return max(near, key=lambda one: (one.at_ns, one.id)) if near else None


def _title(candidates: Sequence[Candidate], verdict: Verdict) -> str:
    if not candidates:
        return "Something deviates; the cause is not known"
    first = candidates[0]
    name = first.entity.get("service.name", "?")
    text = f"{name} {_TITLES[FaultKind(first.fault_kind)]}"
    if verdict == Verdict.AMBIGUOUS and len(candidates) > 1:
        text += f" (or {candidates[1].entity.get('service.name', '?')})"
    return text


def _impact(incident: Incident) -> Impact:
    return Impact(
        services=sorted(incident.services),
        entry_points=sorted(label for label in incident.failed.keys() | incident.slow.keys()),
        error_requests=sum(incident.failed.values()),
        slow_requests=sum(incident.slow.values()),
    )


def _severity(impact: Impact, *, load: bool) -> Literal["critical", "major", "minor", "info"]:
    """By what it hurts; more traffic than usual is never critical by itself."""
    if impact.error_requests > 0:
        return "major" if load else "critical"
    if impact.slow_requests > 0:
        return "minor" if load else "major"
    return "info" if load else "minor"


def _novelty(print_: str, incident: str, past: Mapping[str, list[str]]) -> Novelty:
    seen = [one for one in past.get(print_, []) if one != incident]
    label: Literal["known", "rare", "novel"] = "known" if len(seen) >= 3 else "rare" if seen else "novel"
    return Novelty(label=label, similar=[SimilarIncident(incident=one, similarity=1.0) for one in seen[-3:]])


def _edges(incident: Incident, candidates: Sequence[Candidate], at_ns: int, graph: ServiceGraph) -> list[GraphEdge]:
    """The graph around the incident: its services, their neighbours, and the paths to the candidates."""
    paths = [candidate.path for candidate in candidates[:1]]
    on_path = {(a, b) for path in paths for a, b in pairwise(path)}
    nodes = set(sorted(incident.services)[:40]) | {name for path in paths for name in path}
    edges = []
    for (caller, callee), edge in sorted(graph.edges.items()):
        requests = graph.requests(caller, callee, at_ns)
        if (caller in nodes or callee in nodes) and (edge.known or requests > graph.forget_below):
            errors = edge.errors * (requests / edge.requests) if edge.requests else 0.0
            edges.append(
                GraphEdge(
                    caller=caller,
                    callee=callee,
                    requests=round(requests, 3),
                    errors=round(errors, 3),
                    on_path=(caller, callee) in on_path,
                )
            )
    return edges[:200]


def _data_quality(incident: Incident, candidates: Sequence[Candidate], graph: ServiceGraph) -> DataQuality:
    """What was missing: late rows, and services around the incident that send no spans of their own."""
    around = incident.services | {name for candidate in candidates for name in candidate.path}
    blind = sorted(around & graph.uninstrumented)
    return DataQuality(late_dropped=incident.late, missing_signals=[f"spans:{name}" for name in blind])


def _timelines(candidates: Sequence[Candidate], context: Context) -> list[Timeline]:
    """Golden signals of the cause and of the services on its path, over the minutes kept."""
    services = list(
        dict.fromkeys(
            [*(c.entity["service.name"] for c in candidates[:2]), *(candidates[0].path if candidates else [])]
        )
    )
    lines = []
    for service in services[:4]:
        points = list(context.golden.get(service, ()))
        if not points:
            continue
        entity = {"service.name": service}
        series = {
            ("latency p95", "s"): [(at, one.p95_s) for at, one in points],
            ("error ratio", "1"): [(at, one.errors / one.requests if one.requests else 0.0) for at, one in points],
            ("requests", "{request}"): [(at, float(one.requests)) for at, one in points],
        }
        for (name, unit), values in series.items():
            if name == "error ratio" and not any(value for _, value in values):
                continue
            told = [TimelinePoint(at=rfc3339(at), value=round(value, 6)) for at, value in values]
            lines.append(Timeline(name=name, entity=entity, unit=unit, points=told))
    return lines
