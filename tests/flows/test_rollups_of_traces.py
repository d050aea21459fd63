"""The first stages as the stream drives them: any batching, any partitions and any shards give the same cells."""

from __future__ import annotations

import pickle
from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.layout import Layout, layout_of
from flows.messages import CELLS, Addressed, Mark, Rows
from flows.stages import TraceStage
from signals.batch import END_OF_STREAM, Batch
from signals.cells import Cell
from signals.schema import Signal
from tests.support.telemetry import spans
from tests.support.traces import SECOND, START, counted, log_frame, of_kind, span, span_frame
from topology.assembly import AssemblyConfig, TraceAssembler

BUCKET = 10 * SECOND
LATENESS = 5 * SECOND


def frame(seed: int) -> pl.DataFrame:
    """Some minutes of spans of few traces, so that parents are found, lost and late."""
    made = spans(400, seed=seed, start_ns=START, spread_s=120.0)
    ids = pl.int_range(pl.len(), dtype=pl.UInt64) // 20
    return made.with_columns(
        trace_lo=ids, trace_hi=pl.lit(0, pl.UInt64), span_id=pl.int_range(pl.len(), dtype=pl.UInt64) % 20 + 1
    ).with_columns(parent_id=(pl.col("span_id") * 7 % 23) * (pl.col("span_id") % 3 != 0))


def drive(batches: list[tuple[str, pl.DataFrame, int]], partitions: int, shards: int) -> tuple[dict, int]:
    """Cells by bucket start, and rows that were late; batches are (partition, rows, watermark)."""
    layout = layout_of([(Signal.SPANS, f"p{number}") for number in range(partitions)], shards)
    stages = {name: stage_of(name, layout) for name in layout.traces}
    found: dict[int, list[pl.DataFrame]] = {}
    ends = [(f"p{number}", span_frame([]), END_OF_STREAM) for number in range(partitions)]
    for name, rows, watermark in [*batches, *ends]:
        for to, message in layout.route(Batch(Signal.SPANS, name, rows, watermark)):
            collect(found, stages[to].feed([message]))
    late = sum(stage.spans.late for stage in stages.values())
    return {start: counted(parts) for start, parts in sorted(found.items())}, late


def stage_of(name: str, layout: Layout) -> TraceStage:
    return TraceStage(name, layout, BUCKET, TraceAssembler(AssemblyConfig(parent_wait_ns=10 * SECOND)))


def collect(found: dict[int, list[pl.DataFrame]], sent: list[Addressed]) -> None:
    for one in sent:
        if not isinstance(one.message, Mark | Rows) and one.message.table == CELLS:
            found.setdefault(one.message.start_ns, []).append(one.message.payload)


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 5),
    cuts=st.lists(st.integers(1, 399), max_size=12),
    partitions=st.integers(1, 3),
    shards=st.integers(1, 3),
)
def test_any_batches_partitions_and_shards_give_the_same_cells_bucket_by_bucket(seed, cuts, partitions, shards):
    whole = frame(seed)
    expected, _ = drive([("p0", whole, START)], 1, 1)
    edges = sorted({0, whole.height, *cuts})
    queue = [whole[start:end] for start, end in pairwise(edges)]
    batches = []
    seen = dict.fromkeys(range(partitions), START - BUCKET)
    for number, rows in enumerate(queue):  # rows are in the order of their end
        mine = number % partitions
        seen[mine] = max(seen[mine], int(rows["end_ns"].max()) - LATENESS)
        batches.append((f"p{mine}", rows, seen[mine]))
    assert drive(batches, partitions, shards) == (expected, 0)


def test_disorder_within_the_lateness_changes_nothing_and_beyond_it_rows_are_counted_out():
    whole = frame(1)
    expected, _ = drive([("p0", whole, START)], 1, 1)
    middle = whole.height // 2
    shaken = [whole[middle:], whole[:middle]]
    low = int(whole[middle]["end_ns"][0]) - 200 * SECOND
    assert drive([("p0", rows, low) for rows in shaken], 1, 2) == (expected, 0)
    high = int(whole["end_ns"].max())
    cells, late = drive([("p0", rows, high) for rows in shaken], 1, 2)
    assert late > 0
    assert cells != expected


def test_a_stage_that_was_pickled_between_polls_goes_on_as_if_it_had_not_been():
    whole, layout = frame(2), layout_of([(Signal.SPANS, "p0")], 1)
    stage, twin, found, again = stage_of("traces-0", layout), None, {}, {}
    for start in range(0, whole.height, 40):
        rows = whole[start : start + 40]
        for _, message in layout.route(Batch(Signal.SPANS, "p0", rows, int(rows["end_ns"].max()) - LATENESS)):
            collect(found, stage.feed([message]))
            if twin is not None:
                collect(again, twin.feed([message]))
        if start == 160:
            twin, again = pickle.loads(pickle.dumps(stage)), {key: list(value) for key, value in found.items()}  # noqa: S301 - made here
    assert {key: counted(value) for key, value in again.items()} == {
        key: counted(value) for key, value in found.items()
    }


def test_a_span_that_waits_for_its_parent_expires_in_its_own_bucket_even_when_nothing_else_comes():
    layout = layout_of([(Signal.SPANS, "p0")], 1)
    stage, found = stage_of("traces-0", layout), {}
    orphan = span_frame([span("shop", end=5 * SECOND, parent_id=99)])
    for rows, watermark in ((orphan, START + 11 * SECOND), (span_frame([]), START + 500 * SECOND)):
        for _, message in layout.route(Batch(Signal.SPANS, "p0", rows, watermark)):
            collect(found, stage.feed([message]))
    assert list(found) == [START + BUCKET]
    assert stage.orphans == 1


def test_a_span_delivered_twice_counts_once_whatever_batches_it_comes_in():
    whole = frame(3)
    expected, _ = drive([("p0", whole, START)], 1, 1)
    again = whole.sample(fraction=0.5, seed=1)
    early = int(whole["end_ns"].min())
    assert drive([("p0", whole, early), ("p0", again, early), ("p1", again, early)], 2, 2) == (expected, 0)


def test_a_client_and_a_server_span_that_share_an_id_are_two_and_spans_without_an_id_are_all_counted():
    shared = [span("shop", kind=3, end=1_000), span("cart", kind=2, end=1_000)]
    nameless = [span("old", span_id=0, end=2_000)] * 3
    assembler = TraceAssembler(AssemblyConfig())
    cells = assembler.process(START + BUCKET, span_frame([*shared, *nameless]), log_frame()).cells
    counts = dict(of_kind(cells, Cell.SPANS).group_by("service").agg(pl.col("n").sum()).iter_rows())
    assert counts == {"shop": 1, "cart": 1, "old": 3}
    assert assembler.repeated == 0
