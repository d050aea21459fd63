"""OTLP/JSON metrics to column lists, all five shapes; the same rows as ``signals.otlp_metrics`` makes of protobuf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypedDict

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from signals.otlp_columns import MetricColumns
from signals.otlp_histograms import HistogramError, Side, check_explicit, explicit_buckets
from signals.otlp_json import close_run, root
from signals.otlp_json_fields import (
    Json,
    array,
    attributes,
    boolean,
    child,
    enumeration,
    get,
    integer,
    items,
    placed,
    real,
    text,
    to_integer,
    to_real,
    unsigned,
)
from signals.otlp_metrics import add_summary, histogram_shape, no_recorded_value, number_shape
from signals.otlp_values import OtlpError, canonical_json
from signals.schema import MetricShape

Shape = MetricShape | None
Buckets = Callable[[Json], tuple[list[float], list[int]]]

_TEMPORALITIES: Final = dict(AggregationTemporality.items())


def json_metrics(value: bytes, default_environment: str) -> MetricColumns:
    """One JSON ``ExportMetricsServiceRequest``; raises ``OtlpError``. ``skipped`` as for protobuf."""
    columns = MetricColumns()

    def resource_metrics(source: Json) -> None:
        before = len(columns.times)
        items(source, "scopeMetrics", lambda scope: items(scope, "metrics", metric))
        close_run(columns, source, len(columns.times) - before, default_environment)

    def metric(source: Json) -> None:
        for kind, read in _KINDS.items():
            if get(source, kind) is not None:
                try:
                    read(columns, text(source, "name"), child(source, kind))
                except OtlpError as error:
                    raise placed(error, kind) from None
                return
        columns.skipped["no_value"] += 1

    items(root(value, "resourceMetrics"), "resourceMetrics", resource_metrics)
    return columns


def _gauge(columns: MetricColumns, name: str, data: Json) -> None:
    items(data, "dataPoints", lambda point: _number(columns, name, point, MetricShape.GAUGE))


def _sum(columns: MetricColumns, name: str, data: Json) -> None:
    shape = number_shape(_temporality(data), monotonic=boolean(data, "isMonotonic"))
    items(data, "dataPoints", lambda point: _number(columns, name, point, shape))


def _histogram(columns: MetricColumns, name: str, data: Json) -> None:
    shape = histogram_shape(_temporality(data))
    items(data, "dataPoints", lambda point: _distribution(columns, name, point, shape, _explicit))


def _exponential_histogram(columns: MetricColumns, name: str, data: Json) -> None:
    shape = histogram_shape(_temporality(data))
    items(data, "dataPoints", lambda point: _distribution(columns, name, point, shape, _exponential))


def _summary(columns: MetricColumns, name: str, data: Json) -> None:
    def point(source: Json) -> None:
        if no_recorded_value(integer(source, "flags")):
            columns.skipped["no_recorded_value"] += 1
            return
        quantiles: list[tuple[float, float]] = []
        items(source, "quantileValues", lambda pair: quantiles.append((real(pair, "quantile"), real(pair, "value"))))
        add_summary(
            columns,
            name,
            attributes(source),
            quantiles,
            count=unsigned(source, "count"),
            time=unsigned(source, "timeUnixNano"),
            start=unsigned(source, "startTimeUnixNano"),
        )

    items(data, "dataPoints", point)


_KINDS: Final[dict[str, Callable[[MetricColumns, str, Json], None]]] = {
    "gauge": _gauge,
    "sum": _sum,
    "histogram": _histogram,
    "exponentialHistogram": _exponential_histogram,
    "summary": _summary,
}


def _number(columns: MetricColumns, name: str, point: Json, shape: Shape) -> None:
    if no_recorded_value(integer(point, "flags")):
        columns.skipped["no_recorded_value"] += 1
    elif shape is None:
        columns.skipped["no_temporality"] += 1
    elif get(point, "asDouble") is not None:
        columns.add(metric=name, shape=shape, value=real(point, "asDouble"), **_common(point))
    elif get(point, "asInt") is not None:
        columns.add(metric=name, shape=shape, value=float(integer(point, "asInt")), **_common(point))
    else:
        columns.skipped["no_value"] += 1


def _distribution(columns: MetricColumns, name: str, point: Json, shape: Shape, buckets_of: Buckets) -> None:
    if no_recorded_value(integer(point, "flags")):
        columns.skipped["no_recorded_value"] += 1
        return
    if shape is None:
        columns.skipped["no_temporality"] += 1
        return
    try:
        bounds, buckets = buckets_of(point)
    except HistogramError:
        columns.skipped["bad_histogram"] += 1
        return
    columns.add(
        metric=name,
        shape=shape,
        value=real(point, "sum"),
        count=unsigned(point, "count"),
        bounds=bounds,
        buckets=buckets,
        **_common(point),
    )


class _Common(TypedDict):
    """What every point has."""

    attributes: str
    time: int
    start: int


def _common(point: Json) -> _Common:
    pairs = attributes(point)
    return {
        "attributes": canonical_json(pairs) if pairs else "",
        "time": unsigned(point, "timeUnixNano"),
        "start": unsigned(point, "startTimeUnixNano"),
    }


def _explicit(point: Json) -> tuple[list[float], list[int]]:
    bounds = [to_real(bound, "explicitBounds") for bound in array(point, "explicitBounds")]
    return check_explicit(bounds, _counts(point))


def _exponential(point: Json) -> tuple[list[float], list[int]]:
    return explicit_buckets(
        integer(point, "scale"),
        unsigned(point, "zeroCount"),
        real(point, "zeroThreshold"),
        _side(child(point, "positive")),
        _side(child(point, "negative")),
    )


def _side(source: Json) -> Side:
    return Side(integer(source, "offset"), _counts(source))


def _counts(source: Json) -> list[int]:
    return [to_integer(count, "bucketCounts") for count in array(source, "bucketCounts")]


def _temporality(data: Json) -> int:
    return enumeration(data, "aggregationTemporality", _TEMPORALITIES)
