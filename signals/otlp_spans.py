"""Spans from protobuf, fast: the hot path of the pipeline.

The generated OTLP classes create a Python object for every field that is read. Here protobuf only takes messages apart
into resources and spans (by way of a cut-down description of the same messages, in which both stay bytes); the fields
of all spans are then read as columns by ``signals.otlp_span_fields``. What is out of the ordinary goes through the
complete reader, ``signals.otlp_proto``, with which this one agrees but for one thing: content that no column needs
(events, links, other attributes) is not validated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from signals.otlp_columns import entity_series, span_frame
from signals.otlp_proto import NO_RESOURCE_SPANS, NO_TIME, parse, resource_identity
from signals.otlp_span_fields import SpanFields
from signals.otlp_values import Identity, OtlpError
from signals.schema import Signal, empty

#: Spans read at once: their bytes and arrays should fit the processor's cache.
CHUNK: Final = 8_192
#: Resources of more bytes are not remembered, which bounds the memory that they can take.
MAX_CACHED: Final = 16_384


class _Message(NamedTuple):
    """A message taken apart."""

    number: int  # among the values of the call
    groups: list[tuple[Identity, list[bytes]]]  # spans by resource

    @property
    def rows(self) -> int:
        return sum(len(spans) for _, spans in self.groups)


def decode_spans(
    values: Sequence[tuple[int, bytes]], default_environment: str
) -> tuple[pl.DataFrame, Counter[str], list[tuple[int, OtlpError]]]:
    """Numbered values to ``SPANS``, with counts of what was dropped or repaired and the values that hold no spans."""
    bad: list[tuple[int, OtlpError]] = []
    skipped: Counter[str] = Counter()
    frames: list[pl.DataFrame] = []
    waiting: list[_Message] = []
    rows = 0
    for index, value in values:
        try:
            message = _open(index, value, default_environment)
        except OtlpError as error:
            bad.append((index, error))
            continue
        waiting.append(message)
        rows += message.rows
        if rows >= CHUNK:
            frames.append(_read(waiting, skipped, bad))
            waiting, rows = [], 0
    if rows:
        frames.append(_read(waiting, skipped, bad))
    return pl.concat(frames) if frames else empty(Signal.SPANS), skipped, bad


def _envelope() -> Any:  # noqa: ANN401  (a class made at run time has no static type)
    """``ExportTraceServiceRequest`` with resources and spans left as bytes, which the wire format allows."""
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(name="mendstream/envelope.proto", package="mendstream", syntax="proto3")
    scope = file.message_type.add(name="Scope")
    scope.field.add(name="spans", number=2, label=many, type=field.TYPE_BYTES)
    group = file.message_type.add(name="Group")
    group.field.add(name="resource", number=1, label=one, type=field.TYPE_BYTES)
    group.field.add(name="scopes", number=2, label=many, type=field.TYPE_MESSAGE, type_name=".mendstream.Scope")
    request = file.message_type.add(name="ExportTraceServiceRequest")
    request.field.add(name="groups", number=1, label=many, type=field.TYPE_MESSAGE, type_name=".mendstream.Group")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mendstream.ExportTraceServiceRequest"))


_ENVELOPE: Final = _envelope()


def _open(index: int, value: bytes, default_environment: str) -> _Message:
    request = parse(_ENVELOPE, value)
    if value and not request.groups:
        raise OtlpError(NO_RESOURCE_SPANS)
    return _Message(
        index,
        [
            (_identify(group.resource, default_environment), [span for scope in group.scopes for span in scope.spans])
            for group in request.groups
        ],
    )


def _identify(resource: bytes, default_environment: str) -> Identity:
    read = _identity if len(resource) <= MAX_CACHED else _identity.__wrapped__
    return read(resource, default_environment)


@lru_cache(maxsize=4_096)
def _identity(resource: bytes, default_environment: str) -> Identity:
    """Resources come back unchanged with every message of an exporter."""
    return resource_identity(parse(Resource, resource), default_environment)


def _read(messages: list[_Message], skipped: Counter[str], bad: list[tuple[int, OtlpError]]) -> pl.DataFrame:
    """The frame of some messages; those that turn out to be bad are left out."""
    spans = [span for message in messages for _, group in message.groups for span in group]
    fields = SpanFields(spans)
    refused = _refused(messages, fields)
    if refused:
        bad.extend((messages[place].number, error) for place, error in refused.items())
        return _read([message for place, message in enumerate(messages) if place not in refused], skipped, bad)
    identities = [who for message in messages for who, _ in message.groups]
    runs = np.asarray([len(group) for message in messages for _, group in message.groups], dtype=np.int64)
    return span_frame(
        entity_series(identities, runs, version=True),
        name=fields.names.series(),
        kind=fields.kind,
        status=fields.status,
        start=fields.start,
        end=fields.end,
        ids=(fields.trace_hi, fields.trace_lo, fields.span_id, fields.parent_id),
        odd_ids=fields.odd_ids,
        peer=fields.peers.series(),
        attributes=None,
        skipped=skipped,
    )


def _refused(messages: Sequence[_Message], fields: SpanFields) -> Mapping[int, OtlpError]:
    """Which messages hold a span that is none, or only spans without a time."""
    sizes = np.asarray([message.rows for message in messages], dtype=np.int64)
    stops = np.cumsum(sizes)
    refused = {int(np.searchsorted(stops, row, side="right")): error for row, error in fields.errors}
    timed = (fields.start | fields.end) != 0
    if not timed.all():
        with_time = np.bincount(np.repeat(np.arange(len(sizes)), sizes), weights=timed, minlength=len(sizes))
        for place in np.flatnonzero((sizes > 0) & (with_time == 0)).tolist():
            refused.setdefault(place, OtlpError(NO_TIME))
    return refused
