"""Puts a simulation together and runs it, a slice of simulated time after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from simulator.background import Background
from simulator.build import build
from simulator.config import SimulationConfig
from simulator.draws import Draws
from simulator.effects import Effects
from simulator.engine import Engine
from simulator.faults import plan_faults
from simulator.generated import generate
from simulator.lifecycle import Lifecycle
from simulator.load import Load
from simulator.metrics import MetricSampler
from simulator.model import Topology
from simulator.recorder import Recorder
from simulator.shop import shop
from simulator.sink import Sink, Slice, Summary
from simulator.world import SECOND

WARM_UP_S: Final = 30.0  # simulated before the start and not recorded, so that journeys are under way
SHOP_SIZE: Final = 15
_SKEW_MARGIN_NS: Final = 2_000_000


def topology_of(config: SimulationConfig) -> Topology:
    """The shop, or a generated graph of the size asked for."""
    return shop() if config.services == SHOP_SIZE else generate(config.services, config.seed)


def simulate(
    config: SimulationConfig,
    sink: Sink,
    *,
    slice_s: float = 10.0,
    progress: Callable[[float], None] | None = None,
) -> Summary:
    """Run a simulation into a sink; memory use is that of one slice, whatever the length.

    Args:
        config: All that decides what happens.
        sink: Where slices of telemetry go, in order of time.
        slice_s: Simulated seconds given to the sink at a time.
        progress: Called after each slice with the simulated seconds done.

    Raises:
        ScheduleError: A fault names what the topology does not have.
    """
    topology = topology_of(config)
    faults = plan_faults(config, topology)
    world = build(topology, config)
    draws = Draws(config.seed)
    recorder = Recorder(
        start_ns=config.start_ns,
        environment=config.environment,
        namespace=config.namespace,
        shapes=world.shapes,
        templates=world.templates,
        draws=draws,
    )
    world.host_entities = [recorder.entity("host", name) for name in world.hosts]
    engine = Engine(world, recorder, draws)
    lifecycle = Lifecycle(engine, world, recorder, config.seed)
    effects = Effects(engine, world, recorder, lifecycle, config)
    load = Load(engine, world, config)
    load.begin(-WARM_UP_S * SECOND)
    engine.run_until(0.0)
    MetricSampler(engine, world, recorder, config).begin()
    Background(engine, world, recorder, config.seed).begin()
    effects.begin(faults)
    spans = logs = metrics = changes = 0
    now, end = 0.0, float(config.duration_ns)
    while now < end:
        now = min(now + slice_s * SECOND, end)
        engine.run_until(now)
        frames = recorder.drain()
        settled = config.start_ns + int(engine.oldest_open()) - _SKEW_MARGIN_NS
        new_changes = tuple(effects.changes[changes:])
        sink.write(Slice(frames, new_changes, config.start_ns + int(now), settled))
        changes += len(new_changes)
        spans, logs, metrics = spans + len(frames.spans), logs + len(frames.logs), metrics + len(frames.metrics)
        if progress is not None:
            progress(now / SECOND)
    summary = Summary(
        requests=load.requests,
        cancelled=load.cancelled,
        spans=spans,
        logs=logs,
        metrics=metrics,
        changes=changes,
        events=engine.events,
        oom_kills=lifecycle.oom_kills,
        labels=tuple(effects.labels),
        start_ns=config.start_ns,
        end_ns=config.start_ns + config.duration_ns,
    )
    sink.close(config, topology, summary)
    return summary
