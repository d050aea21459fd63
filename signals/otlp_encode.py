"""Columns to OTLP messages: the inverse of ``signals.otlp``, for replay into Kafka and for the simulator.

What columns do not hold cannot come back: scopes, events, links, units, and which attribute named the peer
(``service.peer.name`` is written). Decoding the result gives the rows again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson
import polars as pl
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from signals.entity import ENVIRONMENT_KEYS, INSTANCE_KEYS, NAMESPACE_KEYS, SERVICE_KEYS, VERSION_KEYS
from signals.ids import SPAN_ID_BYTES, TRACE_ID_BYTES
from signals.names import PEER_KEYS, peer_name
from signals.otlp import Encoding
from signals.otlp_json_encode import to_json
from signals.otlp_metrics import QUANTILE
from signals.otlp_values import CALLING_KINDS
from signals.schema import ATTRIBUTES, ENTITY_COLUMNS, SCHEMAS, MetricShape, Signal

Request = ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest
Row = dict[str, Any]

#: Which resource attribute each identity column is written as: the stable, preferred spelling.
_RESOURCE_KEYS: Final = {
    "environment": ENVIRONMENT_KEYS[0],
    "namespace": NAMESPACE_KEYS[0],
    "service": SERVICE_KEYS[0],
    "instance": INSTANCE_KEYS[0],
    "version": VERSION_KEYS[0],
}
_CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def encode(
    signal: Signal, frame: pl.DataFrame, *, encoding: Encoding = Encoding.OTLP_PROTO, max_rows: int = 500
) -> list[bytes]:
    """The frame as OTLP messages of at most ``max_rows`` rows each.

    ``frame`` has the signal's schema, and for spans and logs optionally the column ``attributes``. Messages follow the
    order of the rows; inside a message rows are grouped by resource (in order of first appearance) and keep their order
    inside the group, as an exporter's batches do. Raises ``ValueError`` for changes, for ``max_rows`` below one and for
    a frame that lacks columns.
    """
    if signal not in _WRITERS:
        raise ValueError(f"{signal.value} do not travel as OTLP; encode takes spans, logs and metrics")
    if max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, not {max_rows}")
    missing = [name for name in SCHEMAS[signal].names() if name not in frame.columns]
    if missing:
        raise ValueError(f"a frame of {signal.value} needs the columns {', '.join(missing)}")
    write = _WRITERS[signal]
    finish = to_json if encoding is Encoding.OTLP_JSON else _to_proto
    return [finish(write(chunk)) for chunk in frame.iter_slices(max_rows) if chunk.height]


def _to_proto(request: Request) -> bytes:
    return request.SerializeToString(deterministic=True)


def _groups(chunk: pl.DataFrame) -> Iterator[tuple[Resource, list[Row]]]:
    """The chunk's rows by resource, both in order of first appearance."""
    keys = [name for name in (*ENTITY_COLUMNS, "version") if name in chunk.columns]
    for values, rows in chunk.group_by(keys, maintain_order=True):
        who = dict(zip(keys, values, strict=True))
        pairs = {key: who[name] for name, key in _RESOURCE_KEYS.items() if who.get(name)}
        yield Resource(attributes=key_values(pairs)), rows.to_dicts()


def _spans(chunk: pl.DataFrame) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for resource, rows in _groups(chunk):
        spans = request.resource_spans.add(resource=resource).scope_spans.add().spans
        for row in rows:
            span = spans.add(
                trace_id=_trace_id(row),
                span_id=_span_id(row["span_id"]),
                parent_span_id=_span_id(row["parent_id"]),
                name=row["name"],
                kind=row["kind"],
                start_time_unix_nano=row["start_ns"],
                end_time_unix_nano=row["end_ns"],
                attributes=key_values(_span_attributes(row)),
            )
            if row["status"]:
                span.status.code = row["status"]
    return request


def _span_attributes(row: Row) -> dict[str, object]:
    """The row's attributes, with the peer named where they do not already name it."""
    attributes = _attributes(row)
    peer = row["peer"]
    if peer and row["kind"] in CALLING_KINDS and peer_name(attributes) != peer:
        attributes[PEER_KEYS[0]] = peer
    return attributes


