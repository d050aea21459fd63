"""Reads a recording's Parquet files in event-time order, a chunk at a time, whatever their size, number and order.

A span's event time is its end, but files are ordered by start. A first pass over the time columns counts rows per
second of event time; from that come chunks of some ten thousand rows, each read with predicates that let the row groups
of other times be skipped. Spans longer than a minute start far from where they end and are looked for apart.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from connectors.errors import RecordingError
from connectors.recording_columns import OPTIONAL, REQUIRED, RowConverter, event_time, usable
from signals.schema import EVENT_TIME, Signal, empty

CHUNK_ROWS: Final = 65_536  # rows read at once; what is emitted at once is the source's business
_BUCKET_NS: Final = 1_000_000_000
_LONG_NS: Final = 60_000_000_000
_ROW: Final = "__row"  # place in the files, the tie-break of equal times

TELEMETRY: Final = (Signal.SPANS, Signal.LOGS, Signal.METRICS)


@dataclass(frozen=True, slots=True)
class Recording:
    """What ``recording.json`` says, and which signals the folder holds."""

    path: Path
    name: str
    environment: str
    signals: tuple[Signal, ...]
    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A half-open range of event time, UTC epoch nanoseconds."""

    start_ns: int
    end_ns: int
    rows: int
    has_long_spans: bool


def open_recording(path: Path | str) -> Recording:
    """Look a folder over.

    Raises:
        RecordingError: The folder is no recording; the message says what is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise RecordingError(f"{folder} is no folder; a recording is a folder with recording.json and Parquet files")
    about = _about(folder / "recording.json")
    signals = tuple(signal for signal in TELEMETRY if parquet_files(folder, signal))
    if (folder / "changes.jsonl").is_file():
        signals = (*signals, Signal.CHANGES)
    if not signals:
        raise RecordingError(
            f"{folder} holds no telemetry: none of spans/*.parquet, logs/*.parquet, metrics/*.parquet and changes.jsonl"
        )
    name = str(about.get("name") or folder.resolve().name)
    return Recording(
        folder,
        name,
        str(about.get("environment") or name),
        signals,
        _whole(about.get("start_unix_ns")),
        _whole(about.get("end_unix_ns")),
    )


def parquet_files(folder: Path, signal: Signal) -> list[Path]:
    """A signal's files, by name."""
    return sorted((folder / signal.value).glob("*.parquet"))


