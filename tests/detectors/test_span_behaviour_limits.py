"""What has been learnt stays bounded: the weakest give way, and are counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.behaviour_state import Column, Dispersion, g_statistic
from detectors.behaviour_tables import BehaviourTables
from detectors.span_behaviour import SpanBehaviour
from detectors.span_config import SpanBehaviourConfig
from signals.cells import BINS, Cell
from tests.support.cells import cell_frame, feed, operation
from tests.support.traces import START

LOG = (Cell.LOG, "template")


def tables_of(*parts: list, **config: int) -> BehaviourTables:
    """Tables that have learnt one bucket."""
    tables = BehaviourTables(SpanBehaviourConfig(**config))
    counts = tables.intern(START, cell_frame(*parts))
    limits = np.full(tables.histogram.size, BINS, dtype=np.int64)
    tables.learn(counts, np.ones(len(tables.services), dtype=np.int64), limits)
    return tables


def learnt(tables: BehaviourTables) -> dict[str, float]:
    """Spans learnt per service."""
    return {key[2]: float(tables.n.view[row]) for key, row in tables.operations.items()}


def test_operations_beyond_the_limit_are_refused_and_counted_until_some_are_forgotten():
    tables = tables_of(*(operation(f"s{number:02}", number + 1) for number in range(12)), max_operations=10)
    assert len(tables.operations) == 10
    assert tables.dropped == 2


def test_at_the_limit_the_operations_seen_least_are_forgotten_with_all_that_belongs_to_them():
    rows = [
        operation(f"s{number:02}", 100 - number, shown={LOG: 50 - number}, times={(Cell.EXCLUSIVE, 10): 100 - number})
        for number in range(10)
    ]
    tables = tables_of(*rows, max_operations=10)
    moved = tables.forget()
    assert moved is not None
    assert moved.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, -1]
    assert tables.dropped == 1 + 1  # an operation and its behaviour
    assert learnt(tables) == {f"s{number:02}": 100 - number for number in range(9)}
    assert len(tables.behaviours) == len(tables.times) == 9


def test_what_is_kept_keeps_its_history_under_its_new_rows():
    rows = [
        operation(f"s{number}", [5, 900, 7, 800][number], shown={LOG: number + 1}, times={(Cell.GAP, 1): number + 1})
        for number in range(4)
    ]
    tables = tables_of(*rows, max_operations=4)
    tables.forget()
    for (row, kind, what), behaviour in tables.behaviours.items():
        service = tables.operation_names[row][2]
        assert (kind, what) == LOG
        assert tables.k.view[behaviour] == int(service[1:]) + 1
        assert tables.operation.view[behaviour] == row
        assert tables.behaviour_names[behaviour] == (row, kind, what)
    for (row, _), time in tables.times.items():
        service = tables.operation_names[row][2] or "?"
        assert tables.histogram.view[time].sum() == int(service[1:]) + 1


def test_one_operation_with_ever_new_behaviours_costs_the_others_nothing():
    """Peers named by an address that changes, or ids in a log template that no mask catches."""
    noise = {(Cell.PEER, f"10.0.0.{number}:80"): 1 for number in range(95)}
    tables = tables_of(
        operation("noisy", 10_000, shown=noise), operation("quiet", 40, shown={LOG: 20}), max_behaviours=90
    )
    for _ in range(5):
        tables.intern(START, cell_frame(operation("noisy", 100, shown=noise), operation("quiet", 40, shown={LOG: 20})))
        tables.forget()
        assert len(tables.behaviours) < 90
    assert learnt(tables).keys() == {"noisy", "quiet"}


def test_nothing_is_forgotten_below_the_limits():
    tables = tables_of(operation("shop", 10))
    assert tables.forget() is None
    assert tables.dropped == 0


def test_a_name_that_comes_back_after_it_was_forgotten_is_learnt_anew():
    tables = tables_of(*(operation(f"s{number}", 100 - number) for number in range(10)), max_operations=10)
    tables.forget()
    counts = tables.intern(START, cell_frame(operation("s9", 3)))
    assert counts.n.tolist() == [3.0]
    assert tables.n.view[counts.operations].tolist() == [0.0]


@settings(deadline=None, max_examples=40)
@given(
    buckets=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 50), st.integers(0, 5)), max_size=10), max_size=10
    ),
    max_operations=st.integers(1, 8),
    max_behaviours=st.integers(1, 8),
)
def test_limits_hold_whatever_comes_and_the_tables_stay_consistent(buckets, max_operations, max_behaviours):
    tables = BehaviourTables(SpanBehaviourConfig(max_operations=max_operations, max_behaviours=max_behaviours))
    for rows in buckets:
        parts = [operation(f"s{who}", n, shown={(Cell.LOG, f"t{what}"): 1}) for who, n, what in rows]
        counts = tables.intern(START, cell_frame(*parts))
        limits = np.full(tables.histogram.size, BINS, dtype=np.int64)
        tables.learn(counts, np.ones(len(tables.services), dtype=np.int64), limits)
        assert len(tables.operations) == len(tables.operation_names) == tables.n.size <= max_operations
        assert len(tables.behaviours) == len(tables.behaviour_names) == tables.k.size <= max_behaviours
        tables.forget()
        assert all(tables.operations[key] == row for row, key in enumerate(tables.operation_names))
        assert all(tables.behaviours[key] == row for row, key in enumerate(tables.behaviour_names))
        assert all(0 <= row < len(tables.operations) for row, _, _ in tables.behaviour_names)


def test_a_detector_at_its_limit_makes_room_for_new_operations():
    behaviour = SpanBehaviour(SpanBehaviourConfig(max_operations=50))
    for number in range(40):
        old = [operation(f"old{index:02}", 10) for index in range(50)]
        feed(behaviour, number, *(old if number < 20 else old[:40]), operation("strong", 500) if number >= 20 else [])
    assert "strong" in learnt(behaviour.tables)


# -- the arrays underneath ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 300), max_size=10))
def test_a_column_that_grows_keeps_its_rows_and_gives_zeros(sizes):
    column, expected = Column(), np.zeros(0)
    for size in sizes:
        column.grow(size)
        expected = np.pad(expected, (0, max(0, size - len(expected))))
        assert column.view.tolist() == expected.tolist()
        column.view[...] += 1
        expected += 1


def test_rows_that_were_dropped_do_not_shine_through_when_a_column_grows_again():
    column = Column(2)
    column.grow(3)
    column.view[...] = 7.0
    column.keep(np.array([2], dtype=np.int64))
    column.grow(200)
    assert column.view[0].tolist() == [7.0, 7.0]
    assert not column.view[1:].any()
    column.keep(np.zeros(0, dtype=np.int64))
    column.grow(1)
    assert column.view.tolist() == [[0.0, 0.0]]


counts = st.tuples(st.integers(0, 500), st.integers(1, 500)).map(lambda pair: (min(pair), max(*pair, 1)))


@settings(deadline=None, max_examples=100)
@given(counts, counts)
def test_the_statistic_is_symmetric_finite_and_never_negative(one, other):
    def g(a: tuple[int, int], b: tuple[int, int]) -> float:
        k1, n1, k2, n2 = (np.array([float(value)]) for value in (*a, *b))
        return float(g_statistic(k1, n1, k2, n2)[0])

    assert np.isfinite(g(one, other))
    assert g(one, other) >= 0.0
    assert g(one, other) == pytest.approx(g(other, one))
    failures = [(n - k, n) for k, n in (one, other)]
    assert g(one, other) == pytest.approx(g(*failures), abs=1e-6)


def test_the_statistic_of_equal_shares_is_nothing_and_grows_with_difference_and_number():
    ones = np.ones(4)
    found = g_statistic(
        np.array([50.0, 50, 50, 500]),
        100 * ones * [1, 1, 1, 10],
        np.array([50.0, 70, 90, 900]),
        100 * ones * [1, 1, 1, 10],
    )
    assert found[0] < 0.1
    assert found[0] < found[1] < found[2] < found[3]


def test_counting_noise_is_no_dispersion_and_more_than_it_is():
    spread, rows = Dispersion(), np.array([0, 1])
    spread.grow(2)
    random = np.random.default_rng(3)
    n = np.array([200.0, 200.0])
    for _ in range(300):
        fair, wild = random.binomial(200, 0.5), random.binomial(200, random.uniform(0.2, 0.8))
        spread.learn(rows, np.array([fair, wild], dtype=np.float64), n, np.array([0.5, 0.5]))
    factor = spread.factor(rows)
    assert factor[0] < 2.0
    assert factor[1] > 10.0


def test_dispersion_is_one_without_history_and_one_fault_does_not_widen_it():
    spread, row = Dispersion(), np.array([0])
    spread.grow(1)
    assert spread.factor(row).tolist() == [1.0]
    for number in range(100):
        k = 100.0 if number < 10 else 50.0  # a fault in a tenth of all buckets
        spread.learn(row, np.array([k]), np.array([100.0]), np.array([0.5]))
    assert spread.factor(row)[0] < 2.0
