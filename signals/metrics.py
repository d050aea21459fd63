"""Metrics of any shape to plain series: gauges as they are, counters as rates, histograms as rates and quantiles.

What is kept between calls is the last point of each series that is not a gauge. The result depends on the sequence of
rows only, not on how it was cut into calls.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import polars as pl

from signals.quantiles import Buckets, difference, quantile
from signals.schema import SERIES, MetricShape

#: Quantiles a histogram becomes, by the suffix of their series.
QUANTILES: Final = {".p50": 0.50, ".p95": 0.95, ".p99": 0.99}
#: Suffix of the series that holds a histogram's rate of observations per second.
COUNT_SUFFIX: Final = ".count"

_VALUES: Final = (int(MetricShape.GAUGE), int(MetricShape.SUMMARY))  # shapes whose value needs no history
_KEY: Final = ("environment", "namespace", "service", "instance", "metric", "attributes", "shape")
_ROW: Final = "row"
_SECOND_NS: Final = 1_000_000_000
_NO_BUCKETS: Final[Buckets] = ((), ())
_SUMS: Final = frozenset({int(MetricShape.SUM_DELTA), int(MetricShape.SUM_CUMULATIVE)})
_DELTAS: Final = frozenset({int(MetricShape.SUM_DELTA), int(MetricShape.HISTOGRAM_DELTA)})

Key = tuple[str, str, str, str, str, str, int]


class _Point(NamedTuple):
    """A point of a series; ``level`` is what accumulates: a sum, or a histogram's count."""

    time_ns: int
    start_ns: int
    level: float
    bounds: Sequence[float] = ()
    counts: Sequence[int] = ()

    @property
    def buckets(self) -> Buckets:
        """As ``signals.quantiles`` takes them."""
        return self.bounds, self.counts


class _Gain(NamedTuple):
    """What a series gained, and since when."""

    amount: float
    since_ns: int
    buckets: Buckets = _NO_BUCKETS


