"""Growing column lists of decoded rows, and how they become frames in the signals' schemas.

Readers (protobuf, JSON) fill one set of lists per message and merge it when the message turned out sound, so that a bad
message leaves nothing behind. What is dropped or repaired on the way is counted by reason in ``skipped``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from signals.ids import span_ids_from_bytes, trace_ids_from_bytes
from signals.otlp_values import TIME_LIMIT_NS, Identity
from signals.schema import ATTRIBUTES, LOGS, METRICS, SPANS, MetricShape

#: Highest OTLP values; what lies above is unspecified (0).
MAX_KIND: Final = 5
MAX_STATUS: Final = 2
MAX_SEVERITY: Final = 24

Mask = npt.NDArray[np.bool_]


@dataclass
class Columns:
    """What the three signals' lists have in common: runs of rows of one resource, and counts of skipped rows."""

    identities: list[Identity] = field(default_factory=list)  # one per run
    runs: list[int] = field(default_factory=list)  # rows per run
    skipped: Counter[str] = field(default_factory=Counter)

    def absorb(self, other: Self) -> None:
        """Append another's rows."""
        for name, values in vars(other).items():
            if isinstance(values, list):
                getattr(self, name).extend(values)
        self.skipped.update(other.skipped)

    def entity_series(self, *, version: bool) -> list[pl.Series]:
        """The entity columns, and ``version`` where the schema has it."""
        return entity_series(self.identities, np.asarray(self.runs, dtype=np.int64), version=version)


def entity_series(identities: Sequence[Identity], runs: npt.NDArray[np.int64], *, version: bool) -> list[pl.Series]:
    """Each identity repeated for the rows of its run, as String columns named like ``Identity``'s fields."""
    distinct = {who: number for number, who in enumerate(dict.fromkeys(identities))}
    rows = np.repeat(np.fromiter((distinct[who] for who in identities), np.uint32, len(identities)), runs)
    names = Identity._fields if version else Identity._fields[:-1]
    columns = [pl.Series(name, [who[place] for who in distinct], dtype=pl.String) for place, name in enumerate(names)]
    return pl.DataFrame(columns)[rows].get_columns()


@dataclass
class SpanColumns(Columns):
    """Lists behind ``SPANS``."""

    trace_ids: list[bytes] = field(default_factory=list)
    span_ids: list[bytes] = field(default_factory=list)
    parent_ids: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    attributes: list[str | None] = field(default_factory=list)

    def frame(self, *, keep_attributes: bool = False) -> pl.DataFrame:
        """The rows so far in the schema ``SPANS``; what is repaired or dropped is added to ``skipped``."""
        high, low, odd_traces = trace_ids_from_bytes(self.trace_ids)
        spans, odd_spans = span_ids_from_bytes(self.span_ids)
        parents, odd_parents = span_ids_from_bytes(self.parent_ids)
        odd = odd_traces + odd_spans + odd_parents
        return span_frame(
            self.entity_series(version=True),
            name=pl.Series(self.names, dtype=pl.String),
            kind=np.asarray(self.kinds, dtype=np.int64),
            status=np.asarray(self.statuses, dtype=np.int64),
            start=np.asarray(self.starts, dtype=np.uint64),
            end=np.asarray(self.ends, dtype=np.uint64),
            ids=(high, low, spans, parents),
            odd_ids=odd,
            peer=pl.Series(self.peers, dtype=pl.String),
            attributes=pl.Series(self.attributes, dtype=pl.String) if keep_attributes else None,
            skipped=self.skipped,
        )


U64 = npt.NDArray[np.uint64]


def span_frame(
    entities: list[pl.Series],
    *,
    name: pl.Series,
    kind: npt.NDArray[np.int64],
    status: npt.NDArray[np.int64],
    start: U64,
    end: U64,
    ids: tuple[U64, U64, U64, U64],
    odd_ids: int,
    peer: pl.Series,
    attributes: pl.Series | None,
    skipped: Counter[str],
) -> pl.DataFrame:
    """Assemble ``SPANS``: enumerations outside OTLP's ranges become 0, times are made to agree.

    ``skipped`` gains ``no_time`` (dropped: neither start nor end), ``bad_time`` (dropped: beyond the year 2116),
    ``negative_duration`` (kept: the end is moved to the start) and ``bad_id`` (kept: ids of the wrong length are
    hashed, missing ones are 0).
    """
    high, low, spans, parents = ids
    negative = end < start
    end = np.maximum(start, end)
    start = np.where(start == 0, end, start)
    series = [
        *entities,
        name.alias("name"),
        pl.Series("kind", np.where((kind >= 0) & (kind <= MAX_KIND), kind, 0).astype(np.int8)),
        pl.Series("status", np.where((status >= 0) & (status <= MAX_STATUS), status, 0).astype(np.int8)),
        pl.Series("start_ns", start.view(np.int64)),
        pl.Series("end_ns", end.view(np.int64)),
        pl.Series("trace_hi", high),
        pl.Series("trace_lo", low),
        pl.Series("span_id", spans),
        pl.Series("parent_id", parents),
        peer.alias("peer"),
    ]
    if attributes is not None:
        series.append(attributes.alias(ATTRIBUTES))
    missing = int(np.count_nonzero((high | low) == 0) + np.count_nonzero(spans == 0))
    _count(skipped, bad_id=odd_ids + missing, negative_duration=int(np.count_nonzero(negative)))
    frame = pl.DataFrame(series)
    frame = _usable_times(frame, end, skipped)
    return frame if frame.height else _typed(frame, SPANS)


