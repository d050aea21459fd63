"""What OTLP's attribute values mean: plain values, canonical JSON, and the identity of a resource.

Shared by the protobuf and the JSON reader, so that one fact reads the same from both.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from signals.entity import (
    ENVIRONMENT_KEYS,
    INSTANCE_KEYS,
    NAMESPACE_KEYS,
    SERVICE_KEYS,
    UNKNOWN_SERVICE,
    VERSION_KEYS,
)
from signals.schema import SpanKind

#: Event times at or above this are refused: a watermark must stay below ``signals.batch.END_OF_STREAM`` (year 2116).
TIME_LIMIT_NS: Final = 2**62
#: Values nested deeper than this are replaced by an ellipsis.
MAX_DEPTH: Final = 8
#: Text made of a structured value is cut after this many characters.
MAX_TEXT: Final = 65_536
ELLIPSIS: Final = "…"
#: Kinds of spans that call something and may therefore name a peer.
CALLING_KINDS: Final = frozenset({int(SpanKind.CLIENT), int(SpanKind.PRODUCER), int(SpanKind.CONSUMER)})

_IDENTITY_KEYS: Final = frozenset((*ENVIRONMENT_KEYS, *NAMESPACE_KEYS, *SERVICE_KEYS, *INSTANCE_KEYS, *VERSION_KEYS))


class OtlpError(ValueError):
    """A message that is not what its topic promises; the text is one line for people and names the place."""


class Identity(NamedTuple):
    """Who a resource is, as the entity columns of ``signals.schema`` and ``version``."""

    environment: str
    namespace: str
    service: str
    instance: str
    version: str


def identity(attributes: Mapping[str, object], default_environment: str) -> Identity:
    """The identity that a resource's attributes give; deprecated spellings count where the stable ones are missing.

    >>> identity({"service.name": "cart", "k8s.pod.name": "cart-7f"}, "default")
    Identity(environment='default', namespace='', service='cart', instance='cart-7f', version='')
    """

    def first(keys: tuple[str, ...], default: str = "") -> str:
        return next((found for key in keys if (found := as_text(attributes.get(key)))), default)

    return Identity(
        first(ENVIRONMENT_KEYS, default_environment),
        first(NAMESPACE_KEYS),
        first(SERVICE_KEYS, UNKNOWN_SERVICE),
        first(INSTANCE_KEYS),
        first(VERSION_KEYS),
    )


def is_identity_key(key: str) -> bool:
    """Whether ``identity`` reads this attribute."""
    return key in _IDENTITY_KEYS


def plain(value: AnyValue, depth: int = 0) -> object:
    """An ``AnyValue`` as a JSON-like Python value: bytes as base64 text, an empty value as None."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind in {"array_value", "kvlist_value"} and depth >= MAX_DEPTH:
        return ELLIPSIS
    if kind == "array_value":
        return [plain(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value, depth + 1) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode("ascii")
    scalar: object = getattr(value, kind)
    return scalar


def plain_attributes(attributes: Iterable[KeyValue], only: frozenset[str] | None = None) -> dict[str, object]:
    """Attributes as a mapping, or those of them that are in ``only``; of repeated keys the last counts."""
    return {pair.key: plain(pair.value) for pair in attributes if only is None or pair.key in only}


def as_text(value: object) -> str:
    """A plain value as text: strings as they are, None as "", anything else as JSON, cut after ``MAX_TEXT``.

    >>> as_text("x"), as_text(True), as_text({"b": 1, "a": [2.5]})
    ('x', 'true', '{"a":[2.5],"b":1}')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = canonical_json(value)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + ELLIPSIS


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, so that equal values are equal text; NaN and infinities become null."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def attributes_json(attributes: Mapping[str, object]) -> str | None:
    """The optional ``attributes`` column: canonical JSON, or None when there are none."""
    return canonical_json(attributes) if attributes else None
