"""A simulation as a whole: repeatable, following the season, queueing as it fills, resetting counters at restarts."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from signals.schema import METRICS, SPANS, MetricShape, Signal
from simulator import FaultPlan, MemorySink, SimulationConfig, simulate
from simulator.load import season
from simulator.run import topology_of

RANDOM = {"minutes": 1.0, "rate": 20.0, "faults": "random", "fault_count": 2}


def _frames(slice_s=10.0, **settings):
    sink = MemorySink()
    simulate(SimulationConfig(**(RANDOM | settings)), sink, slice_s=slice_s)
    return {signal: sink.frame(signal) for signal in (Signal.SPANS, Signal.LOGS, Signal.METRICS)}


def test_the_same_seed_gives_the_same_telemetry_and_another_seed_another():
    first, again, other = _frames(seed=5), _frames(seed=5), _frames(seed=6)
    for signal, frame in first.items():
        assert frame.equals(again[signal])
        assert not frame.equals(other[signal])


def test_telemetry_does_not_depend_on_how_it_is_cut_into_slices():
    coarse, fine = _frames(slice_s=30.0), _frames(slice_s=0.7)
    for signal, key in ((Signal.SPANS, "span_id"), (Signal.LOGS, "body"), (Signal.METRICS, "metric")):
        time = "end_ns" if signal is Signal.SPANS else "time_ns"
        order = [time, key, "instance"]
        assert coarse[signal].sort(order, maintain_order=True).equals(fine[signal].sort(order, maintain_order=True))


def test_telemetry_does_not_depend_on_the_hash_seed():
    program = (
        "import hashlib\n"
        "from signals.schema import Signal\n"
        "from simulator import MemorySink, SimulationConfig, simulate\n"
        "sink = MemorySink()\n"
        "simulate(SimulationConfig(minutes=0.5, services=30, faults='random'), sink)\n"
        "text = ''.join(sink.frame(s).write_ndjson() for s in (Signal.SPANS, Signal.LOGS, Signal.METRICS))\n"
        "print(hashlib.sha256(text.encode()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == len(hashlib.sha256(b"").hexdigest())


def test_load_follows_the_hour_and_the_weekday(run):
    at = {
        name: run(minutes=3, rate=15, faults="none", start=start, load_noise=0).summary.requests
        for name, start in (
            ("busy", "2026-03-04T15:00:00Z"),
            ("night", "2026-03-04T03:00:00Z"),
            ("sunday", "2026-03-08T15:00:00Z"),
        )
    }
    assert at["busy"] / at["night"] == pytest.approx(1.35 / 0.65, rel=0.12)
    assert at["sunday"] / at["busy"] == pytest.approx(0.90 / 1.05, rel=0.10)


def test_the_season_has_a_mean_of_one_over_a_week():
    week = np.arange(0, 7 * 86_400, 600.0)
    assert np.mean([season(moment) for moment in week]) == pytest.approx(1.0, abs=0.005)


def test_the_configured_rate_is_met(run):
    flat = run(minutes=4, rate=30, faults="none", season=False, load_noise=0)
    assert flat.summary.requests / 240 == pytest.approx(30, rel=0.05)


def test_queueing_delay_grows_with_utilisation(run):
    tails = []
    for utilisation in (0.15, 0.5, 0.8):
        filled = run(
            minutes=1.5, rate=40, faults="none", season=False, load_noise=0, cancel_rate=0, utilisation=utilisation
        )
        tails.append(filled.servers("gateway", 30)["ms"].quantile(0.95))
    assert tails[0] < tails[1] < tails[2]
    assert tails[2] > 1.5 * tails[0]


def test_counters_of_live_telemetry_reset_when_a_process_restarts(run):
    leak = {"kind": "memory_leak", "service": "pricing", "instance": 0, "start": 30, "duration": 80}
    live = run(minutes=2.5, rate=15, metric_form="otlp", faults=FaultPlan.model_validate({"faults": [leak]}))
    instance = live.summary.labels[0].instance
    cpu = live.series("process.cpu.time", "pricing").filter(pl.col.instance == instance)
    assert set(cpu["shape"]) == {MetricShape.SUM_CUMULATIVE}
    falls = cpu.with_columns(fell=pl.col.value.diff() < 0, moved=pl.col.start_ns.diff() > 0).drop_nulls()
    assert falls["fell"].sum() >= 1
    assert falls["fell"].equals(falls["moved"].rename("fell"))
    well = live.series("process.cpu.time", "pricing").filter(pl.col.instance != instance)
    assert (well["value"].diff().drop_nulls() >= 0).all()


def test_histograms_of_live_telemetry_are_cumulative_and_consistent(run):
    live = run(minutes=1, rate=15, metric_form="otlp", faults="none")
    points = live.metrics.filter(pl.col.metric == "http.server.request.duration")
    assert set(points["shape"]) == {MetricShape.HISTOGRAM_CUMULATIVE}
    assert (points["counts"].list.sum() == points["count"]).all()
    assert (points["counts"].list.len() == points["bounds"].list.len() + 1).all()
    one = points.filter(pl.col.instance == points["instance"][0])
    assert (one["count"].diff().drop_nulls() >= 0).all()


def test_recorded_metrics_are_values_and_agree_with_the_spans(quiet):
    assert set(quiet.metrics["shape"]) == {MetricShape.GAUGE}
    assert quiet.metrics["value"].is_finite().all()
    counted = quiet.series("http.server.request.duration.count", "gateway", 20)["value"]
    per_instance = quiet.servers("gateway", 10).height / 170 / 2
    assert counted.mean() == pytest.approx(per_instance, rel=0.1)


def test_some_series_are_constant_and_some_are_noise(quiet):
    spread = quiet.metrics.group_by("metric", "instance", "attributes").agg(pl.col.value.std())
    constant = set(spread.filter(pl.col.value == 0)["metric"])
    assert {"jvm.cpu.count", "container.memory.limit"} <= constant
    assert "process.context_switches.involuntary" not in constant


def test_memory_is_a_sawtooth(quiet):
    steps = quiet.series("process.memory.usage", "ads")["value"].diff().drop_nulls()
    assert (steps > 0).sum() > 2 * (steps < 0).sum() > 0
    assert -steps.min() > 2 * steps.max()


def test_frames_have_the_schemas_of_the_rooms_they_feed(quiet):
    assert quiet.spans.select(list(SPANS)).schema == SPANS
    assert quiet.metrics.select(list(METRICS)).schema == METRICS


@pytest.mark.parametrize("services", [3, 40, 200])
def test_a_generated_system_has_its_size_and_every_service_is_reached(services):
    topology = topology_of(SimulationConfig(services=services))
    programs = [service for service in topology.services if service.instrumented]
    assert len(programs) == services
    visits = topology.visits()
    assert {name for name, _ in visits} >= {service.name for service in programs}
    assert sum(visits.values()) < 40


def test_a_generated_system_runs_without_errors_of_its_own(run):
    generated = run(minutes=1, rate=20, services=60, faults="none", cancel_rate=0)
    servers = generated.spans.filter(pl.col.kind == 2)
    assert servers["service"].n_unique() > 40
    assert (servers["status"] == 2).mean() < 0.01