class SignalReader:
    """One signal of a recording as chunks in event-time order."""

    def __init__(self, recording: Recording, signal: Signal, *, keep_attributes: bool = False) -> None:
        self._signal = signal
        self._converter = RowConverter(recording.environment, keep_attributes=keep_attributes)
        self._files = [_scan(path, signal) for path in parquet_files(recording.path, signal)]
        self.chunks, self.dropped = self._plan()

    def chunk_at(self, time_ns: int) -> int:
        """Index of the first chunk that holds rows at or after this time."""
        index = bisect_right([chunk.start_ns for chunk in self.chunks], time_ns) - 1
        return index if index >= 0 and time_ns < self.chunks[index].end_ns else index + 1

    def read(self, chunk: Chunk, *, from_ns: int = 0) -> tuple[pl.DataFrame, dict[str, int]]:
        """The chunk's rows at or after ``from_ns``, by event time, then place in the files; and what was skipped."""
        low, high = max(chunk.start_ns, from_ns), chunk.end_ns
        at = event_time(self._signal)
        wanted = usable(self._signal) & (at >= low) & (at < high)
        if self._signal is Signal.SPANS:
            start, duration = pl.col("start_unix_ns"), pl.col("duration_ns")
            near = (start >= low - _LONG_NS) & (start < high) & (duration.fill_null(0) <= _LONG_NS)
            parts = [self._collect(wanted & near)]
            if chunk.has_long_spans:
                parts.append(self._collect(wanted & (duration > _LONG_NS)))
            raw = pl.concat(parts)
        else:
            raw = self._collect(wanted)
        raw = raw.with_columns(at.alias("__at")).sort("__at", _ROW).drop("__at", _ROW)
        if raw.is_empty():
            return empty(self._signal), {}
        return self._converter.convert(self._signal, raw)

    def _collect(self, predicate: pl.Expr) -> pl.DataFrame:
        offset, parts = 0, []
        for frame, rows in self._files:
            part = frame.with_row_index(_ROW, offset=offset).filter(predicate)
            parts.append(part.with_columns(pl.col(_ROW).cast(pl.UInt64)))
            offset += rows
        try:
            return pl.concat(parts, how="diagonal").collect()
        except pl.exceptions.PolarsError as error:
            raise RecordingError(f"{self._signal.value}: a Parquet file cannot be read: {error}") from error

    def _plan(self) -> tuple[list[Chunk], int]:
        """Chunks over all files, and how many rows have no usable time."""
        at = event_time(self._signal)
        long = pl.col("duration_ns") > _LONG_NS if self._signal is Signal.SPANS else pl.lit(value=False)
        counted = [
            frame.select(bucket=pl.when(usable(self._signal)).then(at // _BUCKET_NS), long=long)
            .group_by("bucket")
            .agg(rows=pl.len(), long=pl.col("long").any())
            for frame, _ in self._files
        ]
        buckets = (
            pl.concat(counted)
            .group_by("bucket")
            .agg(pl.col("rows").sum(), pl.col("long").any())
            .sort("bucket", nulls_last=True)
            .collect(engine="streaming")
        )
        dropped = int(buckets.filter(pl.col("bucket").is_null())["rows"].sum())
        chunks: list[Chunk] = []
        first, rows, has_long = 0, 0, False
        for bucket, count, long_here in buckets.drop_nulls("bucket").iter_rows():
            if rows and rows + count > CHUNK_ROWS:
                chunks.append(Chunk(first * _BUCKET_NS, bucket * _BUCKET_NS, rows, has_long))
                rows, has_long = 0, False
            first = first if rows else bucket
            rows, has_long, last = rows + count, has_long or bool(long_here), bucket
        if rows:
            chunks.append(Chunk(first * _BUCKET_NS, (last + 1) * _BUCKET_NS, rows, has_long))
        return chunks, dropped


def load_topology(path: Path | str) -> tuple[list[str], list[tuple[str, str]]]:
    """Nodes and ``(caller, callee)`` edges of a ``topology.json``, or of a recording's; empty when there is none.

    Raises:
        RecordingError: The file is not of the form ``{"nodes": [...], "edges": [{"caller", "callee"}]}``.
    """
    file = Path(path)
    file = file / "topology.json" if file.is_dir() else file
    if not file.exists():
        return [], []
    try:
        known = json.loads(file.read_bytes())
        edges = [(str(edge["caller"]), str(edge["callee"])) for edge in known["edges"]]
        nodes = [str(node["id"] if isinstance(node, dict) else node) for node in known.get("nodes", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordingError(
            f'{file} is no topology; it must read {{"nodes": [...], "edges": [{{"caller": ..., "callee": ...}}]}} '
            f"({error!r})"
        ) from error
    return list(dict.fromkeys([*nodes, *(name for edge in edges for name in edge)])), edges


def _scan(path: Path, signal: Signal) -> tuple[pl.LazyFrame, int]:
    """A file with its known columns in the format's types, and its number of rows."""
    try:
        frame = pl.scan_parquet(path)
        schema = frame.collect_schema()
        rows = int(frame.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RecordingError(f"{path} is no readable Parquet file: {error}") from error
    known = dict(REQUIRED[signal])
    missing = next((name for name in known if name not in schema), None)
    if missing is not None:
        raise RecordingError(f"{path} has no column {missing!r}; {signal.value} files need: {', '.join(known)}")
    known |= {name: kind for name, kind in OPTIONAL.items() if name in schema}
    # Only where needed: a cast in front of a column keeps its statistics from being used to skip row groups.
    columns = [pl.col(name) if schema[name] == kind else pl.col(name).cast(kind) for name, kind in known.items()]
    return frame.select(columns), rows


def _about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RecordingError(
            f"{path.parent} has no recording.json; a recording needs one with at least a name and an environment"
        ) from error
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(about, dict):
        raise RecordingError(f"{path} is JSON, but no object")
    return about


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def event_times(signal: Signal, frame: pl.DataFrame) -> pl.Series:
    """The event-time column of a converted frame."""
    return frame[EVENT_TIME[signal]]
