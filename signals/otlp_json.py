"""OTLP/JSON messages of spans and logs to column lists; what is not OTLP is refused with the JSON path of the fault.

Metrics: ``signals.otlp_json_metrics``.
"""

from __future__ import annotations

from typing import Final

import orjson
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from signals.ids import SPAN_ID_BYTES, TRACE_ID_BYTES
from signals.names import is_bare_method, operation_name, peer_name
from signals.otlp_columns import Columns, LogColumns, SpanColumns
from signals.otlp_json_fields import (
    Json,
    any_value,
    attributes,
    child,
    enumeration,
    get,
    identifier,
    items,
    placed,
    text,
    unsigned,
)
from signals.otlp_proto import NAME_KEY_SET, PEER_KEY_SET, severity_of
from signals.otlp_values import CALLING_KINDS, OtlpError, as_text, attributes_json, identity

_KINDS: Final = dict(Span.SpanKind.items())
_STATUSES: Final = dict(Status.StatusCode.items())
_SEVERITIES: Final = dict(SeverityNumber.items())
_ROOTS: Final = ("resourceSpans", "resourceLogs", "resourceMetrics")


def json_spans(value: bytes, default_environment: str, *, keep_attributes: bool) -> SpanColumns:
    """One JSON ``ExportTraceServiceRequest``; raises ``OtlpError``."""
    columns = SpanColumns()

    def resource_spans(source: Json) -> None:
        before = len(columns.names)
        items(source, "scopeSpans", lambda scope: items(scope, "spans", span))
        close_run(columns, source, len(columns.names) - before, default_environment)

    def span(source: Json) -> None:
        trace_id, odd_trace = identifier(source, "traceId", TRACE_ID_BYTES)
        span_id, odd_span = identifier(source, "spanId", SPAN_ID_BYTES)
        parent_id, odd_parent = identifier(source, "parentSpanId", SPAN_ID_BYTES)
        columns.skipped["bad_id"] += odd_trace + odd_span + odd_parent
        kind = enumeration(source, "kind", _KINDS)
        name = text(source, "name")
        if is_bare_method(name):
            name = operation_name(name, attributes(source, NAME_KEY_SET))
        columns.trace_ids.append(trace_id)
        columns.span_ids.append(span_id)
        columns.parent_ids.append(parent_id)
        columns.names.append(name)
        columns.kinds.append(kind)
        columns.statuses.append(enumeration(child(source, "status"), "code", _STATUSES))
        columns.starts.append(unsigned(source, "startTimeUnixNano"))
        columns.ends.append(unsigned(source, "endTimeUnixNano"))
        columns.peers.append(peer_name(attributes(source, PEER_KEY_SET)) if kind in CALLING_KINDS else "")
        if keep_attributes:
            columns.attributes.append(attributes_json(attributes(source)))

    items(root(value, "resourceSpans"), "resourceSpans", resource_spans)
    return columns


def json_logs(value: bytes, default_environment: str, *, keep_attributes: bool) -> LogColumns:
    """One JSON ``ExportLogsServiceRequest``; raises ``OtlpError``."""
    columns = LogColumns()

    def resource_logs(source: Json) -> None:
        before = len(columns.times)
        items(source, "scopeLogs", lambda scope: items(scope, "logRecords", record))
        close_run(columns, source, len(columns.times) - before, default_environment)

    def record(source: Json) -> None:
        trace_id, odd_trace = identifier(source, "traceId", TRACE_ID_BYTES)
        span_id, odd_span = identifier(source, "spanId", SPAN_ID_BYTES)
        columns.skipped["bad_id"] += odd_trace + odd_span
        columns.times.append(unsigned(source, "timeUnixNano") or unsigned(source, "observedTimeUnixNano"))
        severity = enumeration(source, "severityNumber", _SEVERITIES)
        columns.severities.append(severity or severity_of(text(source, "severityText")))
        columns.bodies.append(_body(source))
        columns.trace_ids.append(trace_id)
        columns.span_ids.append(span_id)
        if keep_attributes:
            columns.attributes.append(attributes_json(attributes(source)))

    items(root(value, "resourceLogs"), "resourceLogs", resource_logs)
    return columns


def root(value: bytes, name: str) -> Json:
    """The message as an object that has the field ``name``, or none at all; raises ``OtlpError``."""
    if not value:
        return {}
    try:
        document: object = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise OtlpError(f"JSON: {' '.join(str(error).split())}") from None
    if type(document) is not dict:
        raise OtlpError(f"JSON: expected an object with {name}, found {type(document).__name__}")
    if document and get(document, name) is None:
        other = next((root for root in _ROOTS if get(document, root) is not None), "no OTLP field")
        raise OtlpError(f"JSON: expected {name}, found {other}")
    return document


def close_run(columns: Columns, source: Json, rows: int, default_environment: str) -> None:
    """End the run of rows that belong to the resource of ``source``."""
    try:
        columns.identities.append(identity(attributes(child(source, "resource")), default_environment))
    except OtlpError as error:
        raise placed(error, "resource") from None
    columns.runs.append(rows)


def _body(source: Json) -> str:
    try:
        return as_text(any_value(get(source, "body")))
    except OtlpError as error:
        raise OtlpError(str(error).replace("value", "body", 1)) from None
