"""Event-time buckets: whatever the batching, a row is handed on once, in its bucket, in a fixed order, or counted."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.batch import END_OF_STREAM, NO_WATERMARK
from signals.buckets import BucketBuffer, Watermarks, floor_to, merge_cells

BUCKET = 10
LATENESS = 15
SCHEMA = {"time_ns": pl.Int64, "id": pl.Int64}

times = st.lists(st.integers(min_value=-50, max_value=200), max_size=40)
exhaustive = settings(deadline=None, max_examples=150)


def frame(rows: list[tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def buffer() -> BucketBuffer:
    return BucketBuffer("time_ns", BUCKET, ("id",))


def plain(closed: list[tuple[int, pl.DataFrame]]) -> list[tuple[int, list[tuple[int, int]]]]:
    return [(start, part.rows()) for start, part in closed]


def in_one_batch(rows: list[tuple[int, int]]) -> list[tuple[int, list[tuple[int, int]]]]:
    whole = buffer()
    whole.add(frame(rows))
    return plain(whole.close(END_OF_STREAM))


@exhaustive
@given(times=times, cuts=st.lists(st.integers(0, 40)), closings=st.lists(st.booleans(), min_size=41, max_size=41))
def test_any_split_of_rows_into_batches_gives_the_same_buckets(times, cuts, closings):
    rows = [(at, number) for number, at in enumerate(sorted(times))]
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    split = buffer()
    closed = []
    for number, (start, end) in enumerate(pairwise(edges)):
        split.add(frame(rows[start:end]))
        if closings[number]:  # sorted rows: all later ones are at or after the last one seen
            closed += split.close(rows[end - 1][0])
    closed += split.close(END_OF_STREAM)
    assert plain(closed) == in_one_batch(rows)
    assert split.late == 0
    assert split.rows == 0


@exhaustive
@given(data=st.data(), times=times, partitions=st.integers(1, 4))
def test_any_interleaving_of_partitions_with_bounded_disorder_gives_the_same_buckets(data, times, partitions):
    """Each partition promises what it has seen less its lateness; whoever is read first changes nothing."""
    rows = [(at, number) for number, at in enumerate(times)]
    queues: dict[str, list[tuple[int, int]]] = {f"p{number}": [] for number in range(partitions)}
    for at, number in rows:
        queues[f"p{data.draw(st.integers(0, partitions - 1))}"].append((at, number))
    for name, queue in queues.items():  # disorder within a partition stays below the lateness
        queues[name] = sorted(queue, key=lambda row: row[0] + data.draw(st.integers(0, LATENESS)))
    marks, held, closed, seen = Watermarks(frozenset(queues)), buffer(), [], dict.fromkeys(queues, NO_WATERMARK)
    while any(queues.values()):
        name = data.draw(st.sampled_from([name for name, queue in queues.items() if queue]))
        size = data.draw(st.integers(1, len(queues[name])))
        poll, queues[name] = queues[name][:size], queues[name][size:]
        held.add(frame(poll))
        seen[name] = max(seen[name], *(at for at, _ in poll))
        closed += held.close(marks.advance(name, seen[name] - LATENESS))
    for name in queues:
        low = marks.advance(name, END_OF_STREAM)
    closed += held.close(low)
    assert plain(closed) == in_one_batch(rows)
    assert held.late == 0


@exhaustive
@given(data=st.data(), times=times)
def test_every_row_is_handed_on_once_or_counted_as_late_and_never_both(data, times):
    held, handed, watermark = buffer(), Counter(), NO_WATERMARK
    for number, at in enumerate(times):
        held.add(frame([(at, number)]))
        if data.draw(st.booleans()):
            watermark = max(watermark, data.draw(st.integers(-60, 210)))
            for start, part in held.close(watermark):
                handed.update(part["id"].to_list())
                assert start + BUCKET <= watermark
    for _, part in held.close(END_OF_STREAM):
        handed.update(part["id"].to_list())
    assert set(handed.values()) <= {1}
    assert handed.total() + held.late == len(times)


def test_a_row_for_a_closed_bucket_is_late_and_one_for_an_open_bucket_is_not():
    held = buffer()
    held.add(frame([(1, 1), (12, 2)]))
    assert plain(held.close(19)) == [(0, [(1, 1)])]
    held.add(frame([(9, 3), (10, 4)]))
    assert held.late == 1
    assert plain(held.close(20)) == [(10, [(10, 4), (12, 2)])]


def test_a_bucket_without_rows_closes_too_so_that_its_rows_are_late_afterwards():
    held = buffer()
    assert held.close(30) == []
    held.add(frame([(29, 1), (30, 2)]))
    assert held.late == 1
    assert plain(held.close(END_OF_STREAM)) == [(30, [(30, 2)])]


def test_a_watermark_that_goes_back_reopens_nothing():
    held = buffer()
    held.add(frame([(5, 1)]))
    held.close(10)
    assert held.close(0) == []
    held.add(frame([(5, 2)]))
    assert held.late == 1


@exhaustive
@given(rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=30), seed=st.randoms())
def test_rows_inside_a_bucket_have_a_fixed_order_whatever_order_they_came_in(rows, seed):
    shuffled = rows.copy()
    seed.shuffle(shuffled)
    assert in_one_batch(shuffled) == in_one_batch(rows)


def test_a_buffer_that_was_pickled_goes_on_as_if_it_had_not_been():
    held = buffer()
    held.add(frame([(1, 1), (11, 2), (21, 3)]))
    held.close(10)
    twin = pickle.loads(pickle.dumps(held))  # noqa: S301 - made a line above
    for one in (held, twin):
        one.add(frame([(5, 4), (15, 5)]))
    assert plain(twin.close(20)) == plain(held.close(20)) == [(10, [(11, 2), (15, 5)])]
    assert twin.late == held.late == 1


def test_nothing_closes_before_every_partition_has_spoken():
    marks = Watermarks(frozenset({"a", "b"}))
    assert marks.advance("a", 1_000) == NO_WATERMARK
    assert marks.advance("b", 7) == 7


def test_an_idle_partition_holds_nobody_back_and_counts_again_when_it_speaks():
    marks = Watermarks(frozenset({"a", "b"}))
    marks.advance("a", 100)
    assert marks.advance("b", 5, idle=True) == 100
    assert marks.advance("b", 6) == 100  # what was promised stays promised
    assert marks.advance("a", 200) == 100
    assert marks.advance("b", 150) == 150


def test_when_all_are_idle_time_stands_still():
    marks = Watermarks(frozenset({"a"}))
    marks.advance("a", 100)
    assert marks.advance("a", 300, idle=True) == 100


def test_a_partition_nobody_expects_holds_nobody_back():
    marks = Watermarks(frozenset({"a"}))
    marks.advance("stranger", 3)
    assert marks.advance("a", 50) == 50


@exhaustive
@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100), st.booleans()), max_size=40),
)
def test_the_least_watermark_never_goes_back(steps):
    marks, lows = Watermarks(frozenset("abc")), []
    for name, at, idle in steps:
        lows.append(marks.advance(name, at, idle=idle))
    assert lows == sorted(lows)


@exhaustive
@given(at=st.integers(-(2**61), 2**61), bucket=st.integers(1, 3_600_000_000_000))
def test_a_time_lies_in_the_bucket_it_is_put_into(at, bucket):
    start = floor_to(at, bucket)
    assert start <= at < start + bucket
    assert start % bucket == 0


@exhaustive
@given(
    rows=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 3), st.integers(1, 9)), min_size=1),
    cut=st.integers(0, 50),
)
def test_partial_rollups_add_up_to_the_same_however_they_were_split(rows, cut):
    schema = {"who": pl.String, "bin": pl.Int64, "n": pl.Int64}
    whole = pl.DataFrame(rows, schema=schema, orient="row")
    parts = [whole[:cut], whole[cut:]]
    one, other = (merge_cells(order, ["who", "bin"], ["n"]) for order in (parts, parts[::-1]))
    assert one.equals(other)
    expected = Counter()
    for who, bin_, n in rows:
        expected[who, bin_] += n
    assert {row[:2]: row[2] for row in one.rows()} == expected
    assert one.rows() == sorted(one.rows())
