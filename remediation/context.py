"""What conditions see of an incident: plain values from a root-cause event, a playbook and the operators' facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from incidents.model import Candidate, GraphEdge, RootCauseData
from remediation.intents import BlastRadius
from remediation.playbook import Playbook
from remediation.policy import TargetFacts


@dataclass(frozen=True, slots=True)
class Situation:
    """One playbook considered for the top candidate of one incident revision."""

    playbook: Playbook
    event: RootCauseData
    candidate: Candidate
    margin: float  # confidence above the second candidate's, its own where there is no second
    target: Mapping[str, str]
    blast: BlastRadius

    def conditions(self) -> dict[str, Any]:
        """Values for ``policy.DECISION_SCOPE``."""
        change = self.candidate.change
        incident, impact = self.event.incident, self.event.impact
        spec = self.playbook.spec
        return {
            "playbook": {
                "id": self.playbook.name,
                "version": self.playbook.metadata.version,
                "tier": spec.risk.tier,
                "reversible": spec.risk.reversible,
                "labels": dict(self.playbook.metadata.labels),
            },
            "target": dict(self.target),
            "candidate": {
                "fault_kind": str(self.candidate.fault_kind),
                "confidence": self.candidate.confidence,
                "margin": self.margin,
                "score": self.candidate.score,
                "change": change.model_dump() if change else {"id": "", "type": "", "version": "", "at": ""},
            },
            "incident": {
                "id": incident.id,
                "revision": incident.revision,
                "state": str(incident.state),
                "severity": self.event.severity,
                "verdict": str(self.event.verdict),
                "novelty": self.event.novelty.label,
                "services": list(impact.services),
                "entry_points": list(impact.entry_points),
                "error_requests": impact.error_requests,
                "slow_requests": impact.slow_requests,
                "burn_rate": max((slo.burn_rate for slo in impact.slo), default=0.0),
                "resolutions": [item.resolution for item in self.event.novelty.similar if item.resolution],
            },
            "blast": blast_values(self.blast),
        }


def situation(playbook: Playbook, event: RootCauseData, facts: list[TargetFacts]) -> Situation:
    """Consider a playbook for the event's top candidate; the event must have one."""
    top = event.candidates[0]
    second = event.candidates[1].confidence if len(event.candidates) > 1 else 0.0
    target, instances = described(top.entity, facts)
    return Situation(
        playbook=playbook,
        event=event,
        candidate=top,
        margin=round(top.confidence - second, 9),
        target=target,
        blast=blast_radius(target, event.graph, instances),
    )


def described(entity: Mapping[str, str], facts: list[TargetFacts]) -> tuple[dict[str, str], int | None]:
    """An entity's attributes with what operators know added, and its number of instances if they say it.

    Operators' attributes stand above telemetry's, and matching looks at telemetry's own only; later entries win.
    """
    attributes, instances = dict(entity), None
    for fact in facts:
        if all(entity.get(key) == value for key, value in fact.match.items()):
            attributes.update(fact.attributes)
            instances = fact.instances if fact.instances is not None else instances
    return attributes, instances


def blast_radius(target: Mapping[str, str], graph: list[GraphEdge], instances: int | None) -> BlastRadius:
    """Who depends on a target, and which share of it would be acted on.

    Dependents are counted over the graph that the event carries, through any number of calls. Acting on a whole
    service touches all of it; on one instance, 1/n, or an unknown share where nobody says how many there are.
    """
    service = target.get("service.name", "")
    callers: dict[str, set[str]] = {}
    for edge in graph:
        callers.setdefault(edge.callee, set()).add(edge.caller)
    seen, frontier = {service}, [service]
    while frontier:
        new = callers.get(frontier.pop(), set()) - seen
        seen |= new
        frontier.extend(new)
    fraction: float | None = 1.0
    if target.get("service.instance.id"):
        fraction = 1.0 / instances if instances else None
    return BlastRadius(dependents=len(seen) - 1, instances=instances, fraction=fraction)


def blast_values(blast: BlastRadius) -> dict[str, Any]:
    """A blast radius for conditions: an unknown share counts as all of it, an unknown number as none known."""
    return {
        "dependents": blast.dependents,
        "instances": blast.instances or 0,
        "fraction": 1.0 if blast.fraction is None else blast.fraction,
    }


def target_key(target: Mapping[str, str]) -> str:
    """A target in one piece: ``environment/namespace/service`` and, below it, the instance.

    >>> target_key({"service.name": "payment", "deployment.environment.name": "prod"})
    'prod/-/payment'
    """
    parts = [target.get(key, "") or "-" for key in ("deployment.environment.name", "service.namespace", "service.name")]
    instance = target.get("service.instance.id", "")
    return "/".join([*parts, instance] if instance else parts)


def service_key(target: Mapping[str, str]) -> str:
    """The service a target belongs to: limits count per service, so that instances do not add up to it."""
    return target_key({key: value for key, value in target.items() if key != "service.instance.id"})
