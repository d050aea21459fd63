"""Processes come and go: stop, start, crash, rolling restarts, and the balancer that learns of it a little later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from simulator.build import instance_name
from simulator.engine import Engine
from simulator.recorder import Recorder
from simulator.templates import STARTED, STOPPING
from simulator.world import SECOND, Instance, Pool, World

EJECT_NS: Final = 0.5 * SECOND  # until the balancer no longer sends to a process that refuses
HANDOVER_NS: Final = 0.8 * SECOND  # a rolling restart starts the new process first: refusals last this long
STAGGER_NS: Final = 4.0 * SECOND  # between two instances of a rolling restart
OOM_KILLED: Final = "Memory cgroup out of memory: Killed process {port} (main) total-vm:{id}kB"


class Lifecycle:
    """Starts and stops the processes of a world."""

    def __init__(self, engine: Engine, world: World, recorder: Recorder, seed: int) -> None:
        self._engine = engine
        self._world = world
        self._recorder = recorder
        self._rng = np.random.default_rng([seed, 31])
        self._started = world.templates.add(STARTED, 9)
        self._stopping = world.templates.add(STOPPING, 9)
        self._killed = world.templates.add(OOM_KILLED, 17)
        self.oom_kills = 0
        for instance in world.instances():
            instance.version_id = recorder.version(instance.pool.version if instance.pool.service.instrumented else "")
            instance.entity = recorder.entity(instance.pool.service.name, instance.name)

    def rolling_restart(
        self, time: float, pool: Pool, version: str, each: Callable[[Instance], None] | None = None
    ) -> float:
        """Replace all instances by new ones of a version, one after another; returns when the last one is up.

        ``each`` is called for every instance as it comes up.
        """
        pool.version = version
        for index, instance in enumerate(pool.instances):
            self._engine.at(time + index * STAGGER_NS, self._hand_over, (instance, version, each))
        return time + (len(pool.instances) - 1) * STAGGER_NS + HANDOVER_NS

    def _hand_over(self, time: float, plan: tuple[Instance, str, Callable[[Instance], None] | None]) -> None:
        instance, version, each = plan
        self._recorder.log(time, instance, self._stopping)
        self.stop(time, instance)
        name = instance_name(instance.pool.service.name, self._rng)

        def up(now: float, _: None) -> None:
            if instance.pool.service.instrumented:
                instance.name = name
                instance.entity = self._recorder.entity(instance.pool.service.name, name)
                instance.version_id = self._recorder.version(version)
            self.start(now, instance)
            if each is not None:
                each(instance)

        self._engine.at(time + HANDOVER_NS, up)

    def stop(self, time: float, instance: Instance) -> None:
        """Refuse new requests from now on; what is under way may still finish."""
        instance.refusing = True
        self._engine.at(time + EJECT_NS, self._balance, instance.pool)

    def start(self, time: float, instance: Instance) -> None:
        """A new process: whatever the old one had not finished is lost, and so are its counters."""
        self._engine.crash(time, instance)
        instance.reset(time)
        instance.refusing = False
        instance.restarts += 1
        self._balance(time, instance.pool)
        if instance.pool.service.instrumented:
            self._recorder.log(time, instance, self._started)

    def kill(self, time: float, instance: Instance) -> None:
        """Out of memory: gone at once, back after its start-up time."""
        self.oom_kills += 1
        self._engine.crash(time, instance)
        self.stop(time, instance)
        host = self._world.host_entities[instance.host]
        self._recorder.host_log(time, host, self._killed)

        def up(now: float, _: None) -> None:
            self.start(now, instance)

        self._engine.at(time + instance.pool.service.startup_s * SECOND, up)

    def _balance(self, _time: float, pool: Pool) -> None:
        pool.ready = [instance for instance in pool.instances if not instance.refusing]