class MetricNormaliser:
    """Turn ``METRICS`` rows into ``SERIES`` rows.

    - Gauges and summaries pass.
    - Cumulative sums become rates per second under their own name. A lower value, or a start time that has moved on,
      is a reset: the value since then counts, over the time since the previous point or the new start, whichever is
      longer.
      The first point of a series only sets its level, unless its start lies after the first point this normaliser ever
      saw: then it began under our eyes and counts from its start (the rule of the Collector's cumulative-to-delta
      processor, ``initial_value: auto``), if that is at least a second ago.
    - Delta sums become rates over their own interval; without a start time, over the time since the previous point.
    - Histograms become ``name.count`` (observations per second) and ``name.p50``, ``.p95``, ``.p99`` of what was
      observed since the previous point; the quantiles are left out where nothing was.

    A point that is not later than its series' last one is ignored. Rows must come sorted by time. At ``max_series``
    remembered series, the one unseen for longest is forgotten.

    Attributes:
        dropped: series forgotten because of ``max_series``.
        ignored: points without a result, by reason: ``duplicate``, ``out_of_order``, ``no_interval``, ``not_finite``.
    """

    def __init__(self, *, max_series: int = 200_000) -> None:
        if max_series < 1:
            raise ValueError(f"max_series must be at least 1, not {max_series}")
        self._max_series = max_series
        self._last: OrderedDict[Key, _Point] = OrderedDict()
        self._began_ns: int | None = None
        self.dropped = 0
        self.ignored: Counter[str] = Counter()

    @property
    def series(self) -> int:
        """How many series are remembered."""
        return len(self._last)

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The series rows that these metric rows yield, in the same order; schemas ``METRICS`` to ``SERIES``."""
        finite = frame["value"].is_finite().fill_null(value=False)
        if not finite.all():
            self.ignored["not_finite"] += frame.height - int(finite.sum())
            frame = frame.filter(finite)
        valued = frame["shape"].is_in(_VALUES)
        if valued.all():
            return frame.select(SERIES.names())
        frame = frame.with_row_index(_ROW)
        derived = self._derive(frame.filter(~valued))
        plain = frame.filter(valued).select(_ROW, *SERIES.names())
        return pl.concat([plain, derived]).sort(_ROW, maintain_order=True).drop(_ROW)

    def _derive(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of counters and histograms; ``_ROW`` tells which row each came from."""
        places: list[int] = []
        names: list[str] = []
        values: list[float] = []
        keys: Iterator[Key] = zip(*(frame[name].to_list() for name in _KEY), strict=True)
        points = map(_Point._make, zip(*(column.to_list() for column in _point_columns(frame)), strict=True))
        for place, (key, point) in enumerate(zip(keys, points, strict=True)):
            gain = self._gain(key, point)
            if gain is None:
                continue
            rate = gain.amount / ((point.time_ns - gain.since_ns) / _SECOND_NS)
            if key[-1] in _SUMS:
                places.append(place)
                names.append(key[4])
                values.append(rate)
                continue
            found = {COUNT_SUFFIX: rate, **_quantiles(gain.buckets)}
            places += [place] * len(found)
            names += [key[4] + suffix for suffix in found]
            values += found.values()
        return frame[places].select(
            _ROW,
            *(
                {
                    "metric": pl.Series("metric", names, dtype=pl.String),
                    "value": pl.Series("value", values, dtype=pl.Float64),
                }.get(name, pl.col(name))
                for name in SERIES.names()
            ),
        )

    def _gain(self, key: Key, point: _Point) -> _Gain | None:
        """What the series gained with this point, which becomes its last; None when that is not known."""
        if self._began_ns is None:
            self._began_ns = point.time_ns
        last = self._last.get(key)
        if last is not None and point.time_ns <= last.time_ns:
            self.ignored["duplicate" if point.time_ns == last.time_ns else "out_of_order"] += 1
            return None
        self._remember(key, point)
        if key[-1] in _DELTAS:
            gain = _delta_gain(last, point)
        elif last is None:
            return self._first_gain(point)
        else:
            gain = _cumulative_gain(last, point)
        if gain is None:
            self.ignored["no_interval"] += 1
        return gain

    def _first_gain(self, point: _Point) -> _Gain | None:
        began = self._began_ns
        if began is not None and began < point.start_ns <= point.time_ns - _SECOND_NS:
            return _Gain(point.level, point.start_ns, point.buckets)
        return None

    def _remember(self, key: Key, point: _Point) -> None:
        self._last[key] = point
        self._last.move_to_end(key)
        if len(self._last) > self._max_series:
            self._last.popitem(last=False)
            self.dropped += 1


def _delta_gain(last: _Point | None, point: _Point) -> _Gain | None:
    if 0 < point.start_ns < point.time_ns:
        return _Gain(point.level, point.start_ns, point.buckets)
    return None if last is None else _Gain(point.level, last.time_ns, point.buckets)


def _cumulative_gain(last: _Point, point: _Point) -> _Gain | None:
    """Between two points of a series; None after a reset whose moment is not known."""
    if point.start_ns > last.start_ns > 0:  # a new process, say
        # A start equal to the point's time is OTLP's way to say "reset, but unknown when".
        since = min(point.start_ns, last.time_ns)
        return _Gain(point.level, since, point.buckets) if point.start_ns < point.time_ns else None
    gained = difference(last.buckets, point.buckets) if point.counts else _NO_BUCKETS
    if point.level < last.level or gained is None:
        return _Gain(max(point.level, 0.0), last.time_ns, point.buckets)
    return _Gain(point.level - last.level, last.time_ns, gained)


def _point_columns(frame: pl.DataFrame) -> list[pl.Series]:
    """The columns behind ``_Point``'s fields."""
    histogram = ~frame["shape"].is_in(_SUMS)
    level = frame.select(pl.when(histogram).then(pl.col("count").cast(pl.Float64)).otherwise("value"))
    return [frame["time_ns"], frame["start_ns"], level.to_series(), frame["bounds"], frame["counts"]]


def _quantiles(buckets: Buckets) -> dict[str, float]:
    bounds, counts = buckets
    found = {suffix: quantile(bounds, counts, q) for suffix, q in QUANTILES.items()}
    return {suffix: value for suffix, value in found.items() if value is not None}
