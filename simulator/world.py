"""The running system: instances with queues and processors, operations with compiled call plans, edges.

Mutable state of one simulation: ``simulator.build`` makes it, ``simulator.engine`` moves it, ``simulator.effects``
breaks it. Times are nanoseconds after the start of the simulation, as floats.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from simulator.model import Operation, Service, Topology
from simulator.shapes import ShapeTable
from simulator.templates import TemplateTable

MS: Final = 1e6
SECOND: Final = 1e9
#: A processor quota is enforced over this period: within it, work may run at full speed.
QUOTA_PERIOD_NS: Final = 100 * MS


class Edge:
    """The way from one service to another."""

    __slots__ = ("callee", "caller", "extra_ns", "loss")

    def __init__(self, caller: str, callee: str) -> None:
        self.caller = caller
        self.callee = callee
        self.extra_ns = 0.0  # median added to each direction
        self.loss = 0.0  # share of requests that never arrive


class CallPlan:
    """A ``Call``, compiled."""

    __slots__ = (
        "backoff_ns", "edge", "failed_log", "fallback_log", "is_store", "operation", "pool", "probability", "retries",
        "shape", "swallow", "timeout_ns",
    )  # fmt: skip

    def __init__(self, operation: OperationPlan, pool: Pool, edge: Edge, shape: int) -> None:
        self.operation = operation
        self.pool = pool
        self.edge = edge
        self.shape = shape
        self.is_store = not pool.service.instrumented
        self.probability = 1.0
        self.timeout_ns = SECOND
        self.retries = 0
        self.backoff_ns = 40 * MS
        self.swallow = False
        self.failed_log = 0
        self.fallback_log = 0


class OperationPlan:
    """An ``Operation``, compiled; faults may swap ``plan``, ``mu``, ``logs`` and ``error_rate``."""

    __slots__ = (
        "consumers", "continues_trace", "cpu_share", "error_log", "error_rate", "expected_ns", "internal_shape", "logs",
        "mu", "not_found_rate", "operation", "plan", "pool", "shape", "sigma", "slow_log",
    )  # fmt: skip

    def __init__(self, operation: Operation, pool: Pool) -> None:
        self.operation = operation
        self.pool = pool
        self.sigma = operation.sigma
        self.mu = math.log(operation.median_ms * MS / (len(operation.steps) + 1))
        self.cpu_share = pool.service.cpu_share
        self.plan: tuple[tuple[CallPlan, ...], ...] = ()
        self.error_rate = operation.error_rate
        self.not_found_rate = operation.not_found_rate
        self.shape = -1  # -1: emits no server span
        self.internal_shape = -1
        self.logs: tuple[tuple[float, int], ...] = ()  # probability, template
        self.error_log = -1
        self.slow_log = -1
        self.expected_ns = 0.0
        self.consumers: tuple[tuple[OperationPlan, int], ...] = ()  # operation, shape of its consumer span
        self.continues_trace = operation.continues_trace


class Pool:
    """All instances of a service, and the load balancer in front of them."""

    __slots__ = ("instances", "operations", "ready", "service", "turn", "version")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.instances: list[Instance] = []
        self.ready: list[Instance] = []
        self.operations: dict[str, OperationPlan] = {}
        self.turn = 0
        self.version = "1.4.0"

    def pick(self) -> Instance:
        """Round robin over what the balancer believes to be up; one that refuses, where it knows of none."""
        choices = self.ready or self.instances
        self.turn = turn = (self.turn + 1) % len(choices)
        return choices[turn]


class Instance:
    """One process: a worker pool with a queue, a processor quota, and counters since the last metric point."""

    __slots__ = (
        "active", "allocated_mb", "blackhole", "covers_queue", "cpu_ns", "credit_ns", "entity", "error_log",
        "error_rate", "errors",
        "extra_mu", "extra_sigma", "gc_count", "host", "index", "latencies", "leak_mb", "name", "pool", "pool_used",
        "queue", "queue_limit", "quota", "quota_factor", "refusing", "requests", "restarts", "sampled_ns", "skew_ns",
        "started_ns",
        "total_counts", "total_cpu_ns", "total_gc", "total_gc_s", "total_rx", "total_seconds", "total_tx", "version_id",
        "virtual_ns", "workers",
    )  # fmt: skip

    def __init__(self, pool: Pool, index: int, name: str, host: int, skew_ns: float) -> None:
        service = pool.service
        self.pool = pool
        self.index = index
        self.name = name
        self.host = host
        self.skew_ns = skew_ns
        self.entity = -1  # number in the recorder's table, given when first seen there
        self.version_id = 0  # number of its version in the recorder
        self.workers = service.workers
        self.queue_limit = service.queue_limit
        self.covers_queue = service.span_covers_queue
        self.active: dict[Request, None] = {}  # in order of admission
        self.queue: deque[Request] = deque()
        self.quota = 1.0  # cores
        self.quota_factor = 1.0  # faults: share of the quota that is left
        self.credit_ns = QUOTA_PERIOD_NS  # unused quota that may be used at once, as time
        self.virtual_ns = -math.inf  # when the processor will have done all it has been given
        self.extra_mu = 0.0  # faults: log of the added latency, nanoseconds; 0 for none
        self.extra_sigma = 0.35
        self.error_rate = 0.0  # faults
        self.error_log = -1  # faults: template of the failure's log line
        self.refusing = False
        self.blackhole = False
        self.leak_mb = 0.0
        self.pool_used = 0  # connections to stores in use
        self.allocated_mb = 0.0
        self.gc_count = 0
        self.cpu_ns = 0.0
        self.requests = 0
        self.errors = 0
        self.latencies: list[float] = []
        self.restarts = 0
        self.started_ns = 0.0
        self.sampled_ns = 0.0  # of its last metric point
        self.total_cpu_ns = 0.0  # totals since the process started: cumulative counters
        self.total_rx = 0.0
        self.total_tx = 0.0
        self.total_gc = 0
        self.total_gc_s = 0.0
        self.total_seconds = 0.0  # of served requests; of stores the number of requests
        self.total_counts: list[int] = []  # buckets of the duration histogram

    def reset(self, now: float) -> None:
        """Forget what a process forgets when it starts anew."""
        self.active.clear()
        self.queue.clear()
        self.virtual_ns = now
        self.leak_mb = self.allocated_mb = self.cpu_ns = 0.0
        self.gc_count = self.requests = self.errors = self.pool_used = 0
        self.latencies.clear()
        self.started_ns = self.sampled_ns = now
        self.total_cpu_ns = self.total_rx = self.total_tx = self.total_gc_s = self.total_seconds = 0.0
        self.total_gc = 0
        self.total_counts.clear()


class Request:
    """An operation being carried out by an instance."""

    __slots__ = (
        "arrived_ns", "attempt", "cause", "dead", "instance", "operation", "outcome", "parameter", "parent_id",
        "pending", "plan", "shape", "span_id", "started_ns", "step", "trace_hi", "trace_lo", "waits", "work_ns",
    )  # fmt: skip

    def __init__(
        self,
        operation: OperationPlan,
        instance: Instance,
        attempt: Attempt | None,
        *,
        trace: tuple[int, int],
        parent_id: int,
        span_id: int,
        parameter: int,
    ) -> None:
        self.operation = operation
        self.instance = instance
        self.attempt = attempt
        self.trace_hi, self.trace_lo = trace
        self.parent_id = parent_id
        self.span_id = span_id
        self.parameter = parameter
        self.shape = operation.shape
        self.plan = operation.plan
        self.step = 0
        self.pending = 0
        self.outcome = 0
        self.cause = -1  # template of the log line that explains the outcome
        self.dead = False
        self.arrived_ns = 0.0
        self.started_ns = 0.0
        self.work_ns = 0.0  # begin of the piece of own work under way
        self.waits: list[Attempt] = []


class Attempt:
    """One try of one call, as the caller sees it."""

    __slots__ = ("call", "deadline_ns", "done", "outcome", "request", "span_id", "started_ns", "tries")

    def __init__(self, request: Request, call: CallPlan, tries: int, span_id: int, started_ns: float) -> None:
        self.request = request
        self.call = call
        self.tries = tries
        self.span_id = span_id
        self.started_ns = started_ns
        self.deadline_ns = started_ns + call.timeout_ns
        self.done = False
        self.outcome = 0


@dataclass(slots=True)
class World:
    """Everything of one simulation that faults and metrics look at."""

    topology: Topology
    pools: dict[str, Pool]
    edges: dict[tuple[str, str], Edge]
    shapes: ShapeTable
    templates: TemplateTable
    hosts: list[str]
    demand: dict[str, float]  # service → expected requests per second
    load_factor: float = 1.0  # traffic spikes
    host_entities: list[int] = field(default_factory=list)  # numbers in the recorder

    def instances(self) -> list[Instance]:
        """All of them, in a fixed order."""
        return [instance for pool in self.pools.values() for instance in pool.instances]
