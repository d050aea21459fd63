"""Users: open arrivals of journeys, with the hour, the weekday, slow noise and spikes in their rate."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from simulator.config import SimulationConfig
from simulator.engine import Engine
from simulator.model import Journey
from simulator.world import SECOND, OperationPlan, World

DAY_S: Final = 86_400.0
DAILY: Final = 0.35  # half the difference between the busiest and the quietest hour, relative to the mean
BUSIEST_HOUR: Final = 15.0  # UTC
WEEKLY: Final = (0.02, 0.04, 0.05, 0.05, 0.02, -0.08, -0.10)  # Monday first
_NOISE_STEP_S: Final = 30.0
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday


def season(epoch_s: float) -> float:
    """Load at a moment relative to the mean over a week.

    >>> wednesday = 1_772_582_400.0  # 2026-03-04T00:00Z
    >>> round(season(wednesday + 15 * 3600), 2), round(season(wednesday + 3 * 3600), 2)
    (1.42, 0.68)
    """
    day, second = divmod(epoch_s, DAY_S)
    angle = 2 * math.pi * (second / 3600 - BUSIEST_HOUR) / 24
    return (1 + DAILY * math.cos(angle)) * (1 + WEEKLY[(int(day) + _EPOCH_WEEKDAY) % 7])


class Load:
    """Schedules the arrivals of a world's users; call ``begin`` once."""

    def __init__(self, engine: Engine, world: World, config: SimulationConfig) -> None:
        self._engine = engine
        self._world = world
        self._config = config
        self._rng = np.random.default_rng([config.seed, 11])
        self._noise = 0.0  # log of the slow random factor
        entry = world.pools[world.topology.entry]
        journeys = world.topology.journeys
        self._journeys = [(j, [entry.operations[name] for name in j.requests]) for j in journeys]
        weights = np.array([j.weight for j in journeys])
        self._cumulative = np.cumsum(weights / weights.sum()).tolist()
        length = sum(j.weight * len(j.requests) for j in journeys) / float(weights.sum())
        self._journeys_per_s = config.rate / length
        self.requests = 0
        self.cancelled = 0

    def begin(self, time: float) -> None:
        """First arrivals; ``time`` is usually negative, so that all is in full swing at 0."""
        self._engine.at(time, self._drift)
        self._engine.at(time, self._arrival)

    def rate_factor(self, time: float) -> float:
        """Arrivals relative to the mean, at a time of the simulation."""
        config = self._config
        factor = season(config.start_ns / SECOND + time / SECOND) if config.season else 1.0
        return factor * math.exp(self._noise) * self._world.load_factor

    def _drift(self, time: float, _: None) -> None:
        """Slow noise: a first-order autoregression of the log rate, some minutes long."""
        step = self._config.load_noise * 0.3 * float(self._rng.standard_normal())
        self._noise = 0.954 * self._noise + step
        self._engine.at(time + _NOISE_STEP_S * SECOND, self._drift)

    def _arrival(self, time: float, _: None) -> None:
        draws = self._engine.draws
        point = draws.uniform()
        index = next((i for i, limit in enumerate(self._cumulative) if point < limit), len(self._cumulative) - 1)
        journey, operations = self._journeys[index]
        self._request(time, (journey, operations, 0))
        pause = draws.exponential() / (self._journeys_per_s * self.rate_factor(time))
        self._engine.at(time + pause * SECOND, self._arrival)

    def _request(self, time: float, place: tuple[Journey, list[OperationPlan], int]) -> None:
        journey, operations, index = place
        engine = self._engine
        draws = engine.draws
        operation = operations[index]
        request = engine.request(time, operation, int(1000 + draws.uniform() * 4000))
        if time >= 0:
            self.requests += 1
        if request is not None and draws.uniform() < self._config.cancel_rate:
            self.cancelled += 1
            engine.at(time + draws.uniform() * operation.expected_ns, engine.cancel, request)
        if index + 1 < len(operations):
            think = journey.think_s * SECOND * draws.exponential()
            engine.at(time + think, self._request, (journey, operations, index + 1))