def _logs(chunk: pl.DataFrame) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for resource, rows in _groups(chunk):
        records = request.resource_logs.add(resource=resource).scope_logs.add().log_records
        for row in rows:
            records.add(
                time_unix_nano=row["time_ns"],
                severity_number=row["severity"],
                body=any_value(row["body"]),
                trace_id=_trace_id(row),
                span_id=_span_id(row["span_id"]),
                attributes=key_values(_attributes(row)),
            )
    return request


def _metrics(chunk: pl.DataFrame) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    for resource, rows in _groups(chunk):
        metrics = request.resource_metrics.add(resource=resource).scope_metrics.add().metrics
        open_metric: tuple[str, int] | None = None
        for row in rows:
            this = (row["metric"], row["shape"])
            if this != open_metric:
                metric, open_metric = metrics.add(name=row["metric"]), this
            _add_point(metric, row)
    return request


def _add_point(metric: Metric, row: Row) -> None:
    shape = MetricShape(row["shape"])
    attributes: dict[str, object] = orjson.loads(row["attributes"]) if row["attributes"] else {}
    if shape is MetricShape.GAUGE:
        metric.gauge.data_points.append(_number(row, attributes))
    elif shape in {MetricShape.SUM_DELTA, MetricShape.SUM_CUMULATIVE}:
        metric.sum.data_points.append(_number(row, attributes))
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = _DELTA if shape is MetricShape.SUM_DELTA else _CUMULATIVE
    elif shape is MetricShape.SUMMARY:
        metric.summary.data_points.append(_quantile(row, attributes))
    else:
        metric.histogram.data_points.append(_histogram(row, attributes))
        metric.histogram.aggregation_temporality = _DELTA if shape is MetricShape.HISTOGRAM_DELTA else _CUMULATIVE


def _number(row: Row, attributes: Mapping[str, object]) -> NumberDataPoint:
    return NumberDataPoint(
        attributes=key_values(attributes),
        start_time_unix_nano=row["start_ns"],
        time_unix_nano=row["time_ns"],
        as_double=row["value"],
    )


def _histogram(row: Row, attributes: Mapping[str, object]) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=key_values(attributes),
        start_time_unix_nano=row["start_ns"],
        time_unix_nano=row["time_ns"],
        count=row["count"],
        sum=row["value"],
        explicit_bounds=row["bounds"],
        bucket_counts=row["counts"],
    )


def _quantile(row: Row, attributes: dict[str, object]) -> SummaryDataPoint:
    """A summary of this one quantile."""
    try:
        quantile = float(str(attributes.pop(QUANTILE)))
    except (KeyError, ValueError):
        raise ValueError(f"a summary row of {row['metric']!r} needs its attribute {QUANTILE!r} as a number") from None
    return SummaryDataPoint(
        attributes=key_values(attributes),
        start_time_unix_nano=row["start_ns"],
        time_unix_nano=row["time_ns"],
        quantile_values=[SummaryDataPoint.ValueAtQuantile(quantile=quantile, value=row["value"])],
    )


_WRITERS: Final[dict[Signal, Callable[[pl.DataFrame], Request]]] = {
    Signal.SPANS: _spans,
    Signal.LOGS: _logs,
    Signal.METRICS: _metrics,
}


def key_values(attributes: Mapping[str, object]) -> list[KeyValue]:
    """Attributes as OTLP pairs, in the mapping's order."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def any_value(value: object) -> AnyValue:
    """A JSON-like value as an ``AnyValue``; None is an empty one."""
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    result = AnyValue()
    if isinstance(value, str):
        result.string_value = value
    elif isinstance(value, bool):
        result.bool_value = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        result.int_value = value
    elif isinstance(value, int | float):
        result.double_value = float(value)
    return result


def _attributes(row: Row) -> dict[str, object]:
    text = row.get(ATTRIBUTES)
    return orjson.loads(text) if text else {}


def _trace_id(row: Row) -> bytes:
    number = (row["trace_hi"] << 64) | row["trace_lo"]
    return number.to_bytes(TRACE_ID_BYTES, "big") if number else b""


def _span_id(number: int) -> bytes:
    return number.to_bytes(SPAN_ID_BYTES, "big") if number else b""
