"""Shards: logical, stable, and each row in exactly one of them."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.layout import Layout, layout_of, shard_of
from flows.messages import Mark, Rows
from signals.batch import Batch
from signals.schema import SCHEMAS, Signal
from tests.support.telemetry import FRAMES

PARTITIONS = [(Signal.SPANS, "spans/0"), (Signal.SPANS, "spans/1"), (Signal.LOGS, "logs/0"), (Signal.METRICS, "m/0")]
ALL = layout_of([*PARTITIONS, (Signal.CHANGES, "c/0")], 4)


def batch(signal: Signal, frame: pl.DataFrame | None = None, **fields) -> Batch:
    return Batch(signal, "spans/0", FRAMES[signal] if frame is None else frame, watermark_ns=77, **fields)


@pytest.mark.parametrize("signal", [Signal.SPANS, Signal.LOGS, Signal.METRICS])
@pytest.mark.parametrize("shards", [1, 2, 7, 256])
def test_every_row_goes_to_exactly_one_shard(signal, shards):
    layout = layout_of([(one, f"{one}/0") for one in Signal], shards)
    parts = [one.message.frame for one in layout.route(batch(signal)) if isinstance(one.message, Rows)]
    columns = [name for name in SCHEMAS[signal] if name not in ("bounds", "counts")]
    together = pl.concat(parts).select(columns).sort(columns)
    assert together.equals(FRAMES[signal].select(columns).sort(columns))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 16), st.randoms())
def test_a_trace_is_never_split_whatever_batch_its_spans_come_in(shards, seed):
    layout = Layout(shards, {})
    rows = list(range(FRAMES[Signal.SPANS].height))
    seed.shuffle(rows)
    frame = FRAMES[Signal.SPANS].with_columns(trace_lo=pl.col("trace_lo") % 40)
    where: dict[int, set[int]] = {}
    for piece in (frame[rows[:200]], frame[rows[200:]]):
        for number, part in enumerate(layout.by_trace(piece)):
            for trace in part["trace_lo"].unique():
                where.setdefault(trace, set()).add(number)
    assert all(len(shard) == 1 for shard in where.values())


def test_a_service_is_never_split_and_the_same_service_of_two_environments_may_be():
    frame = pl.concat([FRAMES[Signal.METRICS], FRAMES[Signal.METRICS].with_columns(environment=pl.lit("staging"))])
    for number, part in enumerate(Layout(4, {}).by_service(frame)):
        assert {shard_of(*row, 4) for row in part.select("environment", "service").iter_rows()} <= {number}
    apart = [shard_of(environment, "payment", 64) for environment in ("prod", "staging", "dev")]
    assert len(set(apart)) == 3


def test_rows_keep_their_order_inside_a_shard():
    frame = FRAMES[Signal.LOGS].with_row_index("n")
    for part in Layout(3, {}).by_service(frame):
        assert part["n"].is_sorted()


def test_a_service_has_the_same_shard_in_every_process_whatever_the_hash_seed():
    code = "from flows.layout import shard_of; print([shard_of('prod', f's{n}', 16) for n in range(40)])"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{[shard_of('prod', f's{n}', 16) for n in range(40)]}\n".encode()}


def test_services_are_spread_over_all_shards():
    shards = [shard_of("prod", f"service-{number}", 8) for number in range(800)]
    assert min(shards.count(number) for number in range(8)) > 50


@pytest.mark.parametrize("signal", list(Signal))
def test_the_watermark_of_a_poll_goes_to_every_shard_that_waits_for_it_data_or_not(signal):
    receivers = {
        Signal.SPANS: ALL.traces,
        Signal.LOGS: ALL.logs,
        Signal.METRICS: ALL.detect,
        Signal.CHANGES: [ALL.incidents],
    }
    for frame in (None, FRAMES[signal].clear()):
        sent = ALL.route(batch(signal, frame, last_offset=9, idle=True))
        marks = {one.to: one.message for one in sent if isinstance(one.message, Mark)}
        assert list(marks) == receivers[signal]
        for mark in marks.values():
            assert (mark.origin, mark.watermark_ns, mark.idle, mark.offsets) == ("spans/0", 77, True, {"spans/0": 9})
        assert isinstance(sent[-1].message, Mark)  # a promise never overtakes the rows it speaks of


def test_a_poll_without_rows_sends_no_rows_and_one_without_offsets_tells_none():
    sent = ALL.route(batch(Signal.SPANS, FRAMES[Signal.SPANS].clear()))
    assert all(isinstance(one.message, Mark) and one.message.offsets == {} for one in sent)


def test_everybody_waits_for_all_that_can_still_send_to_it():
    assert ALL.log_origins() == {"logs/0"}
    assert ALL.trace_origins() == {"spans/0", "spans/1", *ALL.logs}
    assert ALL.detect_origins() == {"m/0", *ALL.logs, *ALL.traces}
    assert ALL.incident_origins() == {"c/0", *ALL.logs, *ALL.detect}


def test_nobody_waits_for_a_signal_that_is_not_there():
    metrics_only = layout_of([(Signal.METRICS, "m/0")], 2)
    assert metrics_only.logs == metrics_only.traces == []
    assert metrics_only.detect_origins() == {"m/0"}
    assert metrics_only.incident_origins() == set(metrics_only.detect)
