"""Deviations as rows: the anomaly table that a replay writes for people and notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import polars as pl

from flows.messages import FINDINGS, Addressed, Rollup
from signals.cells import Cell
from topology.ranking import GOLDEN, METRIC, Deviation

ANOMALIES: Final = pl.Schema(
    {
        "environment": pl.String,
        "namespace": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "operation": pl.String,
        "caller": pl.String,
        "signal": pl.String,  # span, log, edge, metric or golden
        "name": pl.String,  # what deviates: a cell kind and its subject, or a metric
        "start_unix_ns": pl.Int64,  # the bucket it was seen in
        "end_unix_ns": pl.Int64,
        "observed": pl.Float64,
        "expected_low": pl.Float64,
        "expected_high": pl.Float64,
        "unit": pl.String,
        "direction": pl.Int8,  # +1 above, -1 below what was expected
        "raw": pl.Float64,
        "score": pl.Float64,  # 1 - p, calibrated
        "detector": pl.String,
        "detector_version": pl.String,
    }
)


def anomaly_rows(message: Addressed, bucket_ns: int) -> Iterable[tuple[Any, ...]]:
    """Rows of the table, in the order of ``ANOMALIES``, of one message of the detect stage; none of most."""
    rollup = message.message
    if not isinstance(rollup, Rollup) or rollup.table != FINDINGS:
        return
    found = rollup.payload
    for one in found.deviations:
        yield (
            found.environment,
            one.namespace,
            one.service,
            one.instance,
            one.operation,
            one.caller,
            _signal(one),
            _name(one),
            rollup.start_ns,
            rollup.start_ns + bucket_ns,
            one.observed,
            one.low,
            one.high,
            one.unit,
            1 if one.observed > one.high or one.after > one.before else -1,
            one.raw,
            one.score,
            one.detector,
            one.version,
        )


def anomaly_frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """The table, in a fixed order."""
    frame = pl.DataFrame(rows, schema=ANOMALIES, orient="row")
    return frame.sort("start_unix_ns", "environment", "service", "operation", "caller", "name", "instance", "detector")


def _signal(one: Deviation) -> str:
    if one.kind == METRIC:
        return "metric"
    if one.kind == GOLDEN:
        return "golden"
    if one.kind in (Cell.LOG, Cell.LINE):
        return "log"
    return "edge" if one.kind == Cell.GAP else "span"


def _name(one: Deviation) -> str:
    if one.kind < 0:
        return one.what
    kind = Cell(one.kind).name.lower()
    return f"{kind} {one.what}" if one.what else kind
