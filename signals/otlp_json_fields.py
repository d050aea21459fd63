"""Typed access to the fields of OTLP/JSON: lowerCamelCase or snake_case, with errors that name the place.

OTLP/JSON is protobuf's JSON mapping with hexadecimal ids and enumerations as numbers; names of enumeration values and
snake_case field names are accepted too, unknown fields are ignored, and null is the same as absent.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from signals.ids import hash_id
from signals.otlp_values import ELLIPSIS, MAX_DEPTH, OtlpError

Json = dict[str, Any]

_SNAKE: Final = re.compile(r"(?<!^)(?=[A-Z])")
_HEX: Final = re.compile(r"[0-9a-fA-F]*").fullmatch
_U64_MAX: Final = 2**64 - 1


def snake(camel: str) -> str:
    """The field's name in the protobuf definition.

    >>> snake("timeUnixNano")
    'time_unix_nano'
    """
    return _SNAKE.sub("_", camel).lower()


_SNAKES: Final[dict[str, str]] = {}


def get(source: Json, name: str) -> Any:  # noqa: ANN401  (what JSON holds is what the callers check)
    """The field by its lowerCamelCase or its snake_case name; None when absent."""
    value = source.get(name)
    if value is None:
        other = _SNAKES.get(name) or _SNAKES.setdefault(name, snake(name))
        value = source.get(other)
    return value


def items(source: Json, name: str, handle: Callable[[Json], None]) -> None:
    """Call ``handle`` for each object of a list field; errors gain the place, e.g. ``spans[3].``."""
    for place, item in enumerate(array(source, name)):
        try:
            if type(item) is not dict:
                raise _refused("", "an object", item)
            handle(item)
        except OtlpError as error:
            raise placed(error, f"{name}[{place}]") from None


def placed(error: OtlpError, place: str) -> OtlpError:
    """The error with a step of its path put in front.

    >>> str(placed(OtlpError("name: expected a string"), "spans[0]"))
    'spans[0].name: expected a string'
    """
    text = str(error)
    return OtlpError(f"{place}{text}" if text.startswith((":", "[")) else f"{place}.{text}")


def array(source: Json, name: str) -> list[Any]:
    """A list field, empty when absent."""
    value = get(source, name)
    if value is None:
        return []
    if type(value) is list:
        return value
    raise _refused(name, "a list", value)


def child(source: Json, name: str) -> Json:
    """An object field, empty when absent."""
    value = get(source, name)
    if value is None:
        return {}
    if type(value) is dict:
        return value
    raise _refused(name, "an object", value)


def text(source: Json, name: str) -> str:
    """A string field, "" when absent."""
    value = get(source, name)
    if value is None:
        return ""
    if type(value) is str:
        return value
    raise _refused(name, "a string", value)


def unsigned(source: Json, name: str) -> int:
    """An unsigned 64-bit field as number or decimal string, 0 when absent."""
    value = integer(source, name)
    if 0 <= value <= _U64_MAX:
        return value
    raise _refused(name, "an unsigned 64-bit integer", value)


def integer(source: Json, name: str) -> int:
    """A signed or unsigned integer field as number or decimal string, 0 when absent."""
    value = get(source, name)
    if value is None:
        return 0
    if type(value) is int:
        return value
    return to_integer(value, name)


def to_integer(value: object, name: str) -> int:
    """A 64-bit integer from what JSON may write for one: number, decimal string, or an integral float."""
    number = -(2**64)
    if type(value) is int:
        number = value
    elif type(value) is str:
        if len(value) <= 20 and value.isascii() and value.removeprefix("-").isdigit():
            number = int(value)
    elif type(value) is float and value.is_integer():
        number = int(value)
    if -(2**63) <= number <= _U64_MAX:
        return number
    raise _refused(name, "a 64-bit integer", value)


def real(source: Json, name: str) -> float:
    """A floating-point field, 0 when absent; "NaN" and "Infinity" are numbers in protobuf's JSON."""
    value = get(source, name)
    return 0.0 if value is None else to_real(value, name)


def to_real(value: object, name: str) -> float:
    """A float from a number or from protobuf's text forms of one."""
    if type(value) is float or type(value) is int:
        return float(value)
    if type(value) is str and len(value) <= 64 and "_" not in value:
        try:
            return float(value)
        except ValueError:
            pass
    raise _refused(name, "a number", value)


