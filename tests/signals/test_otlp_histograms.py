"""Exponential histograms become explicit ones without losing a count, whatever was sent."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.otlp_histograms import MAX_SIDE_BUCKETS, HistogramError, Side, check_explicit, explicit_buckets

SIDES = st.builds(Side, st.integers(-(2**31), 2**31 - 1), st.lists(st.integers(0, 2**62), max_size=400).map(tuple))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**62), st.floats(), SIDES, SIDES)
@settings(deadline=None)
def test_any_exponential_histogram_keeps_its_counts_in_few_increasing_buckets(scale, zeros, threshold, above, below):
    bounds, counts = explicit_buckets(scale, zeros, threshold, above, below)
    assert sum(counts) == zeros + sum(above.counts) + sum(below.counts)
    assert len(counts) == (len(bounds) + 1 if sum(counts) else 0)
    assert len(counts) <= 2 * (MAX_SIDE_BUCKETS + 2) + 2
    assert all(math.isfinite(bound) for bound in bounds)
    assert bounds == sorted(set(bounds))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50), st.integers(-2, 6))
@settings(deadline=None)
def test_every_value_falls_into_the_bucket_that_counts_it(values, scale):
    index = [math.ceil(math.log2(value) * 2**scale) - 1 for value in values]
    first = min(index)
    counts = [index.count(i) for i in range(first, max(index) + 1)]
    bounds, buckets = explicit_buckets(scale, 0, 0.0, Side(first, counts), Side())
    for bound, at_most in zip(bounds, (sum(buckets[: i + 1]) for i in range(len(bounds))), strict=True):
        slack = 1e-9 * bound
        assert (
            sum(value <= bound - slack for value in values)
            <= at_most
            <= sum(value <= bound + slack for value in values)
        )


def test_negative_buckets_mirror_positive_ones():
    assert explicit_buckets(0, 0, 0.0, Side(), Side(1, [5, 6])) == ([-8.0, -4.0, -2.0], [0, 6, 5, 0])


def test_the_zero_bucket_is_as_wide_as_its_threshold():
    assert explicit_buckets(0, 3, 0.5, Side(0, [1]), Side()) == ([-0.5, 0.5, 1.0, 2.0], [0, 3, 0, 1, 0])


def test_both_sides_are_scaled_down_together_and_padding_costs_no_resolution():
    wide = Side(0, [1] * (2 * MAX_SIDE_BUCKETS))
    bounds, counts = explicit_buckets(3, 0, 0.0, wide, Side())
    assert len(counts) == MAX_SIDE_BUCKETS + 2
    assert bounds[1] / bounds[0] == pytest.approx(2 ** (1 / 4))
    padded = Side(0, [0] * 500 + [1, 1] + [0] * 500)
    assert len(explicit_buckets(3, 0, 0.0, padded, Side())[1]) == 4


def test_bounds_of_a_coarser_scale_are_among_those_of_a_finer_one():
    fine, _ = explicit_buckets(4, 0, 0.0, Side(-32, [1] * 64), Side())
    coarse, _ = explicit_buckets(2, 0, 0.0, Side(-8, [1] * 16), Side())
    assert set(coarse) <= set(fine)


def test_no_observations_are_no_buckets():
    assert explicit_buckets(0, 0, 0.0, Side(0, [0, 0]), Side()) == ([], [])


def test_explicit_buckets_pass_and_a_trailing_infinity_goes():
    assert check_explicit([1.0, 2.0], [1, 2, 3]) == ([1.0, 2.0], [1, 2, 3])
    assert check_explicit([1.0, math.inf], [1, 2]) == ([1.0], [1, 2])
    assert check_explicit([], []) == ([], [])


@pytest.mark.parametrize(
    ("bounds", "counts", "reason"),
    [
        ([1.0], [1], "1 bucket counts for 1 bounds"),
        ([1.0, 1.0], [1, 1, 1], "not finite and increasing"),
        ([math.nan], [1, 1], "not finite and increasing"),
        ([1.0], [1, -1], "negative bucket count"),
        (list(range(2000)), [1] * 2001, "more than"),
    ],
)
def test_buckets_that_contradict_themselves_are_refused(bounds, counts, reason):
    with pytest.raises(HistogramError, match=reason):
        check_explicit(bounds, counts)
