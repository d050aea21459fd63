"""What each kind of fault does to the running system, and the label that says so.

A fault only turns knobs that the engine reads (added latency, failure share, processor left, refusing, lost packets,
call plans) or makes processes come and go; everything else follows from the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from simulator.changes import ChangeEvent, ChangeFeed
from simulator.config import FaultSpec, SimulationConfig
from simulator.engine import Engine
from simulator.faults import LABEL_KINDS, Label, aliases
from simulator.lifecycle import HANDOVER_NS, STAGGER_NS, Lifecycle
from simulator.plans import alternative_plan, restore_plan
from simulator.recorder import Recorder
from simulator.world import MS, QUOTA_PERIOD_NS, SECOND, Instance, World

LEAK_STEP_NS: Final = SECOND
OOM_AFTER: Final = 0.6  # share of a leak's duration after which the first process is out of memory
STORM_STEP_NS: Final = 0.1 * SECOND
DEFAULT_LATENCY_MS: Final = 180.0
DEFAULT_ERROR_RATE: Final = 0.35


@dataclass(frozen=True, slots=True, eq=False)
class Modifier:
    """One fault's share in what is wrong with an instance."""

    latency_ms: float = 0.0
    error_rate: float = 0.0
    error_log: int = -1
    cpu_left: float = 1.0


