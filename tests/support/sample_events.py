"""Root-cause events and intents made up for tests and for looking at: three incidents of different kinds, and worse.

Everything is computed from fixed numbers, so a test may compare texts. Not a model of any real system.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from incidents.model import (
    Calibration,
    Candidate,
    ChangeRef,
    DataQuality,
    DetectorRef,
    Evidence,
    EvidenceRefs,
    GraphEdge,
    Impact,
    IncidentHeader,
    KafkaRef,
    Novelty,
    Provenance,
    RootCauseData,
    RootCauseEvent,
    SimilarIncident,
    SloImpact,
    Timeline,
    TimelinePoint,
    rfc3339,
)
from incidents.report_view import RunSummary

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


def evidence(
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


def candidate(
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


def series(
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
    pairs = set(zip(path, path[1:], strict=False))
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


def deploy_incident() -> list[RootCauseEvent]:
    """A bad deploy of payment: two revisions that first doubt, then know."""
    path = ["load-balancer", "frontend", "checkout", "payment"]
    refs = EvidenceRefs(
        kafka=[KafkaRef(topic="otlp_spans", partition=4, offsets=(88120, 88164))],
        trace_ids=["5b8efff798038103d269b633813fc60c", "0af7651916cd43dd8448eb211c80319c"],
    )
    log_refs = EvidenceRefs(
        log_template="charge failed: <*> token expired for merchant <*>",
        log_example="charge failed: card token expired for merchant 7741",
        trace_ids=["5b8efff798038103d269b633813fc60c"],
    )
    evidences = [
        evidence(
            1,
            "payment",
            "error ratio",
            0.31,
            (0.0, 0.004),
            "31 % of payment's own requests fail; the errors begin there",
            unit="1",
            refs=refs,
        ),
        evidence(
            2,
            "payment",
            "charge failed: <*> token expired for merchant <*>",
            41.0,
            (0.0, 0.0),
            "payment writes an error line that was never seen before",
            unit="{line}/min",
            signal="log",
            direction="new",
            refs=log_refs,
            detector="drain",
        ),
        evidence(
            3,
            "payment",
            "service.upgraded",
            1.0,
            (0.0, 0.0),
            "payment was upgraded to 2.4.1 nineteen seconds before onset",
            unit="{change}",
            signal="change",
            direction="new",
            score=0.97,
        ),
        evidence(
            4,
            "checkout",
            "error ratio",
            0.29,
            (0.0, 0.01),
            "checkout fails as often as its calls to payment do: it hands on what it gets",
            unit="1",
        ),
        evidence(
            5,
            "payment",
            "process.cpu.utilization",
            0.34,
            (0.2, 0.4),
            "payment's CPU is as busy as always, so it is not starved",
            unit="1",
            signal="metric",
            score=0.31,
        ),
        evidence(
            6,
            "frontend",
            "server latency p95",
            0.61,
            (0.12, 0.25),
            "frontend answers slower, but only on requests that reach checkout",
            score=0.98,
        ),
    ]
    change = ChangeRef(id="dep-1208", type="dev.cdevents.service.upgraded.0.3.0", version="2.4.1", at=at(10.7))
    payment = candidate(1, "payment", "change", 0.82, path, (1, 2, 3, 4), against=(5,), change=change)
    common: dict[str, Any] = {
        "title": "Checkout fails for 3 in 10 buyers since payment 2.4.1",
        "evidences": evidences,
        "started": 11.0,
        "detected": 12.1,
        "novelty": Novelty(
            label="rare", similar=[SimilarIncident(incident="inc-51d0", similarity=0.77, resolution="rollback")]
        ),
        "graph": shop_graph(path),
        "timelines": [
            series("error ratio", "payment", 0.002, 0.31, 11, 22, unit="1"),
            series(
                "charge failed: <*> token expired for merchant <*>", "payment", 0.0, 41.0, 11, 22, unit="{line}/min"
            ),
            series("error ratio", "checkout", 0.004, 0.29, 11, 22, unit="1"),
            series("server latency p95", "frontend", 0.18, 0.61, 11.2, 22),
            series("process.cpu.utilization", "payment", 0.31, 0.34, 11, 22, unit="1"),
        ],
    }
    small = Impact(services=["checkout", "payment"], entry_points=["POST /cart/checkout"], error_requests=210)
    large = Impact(
        services=["frontend", "checkout", "payment", "mobile-gateway"],
        entry_points=["POST /cart/checkout", "POST /api/v2/orders"],
        slo=[SloImpact(name="checkout-availability", burn_rate=26.0)],
        error_requests=1841,
        slow_requests=402,
    )
    doubting = [
        candidate(1, "checkout", "error", 0.48, path[:-1], (4,)),
        candidate(2, "payment", "error", 0.41, path, (1,), against=(5,)),
    ]
    known = [
        payment,
        candidate(2, "checkout", "error", 0.11, path[:-1], (4,), against=(1,)),
        candidate(3, "ledger", "unavailable", 0.03, [*path, "ledger"], ()),
    ]
    return [
        event("inc-7f3a", 1, 12.1, candidates=doubting, impact=small, verdict="ambiguous", seen=12.0, **common),
        event("inc-7f3a", 2, 13.3, candidates=known, impact=small, state="updated", seen=13.2, **common),
        event("inc-7f3a", 3, 16.0, candidates=known, impact=large, state="updated", seen=15.8, **common),
    ]


def cache_incident() -> list[RootCauseEvent]:
    """A cache that runs full: the store is not instrumented, the answer ambiguous and the confidence only a prior."""
    path = ["load-balancer", "frontend", "cart", "redis"]
    prior = Calibration(method="prior", n=0)
    evidences = [
        evidence(
            1,
            "redis",
            "redis.memory.used",
            3.9e9,
            (1.1e9, 2.2e9),
            "redis holds 3.9 GB, close to its limit of 4 GB",
            unit="By",
            signal="metric",
            window=(26, 31),
        ),
        evidence(
            2,
            "cart",
            "edge gap",
            0.44,
            (0.001, 0.006),
            "cart waits 440 ms for redis, of which nothing is its own work",
            signal="edge",
            window=(26, 31),
            caller="cart",
            callee="redis",
        ),
        evidence(3, "cart", "server latency p95", 0.52, (0.02, 0.06), "cart answers slowly", window=(26, 31)),
        evidence(
            4,
            "cart",
            "exclusive time",
            0.004,
            (0.002, 0.006),
            "cart's own work takes as long as always",
            score=0.2,
            window=(26, 31),
        ),
        evidence(
            5,
            "redis",
            "redis.keys.evicted",
            0.0,
            (0.0, 3.0),
            "redis evicts no keys, which a full store would do",
            unit="{key}/s",
            signal="metric",
            score=0.1,
            window=(26, 31),
        ),
    ]
    candidates = [
        candidate(1, "redis", "saturation", 0.46, path, (1, 2), against=(5,), calibration=prior, instance="redis-0"),
        candidate(2, "cart", "network", 0.38, path[:-1], (2, 3), against=(4,), calibration=prior),
        candidate(3, "frontend", "load", 0.06, path[:-2], (), calibration=prior),
    ]
    graph = shop_graph(path, failing=0.02)
    common: dict[str, Any] = {
        "title": "Cart is slow: its store does not answer in time",
        "candidates": candidates,
        "evidences": evidences,
        "severity": "major",
        "verdict": "ambiguous",
        "started": 26.2,
        "detected": 27.0,
        "impact": Impact(
            services=["cart", "frontend", "checkout"], entry_points=["GET /cart"], error_requests=38, slow_requests=2210
        ),
        "graph": graph,
        "quality": DataQuality(missing_signals=["spans:redis", "logs:redis"], graph_age_s=41, late_dropped=3),
        "timelines": [
            series("redis.memory.used", "redis", 1.7e9, 3.9e9, 25.0, 33, unit="By", span=(18, 36)),
            series("edge gap", "cart", 0.004, 0.44, 26.2, 33, span=(18, 36)),
            series("server latency p95", "cart", 0.04, 0.52, 26.2, 33, span=(18, 36)),
        ],
    }
    return [
        event("inc-91c2", 1, 27.0, seen=26.9, **common),
        event("inc-91c2", 2, 33.8, state="resolved", seen=33.0, ended=33.7, **common),
    ]


def unknown_incident() -> list[RootCauseEvent]:
    """Something is wrong and nothing explains it: long names, no cause."""
    service = "customer-notification-preference-aggregation-service"
    evidences = [
        evidence(
            1,
            service,
            "calls com.example.notification.preference.v1.PreferenceService/ListPreferencesForCustomer",
            2.1,
            (14.0, 22.0),
            "calls to ListPreferencesForCustomer have dropped to a tenth",
            unit="{request}/s",
            direction="down",
            score=0.991,
            window=(38, 40),
        ),
    ]
    return [
        event(
            "inc-b7",
            1,
            40.0,
            title="Far fewer calls reach the notification preferences; no cause stands out",
            candidates=[],
            evidences=evidences,
            severity="minor",
            verdict="unknown",
            started=38.5,
            detected=40.0,
            seen=39.9,
            impact=Impact(services=[service]),
            graph=[
                GraphEdge(caller="mobile-gateway", callee=service, requests=130.0),
                GraphEdge(caller=service, callee="postgres:preferences.internal.example.com:5432", requests=120.0),
            ],
            timelines=[
                series(evidences[0].name, service, 18.0, 2.1, 38.5, 60, unit="{request}/s", span=(30, 41)),
            ],
        )
    ]


def merged_incident() -> list[RootCauseEvent]:
    """An incident that turned out to be part of the deploy's."""
    return [
        event(
            "inc-7f3b",
            1,
            12.4,
            title="Mobile orders fail",
            candidates=[],
            evidences=[],
            verdict="unknown",
            severity="major",
            started=11.3,
            detected=12.4,
            seen=12.3,
            impact=Impact(services=["mobile-gateway"]),
        ),
        event(
            "inc-7f3b",
            2,
            12.9,
            title="Mobile orders fail",
            candidates=[],
            evidences=[],
            verdict="unknown",
            severity="major",
            state="merged",
            merged_into="inc-7f3a",
            started=11.3,
            detected=12.4,
            seen=12.8,
            impact=Impact(services=["mobile-gateway"]),
        ),
    ]


