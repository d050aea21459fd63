"""An OTLP protobuf message as OTLP/JSON.

``google.protobuf.json_format`` writes ids as base64; OTLP/JSON wants them hexadecimal, and enumerations as numbers. The
message's own descriptors drive this writer, so that it covers every OTLP message.
"""

from __future__ import annotations

import base64
import math
from typing import Any, Final

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_LONG: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)


def to_json(message: Message) -> bytes:
    """The message as OTLP/JSON: lowerCamelCase, 64-bit integers as strings, ids hexadecimal, defaults left out."""
    return orjson.dumps(_object(message))


def _object(message: Message) -> dict[str, Any]:
    return {field.json_name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401  (protobuf field values are untyped)
    if isinstance(value, Message | str | bytes | int | float):
        return _value(field, value)
    return [_value(field, item) for item in value]


def _value(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401  (protobuf field values are untyped)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _object(value)
    if field.type in _LONG:
        return str(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return value.hex() if field.name in _IDS else base64.b64encode(value).decode("ascii")
    if field.type == FieldDescriptor.TYPE_DOUBLE and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
