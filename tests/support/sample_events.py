"""Root-cause events and intents made up for tests and for looking at: three incidents of different kinds.

Everything is computed from fixed numbers, so a test may compare texts. Not a model of any real system.
"""

from __future__ import annotations

from typing import Any

from incidents.model import (
    Calibration,
    ChangeRef,
    DataQuality,
    EvidenceRefs,
    GraphEdge,
    Impact,
    KafkaRef,
    Novelty,
    RootCauseEvent,
    SimilarIncident,
    SloImpact,
)
from incidents.report_view import RunSummary
from tests.support.event_builders import (
    MINUTE,
    START,
    at,
    candidate,
    entity,
    event,
    evidence,
    intent,
    series,
    shop_graph,
)


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
    change = ChangeRef(id="dep-1208", type="dev.cdevents.service.upgraded.0.3.0", version="2.4.1", at=at(11 - 19 / 60))
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
