"""The same telemetry gives the same incidents, however it is cut, ordered, hashed, interrupted and restored."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import replace as changed

import polars as pl
import pytest

from connectors.recording import RecordingSource, iterate
from flows.detect import Job
from flows.layout import Layout
from flows.replay import replay
from incidents.model import Provenance
from signals.batch import Batch
from signals.schema import Signal
from tests.support.live import ROOT, canonical, told
from tests.support.stages import Pump


@pytest.fixture(scope="session")
def items(shop):
    """The shop's telemetry as a source gives it, in batches of odd size."""
    return list(iterate(RecordingSource(shop, batch_rows=2_503)))


@pytest.fixture
def job(shop, shop_settings):
    partitions = RecordingSource(shop).partitions_by_signal()
    provenance = Provenance(mode="replay", pipeline="test", config_hash=shop_settings.digest)
    return Job(shop_settings, Layout(shop_settings.stream.shards, partitions), provenance)


def said(events) -> dict[str, bytes]:
    return told(event.to_json() for event in events)


@pytest.mark.parametrize("batch_rows", [311, 7_001])
def test_the_size_of_batches_changes_nothing(shop, shop_settings, undisturbed, batch_rows):
    result = replay(shop, shop_settings, batch_rows=batch_rows)
    assert said(result.events) == undisturbed.causes
    assert told(result.intents) == undisturbed.intents


def test_the_order_of_rows_within_a_poll_changes_nothing(items, job, undisturbed):
    def shuffled(batch: Batch, seed: int) -> Batch:
        return changed(batch, frame=batch.frame.sample(fraction=1.0, shuffle=True, seed=seed))

    mixed = [shuffled(item, seed) if isinstance(item, Batch) else item for seed, item in enumerate(items)]
    moved = sum(not a.frame.equals(b.frame) for a, b in zip(items, mixed, strict=True) if isinstance(a, Batch))
    assert moved > 10
    assert said(Pump(job).feed(mixed)) == undisturbed.causes


def test_which_partition_speaks_first_changes_nothing(items, job, undisturbed):
    """Partitions drift apart by up to half a minute and more, as those of different processes do."""
    queues = {
        signal: [item for item in items if isinstance(item, Batch) and item.signal is signal] for signal in Signal
    }
    draw, mixed = random.Random(7), []
    while any(queues.values()):
        signal = draw.choice([signal for signal, queue in queues.items() if queue])
        mixed += [queues[signal].pop(0) for _ in range(min(len(queues[signal]), draw.randint(1, 6)))]
    assert said(Pump(job).feed(mixed)) == undisturbed.causes


def test_rows_of_one_moment_in_another_order_change_nothing(items, job, undisturbed):
    """Times cut to whole seconds make many rows equal in time: their order must come from what they say."""

    def coarse(batch: Batch, seed: int | None) -> Batch:
        frame = batch.frame
        if batch.signal is Signal.LOGS:
            frame = frame.with_columns(pl.col("time_ns") // 10**9 * 10**9)
        if seed is not None:
            frame = frame.sample(fraction=1.0, shuffle=True, seed=seed)
        return changed(batch, frame=frame, watermark_ns=batch.watermark_ns // 10**9 * 10**9)

    one = Pump(job).feed([coarse(item, None) for item in items if isinstance(item, Batch)])
    other = Pump(job).feed([coarse(item, seed) for seed, item in enumerate(items) if isinstance(item, Batch)])
    assert said(one) == said(other)
    assert said(one).keys() & undisturbed.causes.keys()


def test_the_seed_of_pythons_hashes_changes_nothing(shop, shop_settings, undisturbed, tmp_path):
    script = (
        "import sys, hashlib; from pathlib import Path\n"
        "from flows.replay import replay; from flows.settings import Settings\n"
        "from tests.support.live import canonical\n"
        "result = replay(Path(sys.argv[1]), Settings.model_validate_json(Path(sys.argv[2]).read_text()))\n"
        "print(hashlib.sha256(b''.join(canonical(event.to_json()) for event in result.events)).hexdigest())\n"
    )
    (tmp_path / "settings.json").write_text(shop_settings.model_dump_json(), encoding="utf-8")
    wanted = hashlib.sha256(b"".join(canonical(event) for event in undisturbed.events)).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", script, str(shop), str(tmp_path / "settings.json")],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == wanted


def test_stages_restored_from_snapshots_go_on_as_if_nothing_had_happened(items, job, undisturbed):
    pump, events, restarts = Pump(job), [], 0
    for number, item in enumerate(items):
        events += pump.feed([item])
        if number % 5 == 4:
            pump.restart()
            restarts += 1
    assert restarts >= 5
    assert said(events) == undisturbed.causes


def test_snapshots_are_copies_that_later_rows_do_not_change(items, job):
    pump = Pump(job)
    pump.feed(items[: len(items) // 2])
    before = pump.saved()
    twin = Pump(job, stages=dict(pump.stages))
    twin.restart()
    twin.feed(items[len(items) // 2 :])
    assert pump.saved() == before


def test_a_partition_added_at_a_restart_is_waited_for(items, job):
    pump = Pump(job)
    pump.feed(items[:12])
    partitions = {**job.layout.partitions, Signal.SPANS: (*job.layout.partitions[Signal.SPANS], "new")}
    pump.job = changed(job, layout=Layout(job.layout.shards, partitions))
    pump.restart()
    traces = [stage for name, stage in pump.stages.items() if name.startswith("traces")]
    held = {stage.vitals().watermark_ns for stage in traces}
    pump.feed(items[12:])
    assert {stage.vitals().watermark_ns for stage in traces} == held
    behind = [stage.vitals().watermark_ns for name, stage in pump.stages.items() if name.startswith(("detect", "inc"))]
    assert behind
    assert max(behind) <= max(held)
