"""What every detector must hold to, as functions: a detector is checked by being registered.

Each check takes a fresh detector and raises ``AssertionError`` where it breaks the contract, which is that of
``detectors.base.Detector``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Final

import numpy as np

from detectors.base import Detector, Floats, Rows, Times

Check = Callable[[Detector], None]

_SECOND: Final = 1_000_000_000
_START: Final = 1_700_000_000 * _SECOND
_ROWS: Final = 7


def _points(count: int, *, seed: int = 0, rows: int = _ROWS, first: int = 0) -> list[tuple[Rows, Floats, Times]]:
    """``count`` points of each row, a minute apart: noise around a level of its own, with a few outliers."""
    rng = np.random.default_rng(seed)
    calls = []
    for step in range(first, first + count):
        x = rng.normal(10.0 * np.arange(1, rows + 1), 1.0)
        x[rng.random(rows) < 0.01] += 50.0
        order = rng.permutation(rows).astype(np.int64)
        calls.append((order, x[order], np.full(rows, _START + step * 60 * _SECOND, dtype=np.int64)))
    return calls


def _feed(detector: Detector, calls: list[tuple[Rows, Floats, Times]]) -> Floats:
    """Scores by row, each point scored before it is learnt; shape (calls, rows)."""
    scores = np.zeros((len(calls), max((len(rows) for rows, _, _ in calls), default=0)))
    for i, (rows, x, t_ns) in enumerate(calls):
        scores[i, rows] = detector.score_many(rows, x, t_ns)
        detector.learn_many(rows, x, t_ns)
    return scores


def _twin(detector: Detector) -> Detector:
    copy: Detector = pickle.loads(pickle.dumps(detector))  # noqa: S301 - our own bytes, made on the same line
    return copy


def _require(holds: object, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def check_scores_are_finite_and_not_negative(detector: Detector) -> None:
    """Scores are surprise: 0 or more, and 0 where nothing has been learnt."""
    rows, x, t_ns = _points(1)[0]
    _require((detector.score_many(rows, x, t_ns) == 0.0).all(), "a series without history has no score but 0")
    scores = _feed(detector, _points(150))
    _require(bool(np.isfinite(scores).all() and (scores >= 0.0).all()), "scores are finite and not negative")


def check_an_outlier_scores_above_normal_points(detector: Detector) -> None:
    """What the series has never shown scores higher than what it shows all the time."""
    _feed(detector, _points(300))
    rows, _, t_ns = _points(1, first=300)[0]
    level = (10 * (rows + 1)).astype(np.float64)
    normal = detector.score_many(rows, level, t_ns)
    outlier = detector.score_many(rows, level + 500.0, t_ns)
    _require((outlier > normal).all(), "an outlier scores above a normal point")


def check_scoring_changes_nothing(detector: Detector) -> None:
    """Scoring is pure: state and later scores are the same whether or not something was scored in between."""
    _feed(detector, _points(60))
    before = pickle.dumps(detector)
    for rows, x, t_ns in _points(20, seed=1, first=60):
        detector.score_many(rows, x + 1000.0, t_ns)
        detector.score_many(rows + 1000, x, t_ns)
    _require(pickle.dumps(detector) == before, "scoring left traces in the state")


def check_restore_continues(detector: Detector) -> None:
    """A detector that was pickled and restored goes on as if nothing had happened."""
    _feed(detector, _points(80))
    twin = _twin(detector)
    calls = _points(60, seed=1, first=80)
    _require(np.array_equal(_feed(detector, calls), _feed(twin, calls)), "a restored detector scores differently")


def check_same_input_same_scores(detector: Detector) -> None:
    """No hidden randomness."""
    twin = _twin(detector)
    calls = _points(150)
    _require(np.array_equal(_feed(detector, calls), _feed(twin, calls)), "the same input gave other scores")


def check_batches_do_not_matter(detector: Detector) -> None:
    """Series do not influence each other, nor does it matter which are scored and learnt in one call."""
    twin = _twin(detector)
    calls = _points(120)
    whole = _feed(detector, calls)
    parts = np.zeros_like(whole)
    for i, (rows, x, t_ns) in enumerate(calls):
        for part in (slice(0, 2), slice(2, None)):
            parts[i, rows[part]] = twin.score_many(rows[part], x[part], t_ns[part])
            twin.learn_many(rows[part], x[part], t_ns[part])
    _require(np.array_equal(whole, parts), "scores depend on the batch")


def check_not_finite_values_are_counted_and_ignored(detector: Detector) -> None:
    """NaN and infinities score 0, teach nothing and are counted."""
    twin = _twin(detector)
    calls = _points(100)
    clean = _feed(twin, calls)
    dirty = np.zeros_like(clean)
    for i, (rows, x, t_ns) in enumerate(calls):
        for bad in (np.nan, np.inf):
            broken = np.full(len(x), bad)
            _require((detector.score_many(rows, broken, t_ns - 1000) == 0.0).all(), "a value that is no number scored")
            detector.learn_many(rows, broken, t_ns - 1000)
        dirty[i, rows] = detector.score_many(rows, x, t_ns)
        detector.learn_many(rows, x, t_ns)
    _require(np.array_equal(clean, dirty), "values that are not finite changed later scores")
    _require(detector.ignored == 200 * _ROWS, f"{detector.ignored} ignored values counted, not {200 * _ROWS}")


def check_arrays_are_not_kept_or_changed(detector: Detector) -> None:
    """Arguments are left as they came, and changing them or the scores afterwards has no effect."""
    twin = _twin(detector)
    calls = _points(80)
    expected = _feed(twin, calls)
    for i, (rows, x, t_ns) in enumerate(calls):
        mine = rows.copy(), x.copy(), t_ns.copy()
        scores = detector.score_many(*mine)
        _require(np.array_equal(scores, expected[i, rows]), "changing arrays afterwards changed scores")
        detector.learn_many(*mine)
        unchanged = all(np.array_equal(a, b) for a, b in zip(mine, (rows, x, t_ns), strict=True))
        _require(unchanged, "an argument was changed")
        for array in (*mine, scores):
            array.fill(0)


def check_a_constant_series_never_alarms(detector: Detector) -> None:
    """Nothing is odd about the same value again, whatever the value."""
    values = np.array([0.0, 1.0, -3.5, 1e12, 1e-12, 0.1 + 0.2, 7.0])
    rows = np.arange(_ROWS, dtype=np.int64)
    calls = [(rows, values, np.full(_ROWS, _START + i * 60 * _SECOND, dtype=np.int64)) for i in range(300)]
    _require((_feed(detector, calls) == 0.0).all(), "a constant series raised a score")


def check_rows_grow(detector: Detector) -> None:
    """A row may be met for the first time at any moment, and starts without history."""
    _feed(detector, _points(60))
    far = np.array([5000], dtype=np.int64)
    at = np.array([_START + 100 * 60 * _SECOND], dtype=np.int64)
    _require(detector.score_many(far, np.array([1.0]), at)[0] == 0.0, "an unknown row has a score")
    detector.learn_many(far, np.array([1.0]), at)
    calls = _points(30, seed=2, first=200)
    _require(np.isfinite(_feed(detector, calls)).all(), "growing broke the rows there were")


def check_memory_is_bounded(detector: Detector) -> None:
    """State does not grow with the number of points."""
    _feed(detector, _points(400))
    before = len(pickle.dumps(detector))
    _feed(detector, _points(1600, seed=1, first=400))
    after = len(pickle.dumps(detector))
    _require(after < 1.05 * before + 500, f"state grew from {before} to {after} bytes over 1600 points")


#: Every check there is, in the order they are run.
CHECKS: Final[tuple[Check, ...]] = (
    check_scores_are_finite_and_not_negative,
    check_an_outlier_scores_above_normal_points,
    check_scoring_changes_nothing,
    check_restore_continues,
    check_same_input_same_scores,
    check_batches_do_not_matter,
    check_not_finite_values_are_counted_and_ignored,
    check_arrays_are_not_kept_or_changed,
    check_a_constant_series_never_alarms,
    check_rows_grow,
    check_memory_is_bounded,
)
