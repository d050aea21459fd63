"""Which shards there are and what goes where. Shards are logical: their number, not the workers', decides results."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import polars as pl

from flows.messages import Addressed, Mark, Rows
from flows.spread import shard_name
from signals.batch import NO_WATERMARK, Batch
from signals.schema import EVENT_TIME, Signal

_LOGS, _TRACES, _DETECT, _INCIDENTS = "logs", "traces", "detect", "incidents"
#: Where the first shard of a stage runs, so that few shards share the work between few workers too.
_FIRST_WORKER: Final = {_TRACES: 0, _DETECT: 1, _LOGS: 1}


@dataclass(frozen=True, slots=True)
class Layout:
    """Shards of each stage and the source partitions they wait for."""

    shards: int
    partitions: dict[Signal, tuple[str, ...]]  # source partitions per signal; a signal may have none

    @property
    def logs(self) -> list[str]:
        """Shards that mine log templates; none when there are no logs."""
        return self._stage(_LOGS) if self.partitions.get(Signal.LOGS) else []

    @property
    def traces(self) -> list[str]:
        """Shards that assemble traces; none when there are no spans."""
        return self._stage(_TRACES) if self.partitions.get(Signal.SPANS) else []

    @property
    def detect(self) -> list[str]:
        """Shards that learn and judge, by service."""
        return self._stage(_DETECT)

    @property
    def incidents(self) -> str:
        """The shard that correlates."""
        return shard_name(_INCIDENTS, 0)

    def _stage(self, name: str) -> list[str]:
        return [shard_name(name, number, _FIRST_WORKER[name]) for number in range(self.shards)]

    # -- whom a shard waits for -----------------------------------------------------------------------------------

    def log_origins(self) -> frozenset[str]:
        """What a log shard waits for."""
        return frozenset(self.partitions.get(Signal.LOGS, ()))

    def trace_origins(self) -> frozenset[str]:
        """What a trace shard waits for."""
        return frozenset([*self.partitions.get(Signal.SPANS, ()), *self.logs])

    def detect_origins(self) -> frozenset[str]:
        """What a detect shard waits for."""
        return frozenset([*self.partitions.get(Signal.METRICS, ()), *self.logs, *self.traces])

    def incident_origins(self) -> frozenset[str]:
        """What the correlator waits for."""
        return frozenset([*self.partitions.get(Signal.CHANGES, ()), *self.logs, *self.detect])

    # -- where things go ------------------------------------------------------------------------------------------

    def route(self, batch: Batch) -> list[Addressed]:
        """A decoded poll to its shards, and its watermark to all of them."""
        mark = Mark(
            batch.partition,
            batch.watermark_ns,
            batch.idle,
            offsets={batch.partition: batch.last_offset} if batch.last_offset >= 0 else {},
            newest_ns=newest_of(batch),
        )
        if batch.signal is Signal.CHANGES:
            rows = [Addressed(self.incidents, Rows(batch.signal, batch.frame))] if batch.frame.height else []
            return [*rows, Addressed(self.incidents, mark)]
        if batch.signal is Signal.SPANS:
            shards, parts = self.traces, self.by_trace(batch.frame)
        else:
            shards = self.logs if batch.signal is Signal.LOGS else self.detect
            parts = self.by_service(batch.frame)
        rows = [Addressed(to, Rows(batch.signal, part)) for to, part in zip(shards, parts, strict=True) if part.height]
        return [*rows, *(Addressed(to, mark) for to in shards)]

    def by_trace(self, frame: pl.DataFrame) -> list[pl.DataFrame]:
        """Rows by trace id, one frame a shard; a trace is never split."""
        if self.shards == 1 or frame.height == 0:
            return [frame, *([frame.clear()] * (self.shards - 1))]
        shard = frame["trace_lo"] % self.shards
        return [frame.filter(shard == number) for number in range(self.shards)]

    def by_service(self, frame: pl.DataFrame) -> list[pl.DataFrame]:
        """Rows by environment and service, one frame a shard."""
        if self.shards == 1 or frame.height == 0:
            return [frame, *([frame.clear()] * (self.shards - 1))]
        names = frame.select("environment", "service").unique()
        numbers = [shard_of(*row, self.shards) for row in names.iter_rows()]
        marked = frame.join(
            names.with_columns(pl.Series("_shard", numbers, dtype=pl.UInt8)),
            on=["environment", "service"],
            how="left",
            maintain_order="left",
        )
        return [marked.filter(pl.col("_shard") == number).drop("_shard") for number in range(self.shards)]


def newest_of(batch: Batch) -> int:
    """The latest event time of a batch, NO_WATERMARK when it has no rows."""
    newest = batch.frame[EVENT_TIME[batch.signal]].max() if batch.frame.height else None
    return newest if isinstance(newest, int) else NO_WATERMARK


@lru_cache(maxsize=100_000)
def shard_of(environment: str, service: str, shards: int) -> int:
    """The shard of a service: the same in every process, whatever Python's hash seed.

    >>> shard_of("prod", "payment", 4)
    0
    """
    return zlib.crc32(f"{environment}\x1f{service}".encode()) % shards


def layout_of(partitions: Sequence[tuple[Signal, str]], shards: int) -> Layout:
    """A layout over named source partitions."""
    by_signal: dict[Signal, tuple[str, ...]] = {}
    for signal, name in partitions:
        by_signal[signal] = (*by_signal.get(signal, ()), name)
    return Layout(shards, by_signal)
