"""Screening of every metric series: rows for series, the bank's scores, and their calibration.

A stage of the stream as a plain object: frames in, frames out, no clock. Not here: what a series is about, and which
points become anomalies (the caller filters by ``score``).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from detectors.bank import SeriesBank
from detectors.base import Flags, Floats, Rows, Times
from detectors.calibrate import TailCalibrator
from detectors.config import SeriesConfig
from detectors.registrar import RowRegistry

DETECTOR_NAME: Final = "series_bank"
DETECTOR_VERSION: Final = "1"

KEY_COLUMNS: Final = ("environment", "namespace", "service", "instance", "metric", "attributes")
_SEPARATOR: Final = "\x1f"

#: Columns that ``SeriesScreen.process`` adds.
SCREENED: Final = {
    "raw": pl.Float64,  # the bank's surprise
    "score": pl.Float64,  # 1 - p, calibrated over all series of the metric
    "lo": pl.Float64,  # expected interval
    "hi": pl.Float64,
    "direction": pl.Int8,  # +1 above, -1 below what was expected, 0 before the warm-up ends
}

#: What ``SeriesScreen.silent`` returns.
SILENT: Final = pl.Schema(
    {
        **dict.fromkeys(KEY_COLUMNS, pl.String),
        "last_ns": pl.Int64,  # event time of the last point
        "interval_s": pl.Float64,  # the series' own interval
        "missed": pl.Float64,  # expected points that have not come
    }
)


class SeriesScreen:
    """Scores every point of every series; rows of the frame must be sorted by ``time_ns``.

    The result is the same however a stream is split into frames, as long as splits lie between different times. Points
    that repeat a series' time or go back behind it score 0 and teach nothing; ``counters`` says how many.
    """

    def __init__(self, config: SeriesConfig | None = None) -> None:
        self._config = config or SeriesConfig()
        self._bank = SeriesBank(self._config.bank)
        self._calibrator = TailCalibrator(self._config.calibration, prior_scale=1.0)
        self._registry = RowRegistry(self._config.max_series)
        self._pool_of: Rows = np.zeros(0, dtype=np.int64)
        self._pools: dict[str, int] = {}
        self._counters: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._registry)

    @property
    def counters(self) -> Counter[str]:
        """What was left out: ``repeated_or_late`` and ``not_finite`` points, ``series_dropped``, ``series_refused``."""
        known = {"series_dropped": self._registry.dropped, "not_finite": self._bank.ignored}
        return self._counters + Counter(known)

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame (schema ``signals.schema.SERIES``) with the columns of ``SCREENED`` added, rows in their order."""
        if frame.is_empty():
            return frame.with_columns(*(pl.lit(None, dtype).alias(name) for name, dtype in SCREENED.items()))
        keys = frame.select(pl.concat_str(KEY_COLUMNS, separator=_SEPARATOR)).to_series()
        if not self._registry.fits(set(keys.unique().to_list())):
            return self._crowded(frame, keys)
        return self._score(frame, keys.to_list())

    def silent(self, t_ns: int) -> pl.DataFrame:
        """Series that have vanished by event time ``t_ns``, schema ``SILENT``, longest silent first.

        A series is expected every so often by its own history: it counts as vanished after ``silent_intervals`` of its
        intervals without a point, and only if it has never been silent for as long before.
        """
        expected_s, longest_s = self._bank.rhythm(len(self._registry.keys))
        waited_s = (t_ns - self._registry.last_ns) / 1e9
        with np.errstate(invalid="ignore", divide="ignore"):
            missed = waited_s / expected_s
            gone = (missed >= self._config.silent_intervals) & (waited_s > 2.0 * longest_s)
        rows = np.flatnonzero(gone)
        rows = rows[np.lexsort((rows, -missed[rows]))]
        parts = [self._registry.keys[row].split(_SEPARATOR) for row in rows.tolist()]
        columns = list(zip(*parts, strict=True)) if parts else [()] * len(KEY_COLUMNS)
        return pl.DataFrame(
            [*columns, self._registry.last_ns[rows], expected_s[rows], missed[rows]], schema=SILENT, orient="col"
        )

    def _crowded(self, frame: pl.DataFrame, keys: pl.Series) -> pl.DataFrame:
        """A frame that does not fit: which series gives way depends on the moment, so moments go one by one."""
        if frame["time_ns"].n_unique() > 1:
            return pl.concat([self.process(part) for part in frame.partition_by("time_ns", maintain_order=True)])
        room = self._registry.capacity
        if keys.n_unique() <= room:
            return self._score(frame, keys.to_list())
        kept = keys.is_in(keys.unique(maintain_order=True).head(room).implode())
        self._counters["series_refused"] += keys.n_unique() - room
        refused = frame.filter(~kept).with_columns(
            raw=0.0, score=0.0, lo=float("nan"), hi=float("nan"), direction=pl.lit(0, pl.Int8)
        )
        scored = self._score(frame.filter(kept), keys.filter(kept).to_list())
        places = np.argsort(np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)]))
        return pl.concat([scored, refused])[places]

    def _score(self, frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
        rows, new = self._registry.locate(keys)
        self._assign_pools(rows, new, frame["metric"])
        times = frame["time_ns"].to_numpy()
        raw, low, high, direction = self._screen(rows, frame["value"].to_numpy(), times)
        score = self._calibrate(raw, direction != 0, self._pool_of[rows], times)
        return frame.with_columns(
            raw=pl.Series(raw),
            score=pl.Series(score),
            lo=pl.Series(low),
            hi=pl.Series(high),
            direction=pl.Series(direction, dtype=pl.Int8),
        )

    def _assign_pools(self, rows: Rows, new: Rows, metrics: pl.Series) -> None:
        if not len(new):
            return
        self._bank.reset(new)
        grown = len(self._registry.keys) - len(self._pool_of)
        self._pool_of = np.append(self._pool_of, np.zeros(grown, dtype=np.int64))
        first = np.zeros(len(self._pool_of), dtype=np.int64)
        first[rows[::-1]] = np.arange(len(rows))[::-1]
        for row, metric in zip(new.tolist(), metrics.gather(first[new]).to_list(), strict=True):
            self._pool_of[row] = self._pool(metric)

    def _pool(self, metric: str) -> int:
        pool = self._pools.get(metric)
        if pool is None:
            if len(self._pools) >= self._config.max_pools:
                return 0
            pool = self._pools[metric] = self._calibrator.add_pool()
        return pool

    def _screen(self, rows: Rows, x: Floats, times: Times) -> tuple[Floats, Floats, Floats, Floats]:
        """The bank's four answers, each of shape (n,); points that do not move their series' time on give 0."""
        out = np.zeros((4, len(rows)))
        out[1:3] = np.nan
        for turn in rounds(rows):
            chosen, fresh = turn, times[turn] > self._registry.last_ns[rows[turn]]
            if not fresh.all():
                self._counters["repeated_or_late"] += int(len(fresh) - fresh.sum())
                chosen = turn[fresh]
            row = rows[chosen]
            out[:, chosen] = self._bank.step(row, x[chosen], times[chosen])
            self._registry.touch(row, times[chosen])
        return out[0], out[1], out[2], out[3]

    def _calibrate(self, raw: Floats, scored: Flags, pools: Rows, times: Times) -> Floats:
        """One minus the tail probability of each point, by the tables of the epochs closed before it."""
        score = np.zeros(len(raw))
        epochs = times // int(self._config.calibration.epoch_s * 1e9)
        starts = [0, *(np.flatnonzero(np.diff(epochs)) + 1).tolist(), len(raw)]
        for start, end in pairwise(starts):
            self._calibrator.advance(int(times[start]))
            known = np.flatnonzero(scored[start:end]) + start
            score[known] = self._calibrator.score(raw[known], pools[known])
            self._calibrator.observe(raw[known], pools[known])
        return score


def rounds(rows: Rows) -> list[Rows]:
    """Positions in ``rows`` such that each round names every row at most once, earlier points in earlier rounds.

    >>> [r.tolist() for r in rounds(np.array([4, 4, 7, 4, 7]))]
    [[0, 2], [1, 4], [3]]
    """
    order = np.argsort(rows, kind="stable")
    grouped = rows[order]
    first = np.r_[True, grouped[1:] != grouped[:-1]]
    starts = np.flatnonzero(first)
    occurrence = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    by_round = np.argsort(occurrence, kind="stable")
    sizes = np.bincount(occurrence)
    return [np.sort(part) for part in np.split(order[by_round], np.cumsum(sizes)[:-1])]
