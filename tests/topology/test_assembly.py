"""Trace assembly: what one span says, against a computation that looks at one span at a time."""

from __future__ import annotations

import pickle

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.buckets import merge_cells
from signals.cells import CELLS, KEYS, Cell
from signals.schema import SpanKind, SpanStatus
from tests.support.traces import (
    SECOND,
    START,
    US,
    bin_of,
    counted,
    log_frame,
    of_kind,
    reference_cells,
    span,
    span_frame,
)
from topology.assembly import Assembled, AssemblyConfig, TraceAssembler

BUCKET = 10 * SECOND
ERROR = int(SpanStatus.ERROR)
exhaustive = settings(deadline=None, max_examples=100)
some = settings(deadline=None, max_examples=25)


def assemble(rows, logs=(), *, wait_s: float = 0.0) -> Assembled:
    """One bucket that holds everything; nobody waits for a parent in a later one unless told to."""
    assembler = TraceAssembler(AssemblyConfig(parent_wait_ns=int(wait_s * SECOND)))
    done = assembler.process(START + BUCKET, span_frame(rows), log_frame(logs))
    rest = assembler.process(START + 4 * BUCKET, span_frame([]), log_frame())
    return Assembled(
        pl.concat([done.cells, rest.cells]), done.exemplars, done.spans + rest.spans, done.orphans + rest.orphans
    )


def exclusive_bins(cells: pl.DataFrame, service: str) -> list[int]:
    return of_kind(cells, Cell.EXCLUSIVE, service=service)["bin"].to_list()


@st.composite
def trace_forests(draw):
    """Spans of some traces in any order: children of any interval, parents missing, kinds and errors at random."""
    rows = []
    for number in range(draw(st.integers(1, 25))):
        start = draw(st.integers(0, 60))
        rows.append(
            span(
                draw(st.sampled_from(["a", "b", "c"])),
                draw(st.sampled_from(["op", "other"])),
                start=start * US,
                end=(start + draw(st.integers(0, 60))) * US,
                trace_lo=draw(st.integers(1, 2)),
                span_id=number + 1,
                parent_id=draw(st.integers(0, number)),  # of this trace, of the other one (so missing), or none
                kind=draw(st.integers(0, 5)),
                status=draw(st.sampled_from([0, 1, 2])),
                instance=draw(st.sampled_from(["", "i1"])),
                peer=draw(st.sampled_from(["", "db"])),
            )
        )
    wanted = st.tuples(st.integers(0, 99), st.integers(1, 2), st.integers(1, 25), st.sampled_from(["t1", "t2"]))
    logs = draw(st.lists(wanted, max_size=20))
    return draw(st.permutations(rows)), logs


@exhaustive
@given(trace_forests())
def test_cells_agree_with_a_computation_span_by_span(forest):
    rows, logs = forest
    done = assemble(rows, logs)
    assert counted(done.cells) == reference_cells(rows, logs)
    assert done.spans == len(rows)
    assert dict(done.cells.schema) == dict(CELLS)


@some
@given(trace_forests(), st.randoms())
def test_cells_do_not_depend_on_the_order_of_rows(forest, seed):
    rows, logs = forest
    shuffled = list(rows)
    seed.shuffle(shuffled)
    one, other = assemble(rows, logs), assemble(shuffled, logs)
    assert counted(one.cells) == counted(other.cells)
    assert one.exemplars.equals(other.exemplars)


@some
@given(trace_forests(), st.integers(2, 5))
def test_cells_do_not_depend_on_how_traces_are_spread_over_shards(forest, shards):
    rows, logs = forest
    parts = [
        assemble(
            [row for row in rows if row["trace_lo"] % shards == number],
            [line for line in logs if line[1] % shards == number],
        ).cells
        for number in range(shards)
    ]
    assert counted(merge_cells(parts, KEYS, ["n"])) == counted(assemble(rows, logs).cells)