class Effects:
    """Carries out a schedule; call ``begin`` once. ``labels`` and ``changes`` fill as simulated time passes."""

    def __init__(
        self, engine: Engine, world: World, recorder: Recorder, lifecycle: Lifecycle, config: SimulationConfig
    ) -> None:
        self._engine = engine
        self._world = world
        self._recorder = recorder
        self._lifecycle = lifecycle
        self._config = config
        self._feed = ChangeFeed(config.environment, config.namespace, config.seed)
        self._modifiers: dict[Instance, list[Modifier]] = {}
        self._versions: dict[str, int] = {}
        self.changes: list[ChangeEvent] = []
        self.labels: list[Label] = []
        self._carriers: dict[str, Callable[[float, FaultSpec], str | None]] = {
            "latency": self._slow,
            "error": self._fail,
            "gray_failure": self._gray,
            "cpu_saturation": self._starve,
            "memory_leak": self._leak,
            "dependency_outage": self._outage,
            "bad_deploy": self._bad_deploy,
            "config_change": self._reconfigure,
            "traffic_spike": self._spike,
            "harmless_deploy": self._harmless,
            "network_loss": self._network,
            "log_storm": self._storm,
        }

    def begin(self, faults: tuple[FaultSpec, ...]) -> None:
        """Schedule them all."""
        for number, fault in enumerate(faults, start=1):
            self._engine.at(fault.start * SECOND, self._start, (number, fault))

    def _start(self, time: float, numbered: tuple[int, FaultSpec]) -> None:
        number, fault = numbered
        if fault.kind == "gray_failure" and fault.instance is None:
            fault = fault.model_copy(update={"instance": 0})
        detail = self._carriers[fault.kind](time, fault)
        service = fault.service or self._world.topology.entry
        end = min(self._end(fault), float(self._config.duration_ns))
        accept = aliases(self._world.topology, service)
        if fault.kind == "network_loss":
            accept = (*accept, fault.caller)
        self.labels.append(
            Label(
                id=f"{self._config.environment}-{number:02d}",
                start_unix_ns=self._absolute(time),
                end_unix_ns=self._absolute(end),
                service=service,
                instance=None if fault.instance is None else self._targets(fault)[0].name,
                kind=LABEL_KINDS.get(fault.kind, fault.kind),
                detail=detail or "",
                accept=accept if len(accept) > 1 else (),
            )
        )

    def _end(self, fault: FaultSpec) -> float:
        if fault.kind == "harmless_deploy":
            return fault.start * SECOND + self._restart_ns(fault.service) + SECOND
        return (fault.start + fault.duration) * SECOND

    def _restart_ns(self, service: str) -> float:
        return (len(self._world.pools[service].instances) - 1) * STAGGER_NS + HANDOVER_NS

    def _absolute(self, time: float) -> int:
        return self._config.start_ns + int(time)

    def _targets(self, fault: FaultSpec) -> list[Instance]:
        instances = self._world.pools[fault.service].instances
        return list(instances) if fault.instance is None else [instances[fault.instance]]

    def _at_end(self, fault: FaultSpec, undo: Callable[[float, None], None]) -> None:
        self._engine.at((fault.start + fault.duration) * SECOND, undo)

    # Modifiers --------------------------------------------------------------------------------------------------------

    def _put(self, instance: Instance, modifier: Modifier) -> None:
        self._modifiers.setdefault(instance, []).append(modifier)
        self._apply(instance)

    def _take(self, instance: Instance, modifier: Modifier) -> None:
        active = self._modifiers.get(instance, [])
        if modifier in active:
            active.remove(modifier)
        self._apply(instance)

    def _apply(self, instance: Instance) -> None:
        """All that is wrong with an instance together."""
        active = self._modifiers.get(instance, [])
        latency = sum(modifier.latency_ms for modifier in active)
        instance.extra_mu = math.log(latency * MS) if latency else 0.0
        instance.error_rate = 1 - math.prod(1 - modifier.error_rate for modifier in active)
        instance.error_log = max((m.error_log for m in active if m.error_rate), default=-1)
        instance.quota_factor = left = math.prod(modifier.cpu_left for modifier in active)
        instance.credit_ns = QUOTA_PERIOD_NS * left**4  # the scarcer the processor, the less can be saved up

    def _modify(self, fault: FaultSpec, modifier: Modifier) -> None:
        targets = self._targets(fault)
        mine = {instance: replace(modifier) for instance in targets}
        for instance, own in mine.items():
            self._put(instance, own)

        def undo(_time: float, _: None) -> None:
            for instance, own in mine.items():
                self._take(instance, own)

        self._at_end(fault, undo)

    def _error_log(self, service: str, what: str) -> int:
        return self._world.templates.add(f"{service}: {what} (request {{uuid}}, code {{n}})", 17)

    # Kinds ------------------------------------------------------------------------------------------------------------

    def _slow(self, _time: float, fault: FaultSpec) -> str:
        latency = fault.latency_ms or DEFAULT_LATENCY_MS
        self._modify(fault, Modifier(latency_ms=latency))
        return f"adds {latency:g} ms (median) to every request"

    def _fail(self, _time: float, fault: FaultSpec) -> str:
        rate = fault.error_rate or DEFAULT_ERROR_RATE
        self._modify(fault, self._errors(fault.service, rate))
        return f"{rate:.0%} of requests end in an exception"

    def _errors(self, service: str, rate: float) -> Modifier:
        return Modifier(error_rate=rate, error_log=self._error_log(service, "unhandled exception: state is corrupt"))

    def _gray(self, _time: float, fault: FaultSpec) -> str:
        errors = self._errors(fault.service, fault.error_rate or 0.0)
        latency = fault.latency_ms or (0.0 if fault.error_rate else DEFAULT_LATENCY_MS)
        self._modify(fault, replace(errors, latency_ms=latency))
        return f"one instance only: +{latency:g} ms, {fault.error_rate or 0:.0%} errors"

    def _starve(self, _time: float, fault: FaultSpec) -> str:
        self._modify(fault, Modifier(cpu_left=fault.cpu_left))
        return f"a neighbour takes the processor: {fault.cpu_left:.0%} of the quota is left"

    def _leak(self, time: float, fault: FaultSpec) -> str:
        service = self._world.pools[fault.service].service
        room = service.memory_limit_mb - service.memory_mb
        rate = room / (fault.duration * OOM_AFTER)
        end = (fault.start + fault.duration) * SECOND
        for place, instance in enumerate(self._targets(fault)):
            speed = rate * 0.85**place
            self._engine.at(time, self._leak_step, (instance, speed, end, [Modifier()]))
        return f"leaks {rate:.2f} MB/s until killed at {service.memory_limit_mb:g} MB"

    def _leak_step(self, time: float, leak: tuple[Instance, float, float, list[Modifier]]) -> None:
        """Memory grows; near the limit the collector eats the processor; at the limit the kernel ends it."""
        instance, speed, end, held = leak
        self._take(instance, held[0])
        if time >= end:  # the fix is rolled out: a fresh process
            self._lifecycle.stop(time, instance)
            self._engine.at(time + SECOND, lambda now, _: self._lifecycle.start(now, instance))
            return
        service = instance.pool.service
        if not instance.refusing:
            instance.leak_mb += speed * LEAK_STEP_NS / SECOND
            used = (service.memory_mb * 1.1 + instance.leak_mb) / service.memory_limit_mb
            if used >= 1.0:
                self._lifecycle.kill(time, instance)
            elif used > 0.85:
                held[0] = Modifier(cpu_left=max(0.25, 1 - 5 * (used - 0.85)))
                self._put(instance, held[0])
        self._engine.at(time + LEAK_STEP_NS, self._leak_step, leak)

    def _outage(self, time: float, fault: FaultSpec) -> str:
        targets = self._targets(fault)
        refused = fault.mode != "timeout"
        for instance in targets:
            if refused:
                self._engine.crash(time, instance)
                self._lifecycle.stop(time, instance)
            else:
                instance.blackhole = True

        def undo(now: float, _: None) -> None:
            for instance in targets:
                instance.blackhole = False
                if refused:
                    self._lifecycle.start(now, instance)

        self._at_end(fault, undo)
        return "down: connections are refused" if refused else "unreachable: no answer, calls time out"

    def _next_version(self, service: str) -> tuple[str, str]:
        """The version running and the one after it."""
        minor = self._versions[service] = self._versions.get(service, 0) + 1
        return self._world.pools[service].version, f"1.4.{minor}"

    def _bad_deploy(self, time: float, fault: FaultSpec) -> str:
        pool = self._world.pools[fault.service]
        before, version = self._next_version(fault.service)
        rate = fault.error_rate or 0.0
        latency = fault.latency_ms or (0.0 if fault.error_rate else DEFAULT_LATENCY_MS)
        log = self._error_log(fault.service, f"cannot decode message of schema {version}")
        mine = {instance: Modifier(latency_ms=latency, error_rate=rate, error_log=log) for instance in pool.instances}
        self.changes.append(self._feed.deployed(self._absolute(time), fault.service, version))
        self._lifecycle.rolling_restart(time, pool, version, lambda i: self._put(i, mine[i]))

        def undo(now: float, _: None) -> None:
            self.changes.append(self._feed.deployed(self._absolute(now), fault.service, before, rollback=True))
            self._lifecycle.rolling_restart(now, pool, before, lambda i: self._take(i, mine[i]))

        self._at_end(fault, undo)
        return f"deploy {version}: +{latency:g} ms, {rate:.0%} errors; rolled back at the end"

    def _harmless(self, time: float, fault: FaultSpec) -> str:
        _, version = self._next_version(fault.service)
        self.changes.append(self._feed.deployed(self._absolute(time), fault.service, version))
        self._lifecycle.rolling_restart(time, self._world.pools[fault.service], version)
        return f"harmless deploy {version}: a rolling restart with a few refused connections"

    def _reconfigure(self, time: float, fault: FaultSpec) -> str:
        pool = self._world.pools[fault.service]
        change = alternative_plan(self._world, pool, fault.mode)
        self.changes.append(self._feed.configured(self._absolute(time), fault.service, change.setting))

        def undo(now: float, _: None) -> None:
            restore_plan(pool, change)
            text = f"revert {change.setting}"
            self.changes.append(self._feed.configured(self._absolute(now), fault.service, text))

        self._at_end(fault, undo)
        return f"configuration: {change.setting}"

    def _spike(self, _time: float, fault: FaultSpec) -> str:
        self._world.load_factor *= fault.factor

        def undo(_now: float, _: None) -> None:
            self._world.load_factor /= fault.factor

        self._at_end(fault, undo)
        return f"{fault.factor:g} times the users"

    def _network(self, _time: float, fault: FaultSpec) -> str:
        edge = self._world.edges[fault.caller, fault.service]
        extra, loss = (fault.latency_ms or 0.0) * MS, fault.loss
        edge.extra_ns += extra
        edge.loss = 1 - (1 - edge.loss) * (1 - loss)

        def undo(_now: float, _: None) -> None:
            edge.extra_ns = max(0.0, edge.extra_ns - extra)
            edge.loss = 0.0 if loss >= 1 else max(0.0, 1 - (1 - edge.loss) / (1 - loss))

        self._at_end(fault, undo)
        return f"{fault.caller} to {fault.service}: {loss:.0%} of calls lost, +{extra / MS:g} ms each way"

    def _storm(self, time: float, fault: FaultSpec) -> str:
        template = self._world.templates.add("lock {word} held by {id}, retrying in {ms} ms (attempt {n})", 13)
        self._modify(fault, Modifier(cpu_left=0.93))
        lines = max(1, round(fault.lines_per_s * STORM_STEP_NS / SECOND))
        end = (fault.start + fault.duration) * SECOND
        self._engine.at(time, self._storm_step, (self._targets(fault), template, lines, end))
        return f"{fault.lines_per_s:g} warnings per second and instance"

    def _storm_step(self, time: float, storm: tuple[list[Instance], int, int, float]) -> None:
        instances, template, lines, end = storm
        for instance in instances if time < end else ():
            for _ in range(0 if instance.refusing else lines):
                self._recorder.log(time + self._engine.draws.uniform() * STORM_STEP_NS, instance, template)
        if time < end:
            self._engine.at(time + STORM_STEP_NS, self._storm_step, storm)
