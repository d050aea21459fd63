"""Where a simulation's telemetry goes: one small contract, and the sink that keeps all of it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from signals.schema import Signal
from simulator.config import SimulationConfig
from simulator.faults import Label
from simulator.model import Topology
from simulator.recorder import Frames


@dataclass(frozen=True, slots=True)
class Slice:
    """What happened in one stretch of simulated time."""

    frames: Frames
    changes: tuple[dict[str, Any], ...]  # CloudEvents
    end_ns: int  # everything that happened before this moment has now been given
    settled_ns: int  # no span given later starts before this moment, no log line or point is earlier


@dataclass(frozen=True, slots=True)
class Summary:
    """What a simulation was."""

    requests: int
    cancelled: int
    spans: int
    logs: int
    metrics: int
    changes: int
    events: int  # of the event loop
    oom_kills: int
    labels: tuple[Label, ...]
    start_ns: int
    end_ns: int


class Sink(Protocol):
    """Takes slices in order of time, then the end."""

    def write(self, part: Slice) -> None:
        """One slice."""

    def close(self, config: SimulationConfig, topology: Topology, summary: Summary, /) -> None:
        """All has been given; labels are in the summary."""


@dataclass(slots=True)
class MemorySink:
    """Keeps everything: for tests and notebooks."""

    parts: list[Slice] = field(default_factory=list)

    def write(self, part: Slice) -> None:
        """Keep it."""
        self.parts.append(part)

    def close(self, config: SimulationConfig, topology: Topology, summary: Summary, /) -> None:
        """Nothing is left to do."""

    def frame(self, signal: Signal) -> pl.DataFrame:
        """All rows of a signal in the internal schema, spans with raw names and attributes."""
        return pl.concat([part.frames.by_signal()[signal] for part in self.parts])

    @property
    def changes(self) -> list[dict[str, Any]]:
        """All change events."""
        return [event for part in self.parts for event in part.changes]
