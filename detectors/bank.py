"""The vectorised bank: numpy columns of state, one per series, every series screened in one call.

The score of a point is how far it exceeds what its own series has ever shown, in five views of it. Not here: which
series a row is (``detectors.series``) and what a raw score means (``detectors.calibrate``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.bank_views import Judged, View, judge, learn_records
from detectors.base import Flags, Floats, Rows, Times
from detectors.config import BankConfig

HOURS: Final = 168  # of a week
_NS_PER_HOUR: Final = 3_600_000_000_000
_FULL_S: Final = 60.0  # points at least this far apart count in full towards the hold, closer ones in proportion
_COOLING: Final = 0.1  # share of a point's hold that a quiet point gives back
_CYCLE_RATE: Final = 0.05  # an hour of the week forgets at this rate per point of ...
_CYCLE_S: Final = 300.0  # ... this interval, more slowly with closer points


class Screened(NamedTuple):
    """What the bank says of each point, all of shape (n,)."""

    raw: Floats  # surprise: 0 = nothing new; grows with the logarithm of the margins beyond the records
    low: Floats  # expected interval in the view that is most surprised; NaN during the warm-up
    high: Floats
    direction: Floats  # +1 above, -1 below what was expected, 0 during the warm-up


class _Points(NamedTuple):
    """One point per row, all of shape (n,)."""

    rows: Rows
    x: Floats
    t_ns: Times


class _Field:
    """Rows of the state that are not part of a view."""

    SEEN, LAST, CHANGES, FAST, MIDDLE, SLOW, MEAN, VARIANCE, INTERVAL, GAP, HELD = range(11)
    COUNT = 11


class SeriesBank:
    """Screens any number of series; state is about 1.2 KB per series, cost about 1 µs per point on wide calls.

    Each point is seen in five views: its value; its residual against the same hour of the week; the difference of a
    short and a long mean; its studentised residual; a medium mean. Each view keeps its running record (highest and
    lowest so far), and what counts is the margin over the record in units of the view's standard deviation: records
    become rarer as history grows, whatever the distribution (Rényi 1962; Arnold, Balakrishnan and Nagaraja, "Records",
    1998), so that the margin needs no model of the series. Early records mean little: the surprise grows with the
    logarithm of the points seen. A far margin pauses learning for up to ``hold_points``, after which the new normal is
    adopted. A series that hardly ever changes carries little information, and its first steps count less.

    >>> bank = SeriesBank()
    >>> row, rng = np.array([0]), np.random.default_rng(1)
    >>> for minute in range(500):
    ...     seen = bank.step(row, rng.normal(10.0, 1.0, size=1), np.array([minute * 60_000_000_000]))
    >>> bool(seen.raw[0] < 0.5), bool(bank.score_many(row, np.array([30.0]), np.array([30_000_000_000_000]))[0] > 2)
    (True, True)
    """

    def __init__(self, config: BankConfig | None = None) -> None:
        self._config = config or BankConfig()
        self._state: Floats = np.zeros((_Field.COUNT, 0))
        self._views: Floats = np.zeros((View.PARTS, View.COUNT, 0))
        self._last_ns: Times = np.zeros(0, dtype=np.int64)
        self._week: npt.NDArray[np.float32] = np.zeros((0, HOURS), dtype=np.float32)
        self._visits: npt.NDArray[np.uint8] = np.zeros((0, HOURS), dtype=np.uint8)
        self._ignored = 0

    @property
    def ignored(self) -> int:
        """Values that were not finite and so were not learnt."""
        return self._ignored

    def score_many(self, rows: Rows, x: Floats, t_ns: Times) -> Floats:
        """Raw surprise of one point per row, shape (n,). Changes nothing."""
        if len(rows) and int(rows.max()) >= self._state.shape[1]:
            raw = np.zeros(len(rows))
            known = rows < self._state.shape[1]
            raw[known] = self.score_many(rows[known], x[known], t_ns[known])
            return raw
        finite = np.isfinite(x)
        state, views = self._state[:, rows], self._views[:, :, rows]
        x = np.where(finite, x, state[_Field.LAST])
        judged = self._judge(rows, state, views, x, t_ns)
        return np.where(finite, judged.raw, 0.0)

    def learn_many(self, rows: Rows, x: Floats, t_ns: Times) -> None:
        """Learn one point per row."""
        self.step(rows, x, t_ns)

    def step(self, rows: Rows, x: Floats, t_ns: Times) -> Screened:
        """Score and learn one point per row in one pass; rows at most once, times later than the rows' last."""
        self._grow(rows)
        finite = np.isfinite(x)
        if not finite.all():
            return self._step_finite(rows, x, t_ns, finite)
        state, views = self._state[:, rows], self._views[:, :, rows]
        judged = self._judge(rows, state, views, x, t_ns)
        low, high = self._expected(state, views, judged)
        self._learn(_Points(rows, x, t_ns), state, views, judged)
        return Screened(judged.raw, low, high, judged.direction)

    def reset(self, rows: Rows) -> None:
        """Forget the series of these rows."""
        self._grow(rows)
        self._state[:, rows] = 0.0
        self._views[:, :, rows] = 0.0
        self._last_ns[rows] = 0
        self._visits[rows] = 0

    def rhythm(self, count: int) -> tuple[Floats, Floats]:
        """Expected interval and longest gap so far of the first ``count`` rows, seconds; NaN during the warm-up."""
        self._grow(np.array([count - 1], dtype=np.int64))
        cold = self._state[_Field.SEEN, :count] < self._config.warmup_points
        interval, gap = self._state[[_Field.INTERVAL, _Field.GAP], :count]
        interval[cold] = gap[cold] = np.nan
        return interval, gap

    def _step_finite(self, rows: Rows, x: Floats, t_ns: Times, finite: Flags) -> Screened:
        self._ignored += int(len(x) - finite.sum())
        out = np.zeros((4, len(rows)))
        out[1:3] = np.nan
        if finite.any():
            out[:, finite] = self.step(rows[finite], x[finite], t_ns[finite])
        return Screened(*out)

    def _judge(self, rows: Rows, state: Floats, views: Floats, x: Floats, t_ns: Times) -> Judged:
        """What the five views make of each point; advances the three means in ``state``, which is a copy."""
        seen = state[_Field.SEEN]
        fresh = 1.0 / (seen + 1.0)
        deviation = np.sqrt(state[_Field.VARIANCE]) + 0.01 * np.abs(state[_Field.MEAN]) + 1e-9
        for mean, points in (
            (_Field.FAST, self._config.fast_points),
            (_Field.MIDDLE, self._config.middle_points),
            (_Field.SLOW, self._config.slow_points),
        ):
            state[mean] += np.maximum(1.0 / points, fresh) * (x - state[mean])
        hour = (t_ns // _NS_PER_HOUR) % HOURS
        usual = np.where(self._visits[rows, hour] > 0, self._week[rows, hour], x)
        features = np.stack(
            [
                x,
                x - usual,
                state[_Field.FAST] - state[_Field.SLOW],
                np.where(seen > 10, (x - state[_Field.MEAN]) / deviation, 0.0),
                state[_Field.MIDDLE],
            ]
        )
        judged = judge(features, views, seen)
        known = np.minimum(np.log1p(seen) / np.log1p(self._config.memory_points), 1.0)
        changes = state[_Field.CHANGES] + (x != state[_Field.LAST])
        warm = seen >= self._config.warmup_points
        weight = np.where(warm, known * np.minimum(changes / 3.0, 1.0), 0.0)
        return judged._replace(
            raw=judged.raw * weight,
            beyond=judged.beyond * weight,
            direction=np.where(warm, judged.direction, 0.0),
            usual=usual,
        )

    def _expected(self, state: Floats, views: Floats, judged: Judged) -> tuple[Floats, Floats]:
        """The interval that the most surprised view expected: its record; three deviations where none is."""
        mean = state[_Field.MEAN]
        deviation = np.sqrt(state[_Field.VARIANCE])
        width = deviation + 0.01 * np.abs(mean) + 1e-9
        bottom, top = views[View.BOTTOM], views[View.TOP]
        calm = judged.raw == 0.0
        leading = [~calm & (judged.leading == view) for view in (View.VALUE, View.CYCLE, View.STUDENTISED)]
        ends = []
        for record, sign in ((bottom, -3.0), (top, 3.0)):
            by_view = [record[View.VALUE], judged.usual + record[View.CYCLE], mean + width * record[View.STUDENTISED]]
            end = np.select(leading, by_view, mean + sign * deviation)
            ends.append(np.where(judged.direction == 0.0, np.nan, end))
        return ends[0], ends[1]

    def _learn(self, point: _Points, state: Floats, views: Floats, judged: Judged) -> None:
        rows, x, t_ns = point
        seen = state[_Field.SEEN]
        first = seen == 0
        gap = np.where(first, 0.0, (t_ns - self._last_ns[rows]) * 1e-9)
        interval = state[_Field.INTERVAL]
        paced = np.where(seen > 5, np.minimum(gap, 4.0 * interval), gap)
        interval += np.where(first, 0.0, np.maximum(0.05, 1.0 / np.maximum(seen, 1.0)) * (paced - interval))
        state[_Field.GAP] = np.maximum(state[_Field.GAP] * 0.999, gap)

        weight = np.clip(interval / _FULL_S, 0.01, 1.0)
        hot = (judged.beyond > self._config.pause_views) & (seen >= self._config.middle_points)
        paused = hot & (state[_Field.HELD] < self._config.hold_points)
        cooled = np.where(hot, state[_Field.HELD], np.maximum(state[_Field.HELD] - _COOLING * weight, 0.0))
        state[_Field.HELD] = np.where(paused, state[_Field.HELD] + weight, cooled)
        ageing = gap * (np.log(2.0) / (self._config.record_half_life_days * 86_400.0))
        memory = np.maximum(1.0 / self._config.memory_points, 1.0 / (seen + 1.0))
        learn_records(views, judged.features, rate=memory, learning=~paused, ageing=ageing)

        error = x - state[_Field.MEAN]
        rate = np.maximum(1.0 / self._config.spread_points, 1.0 / (seen + 1.0))
        state[_Field.MEAN] += rate * error
        state[_Field.VARIANCE] = (1.0 - rate) * (state[_Field.VARIANCE] + rate * error * error)
        state[_Field.CHANGES] += (x != state[_Field.LAST]) & ~first
        state[_Field.LAST] = x
        state[_Field.SEEN] += 1.0

        hour = (t_ns // _NS_PER_HOUR) % HOURS
        visits = self._visits[rows, hour]
        pace = _CYCLE_RATE * np.clip(interval / _CYCLE_S, 1.0 / 30.0, 1.0)
        learnt = judged.usual + np.maximum(pace, 1.0 / (visits + 1.0)) * (x - judged.usual)
        self._week[rows, hour] = learnt
        self._visits[rows, hour] = np.minimum(visits, 254) + 1
        self._state[:, rows] = state
        self._views[:, :, rows] = views
        self._last_ns[rows] = t_ns

    def _grow(self, rows: Rows) -> None:
        need = int(rows.max()) + 1 if len(rows) else 0
        have = self._state.shape[1]
        if need <= have:
            return
        more = max(need, have + have // 2) - have
        self._state = np.concatenate([self._state, np.zeros((_Field.COUNT, more))], axis=1)
        self._views = np.concatenate([self._views, np.zeros((View.PARTS, View.COUNT, more))], axis=2)
        self._last_ns = np.concatenate([self._last_ns, np.zeros(more, dtype=np.int64)])
        self._week = np.concatenate([self._week, np.zeros((more, HOURS), dtype=np.float32)])
        self._visits = np.concatenate([self._visits, np.zeros((more, HOURS), dtype=np.uint8)])
