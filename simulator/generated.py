"""A generated system: layers of services with calls only downwards, seeded, of any size.

Every service is reachable, and the mean number of calls per user request is bounded whatever the size, as it is in
large systems: most services serve few of the requests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from simulator.model import Call, Journey, LogLine, Operation, Protocol, Runtime, Service, Step, Topology

#: Expected calls per user request; an edge used by fewer than LEAST of the requests is raised to that share.
CALLS_PER_REQUEST: Final = 14.0
_LAYERS: Final = 6
_NOUNS: Final = (
    "account", "address", "audit", "basket", "billing", "booking", "campaign", "claim", "contract", "coupon", "credit",
    "customer", "delivery", "device", "document", "event", "feed", "forecast", "geo", "image", "invoice", "ledger",
    "loyalty", "media", "menu", "offer", "partner", "payout", "policy", "profile", "quote", "rating", "refund",
    "report", "review", "risk", "route", "schedule", "session", "stock", "tariff", "tax", "ticket", "vendor",
    "voucher", "wallet",
)  # fmt: skip
_ROLES: Final = ("api", "core", "manager", "engine", "store", "sync", "index", "gate")
_STORES: Final = (("postgresql", 5432, "SELECT"), ("redis", 6379, "GET"), ("mongodb", 27017, "find"))
_RUNTIMES: Final[tuple[Runtime, ...]] = ("jvm", "go", "nodejs", "python")


def generate(services: int, seed: int) -> Topology:
    """A layered graph of ``services`` instrumented services and about one store per eight of them.

    >>> topology = generate(40, seed=3)
    >>> sum(s.instrumented for s in topology.services), topology == generate(40, seed=3)
    (40, True)
    """
    rng = np.random.default_rng([seed, services])
    names = _names(services, rng)
    layers = _layers(names, rng)
    stores = [_store(index, *_STORES[index % len(_STORES)]) for index in range(max(1, services // 8))]
    calls = _edges(layers, rng)
    built = [_entry(layers[0][0], calls[layers[0][0]])]
    for depth, layer in enumerate(layers[1:], start=1):
        for name in layer:
            store = stores[int(rng.integers(len(stores)))] if rng.random() < 0.25 + 0.08 * depth else None
            built.append(_service(name, calls[name], store, rng))
    requests = tuple(operation.name for operation in built[0].operations)
    journeys = tuple(Journey(f"journey {i}", 1.0, (request,)) for i, request in enumerate(requests))
    return _thinned(Topology((*built, *stores), built[0].name, journeys))


def _names(count: int, rng: np.random.Generator) -> list[str]:
    pool = [f"{noun}-{role}" for noun in _NOUNS for role in _ROLES]
    order = rng.permutation(len(pool))
    return ["edge"] + [
        pool[order[i % len(pool)]] + (f"-{i // len(pool)}" if i >= len(pool) else "") for i in range(count - 1)
    ]


def _layers(names: list[str], rng: np.random.Generator) -> list[list[str]]:
    """The entry alone on top; the widest layers in the middle."""
    rest = names[1:]
    depth = min(_LAYERS, len(rest))
    shares = np.array([0.10, 0.22, 0.28, 0.24, 0.16, 0.10])[:depth]
    sizes = np.maximum(1, np.floor(shares / shares.sum() * len(rest))).astype(int)
    sizes[int(rng.integers(depth))] += len(rest) - int(sizes.sum())
    cuts = np.concatenate([[0], np.cumsum(sizes)])
    return [names[:1]] + [rest[cuts[i] : cuts[i + 1]] for i in range(depth) if cuts[i] < cuts[i + 1]]


def _edges(layers: list[list[str]], rng: np.random.Generator) -> dict[str, list[str]]:
    """Each service has a caller in the layer above, and some have more callers one or two layers up."""
    calls: dict[str, list[str]] = {name: [] for layer in layers for name in layer}
    for depth in range(1, len(layers)):
        above = layers[depth - 1]
        for name in layers[depth]:
            calls[above[int(rng.integers(len(above)))]].append(name)
            for _ in range(int(rng.poisson(0.5)) if depth > 1 else 0):
                upper = layers[max(1, depth - 1 - int(rng.integers(2)))]
                caller = upper[int(rng.integers(len(upper)))]
                if name not in calls[caller]:
                    calls[caller].append(name)
    return calls


def _store(index: int, system: str, port: int, verb: str) -> Service:
    operation = Operation(f"{verb} data", 0.4 if system == "redis" else 2.2, 0.5, error_rate=0.00005)
    limit = 1024.0
    return Service(
        f"{system}-{index}", "db", (operation,), "native", 1, 64, 1000, 0.6, 400, limit, system, port, startup_s=5
    )


def _entry(name: str, callees: list[str]) -> Service:
    """One page per service right below, so that every branch of the graph has its users."""
    operations = tuple(
        Operation(
            f"GET /{callee}/{{id}}",
            1.5,
            steps=((Call(callee, "Get", timeout_ms=6000),),),
            logs=(LogLine(9, '{ip} "GET" {dur}ms rid={uuid}', 0.5),),
        )
        for callee in callees
    )
    return Service(name, "http", operations, "native", 3, 512, cpu_share=0.8, memory_mb=90, port=8443)


def _service(name: str, callees: list[str], store: Service | None, rng: np.random.Generator) -> Service:
    steps: list[Step] = []
    pending = [
        Call(
            callee,
            "Get",
            probability=float(rng.uniform(0.3, 1.0)),
            timeout_ms=float(rng.choice([1000.0, 2000.0, 3000.0])),
            retries=int(rng.random() < 0.4),
            swallow=bool(rng.random() < 0.3),
        )
        for callee in callees
    ]
    while pending:
        width = min(len(pending), 1 + int(rng.poisson(0.6)))
        steps.append(tuple(pending[:width]))
        pending = pending[width:]
    if store is not None:
        steps.append((Call(store.name, store.operations[0].name, timeout_ms=800.0),))
    noun = name.split("-", maxsplit=1)[0]
    operation = Operation(
        "Get",
        float(rng.lognormal(1.2, 0.7)),
        float(rng.uniform(0.25, 0.55)),
        tuple(steps),
        internal="transform" if rng.random() < 0.15 else "",
        logs=(LogLine(9, f"{noun} {{id}} handled in {{dur}} ms", float(rng.uniform(0.1, 0.6))),),
    )
    protocol: Protocol = "http" if rng.random() < 0.35 else "grpc"
    return Service(
        name,
        protocol,
        (operation,),
        _RUNTIMES[int(rng.integers(len(_RUNTIMES)))],
        int(rng.integers(1, 4)),
        int(rng.choice([12, 24, 64])),
        memory_mb=float(rng.uniform(60, 320)),
        correlated_logs=bool(rng.random() < 0.85),
        span_covers_queue=bool(rng.random() < 0.6),
    )


def _thinned(topology: Topology) -> Topology:
    """Scale call probabilities below the second layer down until a request causes CALLS_PER_REQUEST calls at most."""
    for _ in range(12):
        visits = topology.visits()
        total = sum(visits.values())
        if total <= CALLS_PER_REQUEST:
            break
        factor = max(0.5, (CALLS_PER_REQUEST / total) ** 0.5)
        topology = Topology(
            tuple(
                service if service.name == topology.entry else _scaled(service, factor) for service in topology.services
            ),
            topology.entry,
            topology.journeys,
        )
    return topology


def _scaled(service: Service, factor: float) -> Service:
    operations = tuple(
        replace(
            operation,
            steps=tuple(
                tuple(replace(call, probability=max(0.02, call.probability * factor)) for call in step)
                for step in operation.steps
            ),
        )
        for operation in service.operations
    )
    return replace(service, operations=operations)
