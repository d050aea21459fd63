"""Every metric series is screened, in bounded memory, the same however the stream is cut."""

import pickle
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from detectors.config import BankConfig, CalibrationConfig, SeriesConfig
from detectors.series import SCREENED, SILENT, SeriesScreen, rounds
from signals.schema import SERIES

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def frame(steps, series=5, interval_s=60.0, *, seed=0, first=0, level=10.0):
    """Noise around a level: ``steps`` points of each series, sorted by time."""
    rng = np.random.default_rng([seed, first])
    n = steps * series
    at = START + ((first + np.repeat(np.arange(steps), series)) * interval_s * SECOND).astype(np.int64)
    names = [f"service-{i}" for i in range(series)] * steps
    return pl.DataFrame(
        {
            "environment": ["prod"] * n,
            "namespace": [""] * n,
            "service": names,
            "instance": [f"{name}-0" for name in names],
            "time_ns": at,
            "metric": [f"metric-{i % 2}" for i in range(series)] * steps,
            "attributes": [""] * n,
            "value": rng.normal(level, 1.0, size=n),
        },
        schema=SERIES,
    )


def point(value, at_step, service="service-0", metric="metric-0", interval_s=60.0):
    return frame(1, 1, interval_s, first=at_step).with_columns(
        value=pl.lit(float(value)), service=pl.lit(service), instance=pl.lit(f"{service}-0"), metric=pl.lit(metric)
    )


def test_every_point_comes_back_in_its_place_with_scores_added():
    points = frame(50)
    screened = SeriesScreen().process(points)
    assert_frame_equal(screened.select(SERIES.names()), points)
    assert screened.schema == pl.Schema({**SERIES, **SCREENED})
    assert screened["score"].is_between(0, 1).all()


def test_an_empty_frame_has_the_same_columns():
    assert SeriesScreen().process(frame(0)).schema == pl.Schema({**SERIES, **SCREENED})


@pytest.mark.parametrize("interval_s", [10.0, 60.0, 300.0])
@pytest.mark.parametrize(("value", "direction"), [(60.0, 1), (-40.0, -1)])
def test_a_value_far_outside_the_series_history_scores_high_in_its_direction(interval_s, value, direction):
    screen = SeriesScreen()
    screen.process(frame(600, interval_s=interval_s))
    (seen,) = screen.process(point(value, 600, interval_s=interval_s)).to_dicts()
    assert seen["score"] > 0.999
    assert seen["direction"] == direction
    assert not seen["lo"] <= value <= seen["hi"]


def test_a_usual_value_lies_inside_its_interval_and_scores_low():
    screen = SeriesScreen()
    screen.process(frame(600))
    (seen,) = screen.process(point(10.2, 600)).to_dicts()
    assert seen["score"] < 0.9
    assert seen["lo"] < 10.2 < seen["hi"]


def test_nothing_is_scored_before_the_warm_up_ends():
    screened = SeriesScreen(SeriesConfig(bank=BankConfig(warmup_points=40))).process(frame(40, series=1))
    assert screened["score"].eq(0.0).all()
    assert screened["direction"].eq(0).all()


def test_a_lasting_shift_becomes_the_new_normal():
    screen = SeriesScreen()
    screen.process(frame(500, series=1))
    shifted = screen.process(frame(400, series=1, first=500, level=40.0))
    assert shifted["score"].head(5).max() > 0.999
    assert shifted["score"].tail(100).max() < 0.99


def test_one_short_outlier_does_not_hide_the_next():
    screen = SeriesScreen()
    screen.process(frame(500, series=1))
    first = screen.process(point(60.0, 500))["score"][0]
    screen.process(frame(300, series=1, first=501))
    second = screen.process(point(60.0, 801))["score"][0]
    assert min(first, second) > 0.999


def test_a_daily_job_is_expected_once_it_has_been_seen_at_its_hour():
    week = 7 * 24 * 12
    calm = frame(3 * week, series=1, interval_s=300.0)
    hour = pl.col("time_ns") // (3600 * SECOND) % 24
    daily = calm.with_columns(value=pl.col("value") + pl.when(hour == 3).then(50.0).otherwise(0.0))
    screened = SeriesScreen().process(daily)
    last = screened.tail(week)
    assert last.filter(hour == 3)["score"].max() < 0.999
    moved = last.with_columns(time_ns=pl.col("time_ns") + week * 300 * SECOND).filter(hour == 15).head(3)
    screen = SeriesScreen()
    screen.process(daily)
    assert screen.process(moved.select(SERIES.names()).with_columns(value=pl.lit(60.0)))["score"].max() > 0.999


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 79), max_size=8), seed=st.integers(0, 3), max_series=st.sampled_from([3, 100]))
def test_the_result_is_the_same_however_frames_are_cut_between_times(cuts, seed, max_series):
    points = frame(80, series=5, seed=seed).filter(pl.col("value") > 8.5)  # series miss points
    config = SeriesConfig(max_series=max_series, bank=BankConfig(warmup_points=12))
    whole = SeriesScreen(config).process(points)
    edges = [START + step * 60 * SECOND for step in [0, *sorted(set(cuts)), 80]]
    screen = SeriesScreen(config)
    parts = [
        screen.process(points.filter((pl.col("time_ns") >= a) & (pl.col("time_ns") < b))) for a, b in pairwise(edges)
    ]
    assert_frame_equal(pl.concat(parts), whole, check_exact=True)


