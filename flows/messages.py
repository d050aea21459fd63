"""What crosses between stages: rows, rollups of one bucket, and promises about event time.

Everything is columnar and small in number: per poll one message a shard, per bucket a few. ``origin`` is the source
partition or stage shard that speaks, so that a receiver knows whose promise it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import polars as pl

from signals.batch import NO_WATERMARK
from signals.schema import Signal


@dataclass(frozen=True, slots=True)
class Rows:
    """Decoded rows of one signal on their way to a shard."""

    signal: Signal
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Rollup:
    """What one shard made of one bucket; which table it is decides the receiver."""

    table: str
    start_ns: int
    payload: Any  # a DataFrame, or a tuple of small frozen records


@dataclass(frozen=True, slots=True)
class Mark:
    """Nothing earlier than the watermark will come from this origin."""

    origin: str
    watermark_ns: int
    idle: bool = False
    late: dict[str, int] = field(default_factory=dict)  # rows dropped as late so far, by the shard that dropped them
    offsets: dict[str, int] = field(default_factory=dict)  # last offset per source partition, for provenance
    newest_ns: int = NO_WATERMARK  # latest event time seen on the way here


class Addressed(NamedTuple):
    """A message and the shard it goes to; also the (key, value) shape that Bytewax routes by."""

    to: str
    message: Rows | Rollup | Mark


#: Tables of rollups.
CELLS: Final = "cells"
EXEMPLARS: Final = "exemplars"
SPAN_LOGS: Final = "span_logs"
TEMPLATES: Final = "templates"
FINDINGS: Final = "findings"
DIAGNOSIS: Final = "diagnosis"
