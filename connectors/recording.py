"""A recording as a Bytewax source: the same batches, watermarks and dead letters as Kafka gives, in event-time order.

``faults.jsonl`` is never opened here: labels are no input. How the files are read: ``connectors.recording_reader``.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.decoding import Format, Message, decode_messages
from connectors.errors import RecordingError
from connectors.gate import EventTimeGate
from connectors.iterate import iterate
from connectors.recording_reader import Recording, SignalReader, event_times, load_topology, open_recording
from connectors.recording_writer import RecordingWriter
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetter, DeadLetters, SourceItem
from signals.schema import Signal, empty

PREFIX: Final = "recording:"
DEFAULT_BATCH_ROWS: Final = 50_000
_PAUSE_S: Final = 0.005  # until a partition that ran ahead asks again

__all__ = [
    "Recording",
    "RecordingCursor",
    "RecordingError",
    "RecordingSource",
    "RecordingWriter",
    "iterate",
    "load_topology",
    "open_recording",
]


@dataclass(frozen=True, slots=True)
class RecordingCursor:
    """Resume state: where the next row is in the fixed order of a recording's rows."""

    from_ns: int = 0  # event time
    rows: int = 0  # rows at or after it that were emitted already
    ended: bool = False
    watermark_ns: int = NO_WATERMARK


