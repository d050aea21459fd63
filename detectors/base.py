"""The detector contract: series scored and learnt column-wise, and adapters to and from River's one-by-one style.

A detector holds the state of many series, addressed by row. Scores are raw: what they mean is the business of
``detectors.calibrate``, and what is done about them that of the incident stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from river.base import SupervisedAnomalyDetector

Rows = npt.NDArray[np.int64]  # series indices, each at most once per call
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]  # event time, UTC epoch nanoseconds


class Detector(Protocol):
    """Scores many series online. Points of one series come in order of event time.

    A detector grows when it meets a row for the first time. Values that are not finite score 0, teach nothing and are
    counted in ``ignored``.
    """

    @property
    def ignored(self) -> int:
        """Values that were not finite and so were not learnt."""

    def score_many(self, rows: Rows, x: Floats, t_ns: Times) -> Floats:
        """Raw surprise of one point per row, shape (n,), 0 = as expected or not enough history. Changes nothing."""

    def learn_many(self, rows: Rows, x: Floats, t_ns: Times) -> None:
        """Learn one point per row."""


class RiverDetector(Protocol):
    """The part of River's ``anomaly.base.AnomalyDetector`` that is used here."""

    def score_one(self, x: Mapping[str, float]) -> float:
        """Score one observation."""

    def learn_one(self, x: Mapping[str, float]) -> None:
        """Learn one observation."""


class OnTarget:
    """One of River's supervised detectors (GaussianScorer, StandardAbsoluteDeviation) on the only feature it is given.

    River tells the two kinds apart by whether they watch features ``x`` or a target ``y``; here all are features.
    """

    def __init__(self, detector: Any) -> None:  # noqa: ANN401 - River's classes carry no types
        self._detector = detector

    def score_one(self, x: Mapping[str, float]) -> float:
        """Score of the only value in ``x``."""
        (value,) = x.values()
        return float(self._detector.score_one({}, value))

    def learn_one(self, x: Mapping[str, float]) -> None:
        """Learn the only value in ``x``."""
        (value,) = x.values()
        self._detector.learn_one({}, value)


def as_detector(estimator: Any) -> RiverDetector:  # noqa: ANN401 - River's classes carry no types
    """A River anomaly detector that scores features, whichever of its two kinds it is."""
    wrapped: RiverDetector = OnTarget(estimator) if isinstance(estimator, SupervisedAnomalyDetector) else estimator
    return wrapped


class PerRow:
    """Any River anomaly detector as a ``Detector``: one model per row, made by ``factory``.

    Costs a Python call per point, so it is for a few hundred series; ``factory`` must be picklable. The one value of a
    series that has never had another scores 0: rounding in a model's variance must not make it odd.
    """

    def __init__(self, factory: Callable[[], Any], feature: str = "x") -> None:
        self._factory = factory
        self._feature = feature
        self._models: dict[int, RiverDetector] = {}
        self._only: dict[int, float | None] = {}  # the value of a series that has had no other
        self._ignored = 0

    @property
    def ignored(self) -> int:
        """Values that were not finite and so were not learnt."""
        return self._ignored

    def score_many(self, rows: Rows, x: Floats, t_ns: Times) -> Floats:  # noqa: ARG002 - River has no notion of time
        """Scores of the rows' models, 0 for rows never learnt."""
        scores = np.zeros(len(rows))
        for i, (row, value) in enumerate(zip(rows.tolist(), x.tolist(), strict=True)):
            model = self._models.get(row)
            if model is not None and np.isfinite(value) and self._only[row] != value:
                score = float(model.score_one({self._feature: value}))
                scores[i] = score if np.isfinite(score) else 0.0
        return scores

    def learn_many(self, rows: Rows, x: Floats, t_ns: Times) -> None:  # noqa: ARG002 - River has no notion of time
        """Teach each row's model its value."""
        for row, value in zip(rows.tolist(), x.tolist(), strict=True):
            if not np.isfinite(value):
                self._ignored += 1
                continue
            if row not in self._models:
                self._models[row] = as_detector(self._factory())
                self._only[row] = value
            elif self._only[row] != value:
                self._only[row] = None
            self._models[row].learn_one({self._feature: value})


class OneByOne:
    """One series of a ``Detector`` in River's style, for River's own metrics, pipelines and checks.

    Points are taken to be ``interval_ns`` apart, since River passes no time.
    """

    def __init__(self, detector: Detector, row: int = 0, interval_ns: int = 60_000_000_000) -> None:
        self._detector = detector
        self._rows = np.array([row], dtype=np.int64)
        self._interval_ns = interval_ns
        self._learnt = 0

    def score_one(self, x: Mapping[str, float]) -> float:
        """Score of the only feature in ``x``."""
        return float(self._detector.score_many(self._rows, self._value(x), self._time())[0])

    def learn_one(self, x: Mapping[str, float]) -> None:
        """Learn the only feature in ``x``."""
        self._detector.learn_many(self._rows, self._value(x), self._time())
        self._learnt += 1

    def _time(self) -> Times:
        return np.array([self._learnt * self._interval_ns], dtype=np.int64)

    @staticmethod
    def _value(x: Mapping[str, float]) -> Floats:
        (value,) = x.values()
        return np.array([value], dtype=np.float64)
