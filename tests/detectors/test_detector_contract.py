"""Every registered detector against every check."""

from functools import partial

import numpy as np
import pytest
from river import anomaly

from detectors.bank import SeriesBank
from detectors.base import OneByOne, PerRow
from detectors.checks import CHECKS
from detectors.registry import DETECTORS, Registry


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list(DETECTORS))
def test_detector_contract(name, check):
    check(DETECTORS.create(name))


class Forgetful(SeriesBank):
    """Breaks the contract: scoring learns."""

    def score_many(self, rows, x, t_ns):
        scores = super().score_many(rows, x, t_ns)
        self.learn_many(rows, x, t_ns + 1)
        return scores


def test_the_checks_find_a_detector_that_learns_while_scoring():
    failed = []
    for check in CHECKS:
        try:
            check(Forgetful())
        except AssertionError:
            failed.append(check.__name__)
    assert "check_scoring_changes_nothing" in failed


def test_a_name_can_be_registered_once_only():
    registry = Registry()
    registry.register("bank", SeriesBank)
    with pytest.raises(ValueError, match="already registered"):
        registry.register("bank", SeriesBank)


def test_an_unknown_detector_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="series_bank"):
        DETECTORS.create("nope")


def test_one_series_of_a_detector_works_like_a_river_model():
    rng = np.random.default_rng(3)
    model = OneByOne(SeriesBank())
    for _ in range(400):
        model.learn_one({"latency": rng.normal(5.0, 1.0)})
    assert model.score_one({"latency": 5.0}) == 0.0
    assert model.score_one({"latency": 50.0}) > 1.0


def test_rivers_own_scores_come_through_the_adapter_unchanged():
    rng = np.random.default_rng(4)
    direct, adapted = (
        anomaly.HalfSpaceTrees(seed=1, window_size=20),
        PerRow(partial(anomaly.HalfSpaceTrees, seed=1, window_size=20)),
    )
    row, at = np.array([3]), np.array([0])
    for value in rng.random(100):
        assert adapted.score_many(row, np.array([value]), at)[0] == pytest.approx(direct.score_one({"x": value}))
        direct.learn_one({"x": value})
        adapted.learn_many(row, np.array([value]), at)
