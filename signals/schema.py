"""Column schemas of decoded telemetry: what every source produces and every stage may rely on.

One schema per signal, the same live and in replay. Not here: how bytes become columns (``signals.otlp``) or how rows
become rollups (``signals.buckets``, ``topology.assembly``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final

import polars as pl
from polars._typing import PolarsDataType


class Signal(StrEnum):
    """The four kinds of input; the value is also the folder name in a recording (but for changes)."""

    SPANS = "spans"
    LOGS = "logs"
    METRICS = "metrics"
    CHANGES = "changes"


class SpanKind(IntEnum):
    """OTLP ``Span.SpanKind``."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class SpanStatus(IntEnum):
    """OTLP ``Status.StatusCode``."""

    UNSET = 0
    OK = 1
    ERROR = 2


class MetricShape(IntEnum):
    """What a metric point is before normalisation; recordings hold only gauges."""

    GAUGE = 0
    SUM_DELTA = 1
    SUM_CUMULATIVE = 2  # monotonic; becomes a rate per second
    HISTOGRAM_DELTA = 3  # explicit or exponential, as bounds and counts
    HISTOGRAM_CUMULATIVE = 4
    SUMMARY = 5  # one row per quantile, already a value


ENTITY_COLUMNS: Final[dict[str, PolarsDataType]] = {
    "environment": pl.String,  # never null; the configured default where the resource names none
    "namespace": pl.String,  # service.namespace, "" when absent
    "service": pl.String,  # service.name, "unknown_service" when absent
    "instance": pl.String,  # service.instance.id, else k8s.pod.name, else host.name, "" when absent
}


def _entity_schema(columns: Mapping[str, PolarsDataType]) -> pl.Schema:
    return pl.Schema({**ENTITY_COLUMNS, **columns})


SPANS: Final = _entity_schema(
    {
        "version": pl.String,  # service.version, "" when absent
        "name": pl.String,  # operation of bounded cardinality: see signals.names.operation_name
        "kind": pl.Int8,
        "status": pl.Int8,
        "start_ns": pl.Int64,  # UTC epoch nanoseconds
        "end_ns": pl.Int64,  # >= start_ns; this is the span's event time: when it can first be known
        "trace_hi": pl.UInt64,  # the 128-bit trace id, big-endian halves
        "trace_lo": pl.UInt64,
        "span_id": pl.UInt64,
        "parent_id": pl.UInt64,  # 0 for a root
        "peer": pl.String,  # client, producer and consumer spans: what was called, "" where unknown
    }
)

LOGS: Final = _entity_schema(
    {
        "version": pl.String,
        "time_ns": pl.Int64,  # timeUnixNano, else observedTimeUnixNano
        "severity": pl.Int8,  # OTLP SeverityNumber, 0 when unknown
        "body": pl.String,  # text; structured bodies as JSON
        "trace_hi": pl.UInt64,  # 0 outside a trace
        "trace_lo": pl.UInt64,
        "span_id": pl.UInt64,  # 0 outside a span
    }
)

METRICS: Final = _entity_schema(
    {
        "time_ns": pl.Int64,
        "metric": pl.String,
        "attributes": pl.String,  # canonical JSON (sorted keys) of the point's attributes, "" when none
        "shape": pl.Int8,  # MetricShape
        "value": pl.Float64,  # gauge, sum, or a histogram's sum; NaN and infinities are dropped and counted at decode
        "start_ns": pl.Int64,  # start of a cumulative series or delta interval, 0 when absent
        "count": pl.UInt64,  # histograms only, else 0
        "bounds": pl.List(pl.Float64),  # histograms: upper bounds, one fewer than counts; else empty
        "counts": pl.List(pl.UInt64),
    }
)

#: Metrics after normalisation (``signals.metrics``): deltas and rates resolved, histograms turned into quantiles.
SERIES: Final = _entity_schema(
    {
        "time_ns": pl.Int64,
        "metric": pl.String,
        "attributes": pl.String,
        "value": pl.Float64,  # always finite
    }
)

CHANGES: Final = _entity_schema(
    {
        "time_ns": pl.Int64,
        "id": pl.String,
        "type": pl.String,  # CDEvents type, e.g. dev.cdevents.service.upgraded.0.3.0
        "version": pl.String,  # what was brought in: artifact id or version, "" when absent
        "detail": pl.String,  # one line for people; hostile text
    }
)

SCHEMAS: Final[dict[Signal, pl.Schema]] = {
    Signal.SPANS: SPANS,
    Signal.LOGS: LOGS,
    Signal.METRICS: METRICS,
    Signal.CHANGES: CHANGES,
}

#: The column that holds each signal's event time.
EVENT_TIME: Final[dict[Signal, str]] = {
    Signal.SPANS: "end_ns",
    Signal.LOGS: "time_ns",
    Signal.METRICS: "time_ns",
    Signal.CHANGES: "time_ns",
}

#: Optional extra column of SPANS and LOGS when a decoder is asked to keep attributes (``mendstream record``): JSON
#: or null.
ATTRIBUTES: Final = "attributes"


def empty(signal: Signal) -> pl.DataFrame:
    """A frame of no rows in the signal's schema."""
    return pl.DataFrame(schema=SCHEMAS[signal])
