"""Metrics of every shape become series; the rules for resets, gaps and repeats."""

import pickle
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.metrics import MetricNormaliser
from signals.quantiles import difference, quantile
from signals.schema import METRICS, SERIES, MetricShape

S = 1_000_000_000
T0 = 1_700_000_000 * S


def point(second, value, shape=MetricShape.SUM_CUMULATIVE, **fields):
    return {
        "environment": "prod",
        "namespace": "",
        "service": "cart",
        "instance": "i-1",
        "time_ns": T0 + int(second * S),
        "metric": "m",
        "attributes": "",
        "shape": int(shape),
        "value": float(value),
        "start_ns": 0,
        "count": 0,
        "bounds": [],
        "counts": [],
        **fields,
    }


def histogram(second, counts, bounds=(10.0, 20.0), shape=MetricShape.HISTOGRAM_CUMULATIVE, **fields):
    return point(second, 0.0, shape, count=sum(counts), bounds=list(bounds), counts=list(counts), **fields)


def frame(*points):
    return pl.DataFrame(list(points), schema=METRICS)


def series(*points, normaliser=None):
    result = (normaliser or MetricNormaliser()).process(frame(*points))
    assert result.schema == SERIES
    return [(row["metric"], (row["time_ns"] - T0) / S, row["value"]) for row in result.rows(named=True)]


def test_gauges_and_summaries_pass_as_they_are():
    assert series(point(1, 5, MetricShape.GAUGE), point(1, -2, MetricShape.SUMMARY)) == [
        ("m", 1.0, 5.0),
        ("m", 1.0, -2.0),
    ]


def test_a_cumulative_sum_becomes_a_rate_between_its_points():
    assert series(point(0, 100), point(10, 150), point(30, 150)) == [("m", 10.0, 5.0), ("m", 30.0, 0.0)]


def test_after_a_lower_value_what_was_counted_since_counts():
    assert series(point(0, 100), point(10, 20)) == [("m", 10.0, 2.0)]


def test_a_later_start_time_is_a_reset_even_if_the_value_has_grown():
    before = point(0, 100, start_ns=T0 - 50 * S)
    assert series(before, point(10, 120, start_ns=T0 + 4 * S)) == [("m", 10.0, 12.0)]


def test_a_start_time_before_the_last_point_spreads_the_value_over_the_time_since_it():
    before = point(0, 100, start_ns=T0 - 50 * S)
    assert series(before, point(10, 120, start_ns=T0 - 10 * S)) == [("m", 10.0, 6.0)]


def test_a_reset_of_unknown_time_only_sets_the_level():
    normaliser = MetricNormaliser()
    points = [point(0, 100, start_ns=T0 - S), point(10, 7, start_ns=T0 + 10 * S), point(20, 17, start_ns=T0 + 10 * S)]
    assert series(*points, normaliser=normaliser) == [("m", 20.0, 1.0)]
    assert normaliser.ignored == {"no_interval": 1}


def test_a_series_that_begins_under_our_eyes_counts_from_its_start():
    other = point(0, 1, metric="other")
    young = point(10, 40, start_ns=T0 + 2 * S)
    old = point(10, 40, metric="old", start_ns=T0 - 5 * S)
    assert series(other, young, old) == [("m", 10.0, 5.0)]


def test_repeats_and_latecomers_are_ignored_and_counted():
    normaliser = MetricNormaliser()
    points = [point(0, 10), point(10, 20), point(10, 20), point(5, 15), point(20, 30)]
    assert series(*points, normaliser=normaliser) == [("m", 10.0, 1.0), ("m", 20.0, 1.0)]
    assert normaliser.ignored == {"duplicate": 1, "out_of_order": 1}


def test_a_delta_is_spread_over_its_own_interval():
    delta = MetricShape.SUM_DELTA
    assert series(point(10, 30, delta, start_ns=T0 + 4 * S)) == [("m", 10.0, 5.0)]


def test_a_delta_without_start_is_spread_over_the_time_since_the_previous_point():
    normaliser = MetricNormaliser()
    delta = MetricShape.SUM_DELTA
    assert series(point(0, 7, delta), point(10, 30, delta), normaliser=normaliser) == [("m", 10.0, 3.0)]
    assert normaliser.ignored == {"no_interval": 1}


def test_series_are_told_apart_by_entity_attributes_and_shape():
    others = [{"instance": "i-2"}, {"attributes": '{"a":1}'}, {"environment": "dev"}, {"shape": 1}]
    assert series(point(0, 1), *(point(1, 50, **other) for other in others), point(2, 5)) == [("m", 2.0, 2.0)]


def test_a_histogram_becomes_a_rate_and_quantiles_of_what_was_new():
    assert series(histogram(0, [5, 5, 0]), histogram(10, [7, 7, 0])) == [
        ("m.count", 10.0, 0.4),
        ("m.p50", 10.0, 10.0),
        ("m.p95", 10.0, pytest.approx(19.0)),
        ("m.p99", 10.0, pytest.approx(19.8)),
    ]


def test_a_histogram_without_new_observations_has_a_rate_but_no_quantiles():
    assert series(histogram(0, [5, 5, 0]), histogram(10, [5, 5, 0])) == [("m.count", 10.0, 0.0)]


def test_a_histogram_whose_bucket_shrinks_was_reset():
    assert series(histogram(0, [5, 5, 0]), histogram(10, [12, 0, 0]))[0] == ("m.count", 10.0, 1.2)


def test_a_delta_histogram_needs_no_previous_point():
    result = series(histogram(10, [0, 4, 0], shape=MetricShape.HISTOGRAM_DELTA, start_ns=T0))
    assert result[:2] == [("m.count", 10.0, 0.4), ("m.p50", 10.0, 15.0)]


