"""Filling a memory from the results of a replay."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from incidents.memory import Memory
from incidents.model import RootCauseEvent


class LoadError(ValueError):
    """The results cannot be read; the message says what to do."""


def load_results(folder: Path, memory: Memory) -> int:
    """Record every revision of ``incidents.jsonl`` in a folder that a replay wrote. How many were new.

    Raises:
        LoadError: there is no such file, or a line of it is no root-cause event; lines before it stay recorded.
    """
    path = folder / "incidents.jsonl"
    new = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    new += _record(line, memory, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(
            f"{path} cannot be read ({error}); write it with: mendstream replay RECORDING --out FOLDER"
        ) from error
    return new


def _record(line: str, memory: Memory, place: str) -> bool:
    try:
        event = RootCauseEvent.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "the line"
        raise LoadError(f"{place} is no root-cause event: {key}: {first['msg']}") from error
    return memory.record(event)
