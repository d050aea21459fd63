"""Traces that come in several buckets: who waits for whom, for how long, and how much is held."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from signals.cells import Cell
from tests.support.traces import SECOND, START, US, counted, log_frame, of_kind, reference_cells, span, span_frame
from topology.assembly import Assembled, AssemblyConfig, TraceAssembler

BUCKET = 10 * SECOND
exhaustive = settings(deadline=None, max_examples=50)


def run(rows, logs=(), *, buckets: int = 12, **config: int) -> tuple[list[Assembled], TraceAssembler]:
    """Every row in the bucket of its end, as the stream brings them."""
    assembler = TraceAssembler(AssemblyConfig(**config))
    done = []
    for number in range(buckets):
        start, end = number * BUCKET, (number + 1) * BUCKET
        mine = [row for row in rows if start <= row["end_ns"] - START < end]
        lines = [line for line in logs if start <= line[0] < end]
        done.append(assembler.process(START + end, span_frame(mine), log_frame(lines)))
    return done, assembler


def call(service: str, end_s: float, span_id: int, parent_id: int = 0, *, lasts_s: float = 1.0, **fields):
    end = int(end_s * SECOND)
    return span(service, start=end - int(lasts_s * SECOND), end=end, span_id=span_id, parent_id=parent_id, **fields)


@st.composite
def nested_traces(draw):
    """Traces in which every child lies inside its parent; most children end buckets before their parent."""
    rows, spans = [], [(0, 50_000, 0)]
    for number in range(draw(st.integers(1, 20))):
        low, high, parent = draw(st.sampled_from(spans))
        start = draw(st.integers(low, high))
        end = draw(st.integers(start, high))
        spans.append((start, end, number + 1))
        rows.append(
            span(
                draw(st.sampled_from(["a", "b", "c"])),
                draw(st.sampled_from(["op", "other"])),
                start=start * 1_000_000,
                end=end * 1_000_000,
                span_id=number + 1,
                parent_id=parent,
                kind=draw(st.integers(0, 5)),
                status=draw(st.sampled_from([0, 2])),
            )
        )
    ends = {row["span_id"]: row["end_ns"] - START for row in rows}
    ids = draw(st.lists(st.sampled_from(sorted(ends)), max_size=8))
    return rows, [(draw(st.integers(0, ends[one])), 1, one, draw(st.sampled_from(["t1", "t2"]))) for one in ids]


@exhaustive
@given(nested_traces())
def test_a_trace_says_the_same_whether_it_comes_in_one_bucket_or_in_many(trace):
    rows, logs = trace
    done, _ = run(rows, logs, parent_wait_ns=60 * SECOND, memory_ns=90 * SECOND)
    assert counted([one.cells for one in done]) == reference_cells(rows, logs, unit=1_000_000)
    assert sum(one.orphans for one in done) == 0


def test_children_that_come_before_their_parent_wait_for_it():
    done, _ = run([call("callee", 8, 2, 1), call("caller", 15, 1, lasts_s=10)])
    assert done[0].cells.height == 0
    assert of_kind(done[1].cells, Cell.SPANS, service="callee")["caller"].to_list() == ["caller"]
    assert of_kind(done[1].cells, Cell.CHILD)["what"].to_list() == ["callee|op"]


def test_a_child_that_comes_after_its_parent_still_learns_who_called_it():
    done, _ = run([call("caller", 5, 1), call("callee", 35, 2, 1)], memory_ns=60 * SECOND)
    assert of_kind(done[3].cells, Cell.SPANS)["caller"].to_list() == ["caller"]


def test_a_parent_that_ended_too_long_ago_is_forgotten():
    done, assembler = run([call("caller", 5, 1), call("callee", 95, 2, 1)], memory_ns=60 * SECOND, buckets=14)
    assert [one.orphans for one in done].count(1) == 1
    assert assembler.recent is not None
    assert "caller" not in assembler.recent["service"]


def test_a_span_whose_parent_never_comes_counts_as_called_by_nobody_after_a_while():
    done, assembler = run([call("callee", 5, 2, 1)], parent_wait_ns=20 * SECOND)
    spoke = [number for number, one in enumerate(done) if one.cells.height]
    assert len(spoke) == 1
    assert spoke[0] == 2  # the first bucket that ends more than 20 s after the span
    assert done[2].orphans == 1
    assert of_kind(done[2].cells, Cell.SPANS)["caller"].to_list() == [""]
    assert assembler.waiting is not None
    assert assembler.waiting.height == 0


def test_an_orphan_whose_parent_comes_too_late_is_not_counted_again():
    done, _ = run([call("callee", 5, 2, 1), call("caller", 55, 1, lasts_s=55)], parent_wait_ns=10 * SECOND)
    spans = counted([of_kind(one.cells, Cell.SPANS) for one in done])
    assert sorted((key[2], key[5], n) for key, n in spans.items()) == [("callee", "", 1), ("caller", "", 1)]


def test_a_root_never_waits():
    done, _ = run([call("caller", 5, 1)])
    assert of_kind(done[0].cells, Cell.SPANS)["n"].to_list() == [1]


def test_all_that_is_held_is_let_go_in_the_end():
    rows = [call("callee", 5 + number / 10, number + 2, 1) for number in range(20)]
    _, assembler = run(rows, [(1, 1, 99, "line of a span that never came")], memory_ns=30 * SECOND)
    held = (assembler.waiting, assembler.recent, assembler.children, assembler.logs)
    assert [frame.height for frame in held if frame is not None] == [0, 0, 0, 0]


def test_at_the_limit_the_oldest_go_on_without_their_parent_and_the_newest_still_wait():
    orphans = [call("callee", 1 + number / 10, number + 2, 1) for number in range(10)]
    roots = [call("other", 9, 100 + number) for number in range(10)]
    done, assembler = run([*orphans, *roots], buckets=1, max_waiting=4)
    assert done[0].orphans == 6
    assert assembler.waiting is not None
    assert sorted(assembler.waiting["span_id"].to_list()) == [8, 9, 10, 11]


@exhaustive
@given(limit=st.integers(1, 30), count=st.integers(0, 60))
def test_no_more_spans_wait_than_the_limit_and_none_is_lost(limit, count):
    rows = [call("callee", 1 + number / 4, number + 2, 1) for number in range(count)]
    done, assembler = run(rows, buckets=4, parent_wait_ns=10**18, max_waiting=limit)
    assert assembler.waiting is not None
    assert assembler.waiting.height == min(limit, count)
    emitted = sum(n for one in done for n in of_kind(one.cells, Cell.SPANS)["n"])
    assert emitted + assembler.waiting.height == count


def test_asynchronous_work_that_ends_later_does_not_change_what_its_caller_has_said():
    rows = [call("caller", 5, 1), call("worker", 25, 2, 1, lasts_s=21)]
    done, _ = run(rows)
    assert of_kind(done[0].cells, Cell.SPANS)["service"].to_list() == ["caller"]
    assert of_kind(done[2].cells, Cell.SPANS, service="worker")["caller"].to_list() == ["caller"]
    assert sum(of_kind(one.cells, Cell.SPANS, service="caller").height for one in done) == 1


def test_a_line_may_come_buckets_before_its_span_ends():
    done, _ = run([call("shop", 35, 1, lasts_s=34)], [(2 * SECOND, 1, 1, "begun")])
    assert of_kind(done[3].cells, Cell.LOG)["what"].to_list() == ["begun"]


def test_times_are_those_of_the_span_whatever_bucket_it_is_emitted_in():
    rows = [call("callee", 8, 2, 1, lasts_s=0.5), call("caller", 15, 1, lasts_s=10)]
    done, _ = run(rows)
    reference = reference_cells(rows, unit=500_000 * US)
    assert counted([one.cells for one in done]) == reference


def test_lines_whose_span_never_comes_are_counted_when_they_expire() -> None:
    lines = [(5 * SECOND, 1, 2, "template")]
    _, early = run([], lines, buckets=2, memory_ns=20 * SECOND)
    assert early.lost_logs == 0
    _, late = run([], lines, buckets=5, memory_ns=20 * SECOND)
    assert late.lost_logs == 1
