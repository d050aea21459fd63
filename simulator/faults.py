"""Schedules of faults, checked against a topology, drawn at random or made for the demonstration; and their labels."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from simulator.config import FaultPlan, FaultSpec, Kind, ScheduleError, SimulationConfig
from simulator.model import Service, Topology
from simulator.shapes import ShapeTable

#: Kinds of labels where they differ from the schedule's: no fault of a service, or none at all.
LABEL_KINDS: Final[dict[Kind, str]] = {"traffic_spike": "load", "harmless_deploy": "benign"}
LEARN_S: Final = 300.0  # before the first random fault, at least
QUIET_S: Final = (180.0, 330.0)  # between random faults
LENGTH_S: Final = (100.0, 210.0)
_NEED_A_PROGRAM: Final = frozenset({"bad_deploy", "config_change", "harmless_deploy", "memory_leak", "log_storm"})
_LEAST_RATE: Final = 0.3  # requests per second a random target must have, and per instance for a gray failure


@dataclass(frozen=True, slots=True)
class Label:
    """What was truly wrong, and when: one line of ``faults.jsonl``."""

    id: str
    start_unix_ns: int
    end_unix_ns: int
    service: str
    instance: str | None  # None: all instances
    kind: str
    detail: str
    accept: tuple[str, ...] = ()  # other names under which the same culprit may be told

    def to_json(self) -> dict[str, Any]:
        """As in a recording."""
        fields: dict[str, Any] = {
            "id": self.id,
            "start_unix_ns": self.start_unix_ns,
            "end_unix_ns": self.end_unix_ns,
            "service": self.service,
            "instance": self.instance,
            "kind": self.kind,
            "detail": self.detail,
        }
        return fields | ({"accept": list(self.accept)} if self.accept else {})


def aliases(topology: Topology, service: str) -> tuple[str, ...]:
    """Every name under which callers and its own metrics know a service or store, its own first."""
    found = topology.service(service)
    if found.instrumented:
        return (service,)
    table = ShapeTable()
    for operation in found.operations:
        table.client(found, operation)
    return tuple(dict.fromkeys((service, *table.peers, found.system)))


def plan_faults(config: SimulationConfig, topology: Topology) -> tuple[FaultSpec, ...]:
    """The faults of a configuration in order of start; raises ``ScheduleError``."""
    if isinstance(config.faults, FaultPlan):
        plan = config.faults
    elif config.faults == "random":
        plan = random_faults(topology, config)
    elif config.faults == "demo":
        plan = demo_faults(topology, config)
    else:
        plan = FaultPlan()
    check(plan, topology, config)
    return tuple(sorted(plan.faults, key=lambda fault: fault.start))


def check(plan: FaultPlan, topology: Topology, config: SimulationConfig) -> None:
    """Whether services, instances and edges exist and times lie inside; raises ``ScheduleError`` naming the key."""
    for index, fault in enumerate(plan.faults):
        problem = _problem(fault, topology, config)
        if problem:
            raise ScheduleError(f"faults[{index}].{problem}")


def _problem(fault: FaultSpec, topology: Topology, config: SimulationConfig) -> str:
    """What is wrong, beginning with the key; "" for nothing."""
    for key in ("service", "caller"):
        name = getattr(fault, key)
        if name and name not in topology.names:
            close = difflib.get_close_matches(name, topology.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(topology.names[:20])}"
            return f"{key}: {name!r} is no service of this topology; {hint}"
    if fault.start >= config.minutes * 60:
        return f"start: {fault.start:g} s is after the end of the simulation ({config.minutes * 60:g} s)"
    if fault.kind == "network_loss" and (fault.caller, fault.service) not in topology.edges():
        callers = sorted(caller for caller, callee in topology.edges() if callee == fault.service)
        return (
            f"caller: {fault.caller!r} never calls {fault.service!r}; its callers are: {', '.join(callers) or 'none'}"
        )
    return _unfit(fault, topology.service(fault.service)) if fault.service else ""


def _unfit(fault: FaultSpec, service: Service) -> str:
    """Why this kind cannot hit this service; "" where it can."""
    program = service.instrumented
    problems = {
        f"instance: {service.name} has {service.instances} instances, counted from 0": (
            fault.instance is not None and fault.instance >= service.instances
        ),
        f"service: {service.name} has one instance; a gray failure needs others that are well": (
            fault.kind == "gray_failure" and service.instances < 2
        ),
        f"mode: {service.name} calls nothing, so it cannot stop calling": (
            fault.mode == "skip_call" and not _has_calls(service)
        ),
        f"service: {service.name} is a store; kind {fault.kind} needs a program of the system's own": (
            fault.kind in _NEED_A_PROGRAM and not program
        ),
    }
    return next((text for text, wrong in problems.items() if wrong), "")


def _has_calls(service: Service) -> bool:
    return any(operation.steps for operation in service.operations)


def demo_faults(topology: Topology, config: SimulationConfig) -> FaultPlan:
    """A bad deploy, a gray failure, an outage of a store, and a harmless deploy, spread over the simulated time.

    In the shop these hit the catalog, payment, the cache and shipping; elsewhere busy services of the same roles.
    """
    length = config.minutes * 60
    visits = _rates(topology, config)
    busy = [name for name in sorted(visits, key=lambda n: -visits[n]) if name != topology.entry]
    programs = [name for name in busy if topology.service(name).instrumented]
    several = [name for name in programs if topology.service(name).instances > 1] or programs
    stores = [name for name in busy if not topology.service(name).instrumented]
    shop = {"catalog", "payment", "redis", "shipping"} <= set(topology.names)
    deploy = "catalog" if shop else programs[0]
    gray = "payment" if shop else several[min(2, len(several) - 1)]
    store = "redis" if shop else (stores or programs)[0]
    harmless = "shipping" if shop else programs[-1]
    faults = (
        FaultSpec(kind="bad_deploy", service=deploy, start=0.30 * length, duration=0.10 * length, latency_ms=140),
        FaultSpec(
            kind="gray_failure", service=gray, start=0.53 * length, duration=0.10 * length, instance=0, error_rate=0.45
        )
        if topology.service(gray).instances > 1
        else FaultSpec(kind="error", service=gray, start=0.53 * length, duration=0.10 * length, error_rate=0.45),
        FaultSpec(kind="dependency_outage", service=store, start=0.75 * length, duration=0.08 * length, mode="refused"),
        FaultSpec(kind="harmless_deploy", service=harmless, start=0.93 * length, duration=0.02 * length),
    )
    return FaultPlan(faults=faults)


def _rates(topology: Topology, config: SimulationConfig) -> dict[str, float]:
    rates: dict[str, float] = {}
    for (service, _), visits in topology.visits().items():
        rates[service] = rates.get(service, 0.0) + visits * config.rate
    return rates


def random_faults(topology: Topology, config: SimulationConfig) -> FaultPlan:
    """Up to ``fault_count`` faults of all kinds in random order on random targets, with quiet gaps; seeded.

    Only services with enough traffic for the fault to show are hit, each kind once before any comes again. Fewer than
    asked for are made where the simulated time does not hold more.
    """
    rng = np.random.default_rng([config.seed, 41])
    rates = {n: r for n, r in _rates(topology, config).items() if r >= _LEAST_RATE}
    kinds: list[Kind] = []
    faults: list[FaultSpec] = []
    clock = min(LEARN_S, config.minutes * 60 * 0.25) + float(rng.uniform(0, 60))
    while len(faults) < config.fault_count:
        duration = float(rng.uniform(*LENGTH_S))
        if clock + duration + 30 > config.minutes * 60:
            break
        if not kinds:
            kinds = [_ALL_KINDS[i] for i in rng.permutation(len(_ALL_KINDS))]
        fault = _random_fault(
            kinds.pop(), start=round(clock, 1), duration=round(duration, 1), topology=topology, rates=rates, rng=rng
        )
        if fault is not None:
            faults.append(fault)
            clock += duration + float(rng.uniform(*QUIET_S))
    return FaultPlan(faults=tuple(faults))


_ALL_KINDS: Final[tuple[Kind, ...]] = (
    "latency", "error", "cpu_saturation", "memory_leak", "dependency_outage", "bad_deploy", "config_change",
    "traffic_spike", "harmless_deploy", "network_loss", "log_storm", "gray_failure",
)  # fmt: skip


def _random_fault(
    kind: Kind, *, start: float, duration: float, topology: Topology, rates: dict[str, float], rng: np.random.Generator
) -> FaultSpec | None:
    """One fault of a kind, None where the topology has no target for it."""
    if kind == "traffic_spike":
        return FaultSpec(kind=kind, start=start, duration=duration, factor=round(float(rng.uniform(1.8, 2.6)), 2))
    services = [topology.service(name) for name in sorted(rates) if name != topology.entry]
    programs = [service for service in services if service.instrumented]
    targets = {
        "dependency_outage": [s for s in services if not s.instrumented] or programs,
        "gray_failure": [s for s in programs if s.instances > 1 and rates[s.name] / s.instances >= _LEAST_RATE],
        "network_loss": [s for s in services if s.protocol != "messaging"],
        "config_change": [s for s in programs if _has_calls(s)],
    }.get(kind, programs)
    if not targets:
        return None
    service = targets[int(rng.integers(len(targets)))]
    extra: dict[str, Any] = {}
    if kind == "dependency_outage":
        extra["mode"] = str(rng.choice(["refused", "timeout"]))
    elif kind == "gray_failure":
        extra["instance"] = int(rng.integers(service.instances))
        extra |= {"error_rate": 0.4} if rng.random() < 0.5 else {"latency_ms": 250.0}
    elif kind == "bad_deploy":
        extra |= {"error_rate": 0.3} if rng.random() < 0.5 else {"latency_ms": 200.0}
    elif kind == "config_change":
        extra["mode"] = str(rng.choice(["skip_call", "other_path"]))
    elif kind == "network_loss":
        callers = [caller for caller, callee in topology.edges() if callee == service.name and caller in rates]
        extra["caller"] = callers[int(rng.integers(len(callers)))]
        extra |= {"latency_ms": 120.0, "loss": 0.1}
    return FaultSpec(kind=kind, service=service.name, start=start, duration=duration, **extra)