def test_a_restored_screen_goes_on_as_if_nothing_had_happened():
    screen = SeriesScreen()
    screen.process(frame(100))
    twin = pickle.loads(pickle.dumps(screen))  # noqa: S301 - our own bytes
    later = frame(100, first=100)
    assert_frame_equal(screen.process(later), twin.process(later), check_exact=True)


def test_repeated_and_late_points_score_nothing_teach_nothing_and_are_counted():
    screen, twin = SeriesScreen(), SeriesScreen()
    points = frame(100, series=1)
    twin.process(points)
    screen.process(points)
    repeated = pl.concat([points.tail(1).with_columns(value=pl.lit(1e6)), point(-1e6, 99)])
    assert screen.process(repeated)["score"].to_list() == [0.0, 0.0]
    assert screen.counters["repeated_or_late"] == 2
    later = frame(50, series=1, first=100)
    assert_frame_equal(screen.process(later), twin.process(later), check_exact=True)


def test_the_longest_unseen_series_gives_way_at_the_limit():
    screen = SeriesScreen(SeriesConfig(max_series=2))
    for step, service in enumerate(["a", "b", "a", "c"]):
        screen.process(point(1.0, step, service))
    assert len(screen) == 2
    assert screen.counters["series_dropped"] == 1
    screen.process(point(1.0, 9, "a"))  # still there
    assert screen.counters["series_dropped"] == 1


def test_a_series_that_takes_over_a_row_starts_without_its_history():
    screen = SeriesScreen(SeriesConfig(max_series=1))
    screen.process(frame(200, series=1))
    taken = screen.process(point(1e6, 200, "other"))
    assert taken["score"][0] == 0.0


def test_more_series_than_fit_at_one_moment_are_refused_and_counted():
    screen = SeriesScreen(SeriesConfig(max_series=3))
    points = frame(1, series=5)
    assert_frame_equal(screen.process(points).select(SERIES.names()), points)
    assert screen.counters["series_refused"] == 2


def test_a_series_that_stops_is_silent_after_its_own_intervals_and_not_before():
    screen = SeriesScreen(SeriesConfig(silent_intervals=5.0))
    fast, slow = frame(100, 1, 10.0), frame(100, 1, 300.0).with_columns(service=pl.lit("slow"))
    screen.process(pl.concat([fast, slow]).sort("time_ns"))
    end = START + 99 * 300 * SECOND
    screen.process(point(10.0, 99, interval_s=300.0))
    assert screen.silent(end + 40 * SECOND).is_empty()
    silent = screen.silent(end + 3600 * SECOND)
    assert silent.schema == SILENT
    assert "slow" in silent["service"].to_list()
    (row,) = silent.filter(pl.col("service") == "slow").to_dicts()
    assert row["interval_s"] == pytest.approx(300.0)
    assert row["last_ns"] == end


def test_a_series_that_comes_irregularly_is_not_silent_in_its_usual_gaps():
    screen = SeriesScreen()
    steps = [i * 10 + (500 if i % 40 == 39 else 0) for i in range(400)]
    at = np.maximum.accumulate(steps)
    points = frame(400, 1).with_columns(time_ns=pl.Series(START + at.astype(np.int64) * SECOND))
    screen.process(points.unique("time_ns", maintain_order=True))
    assert screen.silent(int(points["time_ns"].max()) + 400 * SECOND).is_empty()


def test_metrics_beyond_the_pool_limit_share_one_pool():
    screen = SeriesScreen(SeriesConfig(max_pools=1, calibration=CalibrationConfig(prior_points=10)))
    screened = screen.process(frame(200))
    assert screened["score"].is_between(0, 1).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_rounds_name_each_row_once_and_keep_each_rows_order(rows):
    taken = rounds(np.array(rows))
    positions = np.concatenate(taken)
    assert sorted(positions.tolist()) == list(range(len(rows)))
    for turn in taken:
        assert len({rows[i] for i in turn}) == len(turn)
    for row in set(rows):
        own = [i for i in positions.tolist() if rows[i] == row]
        assert own == sorted(own)
