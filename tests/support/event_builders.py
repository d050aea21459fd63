"""Builders of root-cause events and intents for tests: short to call, everything from fixed numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from incidents.model import (
    Calibration,
    Candidate,
    DataQuality,
    DetectorRef,
    Evidence,
    EvidenceRefs,
    GraphEdge,
    Impact,
    IncidentHeader,
    Novelty,
    Provenance,
    RootCauseData,
    RootCauseEvent,
    Timeline,
    TimelinePoint,
    rfc3339,
)

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
START = 1_788_256_800 * SECOND  # 2026-09-01T10:00:00Z
STEP = 10 * SECOND
ENVIRONMENT = "production"


def at(minutes: float) -> str:
    """Event time, in minutes since the start of the sample run."""
    return rfc3339(START + round(minutes * MINUTE))


def entity(service: str, instance: str = "") -> dict[str, str]:
    """OpenTelemetry attributes of a service of the sample shop."""
    named = {"deployment.environment.name": ENVIRONMENT, "service.namespace": "shop", "service.name": service}
    return named | ({"service.instance.id": instance} if instance else {})


def evidence(  # noqa: PLR0917 - a table of samples reads better by position
    number: int,
    service: str,
    name: str,
    observed: float,
    expected: tuple[float, float],
    statement: str,
    *,
    unit: str = "s",
    signal: Any = "span",
    direction: Any = "up",
    score: float = 0.999,
    window: tuple[float, float] = (11.0, 14.0),
    refs: EvidenceRefs | None = None,
    detector: str = "robust_bank",
    **attributes: str,
) -> Evidence:
    """One evidence about a service."""
    return Evidence(
        id=f"ev-{number}",
        signal=signal,
        name=name,
        attributes=entity(service) | attributes,
        window=(at(window[0]), at(window[1])),
        observed=observed,
        expected=expected,
        unit=unit,
        direction=direction,
        anomaly_score=score,
        detector=DetectorRef(name=detector, version="1"),
        refs=refs or EvidenceRefs(),
        statement=statement,
    )


def candidate(  # noqa: PLR0917 - a table of samples reads better by position
    rank: int, service: str, kind: Any, confidence: float, path: Sequence[str], reasons: Sequence[int], **extra: Any
) -> Candidate:
    """One ranked cause; ``reasons`` are numbers of evidence."""
    calibration = extra.pop("calibration", Calibration(method="isotonic", n=412, ece=0.04))
    return Candidate(
        rank=rank,
        entity=entity(service, extra.pop("instance", "")),
        fault_kind=kind,
        score=10.0 * confidence,
        confidence=confidence,
        calibration=calibration,
        path=list(path),
        evidence=[f"ev-{number}" for number in reasons],
        counter_evidence=[f"ev-{number}" for number in extra.pop("against", ())],
        **extra,
    )


def series(  # noqa: PLR0917 - a table of samples reads better by position
    name: str,
    service: str,
    base: float,
    peak: float,
    onset: float,
    end: float,
    *,
    unit: str = "s",
    span: tuple[float, float] = (4.0, 24.0),
) -> Timeline:
    """A signal with a gentle wave around ``base`` that climbs to ``peak`` between ``onset`` and ``end`` (minutes)."""
    points = []
    for index in range(round((span[1] - span[0]) * 6)):
        minute = span[0] + index / 6
        rise = min(1.0, max(0.0, (minute - onset) / 1.2)) if minute < end else max(0.0, 1.0 - (minute - end) / 1.5)
        wave = 1 + 0.12 * math.sin(index * 1.7) + 0.06 * math.sin(index * 0.61 + len(name))
        points.append(TimelinePoint(at=at(minute), value=(base + (peak - base) * rise) * wave))
    return Timeline(name=name, entity=entity(service), unit=unit, points=points)


def event(
    identity: str,
    revision: int,
    decided: float,
    *,
    title: str,
    candidates: Sequence[Candidate],
    evidences: Sequence[Evidence],
    impact: Impact,
    started: float,
    detected: float,
    seen: float,
    state: Any = "open",
    verdict: Any = "identified",
    severity: Any = "critical",
    ended: float | None = None,
    merged_into: str | None = None,
    novelty: Novelty | None = None,
    graph: Sequence[GraphEdge] = (),
    timelines: Sequence[Timeline] = (),
    quality: DataQuality | None = None,
) -> RootCauseEvent:
    """One revision, decided at ``decided`` minutes."""
    return RootCauseEvent(
        source="/mendstream/production",
        id=f"{identity}/r{revision}",
        subject=f"incident/{identity}",
        time=at(decided),
        partitionkey=identity,
        correlationid=identity,
        sequence=f"{revision:010d}",
        data=RootCauseData(
            incident=IncidentHeader(
                id=identity,
                revision=revision,
                state=state,
                fingerprint="b1946ac9",
                started_at=at(started),
                detected_at=at(detected),
                last_seen_at=at(seen),
                ended_at=None if ended is None else at(ended),
                merged_into=merged_into,
            ),
            title=title,
            severity=severity,
            verdict=verdict,
            candidates=list(candidates),
            evidence=list(evidences),
            impact=impact,
            novelty=novelty or Novelty(label="novel"),
            data_quality=quality or DataQuality(),
            graph=list(graph),
            timelines=list(timelines),
            provenance=Provenance(
                mode="replay", pipeline="0.1.0", config_hash="sha256:cc22", input_offsets={"otlp_spans/0": 10233}
            ),
        ),
    )


def shop_graph(path: Sequence[str], failing: float = 0.31) -> list[GraphEdge]:
    """Eighteen services of a shop and who calls whom; calls along ``path`` fail in part."""
    calls = {
        ("load-balancer", "frontend"): 9200,
        ("load-balancer", "mobile-gateway"): 4100,
        ("frontend", "catalog"): 7800,
        ("frontend", "cart"): 5200,
        ("frontend", "recommendation"): 5100,
        ("frontend", "currency"): 8800,
        ("frontend", "checkout"): 1900,
        ("frontend", "ads"): 4700,
        ("mobile-gateway", "catalog"): 3300,
        ("mobile-gateway", "checkout"): 700,
        ("recommendation", "catalog"): 5000,
        ("catalog", "postgres:catalog"): 9900,
        ("cart", "redis"): 10100,
        ("checkout", "cart"): 2500,
        ("checkout", "currency"): 2600,
        ("checkout", "payment"): 2450,
        ("checkout", "shipping"): 2500,
        ("checkout", "email"): 2100,
        ("checkout", "kafka:orders"): 2100,
        ("kafka:orders", "accounting"): 2100,
        ("kafka:orders", "fraud-detection"): 2100,
        ("payment", "ledger"): 2300,
        ("fraud-detection", "ledger"): 900,
        ("accounting", "postgres:accounts"): 2100,
    }
    pairs = set(pairwise(path))
    return [
        GraphEdge(
            caller=caller,
            callee=callee,
            requests=float(requests),
            errors=requests * failing if (caller, callee) in pairs else 0.0,
            on_path=(caller, callee) in pairs,
        )
        for (caller, callee), requests in calls.items()
    ]


def intent(incident: str = "inc-7f3a", revision: int = 3, **changes: Any) -> dict[str, Any]:
    """A remediation intent for an incident, as the topic carries it; ``changes`` replace parts of ``data``."""
    data: dict[str, Any] = {
        "idempotency_key": f"{incident}:rollback-deploy:shop/payment:1",
        "incident": {"id": incident, "revision": revision},
        "target": entity("payment") | {"k8s.deployment.name": "payment"},
        "playbook": {"id": "rollback-deploy", "version": "1.3.0", "digest": "sha256:ee44"},
        "params": {"to_version": "2.4.0"},
        "mode": "approve",
        "decision": {
            "policy": "prod-default",
            "policy_digest": "sha256:ff55",
            "rule": "tier1-rollback",
            "reasons": ["payment is critical, so a person must agree", "an upgrade came 19 s before onset"],
            "confidence": 0.82,
            "margin": 0.71,
            "trust": {"runs": 19, "successes": 18, "lower_bound": 0.74, "level": "approve"},
        },
        "risk": {
            "tier": "medium",
            "reversible": True,
            "undo": "roll-forward",
            "blast_radius": {"pods": 12, "fraction": 1.0, "dependents": 2},
        },
        "preconditions": [{"expr": "incident.state == 'open'"}, {"expr": "!freeze.active"}],
        "expected_effect": [{"metric": "error_ratio", "op": "lt", "value": 0.01, "within": "10m"}],
        "verify": {"interval": "60s", "count": 5},
        "approval": {"required": 1, "roles": ["sre-oncall"], "timeout": "15m", "on_timeout": "escalate"},
    }
    return {
        "specversion": "1.0",
        "type": "io.mendstream.remediation.intent.v1",
        "source": "/mendstream/production",
        "id": f"int-{incident}",
        "subject": "service/shop/payment",
        "time": at(16.1),
        "expirytime": at(26.1),
        "correlationid": incident,
        "causationid": f"{incident}/r{revision}",
        "data": data | changes,
    }


def wide_event(nodes: int = 40) -> RootCauseEvent:
    """An incident in the middle of a graph of ``nodes`` services with a few cycles, five layers deep."""
    names = [f"{word}-service-{index:02d}" for index in range(nodes) for word in ["svc" if index % 3 else "platform"]]
    edges = [
        GraphEdge(caller=names[(index - 1) // 3], callee=names[index], requests=10.0 * index + 5)
        for index in range(1, nodes)
    ]
    edges += [
        GraphEdge(
            caller=names[index],
            callee=names[(index * 7 + 5) % nodes],
            requests=40.0,
            errors=12.0 if index % 9 == 0 else 0.0,
        )
        for index in range(3, nodes, 3)
        if index != (index * 7 + 5) % nodes
    ]
    chain = [nodes - 1]
    while chain[-1]:
        chain.append((chain[-1] - 1) // 3)
    path = [names[index] for index in reversed(chain)]
    on_path = set(pairwise(path))
    edges = [
        edge.model_copy(update={"on_path": True, "errors": edge.requests * 0.4})
        if (edge.caller, edge.callee) in on_path
        else edge
        for edge in edges
    ]
    return event(
        "inc-wide",
        1,
        20.0,
        title="One small service makes half the platform wait",
        candidates=[candidate(1, path[-1], "latency", 0.9, path, (1,))],
        evidences=[
            evidence(1, path[-1], "exclusive time", 2.0, (0.1, 0.2), f"{path[-1]} works ten times as long as before")
        ],
        started=18,
        detected=19,
        seen=20,
        impact=Impact(services=path, entry_points=["GET /"], error_requests=50_000),
        graph=edges,
    )