def sample_events() -> list[RootCauseEvent]:
    """All revisions of all sample incidents, in the order a pipeline would emit them."""
    everything = [*deploy_incident(), *cache_incident(), *unknown_incident(), *merged_incident()]
    return sorted(everything, key=lambda one: (one.time, one.id))


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


def sample_intents() -> list[dict[str, Any]]:
    """What would be done about the sample incidents."""
    shadow = intent(
        "inc-91c2",
        2,
        playbook={"id": "scale-memory", "version": "0.2.0"},
        target=entity("redis", "redis-0"),
        params={"limit": "6Gi"},
        mode="shadow",
        decision={
            "rule": "default",
            "reasons": ["two causes fit about equally well (margin 0.08 is below 0.2)"],
            "confidence": 0.46,
        },
        risk={"tier": "low", "reversible": True, "blast_radius": {"pods": 1, "fraction": 1.0}},
        approval=None,
    )
    return [intent(), shadow]


def sample_summary(**changes: Any) -> RunSummary:
    """The summary of a 45-minute replay."""
    facts: dict[str, Any] = {
        "name": "shop-nightly",
        "mode": "replay",
        "start_ns": START,
        "end_ns": START + 45 * MINUTE,
        "rows": {"spans": 881_204, "logs": 352_118, "metrics": 40_922, "changes": 3},
        "duration_s": 7.4,
        "late": 3,
        "dead_lettered": 0,
        "services": 18,
        "edges": 24,
    }
    return RunSummary(**(facts | changes))


