"""Trace assembly: spans of many messages become calls, and calls become cells.

At the close of a bucket, over all its spans at once: a parent join (children mostly arrive before their parent, and a
trace comes in several messages), exclusive time, edge gap and error origin. A span waits a little for a parent that has
not ended yet; what waits and what is remembered expires, so memory is bounded by the span rate. No per-span Python.
Not here: what the cells mean (``detectors``) or how the graph ages (``topology.graph``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from signals.cells import CELLS, Cell, time_bin
from signals.schema import SpanKind, SpanStatus

#: Spans as they wait: identity, times and what their children will need to know.
_SPAN: Final = [
    *("environment", "namespace", "service", "instance", "name", "kind", "status"),
    *("start_ns", "end_ns", "trace_hi", "trace_lo", "span_id", "parent_id", "peer"),
]
_TRACE: Final = ["trace_lo", "span_id"]
#: What a span delivered twice has in common with itself; a client and a server span may share an id.
_IDENTITY: Final = ["span_id", "trace_lo", "trace_hi", "start_ns", "end_ns", "kind", "name", "service"]
_OPERATION: Final = ["environment", "namespace", "service", "instance", "operation", "caller"]

#: Log lines inside spans: which template was written in which span.
SPAN_LOGS: Final = pl.Schema({"time_ns": pl.Int64, "trace_lo": pl.UInt64, "span_id": pl.UInt64, "template": pl.String})

EXEMPLARS: Final = pl.Schema(
    {
        "environment": pl.String,
        "namespace": pl.String,
        "service": pl.String,
        "operation": pl.String,
        "kind": pl.Int8,  # Cell.ORIGIN or Cell.DURATION
        "trace_hi": pl.UInt64,
        "trace_lo": pl.UInt64,
    }
)


@dataclass(frozen=True, slots=True)
class AssemblyConfig:
    """How long spans wait and are remembered, in nanoseconds of event time."""

    parent_wait_ns: int = 10_000_000_000  # a span whose parent has not come by then counts as called by nobody
    memory_ns: int = 60_000_000_000  # parents and log lines are remembered this long for late children
    max_waiting: int = 2_000_000  # spans held at the most; the oldest are emitted without their parent


@dataclass(frozen=True, slots=True)
class Assembled:
    """What one bucket of one shard gave."""

    cells: pl.DataFrame  # schema CELLS
    exemplars: pl.DataFrame  # schema EXEMPLARS: example traces that failed or were slowest, one per operation
    spans: int
    orphans: int  # spans that name a parent which never came


@dataclass(slots=True)
class TraceAssembler:
    """State of one shard of traces; ``process`` is called once per bucket, in order."""

    config: AssemblyConfig = field(default_factory=AssemblyConfig)
    waiting: pl.DataFrame | None = None  # spans whose parent has not come
    recent: pl.DataFrame | None = None  # spans that may yet be a parent
    children: pl.DataFrame | None = None  # spans as children, until their parent is emitted
    logs: pl.DataFrame | None = None  # log lines whose span has not been emitted
    lost_logs: int = 0  # lines whose span never came (it was sampled away, or ended too late)
    repeated: int = 0  # spans that were delivered more than once, and counted once

    def process(self, bucket_end_ns: int, spans: pl.DataFrame, logs: pl.DataFrame) -> Assembled:
        """Assemble one bucket: ``spans`` (SPANS) and ``logs`` (SPAN_LOGS) whose event time lies in it.

        Rows come in the fixed order of ``signals.buckets``, so that a span delivered twice stands beside itself.
        """
        spans = self._once(spans.select(_SPAN))
        open_spans = spans if self.waiting is None else pl.concat([self.waiting, spans])
        self.recent = _remember(self.recent, spans, bucket_end_ns - self.config.memory_ns)
        self.children = _remember(
            self.children, spans.filter(pl.col("parent_id") != 0), bucket_end_ns - self.config.memory_ns
        )
        kept = _keep_logs(self.logs, logs, bucket_end_ns - self.config.memory_ns)
        self.lost_logs += (self.logs.height if self.logs is not None else 0) + logs.height - kept.height
        self.logs = kept
        ready, orphans = self._resolve(open_spans, bucket_end_ns)
        if ready.height == 0:
            empty = pl.DataFrame(schema=CELLS), pl.DataFrame(schema=EXEMPLARS)
            return Assembled(*empty, spans=spans.height, orphans=0)
        calls, called = _with_children(ready, self.children)
        cells = [*_span_cells(calls), _child_cells(called), _gap_cells(calls)]
        written = calls.select(*_TRACE, *_OPERATION).join(self.logs, on=_TRACE)
        if written.height:
            cells.append(_behaviour(written, Cell.LOG, "template"))
            self.logs = self.logs.join(calls.select(_TRACE), on=_TRACE, how="anti")
        self.children = self.children.join(
            calls.select("trace_lo", pl.col("span_id").alias("parent_id")), on=["trace_lo", "parent_id"], how="anti"
        )
        return Assembled(pl.concat(cells), _exemplars(calls), spans=spans.height, orphans=orphans)

    def _once(self, spans: pl.DataFrame) -> pl.DataFrame:
        """Without repeats: producers retry, and a repeat has the same event time, so it is in this bucket or late."""
        same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in _IDENTITY) & (pl.col("span_id") != 0)
        again = spans.select(same.fill_null(value=False)).to_series()
        if not again.any():
            return spans
        self.repeated += int(again.sum())
        return spans.filter(~again)

    def _resolve(self, spans: pl.DataFrame, bucket_end_ns: int) -> tuple[pl.DataFrame, int]:
        """Give spans their caller; those whose parent may still come stay waiting."""
        recent = self.recent if self.recent is not None else spans
        parents = recent.select(
            "trace_lo",
            pl.col("span_id").alias("parent_id"),
            pl.col("service").alias("caller"),
            pl.col("end_ns").alias("parent_end_ns"),
            (pl.col("end_ns") - pl.col("start_ns")).alias("parent_duration"),
        ).unique(["trace_lo", "parent_id"], keep="first", maintain_order=True)
        joined = spans.join(parents, on=["trace_lo", "parent_id"], how="left", maintain_order="left")
        expired = pl.col("end_ns") < bucket_end_ns - self.config.parent_wait_ns
        is_ready = (pl.col("parent_id") == 0) | pl.col("caller").is_not_null() | expired
        waiting = joined.filter(~is_ready)
        if waiting.height > self.config.max_waiting:
            is_ready = is_ready | ((~is_ready).cum_sum() <= waiting.height - self.config.max_waiting)
            waiting = joined.filter(~is_ready)
        self.waiting = waiting.select(_SPAN)
        ready = joined.filter(is_ready)
        orphans = ready.select(((pl.col("parent_id") != 0) & pl.col("caller").is_null()).sum()).item()
        ready = ready.with_columns(
            (pl.col("end_ns") - pl.col("start_ns")).alias("duration"),
            pl.col("caller").fill_null(""),
            pl.col("name").alias("operation"),
        )
        return ready, int(orphans)


def _remember(state: pl.DataFrame | None, spans: pl.DataFrame, since_ns: int) -> pl.DataFrame:
    """Add spans to a memory and let what ended too long ago go."""
    if state is None:
        return spans
    return pl.concat([state.filter(pl.col("end_ns") >= since_ns), spans])


def _keep_logs(state: pl.DataFrame | None, logs: pl.DataFrame, since_ns: int) -> pl.DataFrame:
    if state is None:
        return logs
    return pl.concat([state.filter(pl.col("time_ns") >= since_ns), logs])


def _with_children(ready: pl.DataFrame, children: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Exclusive time and what children say, per span; and the (span, child) pairs."""
    spans = ready.select(*_TRACE, *_OPERATION, "start_ns", "end_ns")
    child = (children if children is not None else ready.clear()).select(
        "trace_lo",
        pl.col("parent_id").alias("span_id"),
        pl.col("service").alias("child_service"),
        pl.col("name").alias("child_name"),
        pl.col("start_ns").alias("child_start"),
        pl.col("end_ns").alias("child_end"),
        (pl.col("status") == SpanStatus.ERROR).alias("child_error"),
    )
    pairs = spans.join(child, on=_TRACE, how="inner").sort(*_TRACE, "child_start", "child_end", "child_name")
    # The union of the children's intervals, clipped to the parent: each child adds what lies beyond all before it.
    start = pl.max_horizontal("child_start", "start_ns")
    end = pl.min_horizontal("child_end", "end_ns")
    pairs = pairs.with_columns(start.alias("from_ns"), pl.max_horizontal(start, end).alias("to_ns"))
    reached = pl.col("to_ns").cum_max().shift(1).over(_TRACE)
    covered = (pl.col("to_ns") - pl.max_horizontal("from_ns", reached.fill_null(0))).clip(0, None)
    remote = pl.col("child_service") != pl.col("service")
    summary = (
        pairs.with_columns(covered.alias("covered"), remote.alias("remote"))
        .group_by(_TRACE)
        .agg(
            pl.col("covered").sum(),
            pl.col("remote").any(),
            pl.col("child_error").any(),
        )
    )
    calls = ready.join(summary, on=_TRACE, how="left", maintain_order="left").with_columns(
        pl.col("remote").fill_null(value=False),
        pl.col("child_error").fill_null(value=False),
        (pl.col("duration") - pl.col("covered").fill_null(0)).clip(0, None).alias("exclusive"),
    )
    return calls, pairs


