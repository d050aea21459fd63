"""Change events: CloudEvents 1.0, structured or binary, carrying CDEvents or anything else, to CHANGES rows and back.

CDEvents name what changed in ``data.subject``; of other types the usual flat keys are read. What cannot be read at
all is a dead letter, with its reason. See https://github.com/cloudevents/spec (Kafka protocol binding) and https://cdevents.dev.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import orjson
import polars as pl

from connectors.errors import CloudEventError
from signals.batch import END_OF_STREAM
from signals.entity import ENVIRONMENT_KEYS, INSTANCE_KEYS, NAMESPACE_KEYS, SERVICE_KEYS, UNKNOWN_SERVICE, VERSION_KEYS
from signals.schema import CHANGES

CONTENT_TYPE: Final = b"application/cloudevents+json"
_OWN: Final = "mendstream"  # our own part of customData: lets a row be written and read back unchanged
_REQUIRED: Final = ("id", "source", "specversion", "type")
_MAX_TEXT: Final = 500  # characters kept of a line for people
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)$")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Change:
    """One row of ``signals.schema.CHANGES``."""

    environment: str
    namespace: str
    service: str
    instance: str
    time_ns: int
    id: str
    type: str
    version: str
    detail: str


def changes_frame(changes: Iterable[Change]) -> pl.DataFrame:
    """Rows of CHANGES in the given order.

    >>> changes_frame([]).schema == CHANGES
    True
    """
    rows = [[getattr(change, name) for name in CHANGES] for change in changes]
    return pl.DataFrame(rows, schema=CHANGES, orient="row")


def decode_change(
    value: bytes | None, headers: Headers = (), *, default_environment: str, fallback_time_ns: int | None = None
) -> Change:
    """The change that a message describes.

    Args:
        value: The message's value: the whole event (structured mode), or its data where ``ce_`` headers are present.
        headers: The message's headers.
        default_environment: Environment of events that name none.
        fallback_time_ns: Event time of events without a time, UTC epoch nanoseconds: the message's own timestamp.

    Raises:
        CloudEventError: The message is no CloudEvent 1.0, or has no time.
    """
    event = _event(value, {name.lower(): text for name, text in headers if text is not None})
    missing = [name for name in _REQUIRED if not _text(event, name)]
    if missing:
        raise CloudEventError(f"cloudevents: attribute {missing[0]!r} is missing or no text")
    if event["specversion"] != "1.0":
        raise CloudEventError(f"cloudevents: specversion {str(event['specversion'])[:20]!r} is not 1.0")
    data = event.get("data")
    data = data if isinstance(data, dict) else {}
    stamp = _text(event, "time") or _text(data, "context", "timestamp")
    if stamp:
        time_ns = parse_time(stamp)
    elif fallback_time_ns is not None:
        time_ns = fallback_time_ns
    else:
        raise CloudEventError("cloudevents: the event has no time")
    own = data.get("customData", {}).get(_OWN) if isinstance(data.get("customData"), dict) else None
    if isinstance(own, dict):
        parts = {
            name: _text(own, name) for name in ("environment", "namespace", "service", "instance", "version", "detail")
        }
    else:
        parts = _parts(event, data)
    return Change(
        environment=parts["environment"] or default_environment,
        namespace=parts["namespace"],
        service=parts["service"] or UNKNOWN_SERVICE,
        instance=parts["instance"],
        time_ns=time_ns,
        id=_text(event, "id"),
        type=_text(event, "type"),
        version=parts["version"],
        detail=_line(parts["detail"]),
    )


def encode_change(row: Mapping[str, Any], *, source: str) -> bytes:
    """A CHANGES row as a structured CloudEvent; ``decode_change`` gives the same row back."""
    parts = {name: row[name] for name in ("environment", "namespace", "service", "instance", "version", "detail")}
    time = format_time(row["time_ns"])
    event = {
        "specversion": "1.0",
        "id": row["id"],
        "source": source,
        "type": row["type"],
        "time": time,
        "subject": row["service"],
        "datacontenttype": "application/json",
        "data": {
            "context": {"id": row["id"], "source": source, "type": row["type"], "timestamp": time},
            "subject": {
                "id": row["service"],
                "content": {"environment": {"id": row["environment"]}, "artifactId": row["version"]},
            },
            "customData": {_OWN: parts},
        },
    }
    return orjson.dumps(event)


def parse_time(text: str) -> int:
    """RFC 3339 with any offset, to nanoseconds, as UTC epoch nanoseconds.

    >>> parse_time("2026-11-23T05:13:32.255Z"), parse_time("2026-11-23T06:13:32.255000001+01:00")
    (1795410812255000000, 1795410812255000001)

    Raises:
        CloudEventError: The text is no such time, or one outside 1970 to 2116.
    """
    found = _TIME.match(text)
    if found is None:
        raise CloudEventError(f"cloudevents: time {text[:40]!r} is not RFC 3339")
    day, clock, fraction, offset = found.groups()
    try:
        moment = dt.datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise CloudEventError(f"cloudevents: time {text[:40]!r} does not exist") from error
    ns = int(moment.timestamp()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])
    if not 0 <= ns < END_OF_STREAM:
        raise CloudEventError(f"cloudevents: time {text[:40]!r} is out of range (1970 to 2116)")
    return ns


def format_time(ns: int) -> str:
    """UTC epoch nanoseconds as RFC 3339 with nine decimals, the inverse of ``parse_time``."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    return f"{dt.datetime.fromtimestamp(seconds, tz=dt.UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def _event(value: bytes | None, headers: Mapping[str, bytes]) -> dict[str, Any]:
    """The event's attributes and data, whichever mode it came in."""
    if "ce_specversion" in headers or "ce_type" in headers:
        event: dict[str, Any] = {
            name.removeprefix("ce_"): _utf8(text) for name, text in headers.items() if name.startswith("ce_")
        }
        event["data"] = _json(value) if value else None
        return event
    if not value:
        raise CloudEventError("cloudevents: the message is empty and has no ce_ headers")
    whole = _json(value)
    if not isinstance(whole, dict):
        raise CloudEventError("cloudevents: the message is JSON, but no object")
    return whole


def _json(value: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise CloudEventError(f"cloudevents: not JSON: {error}") from error


def _utf8(text: bytes) -> str:
    try:
        return unquote(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CloudEventError("cloudevents: a ce_ header is not UTF-8") from error


def _parts(event: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, str]:
    """Environment, namespace, service, instance, version and detail, as far as the event says."""
    custom = data.get("customData")
    flat = [each for each in (custom, data, event) if isinstance(each, dict)]
    kind, _, predicate = event["type"].removeprefix("dev.cdevents.").partition(".")
    subject_id = _text(data, "subject", "id")
    artifact = _text(data, "subject", "content", "artifactId") or _first(flat, "artifactId", "artifact")
    environment = _text(data, "subject", "content", "environment", "id") or _first(
        flat, *ENVIRONMENT_KEYS, "environment"
    )
    service = _first(flat, *SERVICE_KEYS, "service")
    if event["type"].startswith("dev.cdevents."):
        if kind == "environment":
            environment = subject_id or environment
        elif kind == "artifact":
            artifact = artifact or subject_id
            service = service or _package(artifact)[0]
        else:
            service = subject_id or service
    else:
        service = service or subject_id or _text(event, "subject")
    version = _package(artifact)[1] or _first(flat, *VERSION_KEYS, "version") or artifact
    detail = _first(flat, "detail", "description", "message", "summary")
    words = (service or environment, predicate.split(".")[0] or kind, version)
    return {
        "environment": environment,
        "namespace": _first(flat, *NAMESPACE_KEYS, "namespace"),
        "service": service,
        "instance": _first(flat, *INSTANCE_KEYS, "instance"),
        "version": version,
        "detail": detail or " ".join(word for word in words if word),
    }


def _package(artifact: str) -> tuple[str, str]:
    """Name and version of a package URL, empty where it is none.

    >>> _package("pkg:generic/cart@1.1.0")
    ('cart', '1.1.0')
    >>> _package("pkg:oci/cart@sha256%3A0b1c?tag=2.0")
    ('cart', '2.0')
    """
    if not artifact.startswith("pkg:"):
        return "", ""
    path, _, query = artifact.removeprefix("pkg:").partition("?")
    name, _, version = path.partition("#")[0].rpartition("/")[2].partition("@")
    tag = parse_qs(query).get("tag", [""])[0]
    digest = unquote(version).startswith("sha256:")
    return unquote(name), tag if tag and (digest or not version) else unquote(version)


def _first(objects: Sequence[Mapping[str, Any]], *keys: str) -> str:
    return next((text for each in objects for key in keys if (text := _text(each, key))), "")


def _text(value: object, *path: str) -> str:
    """The text at a path of keys, "" where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def _line(text: str) -> str:
    return _SPACE.sub(" ", text).strip()[:_MAX_TEXT]
