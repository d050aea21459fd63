"""OTLP protobuf metrics to column lists: all five shapes, one row per point (summaries: one per quantile)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    DataPointFlags,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from signals.otlp_columns import MetricColumns
from signals.otlp_histograms import HistogramError, Side, check_explicit, explicit_buckets
from signals.otlp_proto import parse, resource_identity
from signals.otlp_values import OtlpError, canonical_json, plain_attributes
from signals.schema import MetricShape

#: Attribute that tells the rows of one summary apart, as Prometheus names it.
QUANTILE: Final = "quantile"
#: Suffix of the cumulative count that a summary brings beside its quantiles.
COUNT_SUFFIX: Final = ".count"


def number_shape(temporality: int, *, monotonic: bool) -> MetricShape | None:
    """What a sum is; None where its temporality is missing, which OTLP forbids.

    >>> number_shape(2, monotonic=False)
    <MetricShape.GAUGE: 0>
    """
    if temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA:
        return MetricShape.SUM_DELTA
    if not monotonic:
        return MetricShape.GAUGE
    return (
        MetricShape.SUM_CUMULATIVE if temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE else None
    )


def histogram_shape(temporality: int) -> MetricShape | None:
    """What a histogram is; None where its temporality is missing."""
    if temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA:
        return MetricShape.HISTOGRAM_DELTA
    if temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE:
        return MetricShape.HISTOGRAM_CUMULATIVE
    return None


def no_recorded_value(flags: int) -> bool:
    """Whether a point only says that there is nothing to say."""
    return bool(flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)


def read_metrics(value: bytes, default_environment: str) -> MetricColumns:
    """One ``ExportMetricsServiceRequest``; raises ``OtlpError``.

    ``skipped`` of the result counts points without a row: ``no_recorded_value``, ``no_temporality``, ``bad_histogram``
    and ``no_value``.
    """
    request = parse(ExportMetricsServiceRequest, value)
    if value and not request.resource_metrics:
        raise OtlpError("protobuf: holds no resource metrics, so it is no ExportMetricsServiceRequest")
    columns = MetricColumns()
    seen = 0
    for resource_metrics in request.resource_metrics:
        before = len(columns.times)
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                seen += 1
                _add_metric(columns, metric)
        columns.identities.append(resource_identity(resource_metrics.resource, default_environment))
        columns.runs.append(len(columns.times) - before)
    if seen and not columns.skipped and not any(columns.times):
        raise OtlpError("protobuf: no metric has a point with a time; another signal's message?")
    return columns


def _add_metric(columns: MetricColumns, metric: Metric) -> None:
    name = metric.name
    match metric.WhichOneof("data"):
        case "gauge":
            _add_numbers(columns, name, metric.gauge.data_points, MetricShape.GAUGE)
        case "sum":
            total = metric.sum
            shape = number_shape(total.aggregation_temporality, monotonic=total.is_monotonic)
            _add_numbers(columns, name, total.data_points, shape)
        case "histogram":
            shape = histogram_shape(metric.histogram.aggregation_temporality)
            for point in metric.histogram.data_points:
                _add_histogram(columns, name, point, shape)
        case "exponential_histogram":
            shape = histogram_shape(metric.exponential_histogram.aggregation_temporality)
            for exponential in metric.exponential_histogram.data_points:
                _add_histogram(columns, name, exponential, shape)
        case "summary":
            for summary in metric.summary.data_points:
                _add_summary(columns, name, summary)
        case _:
            columns.skipped["no_value"] += 1


def _add_numbers(
    columns: MetricColumns, name: str, points: Iterable[NumberDataPoint], shape: MetricShape | None
) -> None:
    for point in points:
        if no_recorded_value(point.flags):
            columns.skipped["no_recorded_value"] += 1
        elif shape is None:
            columns.skipped["no_temporality"] += 1
        else:
            kind = point.WhichOneof("value")
            if kind is None:
                columns.skipped["no_value"] += 1
                continue
            value = point.as_double if kind == "as_double" else float(point.as_int)
            columns.add(
                metric=name,
                attributes=_attributes(point),
                shape=shape,
                value=value,
                time=point.time_unix_nano,
                start=point.start_time_unix_nano,
            )


def _add_histogram(
    columns: MetricColumns,
    name: str,
    point: HistogramDataPoint | ExponentialHistogramDataPoint,
    shape: MetricShape | None,
) -> None:
    if no_recorded_value(point.flags):
        columns.skipped["no_recorded_value"] += 1
        return
    if shape is None:
        columns.skipped["no_temporality"] += 1
        return
    try:
        bounds, buckets = _buckets(point)
    except HistogramError:
        columns.skipped["bad_histogram"] += 1
        return
    columns.add(
        metric=name,
        attributes=_attributes(point),
        shape=shape,
        value=point.sum,
        time=point.time_unix_nano,
        start=point.start_time_unix_nano,
        count=point.count,
        bounds=bounds,
        buckets=buckets,
    )


def _buckets(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> tuple[list[float], list[int]]:
    if isinstance(point, HistogramDataPoint):
        return check_explicit(point.explicit_bounds, point.bucket_counts)
    return explicit_buckets(
        point.scale,
        point.zero_count,
        point.zero_threshold,
        Side(point.positive.offset, list(point.positive.bucket_counts)),
        Side(point.negative.offset, list(point.negative.bucket_counts)),
    )


def _add_summary(columns: MetricColumns, name: str, point: SummaryDataPoint) -> None:
    if no_recorded_value(point.flags):
        columns.skipped["no_recorded_value"] += 1
        return
    quantiles = [(pair.quantile, pair.value) for pair in point.quantile_values]
    add_summary(
        columns,
        name,
        plain_attributes(point.attributes),
        quantiles,
        count=point.count,
        time=point.time_unix_nano,
        start=point.start_time_unix_nano,
    )


def add_summary(
    columns: MetricColumns,
    name: str,
    attributes: dict[str, object],
    quantiles: Iterable[tuple[float, float]],
    *,
    count: int,
    time: int,
    start: int,
) -> None:
    """One row per quantile, told apart by the attribute ``quantile``, and the cumulative count where there is one."""
    if count:
        text = canonical_json(attributes) if attributes else ""
        columns.add(
            metric=name + COUNT_SUFFIX,
            attributes=text,
            shape=MetricShape.SUM_CUMULATIVE,
            value=float(count),
            time=time,
            start=start,
        )
    for quantile, value in quantiles:
        text = canonical_json({**attributes, QUANTILE: f"{quantile:g}"})
        columns.add(metric=name, attributes=text, shape=MetricShape.SUMMARY, value=value, time=time, start=start)


def _attributes(point: NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint) -> str:
    return canonical_json(plain_attributes(point.attributes)) if point.attributes else ""
