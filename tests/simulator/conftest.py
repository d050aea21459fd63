"""Simulations that several tests look at, run once each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import polars as pl
import pytest

from signals.schema import Signal
from simulator import FaultPlan, MemorySink, SimulationConfig, Summary, simulate

START_S = 1_772_618_400  # of the default start


@dataclass(frozen=True)
class Run:
    """A finished simulation and its frames; ``ms`` is a span's duration, ``t`` seconds after the start."""

    config: SimulationConfig
    summary: Summary
    spans: pl.DataFrame
    logs: pl.DataFrame
    metrics: pl.DataFrame
    changes: list[dict[str, Any]]

    def servers(self, service: str, begin: float = 0.0, end: float = 1e9) -> pl.DataFrame:
        """Server spans of a service that start in [begin, end) seconds."""
        return self.spans.filter((pl.col.service == service) & (pl.col.kind == 2) & pl.col.t.is_between(begin, end))

    def series(self, metric: str, service: str, begin: float = 0.0, end: float = 1e9) -> pl.DataFrame:
        """Points of a metric of a service in [begin, end) seconds."""
        return self.metrics.filter(
            (pl.col.metric == metric) & (pl.col.service == service) & pl.col.t.is_between(begin, end)
        )


def run_simulation(**settings: Any) -> Run:
    config = SimulationConfig(**settings)
    sink = MemorySink()
    summary = simulate(config, sink)
    spans, logs, metrics = (sink.frame(signal) for signal in (Signal.SPANS, Signal.LOGS, Signal.METRICS))
    start = config.start_ns
    return Run(
        config,
        summary,
        spans.with_columns(t=(pl.col.start_ns - start) / 1e9, ms=(pl.col.end_ns - pl.col.start_ns) / 1e6),
        logs.with_columns(t=(pl.col.time_ns - start) / 1e9),
        metrics.with_columns(t=(pl.col.time_ns - start) / 1e9),
        sink.changes,
    )


@cache
def _faulty(fault: tuple[tuple[str, Any], ...]) -> Run:
    plan = FaultPlan.model_validate({"faults": [dict(fault)]})
    return run_simulation(minutes=4, rate=20, faults=plan, season=False, clock_skew_ms=0)


@pytest.fixture(scope="session")
def with_fault() -> Callable[..., Run]:
    """Four minutes of the shop with one fault from second 90 to second 180 (unless said otherwise)."""

    def run(**fault: Any) -> Run:
        return _faulty(tuple(sorted(({"start": 90.0, "duration": 90.0} | fault).items())))

    return run


@pytest.fixture(scope="session")
def quiet() -> Run:
    """Three minutes of the shop without faults."""
    return run_simulation(minutes=3, rate=20, faults="none", clock_skew_ms=0)


@pytest.fixture(scope="session")
def run() -> Callable[..., Run]:
    """Any simulation, not shared."""
    return run_simulation
