"""Small value types shared by policies, playbooks and intents: durations, instants, digests, the decision ladder."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from incidents.model import epoch_ns, rfc3339

_UNITS_NS: Final = {
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
}
_DURATION: Final = r"^(?:\d+(?:ms|[dhms]))+$"


class Decision(StrEnum):
    """What may be done about an incident, from nothing to everything."""

    NEVER = "never"
    SHADOW = "shadow"  # recorded only: what would have been done
    PROPOSE = "propose"  # offered to people, who may start it
    APPROVE = "approve"  # people are asked, with roles and a deadline
    AUTO = "auto"

    @property
    def rank(self) -> int:
        """Position on the ladder, 0 for ``never``."""
        return list(Decision).index(self)


def weakest(*decisions: Decision) -> Decision:
    """The least permissive of some decisions.

    >>> weakest(Decision.AUTO, Decision.SHADOW).value
    'shadow'
    """
    return min(decisions, key=lambda decision: decision.rank)


class Document(BaseModel):
    """Base of operator-written models: frozen, unknown fields are errors, lowerCamelCase in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False)


def parse_duration(value: object) -> int:
    """A duration such as ``90s``, ``1h30m`` or ``250ms`` in nanoseconds.

    >>> parse_duration("1h30m") // 1_000_000_000
    5400
    """
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
        raise ValueError(f"{value!r} is no duration; write a number with a unit: 90s, 15m, 1h30m, 2d")
    return sum(int(number) * _UNITS_NS[unit] for number, unit in re.findall(r"(\d+)(ms|[dhms])", value))


def format_duration(ns: int) -> str:
    """The shortest spelling that ``parse_duration`` reads back.

    >>> format_duration(5_400_000_000_000)
    '1h30m'
    """
    text = ""
    for unit, size in _UNITS_NS.items():
        count, ns = divmod(ns, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_instant(value: object) -> int:
    """A moment with a time zone, as text or as YAML's own timestamp, in UTC epoch nanoseconds."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no moment; write RFC 3339: 2026-12-20T00:00:00Z") from None
    if not isinstance(value, dt.datetime):
        raise ValueError(f"{value!r} is no moment; write date, time and zone: 2026-12-20T00:00:00Z")  # noqa: TRY004 - a TypeError would escape pydantic
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()!r} has no time zone; write it with Z or an offset")
    return epoch_ns(value.astimezone(dt.UTC).replace(tzinfo=None).isoformat() + "Z")


#: Nanoseconds in the model, text in the file.
Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "examples": ["90s", "15m", "1h30m"]}),
]
#: UTC epoch nanoseconds in the model, RFC 3339 in the file.
Instant = Annotated[
    int,
    BeforeValidator(parse_instant),
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text. Raises ``ValueError`` for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """``sha256:`` and the hash of the canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()