def test_a_histogram_that_grows_new_buckets_is_still_compared():
    older = histogram(0, [0, 3, 0], bounds=[1.0, 2.0])
    newer = histogram(10, [0, 3, 4, 0], bounds=[1.0, 2.0, 4.0])
    assert series(older, newer)[:2] == [("m.count", 10.0, 0.4), ("m.p50", 10.0, 3.0)]


def test_points_that_are_not_finite_are_ignored_and_counted():
    normaliser = MetricNormaliser()
    points = [point(1, float("nan"), MetricShape.GAUGE), point(1, float("inf")), point(1, 1, MetricShape.GAUGE)]
    assert series(*points, normaliser=normaliser) == [("m", 1.0, 1.0)]
    assert normaliser.ignored == {"not_finite": 2}


def test_rows_keep_their_order_whatever_their_shape():
    rows = series(
        point(0, 1),
        histogram(0, [1, 0, 0], metric="h"),
        point(1, 2),
        point(1, 9, 0, metric="g"),
        histogram(2, [2, 0, 0], metric="h"),
        point(3, 3, 0, metric="g"),
    )
    assert [name for name, _, _ in rows] == ["m", "g", "h.count", "h.p50", "h.p95", "h.p99", "g"]


def test_the_series_unseen_for_longest_is_forgotten_and_counted():
    normaliser = MetricNormaliser(max_series=2)
    names = ["a", "b", "a", "c", "a", "b"]
    rows = series(*(point(i, i, metric=name) for i, name in enumerate(names)), normaliser=normaliser)
    assert [(name, second) for name, second, _ in rows] == [("a", 2.0), ("a", 4.0)]
    assert normaliser.series == 2
    assert normaliser.dropped == 2


def test_an_empty_frame_gives_an_empty_frame():
    assert MetricNormaliser().process(frame()).schema == SERIES


def test_max_series_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        MetricNormaliser(max_series=0)


@st.composite
def streams(draw):
    points, second = [], 0
    for _ in range(draw(st.integers(0, 25))):
        second += draw(st.integers(0, 3))
        shape = draw(st.sampled_from(MetricShape))
        fields = {"metric": draw(st.sampled_from("abc")), "start_ns": draw(st.sampled_from([0, T0 - S, T0 + 3 * S]))}
        if shape in {MetricShape.HISTOGRAM_DELTA, MetricShape.HISTOGRAM_CUMULATIVE}:
            counts = draw(st.lists(st.integers(0, 9), min_size=3, max_size=3))
            points.append(histogram(second, counts, draw(st.sampled_from([(1.0, 2.0), (2.0, 4.0)])), shape, **fields))
        else:
            points.append(point(second, draw(st.integers(0, 50)), shape, **fields))
    return points


@given(points=streams(), cuts=st.lists(st.integers(0, 25), max_size=4), max_series=st.sampled_from([1, 2, 3, 100]))
@settings(deadline=None, max_examples=150)
def test_the_result_does_not_depend_on_how_the_rows_are_cut_into_calls(points, cuts, max_series):
    whole = MetricNormaliser(max_series=max_series)
    expected = whole.process(frame(*points))
    parts = MetricNormaliser(max_series=max_series)
    edges = [0, *sorted(min(cut, len(points)) for cut in cuts), len(points)]
    results = []
    for low, high in pairwise(edges):
        results.append(parts.process(frame(*points[low:high])))
        parts = pickle.loads(pickle.dumps(parts))  # noqa: S301 - our own state, as recovery restores it
    assert pl.concat(results).rows() == expected.rows()
    assert (parts.dropped, parts.ignored, parts.series) == (whole.dropped, whole.ignored, whole.series)


@given(points=streams())
@settings(deadline=None)
def test_rates_are_never_negative_and_state_stays_bounded(points):
    normaliser = MetricNormaliser(max_series=2)
    result = normaliser.process(frame(*points))
    assert result.filter(pl.col("value") < 0).is_empty()
    assert result["value"].is_finite().all()
    assert normaliser.series <= 2


@pytest.mark.parametrize(
    ("bounds", "counts", "q", "expected"),
    [
        ([10.0, 20.0], [1, 2, 1], 0.5, 15.0),
        ([10.0, 20.0], [4, 0, 0], 0.5, 5.0),  # the first bucket begins at zero
        ([-5.0, 20.0], [4, 0, 0], 0.5, -5.0),  # unless its bound is not positive
        ([10.0, 20.0], [0, 0, 4], 0.5, 20.0),  # the last has no end
        ([10.0, 20.0], [2, 0, 2], 0.5, 10.0),
        ([10.0, 20.0], [0, 0, 0], 0.5, None),
        ([], [4], 0.5, None),
        ([], [], 0.5, None),
    ],
)
def test_quantiles_are_interpolated_inside_their_bucket(bounds, counts, q, expected):
    assert quantile(bounds, counts, q) == expected


@given(st.lists(st.integers(0, 100), min_size=4, max_size=4).filter(any), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_quantiles_rise_with_their_rank_and_stay_inside_the_bounds(counts, one, other):
    low, high = (quantile([1.0, 2.0, 5.0], counts, q) for q in sorted((one, other)))
    assert 0.0 <= low <= high <= 5.0


def test_bounds_known_to_only_one_side_are_merged_into_the_next():
    assert difference(([1.0, 3.0], [1, 1, 1]), ([1.0, 2.0, 3.0], [1, 1, 2, 2])) == ([1.0, 3.0], [0, 2, 1])


def test_histograms_with_nothing_in_common_have_one_open_bucket():
    assert difference(([1.0], [1, 1]), ([2.0], [2, 2])) == ([], [2])
