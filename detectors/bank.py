"""The vectorised bank: one numpy column of state per series, every series screened in one call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.base import Floats, Rows, Times
from detectors.config import BankConfig


class Screened(NamedTuple):
    """What the bank says of each point, all of shape (n,)."""

    raw: Floats  # surprise, 0 = as expected
    low: Floats  # expected interval
    high: Floats
    direction: Floats  # +1 above, -1 below what was expected


_SEEN, _MEAN, _SPREAD, _HELD, _INTERVAL, _GAP = range(6)
_FIELDS = 6


class SeriesBank:
    """Detector over numpy columns; see ``Detector``."""

    def __init__(self, config: BankConfig | None = None) -> None:
        self._config = config or BankConfig()
        self._state = np.zeros((_FIELDS, 0))
        self._last_ns = np.zeros(0, dtype=np.int64)
        self._ignored = 0

    @property
    def ignored(self) -> int:
        """Values that were not finite and so were not learnt."""
        return self._ignored

    def score_many(self, rows: Rows, x: Floats, t_ns: Times) -> Floats:
        """Raw surprise of one point per row."""
        self._grow(rows)
        return self._judge(self._state[:, rows], x).raw

    def learn_many(self, rows: Rows, x: Floats, t_ns: Times) -> None:
        """Learn one point per row."""
        self.step(rows, x, t_ns)

    def step(self, rows: Rows, x: Floats, t_ns: Times) -> Screened:
        """Score and learn in one pass."""
        self._grow(rows)
        state = self._state[:, rows]
        seen = self._judge(state, x)
        finite = np.isfinite(x)
        self._ignored += int(len(x) - finite.sum())
        n = state[_SEEN]
        rate = np.maximum(1.0 / (n + 1.0), 1.0 / self._config.memory_points)
        held = (seen.raw > 8.0) & (state[_HELD] < self._config.hold_points)
        state[_HELD] = np.where(held, state[_HELD] + 1, 0)
        error = np.where(finite, x, state[_MEAN]) - state[_MEAN]
        error = np.where(n > 10, np.clip(error, -3 * state[_SPREAD], 3 * state[_SPREAD]), error)
        rate = np.where(held, 0.0, rate)
        state[_MEAN] += rate * error
        state[_SPREAD] += rate * (np.abs(error) * 1.25 - state[_SPREAD]) + 1e-12 * np.abs(state[_MEAN])
        state[_SEEN] += finite
        gap = (t_ns - self._last_ns[rows]) / 1e9
        known = n > 0
        state[_INTERVAL] += np.where(
            known,
            (np.minimum(gap, 10 * state[_INTERVAL] + 1e18 * (n == 1)) - state[_INTERVAL])
            * np.maximum(1 / np.maximum(n, 1), 0.05),
            0.0,
        )
        state[_GAP] = np.where(known, np.maximum(state[_GAP] * 0.999, gap), 0.0)
        self._last_ns[rows] = np.where(finite, t_ns, self._last_ns[rows])
        self._state[:, rows] = np.where(finite, state, self._state[:, rows])
        return seen

    def reset(self, rows: Rows) -> None:
        """Forget the series of these rows."""
        self._grow(rows)
        self._state[:, rows] = 0.0

    def rhythm(self, rows: int) -> tuple[Floats, Floats]:
        """Expected interval and longest gap so far of the first ``rows`` series, seconds; NaN before the warm-up ends."""
        self._grow(np.array([rows - 1]))
        warm = self._state[_SEEN, :rows] >= self._config.warmup_points
        return np.where(warm, self._state[_INTERVAL, :rows], np.nan), np.where(warm, self._state[_GAP, :rows], np.nan)

    def _judge(self, state: Floats, x: Floats) -> Screened:
        mean, spread = state[_MEAN], np.maximum(state[_SPREAD], 1e-9)
        z = (x - mean) / spread
        raw = np.where((state[_SEEN] >= self._config.warmup_points) & np.isfinite(x), np.abs(z), 0.0)
        direction = np.where(state[_SEEN] >= self._config.warmup_points, np.where(z < 0, -1.0, 1.0), 0.0)
        return Screened(raw, mean - 4 * spread, mean + 4 * spread, direction)

    def _grow(self, rows: Rows) -> None:
        need = int(rows.max()) + 1 if len(rows) else 0
        if need > self._state.shape[1]:
            more = max(need, 2 * self._state.shape[1]) - self._state.shape[1]
            self._state = np.concatenate([self._state, np.zeros((_FIELDS, more))], axis=1)
            self._last_ns = np.append(self._last_ns, np.zeros(more, dtype=np.int64))
