"""What a simulated system is: services, their operations, the calls between them and what users do.

Immutable descriptions only; ``simulator.world`` turns them into running instances. Durations are milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

Protocol = Literal["http", "grpc", "db", "messaging"]
Runtime = Literal["jvm", "go", "nodejs", "python", "native"]

#: One way over the local network, used where latency is estimated (the run draws it at random).
NETWORK_MS: Final = 0.25


@dataclass(frozen=True, slots=True)
class LogLine:
    """One statement in a program: ``{}`` parameters of ``simulator.templates``, OTLP severity, how often it runs."""

    severity: int
    template: str
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One operation asking another, of the same or another service; ``target`` may be a store or a broker."""

    target: str
    operation: str
    probability: float = 1.0
    timeout_ms: float = 1000.0
    retries: int = 0
    backoff_ms: float = 40.0  # doubled with each retry, with jitter
    swallow: bool = False  # a failure leads to a fallback and not to a failure of the caller


Step = tuple[Call, ...]  # called in parallel


@dataclass(frozen=True, slots=True)
class Operation:
    """What a service does when asked: own work, then step after step of calls, with own work between them."""

    name: str  # "GET /product/{id}", "Charge", "SELECT orders", a topic's name
    median_ms: float  # own work in all, lognormal, without what it waits for
    sigma: float = 0.35  # of the logarithm
    steps: tuple[Step, ...] = ()
    error_rate: float = 0.0002  # fails by itself, always
    not_found_rate: float = 0.0  # HTTP 404: no error of the server
    internal: str = ""  # name of an internal span around the last piece of own work
    logs: tuple[LogLine, ...] = ()
    consumers: tuple[tuple[str, str], ...] = ()  # of a broker's operation: (service, operation) that get each message
    continues_trace: bool = True  # of a consumer: parent is the producer span; else a trace of its own


@dataclass(frozen=True, slots=True)
class Service:
    """A service, a store or a broker; the last two emit no spans of their own."""

    name: str
    protocol: Protocol
    operations: tuple[Operation, ...]
    runtime: Runtime = "go"
    instances: int = 2
    workers: int = 32  # requests one instance handles at a time; the rest wait in its queue
    queue_limit: int = 256
    cpu_share: float = 0.6  # of own work that needs the processor; the rest waits (disk, locks)
    memory_mb: float = 180.0  # live set
    memory_limit_mb: float = 512.0
    system: str = ""  # db.system.name or messaging.system
    port: int = 8080
    correlated_logs: bool = True  # logs carry trace and span id
    span_covers_queue: bool = True  # server spans begin at arrival; else when a worker takes the request
    startup_s: float = 3.0

    @property
    def instrumented(self) -> bool:
        """Whether it emits spans."""
        return self.protocol in {"http", "grpc"}

    def operation(self, name: str) -> Operation:
        """The operation of that name; ``KeyError`` where there is none."""
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise KeyError(f"{self.name} has no operation {name!r}")


@dataclass(frozen=True, slots=True)
class Journey:
    """What one kind of user does: requests to the entry service, with time to think between them."""

    name: str
    weight: float
    requests: tuple[str, ...]  # operations of the entry service
    think_s: float = 3.0  # mean, exponential


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole system; ``check`` says whether all names resolve and calls have no cycle."""

    services: tuple[Service, ...]
    entry: str
    journeys: tuple[Journey, ...]
    _by_name: dict[str, Service] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_name.update({service.name: service for service in self.services})

    def service(self, name: str) -> Service:
        """The service of that name; ``KeyError`` where there is none."""
        return self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        """All services, stores and brokers."""
        return tuple(self._by_name)

    def edges(self) -> list[tuple[str, str]]:
        """Caller and callee of every call that can occur, sorted; a broker stands between producer and consumer."""
        pairs: set[tuple[str, str]] = set()
        for service in self.services:
            for operation in service.operations:
                pairs.update((service.name, call.target) for step in operation.steps for call in step)
                pairs.update((service.name, consumer) for consumer, _ in operation.consumers)
        return sorted(pairs)

    def order(self) -> list[tuple[str, str]]:
        """Every reachable (service, operation), callers before callees; ``ValueError`` where calls go in a circle."""
        done: dict[tuple[str, str], None] = {}
        open_path: list[tuple[str, str]] = []

        def walk(key: tuple[str, str]) -> None:
            if key in done:
                return
            if key in open_path:
                raise ValueError(f"calls go in a circle: {' -> '.join('.'.join(k) for k in (*open_path, key))}")
            open_path.append(key)
            for callee, _ in self._below(key):
                walk(callee)
            open_path.pop()
            done[key] = None

        for journey in self.journeys:
            for request in journey.requests:
                walk((self.entry, request))
        return list(reversed(done))

    def _below(self, key: tuple[str, str]) -> list[tuple[tuple[str, str], float]]:
        operation = self.service(key[0]).operation(key[1])
        calls = [((c.target, c.operation), c.probability) for step in operation.steps for c in step]
        return calls + [(consumer, 1.0) for consumer in operation.consumers]

    def visits(self) -> dict[tuple[str, str], float]:
        """Expected calls of each (service, operation) per user request, without retries."""
        expected = dict.fromkeys(self.order(), 0.0)
        total = sum(journey.weight * len(journey.requests) for journey in self.journeys)
        for journey in self.journeys:
            for request in journey.requests:
                expected[self.entry, request] += journey.weight / total
        for key in expected:
            for callee, probability in self._below(key):
                expected[callee] += expected[key] * probability
        return expected

    def expected_ms(self) -> dict[tuple[str, str], float]:
        """Rough mean duration of each operation on an idle system: own work plus the slowest call of each step."""
        total: dict[tuple[str, str], float] = {}
        for key in reversed(self.order()):
            operation = self.service(key[0]).operation(key[1])
            total[key] = mean_ms(operation) + sum(
                max(c.probability * (total[c.target, c.operation] + 2 * NETWORK_MS) for c in step)
                for step in operation.steps
            )
        return total


def mean_ms(operation: Operation) -> float:
    """Mean own work of an operation: that of the lognormal distribution.

    >>> round(mean_ms(Operation("x", median_ms=10.0, sigma=0.5)), 2)
    11.33
    """
    return operation.median_ms * math.exp(operation.sigma**2 / 2)
