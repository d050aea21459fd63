"""Files of OTLP messages, as the Collector's file exporter writes them, as a source with Kafka's contract.

Either JSON, one message a line, or messages each behind their length (u32, big-endian), in protobuf or JSON.
Compression with zstd is seen by its magic number, of the whole file or of each message. Framing and encoding are told
from the first bytes; the signal from the first JSON key, or for protobuf, whose bytes do not say, from the file's name.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Final, NamedTuple

import zstandard
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.decoding import Format, Message, decode_messages
from connectors.errors import OtlpFileError
from connectors.gate import EventTimeGate
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetter, DeadLetters, SourceItem
from signals.otlp import Encoding
from signals.schema import EVENT_TIME, Signal, empty

PREFIX: Final = "otlp:"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_NS: Final = 1_000_000_000
_PIECE_BYTES: Final = 16_384  # of compressed bytes at once
_PAUSE_S: Final = 0.005
_JSON_KEYS: Final = {
    b"resourceSpans": Signal.SPANS,
    b"resource_spans": Signal.SPANS,
    b"resourceLogs": Signal.LOGS,
    b"resource_logs": Signal.LOGS,
    b"resourceMetrics": Signal.METRICS,
    b"resource_metrics": Signal.METRICS,
}
_FIRST_KEY: Final = re.compile(rb'^\s*\{\s*"(\w+)"')
_NAME_WORDS: Final = {"span": Signal.SPANS, "trace": Signal.SPANS, "log": Signal.LOGS, "metric": Signal.METRICS}


@dataclass(frozen=True, slots=True)
class FilePosition:
    """Resume state of one file."""

    messages: int = 0  # read so far
    watermark_ns: int = NO_WATERMARK
    ended: bool = False


class _ZstdStream(RawIOBase):
    """Decompressed bytes of zstd frames; unlike the library's reader it does not take a cut-off file for whole."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None  # None between frames
        self._ready = memoryview(b"")
        self._unread = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]  # typeshed's buffer type has no name here
        while not self._ready and self._more():
            pass
        size = min(len(target), len(self._ready))
        target[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _more(self) -> bool:
        """Decompress a piece; whether there was one."""
        piece = self._unread or self._raw.read(_PIECE_BYTES)
        if not piece:
            if self._frame is not None:
                raise zstandard.ZstdError("the file ends inside a frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(self._frame.decompress(piece))
        self._unread = b""
        if self._frame.eof:
            self._unread, self._frame = self._frame.unused_data, None
        return True


class Framed(NamedTuple):
    """One message of a file."""

    value: bytes  # decompressed
    fault: str | None = None  # why it cannot be whole: a file that was cut off may still decode in part


def read_messages(path: Path) -> Iterator[Framed]:
    """A file's messages, one at a time.

    Raises:
        OtlpFileError: The file is missing, broken inside its compression, or framed in a way that makes no sense.
    """
    try:
        with path.open("rb") as raw:
            whole = raw.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
            raw.seek(0)
            stream = BufferedReader(_ZstdStream(raw), 1 << 20) if whole else raw
            first = stream.peek(1)[:1]
            yield from _lines(path, stream) if first in {b"{", b" ", b"\t", b"\r", b"\n"} else _framed(path, stream)
    except OSError as error:
        raise OtlpFileError(f"{path} cannot be read: {error}") from error
    except zstandard.ZstdError as error:
        raise OtlpFileError(f"{path}: its zstd compression is broken: {error}") from error


def _lines(path: Path, stream: IO[bytes]) -> Iterator[Framed]:
    while line := stream.readline(_MAX_MESSAGE_BYTES + 1):
        if len(line) > _MAX_MESSAGE_BYTES:
            raise OtlpFileError(f"{path}: a line is longer than {_MAX_MESSAGE_BYTES} bytes; is it OTLP as JSON lines?")
        if line.strip():
            yield Framed(line)


def _framed(path: Path, stream: IO[bytes]) -> Iterator[Framed]:
    decompressor = zstandard.ZstdDecompressor()
    number = 0
    while prefix := stream.read(4):
        length = struct.unpack(">I", prefix)[0] if len(prefix) == 4 else 0
        if length > _MAX_MESSAGE_BYTES:
            raise OtlpFileError(
                f"{path}: message {number} claims {length} bytes; either the file is no series of length-prefixed "
                f"messages, or it is damaged there"
            )
        message = stream.read(length) if len(prefix) == 4 else prefix
        if len(prefix) < 4 or len(message) < length:
            yield Framed(message, f"the file ends inside this message, after {len(message)} of {length} bytes")
            return
        if message.startswith(_ZSTD_MAGIC):
            message = decompressor.decompress(message, max_output_size=_MAX_MESSAGE_BYTES)
        yield Framed(message)
        number += 1


def detect(path: Path) -> tuple[Signal | None, Encoding]:
    """Signal and encoding of a file from its first message, the signal of protobuf from the file's name."""
    message = next(read_messages(path), Framed(b"")).value
    if message.lstrip()[:1] == b"{":
        key = _FIRST_KEY.match(message)
        return _JSON_KEYS.get(key.group(1)) if key else None, Encoding.OTLP_JSON
    name = path.name.lower()
    return next((signal for word, signal in _NAME_WORDS.items() if word in name), None), Encoding.OTLP_PROTO


class _FilePartition(StatefulSourcePartition[SourceItem, FilePosition]):
    def __init__(
        self,
        name: str,
        path: Path,
        what: Format,
        position: FilePosition,
        *,
        batch_bytes: int,
        allowed_lateness_s: float,
        gate: EventTimeGate,
        stop: threading.Event,
    ) -> None:
        self._name, self._what, self._at = name, what, position
        self._batch_bytes, self._lateness_ns = batch_bytes, int(allowed_lateness_s * _NS)
        self._gate, self._stop, self._waiting = gate, stop, False
        self._messages = read_messages(path)
        for _ in range(position.messages):
            next(self._messages, None)
        gate.join(name, position.watermark_ns)

    def next_batch(self) -> list[SourceItem]:
        if self._at.ended or self._stop.is_set():
            self._gate.leave(self._name)
            raise StopIteration
        self._waiting = not self._gate.may_poll(self._name)
        if self._waiting:
            return []
        first = self._at.messages
        messages = self._read()
        if not messages:
            self._at = replace(self._at, ended=True)
            self._gate.leave(self._name)
            return [Batch(self._what.signal, self._name, empty(self._what.signal), END_OF_STREAM)]
        whole = [(number, value) for number, (value, fault) in enumerate(messages, first) if fault is None]
        decoded = decode_messages(self._what, [Message(value) for _, value in whole], max_future_ns=0)
        newest = decoded.frame[EVENT_TIME[self._what.signal]].max() if decoded.frame.height else None
        watermark = self._at.watermark_ns
        if isinstance(newest, int):
            watermark = max(watermark, newest - self._lateness_ns)
        self._at = FilePosition(first + len(messages), watermark)
        self._gate.advance(self._name, watermark)
        items: list[SourceItem] = [
            Batch(self._what.signal, self._name, decoded.frame, watermark, skipped=decoded.skipped)
        ]
        letters = [DeadLetter(self._name, 0, whole[place][0], reason, whole[place][1]) for place, reason in decoded.bad]
        letters += [
            DeadLetter(self._name, 0, number, fault, value)
            for number, (value, fault) in enumerate(messages, first)
            if fault is not None
        ]
        if letters:
            items.append(DeadLetters(self._name, tuple(letters)))
        return items

    def _read(self) -> list[Framed]:
        messages: list[Framed] = []
        size = 0
        while size < self._batch_bytes and (message := next(self._messages, None)) is not None:
            messages.append(message)
            size += len(message.value)
        return messages

    def next_awake(self) -> dt.datetime | None:
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_PAUSE_S) if self._waiting else None

    def snapshot(self) -> FilePosition:
        return self._at

    def close(self) -> None:
        self._gate.leave(self._name)


class OtlpFileSource(FixedPartitionedSource[SourceItem, FilePosition]):
    """Files of OTLP messages as a Bytewax source of one partition per file, named ``otlp:FILENAME``.

    Args:
        paths: The files; their names must differ.
        environment: Environment of telemetry that names none.
        signals: Signal of files whose name and content do not tell it.
        batch_bytes: Decompressed bytes of messages in one batch, about.
        allowed_lateness_s: Disorder allowed within a file, seconds.
        keep_attributes: Whether spans and logs carry the extra column ``signals.schema.ATTRIBUTES``.
        max_ahead_s: Event time one file may run ahead of the slowest, seconds.

    Raises:
        OtlpFileError: A file cannot be read, or nothing tells which signal it holds.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        environment: str,
        signals: Mapping[Path, Signal] | None = None,
        batch_bytes: int = 4_194_304,
        allowed_lateness_s: float = 10.0,
        keep_attributes: bool = False,
        max_ahead_s: float = 120.0,
    ) -> None:
        self._files: dict[str, tuple[Path, Format]] = {}
        for path in map(Path, paths):
            found, encoding = detect(path)
            signal = (signals or {}).get(path, found)
            if signal is None:
                raise OtlpFileError(
                    f"{path}: neither its first message nor its name says whether it holds spans, logs or metrics; put "
                    f"'traces', 'logs' or 'metrics' into the name, or say which signal it is"
                )
            name = PREFIX + path.name
            if name in self._files:
                raise OtlpFileError(f"two files are named {path.name}; rename one")
            keep = keep_attributes and signal is not Signal.METRICS
            self._files[name] = (path, Format(signal, encoding, environment, keep))
        self._batch_bytes, self._allowed_lateness_s = batch_bytes, allowed_lateness_s
        self._gate = EventTimeGate(max_ahead_s)
        self._stop = threading.Event()

    def partition_names(self) -> list[str]:
        """One name per file, sorted."""
        return sorted(self._files)

    def partitions_by_signal(self) -> dict[Signal, tuple[str, ...]]:
        """The partition names of each signal that the files hold."""
        by_signal: dict[Signal, list[str]] = {}
        for name in self.partition_names():
            by_signal.setdefault(self._files[name][1].signal, []).append(name)
        return {signal: tuple(names) for signal, names in by_signal.items()}

    def list_parts(self) -> list[str]:
        """As ``partition_names``."""
        return self.partition_names()

    def request_stop(self) -> None:
        """Let every partition end at its next turn, without END_OF_STREAM, so that a later start continues."""
        self._stop.set()

    def build_part(self, step_id: str, for_part: str, resume_state: FilePosition | None) -> _FilePartition:  # noqa: ARG002 - Bytewax's signature
        """Open one file at its beginning or where it stopped."""
        path, what = self._files[for_part]
        return _FilePartition(
            for_part,
            path,
            what,
            resume_state or FilePosition(),
            batch_bytes=self._batch_bytes,
            allowed_lateness_s=self._allowed_lateness_s,
            gate=self._gate,
            stop=self._stop,
        )