def wide_event(nodes: int = 40) -> RootCauseEvent:
    """An incident in the middle of a graph of ``nodes`` services with a few cycles, five layers deep."""
    names = [f"{word}-service-{index:02d}" for index in range(nodes) for word in ["svc" if index % 3 else "platform"]]
    edges = [GraphEdge(caller=names[(index - 1) // 3], callee=names[index], requests=10.0 * index + 5) for index in range(1, nodes)]
    edges += [
        GraphEdge(caller=names[index], callee=names[(index * 7 + 5) % nodes], requests=40.0, errors=12.0 if index % 9 == 0 else 0.0)
        for index in range(3, nodes, 3)
        if index != (index * 7 + 5) % nodes
    ]
    chain = [nodes - 1]
    while chain[-1]:
        chain.append((chain[-1] - 1) // 3)
    path = [names[index] for index in reversed(chain)]
    on_path = set(zip(path, path[1:], strict=False))
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
        evidences=[evidence(1, path[-1], "exclusive time", 2.0, (0.1, 0.2), f"{path[-1]} works ten times as long as before")],
        started=18,
        detected=19,
        seen=20,
        impact=Impact(services=path, entry_points=["GET /"], error_requests=50_000),
        graph=edges,
    )


#: Text as an attacker, or only an unlucky log line, may put into a name, a body or a statement.
HOSTILE = (
    "<script>document.title='PWNED'</script>",
    "\"><img src=x onerror=\"document.title='PWNED'\">",
    "</style><svg/onload=document.title='PWNED'>",
    "{{ 7*7 }}{% raw %}${7*7}<%= 7*7 %>",
    "]]>--><iframe srcdoc='x'></iframe>",
    "\x1b[31mred\x1b]0;PWNED\x07\x9b2J\x00\u202egnp.exe\u2028\ud800",
    "[bold red]markup[/bold red] [link=https://evil.example]x[/link] [/]",
)


def hostile_events() -> list[RootCauseEvent]:
    """An incident whose every free text is hostile."""
    text = " ".join(HOSTILE)
    refs = EvidenceRefs(
        kafka=[KafkaRef(topic=text, partition=0, offsets=(0, 1))],
        trace_ids=[text],
        log_template=text,
        log_example=text,
        url="javascript:document.title='PWNED'",
    )
    evidences = [evidence(1, text, text, 1.0, (0.0, 0.1), text, unit=text, refs=refs, detector=text, extra=text)]
    change = ChangeRef(id=text, type=text, version=text, at=at(10))
    edges = [
        GraphEdge(caller=name, callee=other, requests=5.0, errors=1.0, on_path=True)
        for name, other in zip(HOSTILE, HOSTILE[1:], strict=False)
    ]
    return [
        event(
            HOSTILE[0],
            1,
            12.0,
            title=text,
            candidates=[candidate(1, HOSTILE[-1], "error", 0.5, HOSTILE, (1,), against=(1,), change=change, instance=text)],
            evidences=evidences,
            started=11,
            detected=12,
            seen=12,
            impact=Impact(
                services=list(HOSTILE), entry_points=list(HOSTILE), slo=[SloImpact(name=text, burn_rate=1.0)]
            ),
            novelty=Novelty(label="known", similar=[SimilarIncident(incident=text, similarity=1.0, resolution=text)]),
            graph=edges,
            timelines=[
                Timeline(
                    name=text,
                    entity=entity(text),
                    unit=text,
                    points=[TimelinePoint(at=at(minute), value=float(minute)) for minute in range(5, 12)],
                )
            ],
            quality=DataQuality(missing_signals=[text]),
        )
    ]


def hostile_intent() -> dict[str, Any]:
    """An intent whose every text is hostile, for the hostile incident."""
    text = " ".join(HOSTILE)
    return intent(
        HOSTILE[0],
        1,
        target={"service.name": text},
        playbook={"id": text, "version": text},
        params={text: text, "list": [text]},
        mode=text,
        decision={"rule": text, "reasons": [text], "policy": text, "confidence": text, "trust": text},
        risk={"tier": text, "undo": text, "blast_radius": {text: text}},
        preconditions=[{"expr": text}],
        expected_effect=[{"metric": text, "op": text, "value": text, "within": text}],
        approval={"roles": [text], "required": text},
    )