def _cells(
    rows: pl.DataFrame, kind: Cell, keys: list[str], *, what: str | None = None, bins: bool = False
) -> pl.DataFrame:
    """Count rows per operation, and per ``what`` or bin where given, as cells of one kind."""
    by = [*keys, *([what] if what else []), *(["bin"] if bins else [])]
    return (
        rows.group_by(by)
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .select(
            *(pl.col(key) for key in keys),
            pl.lit(int(kind), dtype=pl.Int8).alias("kind"),
            (pl.col(what) if what else pl.lit("", dtype=pl.String)).alias("what"),
            (pl.col("bin") if bins else pl.lit(0, dtype=pl.Int16)).alias("bin"),
            "n",
        )
    )


def _span_cells(calls: pl.DataFrame) -> list[pl.DataFrame]:
    failed = calls.filter(pl.col("status") == SpanStatus.ERROR)
    outgoing = calls.filter(pl.col("kind").is_in([SpanKind.CLIENT.value, SpanKind.PRODUCER.value]))
    own = calls.filter(~pl.col("remote"))
    return [
        _cells(calls, Cell.SPANS, _OPERATION),
        _cells(failed, Cell.ERRORS, _OPERATION),
        _cells(failed.filter(~pl.col("child_error")), Cell.ORIGIN, _OPERATION),
        _cells(outgoing, Cell.CLIENT, _OPERATION),
        _cells(outgoing.filter(pl.col("peer") != ""), Cell.PEER, _OPERATION, what="peer"),
        _cells(calls.with_columns(time_bin(pl.col("duration")).alias("bin")), Cell.DURATION, _OPERATION, bins=True),
        _cells(own.with_columns(time_bin(pl.col("exclusive")).alias("bin")), Cell.EXCLUSIVE, _OPERATION, bins=True),
    ]


