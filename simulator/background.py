"""What programs write when nothing happens: health checks, pool statistics, collections, cron jobs."""

from __future__ import annotations

from itertools import accumulate
from typing import Final

from simulator.draws import Draws
from simulator.engine import Engine
from simulator.recorder import Recorder
from simulator.templates import CHATTER
from simulator.world import SECOND, Instance, World

MEAN_PAUSE_S: Final = 6.0
CRON_S: Final = 300.0


class Background:
    """Schedules its own lines; call ``begin`` once."""

    def __init__(self, engine: Engine, world: World, recorder: Recorder, seed: int) -> None:
        self._engine = engine
        self._recorder = recorder
        self._draws = Draws(seed * 2 + 2)
        self._instances = world.instances()
        self._lines = {
            runtime: (
                [world.templates.add(text, severity) for severity, text, _ in lines],
                list(accumulate(weight for _, _, weight in lines)),
            )
            for runtime, lines in CHATTER.items()
        }
        self._cron = (
            world.templates.add("cron job=compact-sessions started run={uuid}", 9),
            world.templates.add("cron job=compact-sessions done, {n} rows removed in {ms} ms", 9),
        )

    def begin(self) -> None:
        """First lines of every process, and its cron jobs (first instance of a service only)."""
        for index, instance in enumerate(self._instances):
            self._engine.at(self._draws.uniform() * MEAN_PAUSE_S * SECOND, self._chat, instance)
            if instance.index == 0 and instance.pool.service.instrumented:
                self._engine.at((index * 37 % CRON_S) * SECOND, self._job, instance)

    def _chat(self, time: float, instance: Instance) -> None:
        pause = MEAN_PAUSE_S * self._draws.exponential() * SECOND
        self._engine.at(time + pause, self._chat, instance)
        if instance.refusing:
            return
        service = instance.pool.service
        templates, limits = self._lines[service.system or service.runtime]
        point = self._draws.uniform() * limits[-1]
        choice = next(i for i, limit in enumerate(limits) if point < limit)
        self._recorder.log(time, instance, templates[choice])

    def _job(self, time: float, instance: Instance) -> None:
        self._engine.at(time + CRON_S * SECOND, self._job, instance)
        if not instance.refusing:
            self._recorder.log(time, instance, self._cron[0])
            self._engine.at(time + self._draws.exponential() * SECOND, self._job_done, instance)

    def _job_done(self, time: float, instance: Instance) -> None:
        self._recorder.log(time, instance, self._cron[1])
