"""Histogram bins: fixed boundaries, four an octave."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.cells import BINS, CELLS, KEYS, Cell, bin_seconds, time_bin
from tests.support.traces import bin_of

exhaustive = settings(deadline=None, max_examples=100)


def bins(values: list[int]) -> list[int]:
    return pl.DataFrame({"d": values}, schema={"d": pl.Int64}).select(time_bin(pl.col("d")))["d"].to_list()


@exhaustive
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_bins_agree_with_the_definition_and_stay_in_range(values):
    assert bins(values) == [bin_of(value) for value in values]
    assert all(0 <= one < BINS for one in bins(values))


@exhaustive
@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=50))
def test_a_longer_duration_never_falls_into_a_lower_bin(values):
    found = bins(sorted(values))
    assert found == sorted(found)


@exhaustive
@given(st.integers(1_000, 3_000_000_000_000))
def test_a_duration_lies_between_the_boundaries_of_its_bin(value):
    (one,) = bins([value])
    assert bin_seconds(one) * 1e9 <= value * (1 + 1e-6)
    assert value < bin_seconds(one + 1) * 1e9 * (1 + 1e-6)


def test_a_bin_is_nineteen_percent_wide():
    edges = bin_seconds(np.arange(BINS))
    np.testing.assert_allclose(edges[1:] / edges[:-1], 2**0.25)


def test_what_lasts_less_than_a_microsecond_is_in_the_first_bin_and_what_lasts_for_hours_in_the_last():
    assert bins([0, 1, 999]) == [0, 0, 0]
    assert bins([10**18]) == [BINS - 1]


def test_every_column_of_a_cell_but_the_count_is_part_of_its_key():
    assert [*KEYS, "n"] == list(CELLS)


def test_kinds_keep_their_numbers_because_snapshots_hold_them():
    names = [
        "SPANS",
        "ERRORS",
        "ORIGIN",
        "DURATION",
        "EXCLUSIVE",
        "CHILD",
        "LOG",
        "PEER",
        "GAP",
        "LINE",
        "SEVERE",
        "CLIENT",
    ]
    assert [kind.name for kind in sorted(Cell)] == names
    assert sorted(Cell) == list(range(len(names)))
