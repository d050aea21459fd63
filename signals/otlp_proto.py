"""OTLP protobuf messages of spans and logs to column lists, message by message.

This is the complete reader: every field, attributes kept if asked. ``signals.otlp_spans`` is the fast one for spans
whose attributes nobody keeps; it falls back on this one and must agree with it. Metrics: ``signals.otlp_metrics``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from signals.names import NAME_KEYS, PEER_KEYS, is_bare_method, operation_name, peer_name
from signals.otlp_columns import LogColumns, SpanColumns
from signals.otlp_values import (
    CALLING_KINDS,
    Identity,
    OtlpError,
    as_text,
    attributes_json,
    identity,
    is_identity_key,
    plain,
    plain_attributes,
)

NAME_KEY_SET: Final = frozenset(NAME_KEYS)
PEER_KEY_SET: Final = frozenset(PEER_KEYS)

#: Why a message that protobuf accepts is refused.
NO_RESOURCE_SPANS: Final = "protobuf: holds no resource spans, so it is no ExportTraceServiceRequest"
NO_TIME: Final = "protobuf: no span has a time; another signal's message?"

_SEVERITIES: Final = {
    "trace": 1,
    "verbose": 1,
    "debug": 5,
    "info": 9,
    "information": 9,
    "informational": 9,
    "notice": 10,
    "warn": 13,
    "warning": 13,
    "error": 17,
    "err": 17,
    "severe": 17,
    "critical": 18,
    "crit": 18,
    "alert": 19,
    "fatal": 21,
    "panic": 21,
    "emergency": 21,
    "emerg": 21,
}

M = TypeVar("M", bound=Message)


def parse(message_type: type[M], value: bytes) -> M:
    """The message, or an ``OtlpError`` that says it is none."""
    try:
        return message_type.FromString(value)
    except DecodeError as error:
        detail = " ".join(str(error).split()).rpartition("': ")[2]  # upb's text without the type's long name
        name = message_type.DESCRIPTOR.name
        raise OtlpError(f"protobuf: not a valid {name} ({detail or 'truncated or corrupt'})") from None


def resource_identity(resource: Resource, default_environment: str) -> Identity:
    """Who the resource is."""
    attributes = {pair.key: plain(pair.value) for pair in resource.attributes if is_identity_key(pair.key)}
    return identity(attributes, default_environment)


def read_spans(value: bytes, default_environment: str, *, keep_attributes: bool) -> SpanColumns:
    """One ``ExportTraceServiceRequest``; raises ``OtlpError``."""
    request = parse(ExportTraceServiceRequest, value)
    if value and not request.resource_spans:
        raise OtlpError(NO_RESOURCE_SPANS)
    columns = SpanColumns()
    for resource_spans in request.resource_spans:
        spans = [span for scope in resource_spans.scope_spans for span in scope.spans]
        columns.identities.append(resource_identity(resource_spans.resource, default_environment))
        columns.runs.append(len(spans))
        add_spans(columns, spans, keep_attributes=keep_attributes)
    check_spans(columns)
    return columns


def add_spans(columns: SpanColumns, spans: Sequence[Span], *, keep_attributes: bool) -> None:
    """Append spans to the lists, but for their resource."""
    columns.trace_ids += [span.trace_id for span in spans]
    columns.span_ids += [span.span_id for span in spans]
    columns.parent_ids += [span.parent_span_id for span in spans]
    columns.names += [span_name(span) for span in spans]
    columns.kinds += [span.kind for span in spans]
    columns.statuses += [span.status.code for span in spans]
    columns.starts += [span.start_time_unix_nano for span in spans]
    columns.ends += [span.end_time_unix_nano for span in spans]
    columns.peers += [
        peer_name(plain_attributes(span.attributes, PEER_KEY_SET)) if int(span.kind) in CALLING_KINDS else ""
        for span in spans
    ]
    if keep_attributes:
        columns.attributes += [attributes_json(plain_attributes(span.attributes)) for span in spans]


def span_name(span: Span) -> str:
    """The operation a span is; attributes are looked at only where its name says too little."""
    name = span.name
    return operation_name(name, plain_attributes(span.attributes, NAME_KEY_SET)) if is_bare_method(name) else name


def check_spans(columns: SpanColumns) -> None:
    """Refuse what parses as spans but cannot be: protobuf carries no type, so logs or metrics may look like spans."""
    if columns.trace_ids and not any(columns.ends) and not any(columns.starts):
        raise OtlpError(NO_TIME)


def read_logs(value: bytes, default_environment: str, *, keep_attributes: bool) -> LogColumns:
    """One ``ExportLogsServiceRequest``; raises ``OtlpError``."""
    request = parse(ExportLogsServiceRequest, value)
    if value and not request.resource_logs:
        raise OtlpError("protobuf: holds no resource logs, so it is no ExportLogsServiceRequest")
    columns = LogColumns()
    for resource_logs in request.resource_logs:
        records = [record for scope in resource_logs.scope_logs for record in scope.log_records]
        columns.identities.append(resource_identity(resource_logs.resource, default_environment))
        columns.runs.append(len(records))
        _add_logs(columns, records, keep_attributes=keep_attributes)
    if columns.times and not any(columns.times):
        raise OtlpError("protobuf: no log record has a time; another signal's message?")
    return columns


def _add_logs(columns: LogColumns, records: Sequence[LogRecord], *, keep_attributes: bool) -> None:
    columns.times += [record.time_unix_nano or record.observed_time_unix_nano for record in records]
    columns.severities += [record.severity_number or severity_of(record.severity_text) for record in records]
    columns.bodies += [
        body.string_value if (body := record.body).HasField("string_value") else as_text(plain(body))
        for record in records
    ]
    columns.trace_ids += [record.trace_id for record in records]
    columns.span_ids += [record.span_id for record in records]
    if keep_attributes:
        columns.attributes += [attributes_json(plain_attributes(record.attributes)) for record in records]


def severity_of(text: str) -> int:
    """The OTLP severity number that a severity text names, 0 when it names none.

    OTLP's own short names carry a digit for the step inside a level; other frameworks' names are mapped as the log data
    model's appendix suggests.

    >>> severity_of("Error"), severity_of("WARN2"), severity_of("notice"), severity_of("?")
    (17, 14, 10, 0)
    """
    word = text.strip().lower()
    step = word[-1:]
    if step in {"2", "3", "4"} and word[:-1] in {"trace", "debug", "info", "warn", "error", "fatal"}:
        return _SEVERITIES[word[:-1]] + int(step) - 1
    return _SEVERITIES.get(word, 0)