class _RecordingPartition(StatefulSourcePartition[SourceItem, RecordingCursor]):
    """One signal of a recording, from a cursor on."""

    def __init__(
        self,
        name: str,
        signal: Signal,
        chunks: _Chunks,
        cursor: RecordingCursor,
        *,
        batch_rows: int,
        gate: EventTimeGate,
        stop: threading.Event,
    ) -> None:
        self._name, self._signal, self._batch_rows = name, signal, batch_rows
        self._gate, self._stop, self._cursor = gate, stop, cursor
        self._fresh = cursor == RecordingCursor()
        self._chunks = chunks
        self._remaining = chunks.from_cursor(cursor)
        self._rows: pl.DataFrame | None = None  # what is left of the chunk at hand
        self._after_ns = END_OF_STREAM  # event time of the first row after it
        self._skipped: dict[str, int] = {}
        self._waiting = False
        gate.join(name, cursor.watermark_ns)

    def next_batch(self) -> list[SourceItem]:
        """The next rows, or nothing while other signals must catch up first."""
        if self._cursor.ended or self._stop.is_set():
            self._gate.leave(self._name)
            raise StopIteration
        self._waiting = not self._gate.may_poll(self._name)
        if self._waiting:
            return []
        letters = self._first_letters()
        frame = self._take()
        items: list[SourceItem] = [
            Batch(self._signal, self._name, frame, self._cursor.watermark_ns, skipped=self._skipped),
            *letters,
        ]
        self._skipped = {}
        # At the end this is END_OF_STREAM, which holds nobody back.
        self._gate.advance(self._name, self._cursor.watermark_ns)
        return items

    def next_awake(self) -> dt.datetime | None:
        """At once, or after a short pause while the gate is shut."""
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_PAUSE_S) if self._waiting else None

    def snapshot(self) -> RecordingCursor:
        """Where to continue."""
        return self._cursor

    def close(self) -> None:
        """Let the others go on without this one."""
        self._gate.leave(self._name)

    def _first_letters(self) -> list[SourceItem]:
        """With the very first batch: what the files hold that is no usable row."""
        if not self._fresh:
            return []
        self._fresh = False
        self._skipped = dict(self._chunks.dropped)
        return [DeadLetters(self._name, self._chunks.letters)] if self._chunks.letters else []

    def _take(self) -> pl.DataFrame:
        """Cut the next rows off and move the cursor behind them."""
        rows = self._load() if self._rows is None else self._rows
        if rows is None:
            self._cursor = replace(self._cursor, ended=True, watermark_ns=END_OF_STREAM)
            return empty(self._signal)
        frame, rest = rows.head(self._batch_rows), rows.slice(self._batch_rows)
        if rest.height:
            self._rows = rest
            next_ns = int(event_times(self._signal, rest)[0])
            same = int((event_times(self._signal, frame) == next_ns).sum())
            before = self._cursor.rows if next_ns == self._cursor.from_ns else 0
            self._cursor = RecordingCursor(next_ns, same + before, watermark_ns=next_ns)
        else:
            self._rows = None
            self._cursor = RecordingCursor(
                self._after_ns, 0, ended=self._after_ns == END_OF_STREAM, watermark_ns=self._after_ns
            )
        return frame

    def _load(self) -> pl.DataFrame | None:
        """The rows of the next chunk that has any, None after the last."""
        for chunk in self._remaining:
            frame = chunk.frame
            if chunk.from_ns == self._cursor.from_ns:
                frame = frame.slice(self._cursor.rows)
            for reason, count in chunk.skipped.items():
                self._skipped[reason] = self._skipped.get(reason, 0) + count
            self._after_ns = chunk.next_ns
            if frame.height:
                return frame
        return None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The rows of one chunk from a time on."""

    frame: pl.DataFrame
    from_ns: int
    next_ns: int  # start of the next chunk, END_OF_STREAM after the last
    skipped: dict[str, int]


class _Chunks:
    """What a partition reads from: telemetry in chunks of Parquet rows, changes as one chunk."""

    letters: tuple[DeadLetter, ...] = ()
    dropped: dict[str, int]

    def from_cursor(self, cursor: RecordingCursor) -> Iterator[_Loaded]:
        """Chunks at or after the cursor, each read when asked for."""
        raise NotImplementedError


class _Telemetry(_Chunks):
    def __init__(self, reader: SignalReader) -> None:
        self._reader = reader
        self.dropped = {"no_time": reader.dropped} if reader.dropped else {}

    def from_cursor(self, cursor: RecordingCursor) -> Iterator[_Loaded]:
        chunks = self._reader.chunks
        first = self._reader.chunk_at(cursor.from_ns)
        for index in range(first, len(chunks)):
            chunk = chunks[index]
            following = chunks[index + 1].start_ns if index + 1 < len(chunks) else END_OF_STREAM
            start = max(chunk.start_ns, cursor.from_ns)
            frame, skipped = self._reader.read(chunk, from_ns=start)
            # Counted with the chunk's first rows; a resume inside the chunk has counted them before.
            again = index == first and (start > chunk.start_ns or cursor.rows > 0)
            yield _Loaded(frame, start, following, {} if again else skipped)


class _Changes(_Chunks):
    def __init__(self, recording: Recording) -> None:
        lines = (recording.path / "changes.jsonl").read_bytes().split(b"\n")
        numbered = [(number, line) for number, line in enumerate(lines) if line.strip()]
        decoded = decode_messages(
            Format(Signal.CHANGES, None, recording.environment),
            [Message(line) for _, line in numbered],
            max_future_ns=0,
        )
        self._frame = decoded.frame.sort("time_ns", maintain_order=True)
        self.dropped = {}
        self.letters = tuple(
            DeadLetter(f"{PREFIX}{Signal.CHANGES}", 0, numbered[place][0], reason, numbered[place][1])
            for place, reason in decoded.bad
        )

    def from_cursor(self, cursor: RecordingCursor) -> Iterator[_Loaded]:
        frame = self._frame.filter(pl.col("time_ns") >= cursor.from_ns)
        if frame.height:
            yield _Loaded(frame, cursor.from_ns, END_OF_STREAM, {})


class RecordingSource(FixedPartitionedSource[SourceItem, RecordingCursor]):
    """A recording as a Bytewax source of one partition per signal, named ``recording:spans`` and so on.

    Args:
        path: The recording's folder.
        batch_rows: Rows in one batch at most; changes the cut of the stream and nothing that follows from it.
        keep_attributes: Whether spans and logs carry the extra column ``signals.schema.ATTRIBUTES``.
        max_ahead_s: Event time one signal may run ahead of the slowest, seconds.

    Raises:
        RecordingError: The folder is no recording; the message says what is missing.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        keep_attributes: bool = False,
        max_ahead_s: float = 120.0,
    ) -> None:
        if batch_rows < 1:
            raise ValueError(f"batch_rows must be at least 1, not {batch_rows}")
        self.recording = open_recording(path)
        self._batch_rows, self._keep_attributes = batch_rows, keep_attributes
        self._gate = EventTimeGate(max_ahead_s)
        self._stop = threading.Event()

    def partition_names(self) -> list[str]:
        """One name per signal that the folder holds."""
        return [f"{PREFIX}{signal}" for signal in self.recording.signals]

    def partitions_by_signal(self) -> dict[Signal, tuple[str, ...]]:
        """The partition name of each signal that the folder holds."""
        return {signal: (f"{PREFIX}{signal}",) for signal in self.recording.signals}

    def list_parts(self) -> list[str]:
        """As ``partition_names``."""
        return self.partition_names()

    def request_stop(self) -> None:
        """Let every partition end at its next turn, without END_OF_STREAM, so that a later start continues."""
        self._stop.set()

    def build_part(self, step_id: str, for_part: str, resume_state: RecordingCursor | None) -> _RecordingPartition:  # noqa: ARG002 - Bytewax's signature
        """Open one signal at its beginning or where it stopped."""
        signal = Signal(for_part.removeprefix(PREFIX))
        chunks: _Chunks
        if signal is Signal.CHANGES:
            chunks = _Changes(self.recording)
        else:
            keep = self._keep_attributes and signal is not Signal.METRICS
            chunks = _Telemetry(SignalReader(self.recording, signal, keep_attributes=keep))
        return _RecordingPartition(
            for_part,
            signal,
            chunks,
            resume_state or RecordingCursor(),
            batch_rows=self._batch_rows,
            gate=self._gate,
            stop=self._stop,
        )
