"""Results as JSON lines in a file: begun anew at a fresh start, continued exactly where it stopped on a resume."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.errors import ConnectorError
from signals.batch import DeadLetter, DeadLetters

#: A line: JSON text without a line break, or anything that orjson can write.
Line = Any


class _LinesPartition(StatefulSinkPartition[Line, int]):
    """One file; the resume state is its length, so that lines of an unfinished epoch are not written twice."""

    def __init__(self, path: Path, resume_at: int | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("wb" if resume_at is None or not path.exists() else "r+b")
        if resume_at:
            length = self._file.seek(0, 2)
            if length < resume_at:
                self._file.close()
                raise ConnectorError(
                    f"{path} holds {length} bytes, but the job stopped after {resume_at}: it was moved or changed; put "
                    f"it back, or start with a fresh recovery store"
                )
            self._file.truncate(resume_at)
            self._file.seek(resume_at)

    def write_batch(self, values: list[Line]) -> None:
        self._file.writelines(_line(value) for value in values)
        self._file.flush()

    def snapshot(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


class JsonLinesSink(FixedPartitionedSink[Line, int]):
    """Writes the values of ``(key, value)`` items as lines of one file, on one worker; keys are ignored.

    Values are JSON text (bytes or str without line breaks) or anything ``orjson`` can write.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def list_parts(self) -> list[str]:
        """The one file."""
        return [self._path.name]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _LinesPartition:  # noqa: ARG002 - Bytewax's signature
        """The file: empty at a fresh start, cut to what the last snapshot covers on a resume."""
        return _LinesPartition(self._path, resume_state)


class DeadLetterFileSink(FixedPartitionedSink[DeadLetters, int]):
    """Writes the dead letters of ``(key, DeadLetters)`` items as JSON lines, keys and values in base64."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def list_parts(self) -> list[str]:
        """The one file."""
        return [self._path.name]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _DeadLetterPartition:  # noqa: ARG002 - Bytewax's signature
        """The file: empty at a fresh start, cut to what the last snapshot covers on a resume."""
        return _DeadLetterPartition(_LinesPartition(self._path, resume_state))


class _DeadLetterPartition(StatefulSinkPartition[DeadLetters, int]):
    def __init__(self, lines: _LinesPartition) -> None:
        self._lines = lines

    def write_batch(self, values: list[DeadLetters]) -> None:
        self._lines.write_batch([_described(letter) for item in values for letter in item.letters])

    def snapshot(self) -> int:
        return self._lines.snapshot()

    def close(self) -> None:
        self._lines.close()


def _described(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "key": None if letter.key is None else base64.b64encode(letter.key).decode(),
        "value": base64.b64encode(letter.value).decode(),
    }


def _line(value: Line) -> bytes:
    text = value.encode() if isinstance(value, str) else value
    text = text if isinstance(text, bytes) else orjson.dumps(text)
    if b"\n" in text:
        raise ConnectorError("a line of JSON must not contain a line break; write it without indentation")
    return text + b"\n"
