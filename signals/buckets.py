"""Event-time buckets: rows wait until the watermark has passed their bucket, then are handed on once, in order.

This is what makes live and replay agree. Nothing is decided when a row arrives; a bucket is processed when every source
partition has promised that nothing earlier will come, with its rows in a fixed order. Batch size, partition count and
the number of workers therefore cannot change a result. Rows for a bucket that is already closed are late: counted, kept
out. Not here: what is done with a closed bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from signals.batch import END_OF_STREAM, NO_WATERMARK

_BUCKET: Final = "_bucket"


@dataclass(slots=True)
class Watermarks:
    """The least watermark over an expected set of partitions; idle ones are left out.

    A partition that has not spoken yet holds the minimum back, so that no bucket closes before every partition had its
    chance. When all are idle the minimum stays where it was.
    """

    expected: frozenset[str]
    values: dict[str, int] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    low: int = NO_WATERMARK

    def advance(self, partition: str, watermark_ns: int, *, idle: bool = False) -> int:
        """Take a partition's promise; returns the least over all, never less than before."""
        if watermark_ns > self.values.get(partition, NO_WATERMARK):
            self.values[partition] = watermark_ns
        if idle:
            self.idle.add(partition)
        else:
            self.idle.discard(partition)
        active = [self.values.get(name, NO_WATERMARK) for name in self.expected if name not in self.idle]
        if active:
            self.low = max(self.low, min(active))
        return self.low


@dataclass(slots=True)
class BucketBuffer:
    """Rows of one signal in one shard, waiting for their bucket to close.

    ``order`` names the columns that give rows inside a bucket a fixed order (after the event time); rows equal in all
    of them must be interchangeable.
    """

    time_column: str
    bucket_ns: int
    order: tuple[str, ...]
    frames: list[pl.DataFrame] = field(default_factory=list)
    closed_ns: int = NO_WATERMARK  # end of the last bucket that was handed on
    late: int = 0
    rows: int = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows; those of closed buckets are counted as late and dropped."""
        if frame.height == 0:
            return
        if self.closed_ns > NO_WATERMARK:
            first = frame[self.time_column].min()
            if isinstance(first, int) and first < self.closed_ns:
                kept = frame.filter(pl.col(self.time_column) >= self.closed_ns)
                self.late += frame.height - kept.height
                frame = kept
        if frame.height:
            self.frames.append(frame)
            self.rows += frame.height

    def close(self, watermark_ns: int) -> list[tuple[int, pl.DataFrame]]:
        """Hand on every bucket that ends at or before the watermark: (bucket start, its rows), oldest first.

        Buckets without rows are not listed. ``END_OF_STREAM`` hands on everything.
        """
        end = watermark_ns if watermark_ns >= END_OF_STREAM else floor_to(watermark_ns, self.bucket_ns)
        if end <= self.closed_ns:
            return []
        self.closed_ns = end
        if not self.frames:
            return []
        ready: list[pl.DataFrame] = []
        waiting: list[pl.DataFrame] = []
        time = pl.col(self.time_column)
        for frame in self.frames:
            below = frame.filter(time < end)
            if below.height == frame.height:
                ready.append(frame)
            else:
                waiting.append(frame.filter(time >= end))
                if below.height:
                    ready.append(below)
        self.frames = waiting
        self.rows = sum(frame.height for frame in waiting)
        if not ready:
            return []
        rows = pl.concat(ready).with_columns((time // self.bucket_ns * self.bucket_ns).alias(_BUCKET))
        rows = rows.sort(_BUCKET, self.time_column, *self.order, maintain_order=True)
        parts = rows.partition_by(_BUCKET, maintain_order=True, include_key=True)
        return [(int(part[_BUCKET][0]), part.drop(_BUCKET)) for part in parts]


def floor_to(time_ns: int, bucket_ns: int) -> int:
    """The start of the bucket that holds a time.

    >>> floor_to(25, 10), floor_to(-1, 10)
    (20, -10)
    """
    return time_ns // bucket_ns * bucket_ns


def merge_cells(frames: Iterable[pl.DataFrame], keys: Sequence[str], values: Sequence[str]) -> pl.DataFrame:
    """Add up partial rollups of several shards: integer sums, rows in the order of their keys.

    Integer addition makes the result independent of how rows were split and in which order the parts came.
    """
    rows = pl.concat(list(frames))
    return rows.group_by(keys).agg(pl.col(name).sum() for name in values).sort(*keys)