def _behaviour(rows: pl.DataFrame, kind: Cell, what: str) -> pl.DataFrame:
    """Cells that count spans which did a thing at least once."""
    return _cells(rows.unique([*_TRACE, what]), kind, _OPERATION, what=what)


def _child_cells(pairs: pl.DataFrame) -> pl.DataFrame:
    named = pairs.with_columns(pl.concat_str("child_service", "child_name", separator="|").alias("what"))
    return _behaviour(named, Cell.CHILD, "what")


def _gap_cells(calls: pl.DataFrame) -> pl.DataFrame:
    """Per call edge, how much longer the call looked to the caller: the network's share, free of clock skew.

    A call that outlives the caller's span (asynchronous work) has no gap.
    """
    remote = (pl.col("caller") != "") & (pl.col("caller") != pl.col("service"))
    synchronous = (pl.col("parent_duration") >= pl.col("duration")) & (pl.col("kind") != SpanKind.CONSUMER)
    crossing = calls.filter(remote & synchronous).with_columns(
        time_bin(pl.col("parent_duration") - pl.col("duration")).alias("bin"), pl.lit("").alias("operation")
    )
    return _cells(crossing, Cell.GAP, _OPERATION, bins=True)


def _exemplars(calls: pl.DataFrame) -> pl.DataFrame:
    """One failing and one slowest trace per operation: the ones a person would open first."""
    keys = ["environment", "namespace", "service", "operation"]
    order = ["trace_hi", "trace_lo"]
    failed = calls.filter((pl.col("status") == SpanStatus.ERROR) & ~pl.col("child_error"))
    failed = failed.sort(order).unique(keys, keep="first", maintain_order=True)
    slowest = calls.sort("duration", *order, descending=[True, False, False]).unique(
        keys, keep="first", maintain_order=True
    )
    return pl.concat(
        rows.select(*keys, pl.lit(int(kind), dtype=pl.Int8).alias("kind"), *order)
        for rows, kind in ((failed, Cell.ORIGIN), (slowest, Cell.DURATION))
    ).sort(*keys, "kind")
