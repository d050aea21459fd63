"""One poll's messages to one frame and its dead letters; what the clock of a sender got badly wrong is left out.

Shared by the Kafka source and the file source. Not here: OTLP itself (``signals.otlp``) or CloudEvents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from connectors.cloudevents import Change, Headers, changes_frame, decode_change
from connectors.errors import CloudEventError
from signals.otlp import Encoding, decode
from signals.schema import EVENT_TIME, Signal

_NS_PER_MS: Final = 1_000_000
FUTURE: Final = "future"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came, whatever it came from."""

    value: bytes | None  # None is a tombstone
    timestamp_ms: int = -1  # when it was written, -1 when nobody says
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Format:
    """What a topic or file holds."""

    signal: Signal
    encoding: Encoding | None  # None for changes
    environment: str  # of telemetry that names none
    keep_attributes: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of a poll, in message order."""

    frame: pl.DataFrame
    bad: tuple[tuple[int, str], ...] = ()  # place of the message in the poll, and why it could not be read
    skipped: dict[str, int] = field(default_factory=dict)


def decode_messages(what: Format, messages: Sequence[Message], *, max_future_ns: int) -> Decoded:
    """Decode a poll; rows later than their message's timestamp by more than ``max_future_ns`` are counted as "future".

    A row from the future would push the watermark ahead and make all others late. Old telemetry written again later is
    fine. Messages without a timestamp are not checked.
    """
    decoded = _decode(what, messages)
    column = EVENT_TIME[what.signal]
    stamps = [message.timestamp_ms for message in messages if message.timestamp_ms >= 0]
    if decoded.frame.is_empty() or not stamps:
        return decoded
    newest = decoded.frame[column].max()
    if isinstance(newest, int) and newest <= min(stamps) * _NS_PER_MS + max_future_ns:
        return decoded
    # Rare, so it may be slow: message by message, each against its own timestamp.
    skipped = Counter(decoded.skipped)
    frames = []
    for message in messages:
        frame = _decode(what, [message]).frame
        if message.timestamp_ms >= 0:
            kept = frame.filter(pl.col(column) <= message.timestamp_ms * _NS_PER_MS + max_future_ns)
            skipped[FUTURE] += frame.height - kept.height
            frame = kept
        frames.append(frame)
    return Decoded(pl.concat(frames), decoded.bad, {reason: count for reason, count in skipped.items() if count})


def _decode(what: Format, messages: Sequence[Message]) -> Decoded:
    if what.encoding is None:
        return _decode_changes(what, messages)
    values = [message.value for message in messages]
    found = decode(
        what.signal,
        what.encoding,
        values,
        default_environment=what.environment,
        keep_attributes=what.keep_attributes,
    )
    return Decoded(found.frame, tuple(found.bad), dict(found.skipped))


def _decode_changes(what: Format, messages: Sequence[Message]) -> Decoded:
    changes: list[Change] = []
    bad = []
    for place, message in enumerate(messages):
        fallback = message.timestamp_ms * _NS_PER_MS if message.timestamp_ms >= 0 else None
        try:
            change = decode_change(
                message.value, message.headers, default_environment=what.environment, fallback_time_ns=fallback
            )
        except CloudEventError as error:
            bad.append((place, str(error)))
        else:
            changes.append(change)
    return Decoded(changes_frame(changes), tuple(bad))
