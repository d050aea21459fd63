"""Arrays that grow: the learnt shares and time histograms behind ``detectors.span_behaviour``.

Only storage and arithmetic: what is compared with what, and what it means, is said there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Octaves of squared standardised residuals that the dispersion histogram tells apart: 2^-4 to 2^11.
DISPERSION_BINS: Final = 16
_CHI2_85: Final = 2.07  # 85th percentile of chi-squared with one degree of freedom


class Column:
    """A numpy array that doubles when it is full; ``view`` is the part in use."""

    __slots__ = ("_data", "size")

    def __init__(self, *shape: int, dtype: type[np.generic] = np.float64) -> None:
        self._data = np.zeros((64, *shape), dtype=dtype)
        self.size = 0

    def grow(self, size: int) -> None:
        """Make room for ``size`` rows; new rows are zero."""
        if size > len(self._data):
            bigger = np.zeros((max(size, 2 * len(self._data)), *self._data.shape[1:]), dtype=self._data.dtype)
            bigger[: self.size] = self._data[: self.size]
            self._data = bigger
        self.size = max(self.size, size)

    @property
    def view(self) -> npt.NDArray[Any]:
        """The rows in use; writing to it writes to the column."""
        return self._data[: self.size]

    def keep(self, rows: Ints) -> None:
        """Drop all rows but these, in this order."""
        kept = self._data[rows].copy()
        self._data = kept if len(kept) else np.zeros((64, *self._data.shape[1:]), dtype=self._data.dtype)
        self.size = len(rows)


@dataclass(slots=True)
class Dispersion:
    """How much a share varies from bucket to bucket beyond counting noise, per row.

    A decayed histogram of (k - np)^2 / np(1-p) with octave bins. The 85th percentile is robust: earlier faults in the
    history do not widen it (the quasi-likelihood dispersion of McCullagh and Nelder, 1989, made robust).
    """

    histogram: Column = field(default_factory=lambda: Column(DISPERSION_BINS, dtype=np.float32))

    def grow(self, size: int) -> None:
        """Make room for rows."""
        self.histogram.grow(size)

    def learn(self, rows: Ints, k: Floats, n: Floats, p: Floats) -> None:
        """Add one bucket's residuals for distinct rows."""
        squared = (k - n * p) ** 2 / (n * p * (1.0 - p) + 0.5)
        octave = np.floor(np.log2(np.maximum(squared, 2.0**-4))) + 4
        self.histogram.view[rows, np.clip(octave, 0, DISPERSION_BINS - 1).astype(np.int64)] += 1.0

    def factor(self, rows: Ints) -> Floats:
        """Dispersion of rows, at least 1; shrunk towards 1 while there is little history."""
        histogram = self.histogram.view[rows].astype(np.float64)
        count = histogram.sum(axis=1)
        reached = histogram.cumsum(axis=1)
        target = 0.85 * count
        octave = np.argmax(reached >= target[:, None], axis=1)
        inside = np.take_along_axis(histogram, octave[:, None], axis=1)[:, 0]
        below = np.take_along_axis(reached, octave[:, None], axis=1)[:, 0] - inside
        fraction = np.clip((target - below) / np.maximum(inside, 1e-9), 0.0, 1.0)
        quantile = np.exp2(octave - 4 + fraction)
        shrunk = (np.where(count >= 10, quantile / _CHI2_85, 1.0) * count + 3.0) / (count + 3.0)
        return np.asarray(np.maximum(1.0, shrunk), dtype=np.float64)


def g_statistic(k1: Floats, n1: Floats, k2: Floats, n2: Floats) -> Floats:
    """Likelihood-ratio statistic (G-test) for two shares being one; all shapes (m,), n > 0, 0 <= k <= n.

    Shares are smoothed by half a count, so that never against always is finite.

    >>> bool(g_statistic(np.array([0.0]), np.array([100.0]), np.array([10.0]), np.array([10.0]))[0] > 40)
    True
    """

    def log_likelihood(k: Floats, n: Floats, p: Floats) -> Floats:
        p = np.clip(p, 1e-9, 1.0 - 1e-9)
        likelihood: Floats = k * np.log(p) + (n - k) * np.log1p(-p)
        return likelihood

    pooled = (k1 + k2) / (n1 + n2)
    own = log_likelihood(k1, n1, (k1 + 0.5) / (n1 + 1.0)) + log_likelihood(k2, n2, (k2 + 0.5) / (n2 + 1.0))
    both = log_likelihood(k1, n1, pooled) + log_likelihood(k2, n2, pooled)
    return np.asarray(np.maximum(0.0, 2.0 * (own - both)), dtype=np.float64)