def test_a_slow_callee_does_not_blame_its_caller():
    calls = [
        span("caller", end=900 * US),
        span("callee", start=10 * US, end=890 * US, span_id=2, parent_id=1),
    ]
    cells = assemble(calls).cells
    assert exclusive_bins(cells, "caller") == []
    assert exclusive_bins(cells, "callee") == [bin_of(880 * US)]


def test_own_time_leaves_out_what_a_client_span_waited_for():
    calls = [
        span("shop", end=1_000 * US),
        span("shop", "query", start=100 * US, end=900 * US, span_id=2, parent_id=1, kind=int(SpanKind.CLIENT)),
    ]
    cells = assemble(calls).cells
    assert of_kind(cells, Cell.EXCLUSIVE, operation="op")["bin"].to_list() == [bin_of(200 * US)]


def test_overlapping_children_are_never_counted_twice():
    children = [
        span("shop", "part", start=start * US, end=end * US, span_id=number, parent_id=1)
        for number, (start, end) in enumerate([(10, 50), (20, 40), (30, 70), (30, 70), (90, 95)], start=2)
    ]
    cells = assemble([span("shop", end=100 * US), *children]).cells
    assert of_kind(cells, Cell.EXCLUSIVE, operation="op")["bin"].to_list() == [bin_of((100 - 60 - 5) * US)]


def test_children_that_outlive_their_parent_are_clipped_to_it():
    calls = [
        span("shop", start=100 * US, end=200 * US),
        span("shop", "early", start=0, end=120 * US, span_id=2, parent_id=1),
        span("shop", "late", start=150 * US, end=900 * US, span_id=3, parent_id=1),
        span("shop", "after", start=500 * US, end=600 * US, span_id=4, parent_id=1),
    ]
    cells = assemble(calls).cells
    assert of_kind(cells, Cell.EXCLUSIVE, operation="op")["bin"].to_list() == [bin_of(30 * US)]


def test_the_edge_gap_is_free_of_clock_skew():
    """The callee's clock is a minute ahead: its span lies wholly outside its caller's."""

    def gap(skew_us: int) -> list[int]:
        calls = [
            span("caller", "get", end=500 * US, kind=int(SpanKind.CLIENT)),
            span("callee", start=skew_us * US, end=(skew_us + 200) * US, span_id=2, parent_id=1),
        ]
        cells = of_kind(assemble(calls).cells, Cell.GAP)
        assert cells.select("service", "caller", "operation").rows() == [("callee", "caller", "")]
        return cells["bin"].to_list()

    assert gap(0) == gap(60_000) == [bin_of(300 * US)]


def test_work_that_outlives_its_call_has_no_gap():
    calls = [span("caller", end=100 * US), span("callee", end=300 * US, span_id=2, parent_id=1)]
    assert of_kind(assemble(calls).cells, Cell.GAP).height == 0


def test_a_message_that_waits_in_a_broker_is_no_slow_network():
    calls = [
        span("orders", "publish", end=500 * US, kind=int(SpanKind.PRODUCER)),
        span("billing", "consume", start=400 * US, end=450 * US, span_id=2, parent_id=1, kind=int(SpanKind.CONSUMER)),
    ]
    assert of_kind(assemble(calls).cells, Cell.GAP).height == 0


def test_a_call_within_a_service_is_no_edge():
    calls = [span("shop", end=500 * US), span("shop", "part", end=100 * US, span_id=2, parent_id=1)]
    assert of_kind(assemble(calls).cells, Cell.GAP).height == 0


def test_an_error_is_credited_where_it_began_not_where_it_passed_through():
    calls = [
        span("edge", end=100 * US, status=ERROR),
        span("middle", end=90 * US, span_id=2, parent_id=1, status=ERROR),
        span("deep", end=80 * US, span_id=3, parent_id=2, status=ERROR),
        span("bystander", end=10 * US, span_id=4, parent_id=2),
    ]
    cells = assemble(calls).cells
    assert sorted(of_kind(cells, Cell.ERRORS)["service"]) == ["deep", "edge", "middle"]
    assert of_kind(cells, Cell.ORIGIN)["service"].to_list() == ["deep"]


