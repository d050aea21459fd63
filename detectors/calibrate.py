"""From raw scores to tail probabilities, so that a score means the same whatever detector gave it.

Not here: where the threshold is applied. Raw scores are counted in log-spaced bins per pool (a detector and class of
signal); the far tail is extrapolated from a generalised Pareto fit. All counts are integers and the table in use only
changes at the close of an event-time epoch, so the result does not depend on batching, and calibrators can be merged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import Floats, Rows
from detectors.config import CalibrationConfig

_BINS_PER_OCTAVE = 8
_LOWEST, _HIGHEST = -6, 14  # octaves: raw scores from 1/64 to 16384 are told apart
_BINS = (_HIGHEST - _LOWEST) * _BINS_PER_OCTAVE
_EDGES = 2.0 ** np.linspace(_LOWEST, _HIGHEST, _BINS + 1)  # lower edges, and the last upper one
_UNIT = 1 << 16  # one fresh point; ageing keeps fractions without leaving integers
_AGE_STEPS = 32  # ageing happens this many times per half-life
_MIN_EXCEEDANCES = 20.0  # the empirical tail is believed down to this many points

Counts = npt.NDArray[np.int64]


class TailCalibrator:
    """Streaming tail probabilities of raw scores (>= 0), for any number of pools.

    Pool 0 takes in every point and starts from a heavy-tailed prior, ``(1 + raw / prior_scale) ** -prior_shape``; each
    other pool starts from pool 0. State is 1.3 KB per pool.

    The tail beyond the smallest of the ``tail_fraction`` quantile and the last 20 points follows a generalised Pareto
    law (Pickands 1975) whose parameters are Dekkers, Einmahl and de Haan's moment estimates (Annals of Statistics,
    1989), which need only the mean and mean square of log-exceedances; used on streams as by Siffer et al. (KDD 2017).

    >>> calibrator = TailCalibrator(CalibrationConfig(prior_points=100))
    >>> raw = np.random.default_rng(1).exponential(size=50_000)
    >>> calibrator.observe(raw)
    >>> calibrator.advance(60_000_000_000)
    >>> bool(abs(np.log10(calibrator.tail(np.array([9.2]))[0]) + 4) < 0.3)  # P(raw >= 9.2) is 1e-4
    True
    """

    def __init__(
        self, config: CalibrationConfig, *, pools: int = 1, prior_scale: float = 2.0, prior_shape: float = 4.0
    ) -> None:
        self._config = config
        prior = (1.0 + _EDGES / prior_scale) ** -prior_shape
        self._prior = -np.diff(prior, append=0.0)
        self._prior[0] += 1.0 - prior[0]
        self._counts: Counts = np.zeros((pools, _BINS + 1), dtype=np.int64)
        self._pending: Counts = np.zeros((pools, _BINS + 1), dtype=np.int64)
        self._epoch = -(2**62)
        self._age = -(2**62)
        self._refreshed_at = 0.0  # weight of pool 0 when all tables were last computed
        self._tables: Floats = np.empty((0, _BINS + 1))  # log tail probability at each edge
        self._floors: Floats = np.empty(0)
        self._refresh()

    @property
    def pools(self) -> int:
        """Pools there are."""
        return len(self._counts)

    def points(self, pool: int = 0) -> float:
        """Points the pool rests on, aged."""
        return float(self._counts[pool].sum()) / _UNIT

    def add_pool(self) -> int:
        """Open a pool that starts from pool 0; returns its number."""
        row = np.zeros((1, _BINS + 1), dtype=np.int64)
        self._counts = np.concatenate([self._counts, row])
        self._pending = np.concatenate([self._pending, row])
        self._tables = np.concatenate([self._tables, self._tables[:1]])
        self._floors = np.append(self._floors, self._floors[0])
        return self.pools - 1

    def observe(self, raw: Floats, pools: Rows | None = None) -> None:
        """Count points, shape (n,); they take effect when their epoch has closed. NaN are left out."""
        known = ~np.isnan(raw)
        bins = _bin(raw[known])
        self._pending[0] += np.bincount(bins, minlength=_BINS + 1)
        if pools is not None and self.pools > 1:
            flat = np.bincount(pools[known] * (_BINS + 1) + bins, minlength=self._pending.size)
            own = flat.reshape(self._pending.shape)
            self._pending[1:] += own[1:]

    def advance(self, t_ns: int) -> None:
        """Move event time on: when a new epoch begins, earlier points take effect and old ones lose weight."""
        epoch = t_ns // int(self._config.epoch_s * 1e9)
        if epoch <= self._epoch:
            return
        self._epoch = epoch
        aged = self._grow_old(t_ns)
        if aged or self._pending[0].any():
            self._counts += self._pending * _UNIT
            # Every pool rests on pool 0 a little; it is enough to follow when pool 0 has grown by a few hundredths.
            grown = self._counts[0].sum() > 1.03 * self._refreshed_at
            changed = None if aged or grown else np.flatnonzero(self._pending.any(axis=1))
            self._pending[:] = 0
            self._refresh(changed)

    def tail(self, raw: Floats, pools: Rows | None = None) -> Floats:
        """Probability of a raw score at least this high, shape (n,), in (0, 1]; NaN stays NaN.

        Never below a hundredth of what the number of points can support.
        """
        pools = np.zeros(len(raw), dtype=np.int64) if pools is None else pools
        with np.errstate(divide="ignore"):
            position = (np.log2(raw) - _LOWEST) * _BINS_PER_OCTAVE
        position = np.clip(position, 0.0, _BINS - 1e-9)
        nan = np.isnan(position)
        position[nan] = 0.0
        low = position.astype(np.int64)
        log_p = self._tables[pools, low]
        log_p += (position - low) * (self._tables[pools, low + 1] - log_p)
        p = np.maximum(np.exp(log_p), self._floors[pools])
        p[raw < _EDGES[0]] = 1.0
        p[nan] = np.nan
        return np.asarray(p)

    def score(self, raw: Floats, pools: Rows | None = None) -> Floats:
        """One minus the tail probability, shape (n,), in [0, 1)."""
        return 1.0 - self.tail(raw, pools)

    def merge(self, other: TailCalibrator) -> None:
        """Take in another calibrator's points; pools must correspond.

        Raises:
            ValueError: the two have different numbers of pools.
        """
        if other.pools != self.pools:
            raise ValueError(
                f"calibrators with {self.pools} and {other.pools} pools cannot be merged: open the missing"
            )
        self._epoch = max(self._epoch, other._epoch)
        steps = other._age - self._age
        mine, theirs = self._counts, other._counts
        if steps > 0 and self._age > -(2**62):
            mine = _aged(mine, steps)
        elif steps < 0 and other._age > -(2**62):
            theirs = _aged(theirs, -steps)
        self._age = max(self._age, other._age)
        self._counts = mine + theirs
        self._pending = self._pending + other._pending
        self._refresh()

    @staticmethod
    def threshold(points_per_day: float, alarms_per_day: float) -> float:
        """Score from which a stream of so many points a day raises so many false alarms a day.

        Raises:
            ValueError: a rate is not positive.

        >>> TailCalibrator.threshold(points_per_day=1440, alarms_per_day=0.144)
        0.9999
        """
        if points_per_day <= 0 or alarms_per_day <= 0:
            raise ValueError("points and alarms per day must be above 0")
        return 1.0 - min(1.0, alarms_per_day / points_per_day)

    def _grow_old(self, t_ns: int) -> bool:
        age = t_ns * _AGE_STEPS // int(self._config.half_life_days * 86_400e9)
        steps, known = age - self._age, self._age > -(2**62)
        self._age = max(age, self._age)
        if not known or steps <= 0:
            return False
        self._counts = _aged(self._counts, steps)
        return True

    def _refresh(self, changed: npt.NDArray[np.intp] | None = None) -> None:
        """Recompute the tables of the changed pools, or of all."""
        weight = float(self._config.prior_points)
        if changed is None or len(self._tables) != self.pools:
            changed = np.arange(self.pools)
            self._refreshed_at = float(self._counts[0].sum())
            self._tables = np.zeros((self.pools, _BINS + 1))
            self._floors = np.zeros(self.pools)
        everything = self._counts[0] / _UNIT + weight * self._prior
        share = everything / everything.sum()
        mass = self._counts[changed] / _UNIT + weight * share
        if len(changed) and changed[0] == 0:
            mass[0] = everything
        total = mass.sum(axis=1)
        self._tables[changed] = _log_tail(mass, total, self._config.tail_fraction)
        self._floors[changed] = 0.01 / total


def _bin(raw: Floats) -> Rows:
    with np.errstate(divide="ignore"):
        position = (np.log2(raw) - _LOWEST) * _BINS_PER_OCTAVE
    bins: Rows = np.clip(position, 0, _BINS).astype(np.int64)
    return bins


def _aged(counts: Counts, steps: int) -> Counts:
    lighter: Counts = np.rint(counts * 0.5 ** (steps / _AGE_STEPS)).astype(np.int64)
    return lighter


def _log_tail(mass: Floats, total: Floats, tail_fraction: float) -> Floats:
    """Log P(raw >= edge) of each pool at each edge, shape (pools, bins + 1), from the mass per bin."""
    survival = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1]
    pools = np.arange(len(mass))
    wanted = np.maximum(tail_fraction * total, np.minimum(_MIN_EXCEEDANCES, 0.5 * total))
    start = np.maximum((survival >= wanted[:, None]).sum(axis=1) - 1, 0)  # last edge with enough beyond it
    inside = np.arange(_BINS + 1)[None, :] >= start[:, None]
    weights = np.where(inside, mass, 0.0)
    beyond = weights.sum(axis=1)
    middle = (np.arange(_BINS + 1)[None, :] + 0.5 - start[:, None]) * (np.log(2.0) / _BINS_PER_OCTAVE)
    first = (weights * middle).sum(axis=1) / beyond
    second = (weights * middle**2).sum(axis=1) / beyond
    spread = np.maximum(1.0 - first**2 / second, 1e-6)
    light = 1.0 - 0.5 / spread
    shape = np.clip(first + light, 0.02, 1.0)  # never lighter than about exponential
    edge = _EDGES[start]
    scale = edge * first * np.maximum(1.0 - light, 0.05)
    exceed = np.maximum(_EDGES[None, :] - edge[:, None], 0.0)
    fitted = (
        np.log(survival[pools, start] / total)[:, None]
        - np.log1p(shape[:, None] * exceed / scale[:, None]) / shape[:, None]
    )
    empirical = np.log(np.maximum(survival, 1e-300) / total[:, None])
    # The empirical tail as far as points carry it, then the fit, joined where the former ends.
    carried = (survival >= _MIN_EXCEEDANCES).sum(axis=1) - 1
    last = np.maximum(carried, start)
    shift = empirical[pools, last] - fitted[pools, last]
    extrapolated = fitted + shift[:, None]
    use = np.arange(_BINS + 1)[None, :] <= last[:, None]
    return np.minimum(np.where(use, empirical, extrapolated), 0.0)