def boolean(source: Json, name: str) -> bool:
    """A boolean field, False when absent."""
    value = get(source, name)
    if value is None:
        return False
    if type(value) is bool:
        return value
    raise _refused(name, "true or false", value)


def enumeration(source: Json, name: str, names: Mapping[str, int]) -> int:
    """An enumeration as number or as the name of a value; 0 when absent or unknown."""
    value = get(source, name)
    if value is None:
        return 0
    if type(value) is str and not value.removeprefix("-").isdigit():
        return names.get(value, 0)
    return to_integer(value, name)


def identifier(source: Json, name: str, size: int) -> tuple[bytes, int]:
    """A hexadecimal id as raw bytes, and 1 if it was none and had to be hashed (else 0); empty when absent.

    A hash is that of the text, as ``signals.ids`` makes it, so that a recording of the same data agrees.
    """
    value = text(source, name)
    if len(value) == 2 * size and _HEX(value):
        return bytes.fromhex(value), 0
    return (hash_id(value.encode(), size), 1) if value else (b"", 0)


def any_value(value: object, depth: int = 0) -> object:
    """An ``AnyValue`` object as plain value, like ``signals.otlp_values.plain``; raises ``OtlpError`` with its path."""
    if value is None:
        return None
    if type(value) is not dict:
        raise _refused("value", "an object", value)
    for field, content in value.items():
        reader = _READERS.get(field)
        if reader is not None and content is not None:
            try:
                return reader(content, depth)
            except OtlpError as error:
                raise placed(error, f"value.{field}") from None
    return None


def attributes(source: Json, only: frozenset[str] | None = None, name: str = "attributes") -> dict[str, object]:
    """A list of key-value pairs as a mapping, or those of them in ``only``; of repeated keys the last counts."""
    found: dict[str, object] = {}
    for place, pair in enumerate(array(source, name)):
        if type(pair) is not dict:
            raise _refused(f"{name}[{place}]", "an object", pair)
        key = pair.get("key")
        if type(key) is not str:
            if key is not None:
                raise _refused(f"{name}[{place}].key", "a string", key)
            key = ""
        if only is None or key in only:
            try:
                found[key] = any_value(pair.get("value"))
            except OtlpError as error:
                raise placed(error, f"{name}[{place}]") from None
    return found


def _string(content: object, _depth: int) -> str:
    if type(content) is str:
        return content
    raise _refused("", "a string", content)


def _bool(content: object, _depth: int) -> bool:
    if type(content) is bool:
        return content
    raise _refused("", "true or false", content)


def _int(content: object, _depth: int) -> int:
    number = to_integer(content, "")
    if number < 2**63:
        return number
    raise _refused("", "a signed 64-bit integer", content)


def _double(content: object, _depth: int) -> float:
    return to_real(content, "")


def _bytes(content: object, _depth: int) -> str:
    try:
        raw = base64.b64decode(content if type(content) is str else "!", validate=True)
    except (binascii.Error, ValueError):
        raise _refused("", "base64 text", content) from None
    return base64.b64encode(raw).decode("ascii")


def _array(content: object, depth: int) -> object:
    if type(content) is not dict:
        raise _refused("", "an object", content)
    return ELLIPSIS if depth >= MAX_DEPTH else [any_value(item, depth + 1) for item in array(content, "values")]


def _kvlist(content: object, depth: int) -> object:
    if type(content) is not dict:
        raise _refused("", "an object", content)
    if depth >= MAX_DEPTH:
        return ELLIPSIS
    found: dict[str, object] = {}
    for pair in array(content, "values"):
        if type(pair) is not dict:
            raise _refused("values", "a list of objects", pair)
        found[text(pair, "key")] = any_value(pair.get("value"), depth + 1)
    return found


_READERS: Final[dict[str, Callable[[object, int], object]]] = {
    spelling: reader
    for name, reader in {
        "stringValue": _string,
        "boolValue": _bool,
        "intValue": _int,
        "doubleValue": _double,
        "arrayValue": _array,
        "kvlistValue": _kvlist,
        "bytesValue": _bytes,
    }.items()
    for spelling in (name, snake(name))
}


def _refused(name: str, expected: str, value: object) -> OtlpError:
    shown = repr(value)
    return OtlpError(f"{name}: expected {expected}, found {shown if len(shown) <= 40 else shown[:40] + ELLIPSIS}")
