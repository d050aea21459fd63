"""Windows that a person asks about: judged against what was learnt before they began."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from detectors.span_behaviour import EVIDENCE, SpanBehaviour
from topology.ranking import Deviation


@dataclass(frozen=True, slots=True)
class Symptom:
    """The alert that was raised: which metric of which service."""

    service: str
    metric: str


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of event time, and what was noticed in it, if anything."""

    id: str
    start_ns: int
    end_ns: int
    symptom: Symptom | None = None


@dataclass(frozen=True, slots=True)
class WindowFindings:
    """One shard's deviations over one window in one environment."""

    window: str
    environment: str
    deviations: tuple[Deviation, ...]


@dataclass(slots=True)
class _Open:
    window: Window
    learnt: SpanBehaviour
    cells: list[pl.DataFrame] = field(default_factory=list)
    series: list[pl.DataFrame] = field(default_factory=list)


@dataclass(slots=True)
class WindowJudge:
    """Holds the state of before each open window, and what has come since."""

    windows: tuple[Window, ...]
    next: int = 0  # windows opened so far, in the order of their start
    open_windows: list[_Open] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.windows = tuple(sorted(self.windows, key=lambda one: (one.start_ns, one.id)))

    def open(self, bucket_end_ns: int, behaviour: SpanBehaviour) -> None:
        """Before a bucket is learnt: remember the state for every window that begins in it."""
        while self.next < len(self.windows) and self.windows[self.next].start_ns < bucket_end_ns:
            self.open_windows.append(_Open(self.windows[self.next], behaviour.twin()))
            self.next += 1

    def take_cells(self, cells: pl.DataFrame) -> None:
        """A bucket's cells belong to every open window."""
        for one in self.open_windows:
            one.cells.append(cells)

    def take_series(self, screened: pl.DataFrame) -> None:
        """Screened points of a bucket."""
        for one in self.open_windows:
            inside = screened.filter(pl.col("time_ns").is_between(one.window.start_ns, one.window.end_ns))
            if inside.height:
                one.series.append(inside)

    def close(self, at_ns: int) -> list[tuple[Window, pl.DataFrame, pl.DataFrame]]:
        """Windows that have ended: (window, EVIDENCE, screened points)."""
        done = [one for one in self.open_windows if one.window.end_ns <= at_ns]
        self.open_windows = [one for one in self.open_windows if one.window.end_ns > at_ns]
        return [
            (
                one.window,
                one.learnt.judge_cells(pl.concat(one.cells)) if one.cells else pl.DataFrame(schema=EVIDENCE),
                pl.concat(one.series) if one.series else _NO_POINTS,
            )
            for one in done
        ]


_NO_POINTS = pl.DataFrame(
    schema={
        **dict.fromkeys(("environment", "namespace", "service", "instance"), pl.String),
        "time_ns": pl.Int64,
        "metric": pl.String,
        "attributes": pl.String,
        "value": pl.Float64,
        "raw": pl.Float64,
        "score": pl.Float64,
        "lo": pl.Float64,
        "hi": pl.Float64,
        "direction": pl.Int8,
    }
)
