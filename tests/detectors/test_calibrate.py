"""Raw scores become tail probabilities that mean the same everywhere."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.calibrate import TailCalibrator
from detectors.config import CalibrationConfig

MINUTE = 60_000_000_000
CONFIG = CalibrationConfig(prior_points=100)


def fed(raw, config=CONFIG, at=MINUTE):
    calibrator = TailCalibrator(config)
    calibrator.advance(0)
    calibrator.observe(np.asarray(raw))
    calibrator.advance(at)
    return calibrator


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.exponential(size=n),
        lambda rng, n: np.abs(rng.normal(size=n)),
        lambda rng, n: rng.pareto(3.0, size=n),
        lambda rng, n: rng.gamma(2.0, 10.0, size=n),
    ],
    ids=["exponential", "normal", "pareto", "gamma"],
)
def test_alarms_come_about_as_often_as_the_threshold_says_and_not_much_oftener(draw):
    rng = np.random.default_rng(5)
    calibrator = fed(draw(rng, 200_000))
    fresh = draw(rng, 1_000_000)
    score = calibrator.score(fresh)
    for expected in (1e-2, 1e-3, 1e-4):
        assert expected / 4 < (score >= 1 - expected).mean() < expected * 1.5


def test_the_far_tail_is_extrapolated_and_never_certain():
    calibrator = fed(np.random.default_rng(6).exponential(size=50_000))
    near, far, absurd = calibrator.tail(np.array([9.2, 12.0, 1e9]))
    assert 3e-5 < near < 3e-4
    assert far < near
    assert 0 < absurd <= far


def test_without_history_only_enormous_scores_are_rare():
    calibrator = TailCalibrator(CalibrationConfig())
    small, large, enormous = calibrator.tail(np.array([1.0, 10.0, 100.0]))
    assert small > 0.1
    assert large > 1e-4
    assert enormous < 1e-4


def test_points_count_from_the_close_of_their_epoch_on():
    calibrator = fed(np.full(1000, 1.0))
    before = calibrator.tail(np.array([50.0]))
    calibrator.observe(np.full(500, 50.0))
    assert calibrator.tail(np.array([50.0])) == before
    calibrator.advance(2 * MINUTE)
    assert calibrator.tail(np.array([50.0])) > before


def test_old_points_lose_half_their_weight_in_a_half_life():
    config = CalibrationConfig(half_life_days=1.0)
    calibrator = fed(np.full(10_000, 3.0), config)
    calibrator.advance(MINUTE + 86_400 * 10**9)
    assert calibrator.points() == pytest.approx(5000, rel=0.03)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_merging_is_the_same_as_having_seen_everything(left, right):
    both, merged = fed(left + right), fed(left)
    merged.merge(fed(right))
    at = np.array([0.1, 1.0, 10.0, 1000.0])
    np.testing.assert_array_equal(merged.tail(at), both.tail(at))


def test_calibrators_of_different_shape_refuse_to_merge():
    other = TailCalibrator(CONFIG)
    other.add_pool()
    with pytest.raises(ValueError, match="pools"):
        TailCalibrator(CONFIG).merge(other)


def test_a_pool_of_its_own_starts_from_all_points_and_then_follows_its_own():
    calibrator = TailCalibrator(CONFIG)
    loud = calibrator.add_pool()
    rng = np.random.default_rng(7)
    calibrator.observe(rng.exponential(size=20_000))
    calibrator.advance(MINUTE)
    pools, at = np.array([0, loud]), np.array([8.0, 8.0])
    common, untouched = calibrator.tail(at, pools)
    assert common <= untouched < 3 * common
    raw = rng.exponential(10.0, size=20_000)
    calibrator.observe(raw, np.full(len(raw), loud))
    calibrator.advance(2 * MINUTE)
    assert calibrator.tail(at, pools)[1] == pytest.approx(np.exp(-0.8), rel=0.1)


def test_tail_probabilities_fall_with_the_raw_score():
    tail = fed(np.random.default_rng(8).pareto(2.0, size=5000)).tail(np.geomspace(1e-3, 1e5, 500))
    assert (np.diff(tail) <= 0).all()


def test_nan_stays_nan_and_is_not_counted():
    calibrator = fed([1.0, np.nan, 2.0])
    assert calibrator.points() == 2
    assert np.isnan(calibrator.tail(np.array([np.nan]))[0])


def test_a_restored_calibrator_answers_the_same():
    calibrator = fed(np.random.default_rng(9).exponential(size=1000))
    twin = pickle.loads(pickle.dumps(calibrator))  # noqa: S301 - our own bytes
    at = np.geomspace(0.1, 100, 20)
    np.testing.assert_array_equal(calibrator.tail(at), twin.tail(at))


@pytest.mark.parametrize("rates", [(0, 1), (1440, 0), (-1, 1)])
def test_a_budget_must_be_positive(rates):
    with pytest.raises(ValueError, match="above 0"):
        TailCalibrator.threshold(*rates)
