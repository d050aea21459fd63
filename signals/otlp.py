"""Kafka values to columns: the one door through which OTLP telemetry comes in.

``decode`` takes the values of one poll and gives one frame in the signal's schema. What cannot be decoded is handed
back with a reason, for the dead-letter topic; what is dropped or repaired inside good messages is counted. Message keys
are never looked at. Not here: the inverse (``signals.otlp_encode``) and what Kafka is (``connectors``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import polars as pl

from signals.otlp_columns import LogColumns, MetricColumns, SpanColumns
from signals.otlp_json import json_logs, json_spans
from signals.otlp_json_metrics import json_metrics
from signals.otlp_metrics import read_metrics
from signals.otlp_proto import read_logs, read_spans
from signals.otlp_spans import decode_spans
from signals.otlp_values import OtlpError
from signals.schema import Signal

Numbered = Sequence[tuple[int, bytes]]


class Encoding(StrEnum):
    """How a topic's values are written; the names are those of the Collector's Kafka exporter."""

    OTLP_PROTO = "otlp_proto"
    OTLP_JSON = "otlp_json"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the values of one call hold.

    ``frame`` has the schema of its signal, in the order of the values, and for spans and logs the String column
    ``attributes`` (a JSON object or null) if asked for. ``bad`` gives the index and a one-line reason for each value
    that is not in ``frame`` at all. ``skipped`` counts what was dropped (``not_finite``, ``no_recorded_value``,
    ``no_value``, ``no_temporality``, ``bad_histogram``, ``no_time``, ``bad_time``) or repaired (``bad_id``,
    ``negative_duration``) in the others.
    """

    frame: pl.DataFrame
    bad: list[tuple[int, str]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def decode(
    signal: Signal,
    encoding: Encoding,
    values: Sequence[bytes | None],
    *,
    default_environment: str = "default",
    keep_attributes: bool = False,
) -> Decoded:
    """Decode Kafka values of one topic.

    Never raises for what a value holds: whatever is not OTLP of this signal comes back in ``Decoded.bad``. Raises
    ``ValueError`` for a signal that does not travel as OTLP (changes).

    >>> decode(Signal.LOGS, Encoding.OTLP_PROTO, [b"", None]).bad
    [(1, 'null value (a tombstone)')]
    """
    bad: list[tuple[int, str]] = []
    sound: list[tuple[int, bytes]] = []
    for index, value in enumerate(values):
        if value is None:
            bad.append((index, "null value (a tombstone)"))
        elif (codec := _compression(value)) is not None:
            bad.append((index, f"compressed with {codec}: configure the producer to leave compression to Kafka"))
        else:
            sound.append((index, value))
    if signal is Signal.SPANS:
        frame, skipped = _spans(encoding, sound, bad, default_environment, keep_attributes=keep_attributes)
    elif signal is Signal.LOGS:
        frame, skipped = _logs(encoding, sound, bad, default_environment, keep_attributes=keep_attributes)
    elif signal is Signal.METRICS:
        frame, skipped = _metrics(encoding, sound, bad, default_environment)
    else:
        raise ValueError(f"{signal.value} do not travel as OTLP; decode takes spans, logs and metrics")
    return Decoded(frame, sorted(bad), {reason: number for reason, number in sorted(skipped.items()) if number})


def _spans(
    encoding: Encoding, values: Numbered, bad: list[tuple[int, str]], environment: str, *, keep_attributes: bool
) -> tuple[pl.DataFrame, Counter[str]]:
    if encoding is Encoding.OTLP_PROTO and not keep_attributes:
        frame, skipped, refused = decode_spans(values, environment)
        raw = dict(values)
        bad.extend((index, _explained(error, raw[index], encoding)) for index, error in refused)
        return frame, skipped
    total = SpanColumns()
    read = read_spans if encoding is Encoding.OTLP_PROTO else json_spans
    for index, value in values:
        try:
            total.absorb(read(value, environment, keep_attributes=keep_attributes))
        except OtlpError as error:
            bad.append((index, _explained(error, value, encoding)))
    return total.frame(keep_attributes=keep_attributes), total.skipped


def _logs(
    encoding: Encoding, values: Numbered, bad: list[tuple[int, str]], environment: str, *, keep_attributes: bool
) -> tuple[pl.DataFrame, Counter[str]]:
    total = LogColumns()
    read = read_logs if encoding is Encoding.OTLP_PROTO else json_logs
    for index, value in values:
        try:
            total.absorb(read(value, environment, keep_attributes=keep_attributes))
        except OtlpError as error:
            bad.append((index, _explained(error, value, encoding)))
    return total.frame(keep_attributes=keep_attributes), total.skipped


def _metrics(
    encoding: Encoding, values: Numbered, bad: list[tuple[int, str]], environment: str
) -> tuple[pl.DataFrame, Counter[str]]:
    total = MetricColumns()
    read: Callable[[bytes, str], MetricColumns] = read_metrics if encoding is Encoding.OTLP_PROTO else json_metrics
    for index, value in values:
        try:
            total.absorb(read(value, environment))
        except OtlpError as error:
            bad.append((index, _explained(error, value, encoding)))
    return total.frame(), total.skipped


#: First bytes of compressed streams; none of them begins a valid message of either encoding.
_MAGIC: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
}


def _compression(value: bytes) -> str | None:
    return next((codec for magic, codec in _MAGIC.items() if value.startswith(magic)), None)


def _explained(error: OtlpError, value: bytes, encoding: Encoding) -> str:
    """The reason, with a hint where the value looks like the other encoding."""
    if encoding is Encoding.OTLP_PROTO and value.lstrip()[:1] == b"{":
        return f"{error}; looks like JSON: is the topic's encoding otlp_json?"
    if encoding is Encoding.OTLP_JSON and value[:1] == b"\n":
        return f"{error}; looks like protobuf: is the topic's encoding otlp_proto?"
    return str(error)
