"""What flows between a source and the first stage: whole polls as columns, and what could not be decoded.

A source emits ``Batch`` and ``DeadLetters`` items. Every poll that returns carries the partition's watermark, data or
not, so that an event-time bucket closes at the same point of the stream whatever the batching.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from signals.schema import Signal

#: Watermark of a partition that has ended (end of a recording, ``--stop-at-end``).
END_OF_STREAM: Final = 2**62
#: Watermark of a partition that has never spoken.
NO_WATERMARK: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class Batch:
    """One poll of one source partition, decoded.

    ``frame`` has the schema of its signal (``signals.schema.SCHEMAS``), zero rows allowed.
    """

    signal: Signal
    partition: str  # unique over all sources: "otlp_spans/0", "recording:spans"
    frame: pl.DataFrame
    watermark_ns: int  # no later row of this partition is expected before it; END_OF_STREAM when it has ended
    idle: bool = False  # live only: at its end and silent for longer than the idle timeout; left out of the minimum
    first_offset: int = -1  # Kafka offsets of this poll, -1 where there are none
    last_offset: int = -1
    skipped: dict[str, int] = field(default_factory=dict)  # rows dropped at decode, by reason (e.g. "not_finite")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be decoded, whole or in part."""

    topic: str
    partition: int
    offset: int
    reason: str  # one line for people, e.g. "protobuf: truncated message"
    value: bytes  # as it came
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters of one poll; a source emits them beside the poll's batch."""

    partition: str
    letters: tuple[DeadLetter, ...]


SourceItem = Batch | DeadLetters
