"""Writes batches as a recording: rolling Parquet files per signal, changes as CloudEvents, and ``recording.json``.

What the format has no column for (namespace, several environments, versions) goes into extra columns, and only where it
says something. Reading the recording gives the rows again.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final, Self

import orjson
import polars as pl

from connectors.cloudevents import encode_change
from connectors.errors import RecordingError
from signals.batch import Batch
from signals.names import PEER_KEYS
from signals.schema import ATTRIBUTES, EVENT_TIME, MetricShape, Signal

FILE_ROWS: Final = 500_000
GROUP_ROWS: Final = 65_536  # one row group is what a reader can skip
_HEX: Final = 16


class RecordingWriter:
    """Collects batches and writes a file whenever ``file_rows`` rows of a signal have come together.

    Use as a context manager, or call ``close``: only then is the recording complete.

    Args:
        path: Folder to write; must not hold a recording yet.
        name: Name in ``recording.json``; the folder's when empty.
        environment: Environment of rows that are of no other.
        file_rows: Rows per Parquet file; at most so many rows of each signal are held in memory.
        notes: Further entries of ``recording.json``, e.g. ``clock_notes`` and ``license``.

    Raises:
        RecordingError: The folder already holds a recording.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        environment: str,
        name: str = "",
        file_rows: int = FILE_ROWS,
        notes: dict[str, Any] | None = None,
    ) -> None:
        self._path = Path(path)
        if (self._path / "recording.json").exists() or any(self._path.glob("*/*.parquet")):
            raise RecordingError(f"{self._path} already holds a recording; name another folder, or remove it first")
        self._path.mkdir(parents=True, exist_ok=True)
        self._name, self._environment = name or self._path.resolve().name, environment
        self._file_rows, self._notes = file_rows, notes or {}
        self._held: dict[Signal, list[pl.DataFrame]] = {}
        self._files: Counter[Signal] = Counter()
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self.rows: Counter[Signal] = Counter()  # written or held, per signal
        self.left_out: Counter[str] = Counter()  # by reason; metrics that are no gauges and were not normalised

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, batch: Batch) -> None:
        """Take a batch in."""
        self.add_frame(batch.signal, batch.frame)

    def add_frame(self, signal: Signal, frame: pl.DataFrame) -> None:
        """Take rows in: the signal's schema, for metrics also ``SERIES``; spans and logs with ``attributes`` or not."""
        if signal is Signal.METRICS and "shape" in frame.columns:
            gauges = frame.filter(pl.col("shape") == int(MetricShape.GAUGE))
            self.left_out["metric_not_normalised"] += frame.height - gauges.height
            frame = gauges
        if frame.is_empty():
            return
        self.rows[signal] += frame.height
        times = frame[EVENT_TIME[signal]]
        self._first_ns = min(int(times.min()), self._first_ns or int(times.min()))  # type: ignore[arg-type]  # polars types any scalar
        self._last_ns = max(int(times.max()), self._last_ns or 0)  # type: ignore[arg-type]  # as above
        held = self._held.setdefault(signal, [])
        held.append(frame)
        if sum(part.height for part in held) >= self._file_rows:
            self._roll(signal)

    def close(self) -> None:
        """Write what is held, and ``recording.json`` last."""
        for signal in list(self._held):
            self._roll(signal)
        about = {
            "name": self._name,
            "environment": self._environment,
            "start_unix_ns": self._first_ns,
            "end_unix_ns": self._last_ns,
            "signals": [signal.value for signal in Signal if self.rows[signal]],
        } | self._notes
        (self._path / "recording.json").write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2) + b"\n")

    def _roll(self, signal: Signal) -> None:
        frame = pl.concat(self._held.pop(signal, []), how="diagonal")
        if frame.is_empty():
            return
        if signal is Signal.CHANGES:
            with (self._path / "changes.jsonl").open("ab") as file:
                file.writelines(
                    encode_change(row, source=f"/{self._name}/mendstream") + b"\n"
                    for row in frame.sort("time_ns", maintain_order=True).iter_rows(named=True)
                )
            return
        raw = _ROWS[signal](frame)
        raw = raw.with_columns(self._extra(frame)).sort(_ORDER[signal], maintain_order=True)
        folder = self._path / signal.value
        folder.mkdir(exist_ok=True)
        target = folder / f"part-{self._files[signal]:05d}.parquet"
        self._files[signal] += 1
        unfinished = target.with_suffix(".unfinished")
        raw.write_parquet(unfinished, compression="zstd", row_group_size=GROUP_ROWS)
        unfinished.rename(target)

    def _extra(self, frame: pl.DataFrame) -> list[pl.Series]:
        """Columns beyond the format, where they say more than its defaults."""
        defaults = {"environment": self._environment, "namespace": "", "version": ""}
        return [
            frame[name]
            for name, default in defaults.items()
            if name in frame.columns and (frame[name] != default).any()
        ]