def test_who_is_called_from_inside_a_span_counts_once_per_span_however_often_it_is_called():
    calls = [
        span("shop", end=100 * US),
        *(span("db", "query", end=10 * US, span_id=number, parent_id=1) for number in range(2, 9)),
    ]
    cells = of_kind(assemble(calls).cells, Cell.CHILD)
    assert cells.select("service", "what", "n").rows() == [("shop", "db|query", 1)]


def test_a_line_counts_once_per_span_and_only_for_the_span_it_was_written_in():
    calls = [span("shop", end=100 * US), span("shop", "part", end=50 * US, span_id=2, parent_id=1)]
    lines = [(5, 1, 2, "template"), (6, 1, 2, "template"), (7, 2, 2, "of another trace")]
    cells = of_kind(assemble(calls, lines).cells, Cell.LOG)
    assert cells.select("operation", "what", "n").rows() == [("part", "template", 1)]


def test_who_was_called_is_known_from_the_caller_alone_where_nobody_answers():
    calls = [span("shop", "GET", end=100 * US, kind=int(SpanKind.CLIENT), peer="redis", status=ERROR)]
    cells = assemble(calls).cells
    assert of_kind(cells, Cell.PEER)["what"].to_list() == ["redis"]
    assert of_kind(cells, Cell.CLIENT)["n"].to_list() == [1]


def test_the_trace_to_open_first_is_the_one_that_failed_and_the_slowest_one():
    calls = [
        span("shop", end=(10 + trace) * US, trace_lo=trace, status=ERROR if trace in (3, 5) else 0)
        for trace in range(1, 9)
    ]
    exemplars = assemble(calls).exemplars
    assert {row["kind"]: row["trace_lo"] for row in exemplars.iter_rows(named=True)} == {
        Cell.ORIGIN: 3,
        Cell.DURATION: 8,
    }


def test_a_trace_that_failed_only_because_of_a_callee_is_no_example_of_the_caller_failing():
    calls = [
        span("edge", end=100 * US, status=ERROR),
        span("deep", end=80 * US, span_id=2, parent_id=1, status=ERROR),
    ]
    failing = assemble(calls).exemplars.filter(pl.col("kind") == int(Cell.ORIGIN))
    assert failing["service"].to_list() == ["deep"]


def test_a_bucket_without_spans_gives_nothing():
    done = assemble([])
    assert (done.cells.height, done.exemplars.height, done.spans, done.orphans) == (0, 0, 0, 0)


def test_spans_that_call_each_other_in_a_circle_or_themselves_are_counted_once_each():
    rows = [
        span("a", end=10 * US, span_id=1, parent_id=2),
        span("b", end=10 * US, span_id=2, parent_id=1),
        span("c", end=10 * US, span_id=3, parent_id=3),
    ]
    spans = of_kind(assemble(rows).cells, Cell.SPANS)
    assert spans.sort("service").select("service", "n").rows() == [("a", 1), ("b", 1), ("c", 1)]


def test_an_assembler_that_was_pickled_goes_on_as_if_it_had_not_been():
    assembler = TraceAssembler(AssemblyConfig(parent_wait_ns=BUCKET))
    early = [span("callee", end=US, span_id=2, parent_id=1), span("db", end=US, span_id=3, parent_id=2)]
    assembler.process(START + BUCKET, span_frame(early), log_frame([(1, 1, 1, "line")]))
    twin = pickle.loads(pickle.dumps(assembler))  # noqa: S301 - made a line above
    later = span_frame([span("caller", end=BUCKET + US)])
    done = [one.process(START + 2 * BUCKET, later, log_frame()) for one in (assembler, twin)]
    assert counted(done[0].cells) == counted(done[1].cells)
    assert of_kind(done[1].cells, Cell.LOG)["service"].to_list() == ["caller"]