@dataclass
class LogColumns(Columns):
    """Lists behind ``LOGS``."""

    times: list[int] = field(default_factory=list)
    severities: list[int] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    trace_ids: list[bytes] = field(default_factory=list)
    span_ids: list[bytes] = field(default_factory=list)
    attributes: list[str | None] = field(default_factory=list)

    def frame(self, *, keep_attributes: bool = False) -> pl.DataFrame:
        """The rows so far in the schema ``LOGS``; ``skipped`` gains ``no_time``, ``bad_time`` and ``bad_id``."""
        high, low, odd_traces = trace_ids_from_bytes(self.trace_ids)
        spans, odd_spans = span_ids_from_bytes(self.span_ids)
        times = np.asarray(self.times, dtype=np.uint64)
        series = [
            *self.entity_series(version=True),
            pl.Series("time_ns", times.view(np.int64)),
            pl.Series(
                "severity", np.clip(np.asarray(self.severities, dtype=np.int64), 0, MAX_SEVERITY).astype(np.int8)
            ),
            pl.Series("body", self.bodies, dtype=pl.String),
            pl.Series("trace_hi", high),
            pl.Series("trace_lo", low),
            pl.Series("span_id", spans),
        ]
        if keep_attributes:
            series.append(pl.Series(ATTRIBUTES, self.attributes, dtype=pl.String))
        _count(self.skipped, bad_id=odd_traces + odd_spans)
        frame = _usable_times(pl.DataFrame(series), times, self.skipped)
        return frame if frame.height else _typed(frame, LOGS)


@dataclass
class MetricColumns(Columns):
    """Lists behind ``METRICS``."""

    times: list[int] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    shapes: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    bounds: list[list[float]] = field(default_factory=list)
    buckets: list[list[int]] = field(default_factory=list)

    def add(
        self,
        *,
        metric: str,
        attributes: str,
        shape: MetricShape,
        value: float,
        time: int,
        start: int,
        count: int = 0,
        bounds: list[float] | None = None,
        buckets: list[int] | None = None,
    ) -> None:
        """Append one row; arguments as the columns of ``METRICS``."""
        self.metrics.append(metric)
        self.attributes.append(attributes)
        self.shapes.append(shape)
        self.values.append(value)
        self.times.append(time)
        self.starts.append(start)
        self.counts.append(count)
        self.bounds.append(bounds or [])
        self.buckets.append(buckets or [])

    def frame(self) -> pl.DataFrame:
        """The rows so far in the schema ``METRICS``; ``skipped`` gains ``not_finite``, ``no_time`` and ``bad_time``."""
        times = np.asarray(self.times, dtype=np.uint64)
        starts = np.asarray(self.starts, dtype=np.uint64)
        values = np.asarray(self.values, dtype=np.float64)
        starts = np.where(starts < TIME_LIMIT_NS, starts, 0)
        frame = pl.DataFrame(
            [
                *self.entity_series(version=False),
                pl.Series("time_ns", times.view(np.int64)),
                pl.Series("metric", self.metrics, dtype=pl.String),
                pl.Series("attributes", self.attributes, dtype=pl.String),
                pl.Series("shape", self.shapes, dtype=pl.Int8),
                pl.Series("value", values),
                pl.Series("start_ns", starts.view(np.int64)),
                pl.Series("count", self.counts, dtype=pl.UInt64),
                pl.Series("bounds", self.bounds, dtype=pl.List(pl.Float64)),
                pl.Series("counts", self.buckets, dtype=pl.List(pl.UInt64)),
            ]
        )
        finite = np.isfinite(values)
        if not finite.all():
            _count(self.skipped, not_finite=int(np.count_nonzero(~finite)))
            frame, times = frame.filter(pl.Series(finite)), times[finite]
        frame = _usable_times(frame, times, self.skipped)
        return frame if frame.height else _typed(frame, METRICS)


def _usable_times(frame: pl.DataFrame, times: U64, skipped: Counter[str]) -> pl.DataFrame:
    """The rows whose event time can be placed on the time line."""
    absent, beyond = times == 0, times >= TIME_LIMIT_NS
    keep: Mask = ~(absent | beyond)
    if keep.all():
        return frame
    _count(skipped, no_time=int(np.count_nonzero(absent)), bad_time=int(np.count_nonzero(beyond)))
    return frame.filter(pl.Series(keep))


def _count(skipped: Counter[str], **reasons: int) -> None:
    for reason, number in reasons.items():
        if number:
            skipped[reason] += number


def _typed(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """An empty frame with the schema's types, whatever polars inferred from empty lists."""
    extra = {ATTRIBUTES: pl.String} if ATTRIBUTES in frame.columns and ATTRIBUTES not in schema else {}
    return pl.DataFrame(schema={**schema, **extra})