def _hex(name: str) -> pl.Expr:
    """An unsigned 64-bit column as 16 hexadecimal digits."""
    digits = [(pl.col(name) // _HEX**place % _HEX).cast(pl.Int64) for place in reversed(range(_HEX))]
    alphabet = pl.lit("0123456789abcdef")
    return pl.concat_str([alphabet.str.slice(digit, 1) for digit in digits])


def _id_or_null(text: pl.Expr, number: pl.Expr) -> pl.Expr:
    return pl.when(number == 0).then(None).otherwise(text)


def _span_rows(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        trace_id=pl.concat_str(_hex("trace_hi"), _hex("trace_lo")),
        span_id=_hex("span_id"),
        parent_span_id=_id_or_null(_hex("parent_id"), pl.col("parent_id")),
        service=pl.col("service"),
        instance=_or_null("instance"),
        name=pl.col("name"),
        kind=pl.col("kind"),
        start_unix_ns=pl.col("start_ns"),
        duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        status_code=pl.col("status"),
    ).with_columns(_span_attributes(frame).alias(ATTRIBUTES))


def _span_attributes(frame: pl.DataFrame) -> pl.Series:
    """The attributes that were kept; without any, the peer as ``service.peer.name``, from which it is read again."""
    peers = [peer for peer in frame["peer"].unique().to_list() if peer]
    named = frame["peer"].replace_strict(
        peers,
        pl.Series([orjson.dumps({PEER_KEYS[0]: peer}).decode() for peer in peers], dtype=pl.String),
        default=None,
        return_dtype=pl.String,
    )
    return frame[ATTRIBUTES].fill_null(named) if ATTRIBUTES in frame.columns else named


def _log_rows(frame: pl.DataFrame) -> pl.DataFrame:
    in_trace = (pl.col("trace_hi") | pl.col("trace_lo")) != 0
    raw = frame.select(
        time_unix_ns=pl.col("time_ns"),
        service=pl.col("service"),
        instance=_or_null("instance"),
        severity=pl.col("severity"),
        body=pl.col("body"),
        trace_id=pl.when(in_trace).then(pl.concat_str(_hex("trace_hi"), _hex("trace_lo"))),
        span_id=_id_or_null(_hex("span_id"), pl.col("span_id")),
    )
    return raw.with_columns(frame[ATTRIBUTES]) if ATTRIBUTES in frame.columns else raw


def _metric_rows(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        time_unix_ns=pl.col("time_ns"),
        service=pl.col("service"),
        instance=_or_null("instance"),
        metric=pl.col("metric"),
        value=pl.col("value"),
        attributes=_or_null("attributes"),
    )


def _or_null(name: str) -> pl.Expr:
    return pl.when(pl.col(name) != "").then(pl.col(name))


_ROWS: Final = {Signal.SPANS: _span_rows, Signal.LOGS: _log_rows, Signal.METRICS: _metric_rows}
_ORDER: Final = {Signal.SPANS: "start_unix_ns", Signal.LOGS: "time_unix_ns", Signal.METRICS: "time_unix_ns"}
