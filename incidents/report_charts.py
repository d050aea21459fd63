"""Geometry of the report's charts: one small chart per signal that spoke, and the strip of incidents over a run.

Only numbers and texts come from here; the templates draw them. Lines are in a box of 1000 by 100 that the page may
stretch, positions on the time axis are percents, and words never are inside a scaled drawing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from incidents.model import Evidence, Timeline, epoch_ns
from incidents.report_view import IncidentView, RunSummary, service_name
from incidents.wording import SECOND_NS, clock, interval, moment, number, plain, quantity

WIDTH: Final = 1000.0
HEIGHT: Final = 100.0
MAX_POINTS: Final = 400
_MIN_HISTORY: Final = 10
_TICKS: Final = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)  # seconds


class Geometry(str):
    """Text made here of numbers and already harmless labels: as long as it must be, and never cut for reading."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """One signal over time. ``x`` values are percents of the width, ``y`` values of ``HEIGHT`` from the top."""

    name: str
    service: str
    line: Geometry  # SVG path data; gaps where points are missing
    top: str  # what the upper and lower edge stand for
    bottom: str
    start: str
    end: str
    peak: str  # the value farthest from what was expected
    band: tuple[float, float] | None  # y and height of the expected interval
    expected: str
    window: tuple[float, float]  # x and width of the incident
    onset: float | None
    detected: float | None
    is_cause: bool
    data: Geometry  # JSON for the page's script: [[x, y, time, value], …]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the time axis."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An incident on the strip."""

    x: float  # percent
    width: float  # percent
    lane: int
    number: int  # of its card, from 1
    view: IncidentView


@dataclass(frozen=True, slots=True)
class Strip:
    """All incidents over the run."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    lanes: int


def charts(view: IncidentView, limit: int) -> tuple[Chart, ...]:
    """At most ``limit`` charts of an incident's signals: the cause's first, then in the event's order."""
    blamed = service_name(view.cause.entity) if view.cause else ""
    ordered = sorted(view.data.timelines, key=lambda one: service_name(one.entity) != blamed)
    drawn = (_chart(one, view, is_cause=service_name(one.entity) == blamed) for one in ordered)
    return tuple(one for one in drawn if one)[:limit]


def _chart(timeline: Timeline, view: IncidentView, *, is_cause: bool) -> Chart | None:
    points = sorted((epoch_ns(one.at), one.value) for one in timeline.points if math.isfinite(one.value))
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return None
    expected = _expected(timeline, view.data.evidence) or _usual([value for at, value in points if at < view.onset_ns])
    low, high = _range([value for _, value in points], expected)
    start, end = points[0][0], points[-1][0]
    points = _thin(points, expected)
    places = [(_share(at, start, end), _height(value, low, high)) for at, value in points]
    onset, finish = (_share(at, start, end) for at in (view.onset_ns, view.end_ns))
    left, right = min(max(onset, 0.0), 100.0), min(max(finish, 0.0), 100.0)
    band = None
    if expected:
        upper, lower = (_height(min(max(value, low), high), low, high) for value in reversed(expected))
        band = (upper, max(1.0, lower - upper))
    detected = _share(view.detected_ns, start, end)
    labels = [
        [round(x, 2), round(y, 1), clock(at), plain(quantity(value, timeline.unit))]
        for (x, y), (at, value) in zip(places, points, strict=True)
    ]
    return Chart(
        name=timeline.name,
        service=service_name(timeline.entity),
        line=Geometry(_line(places, [at for at, _ in points])),
        top=quantity(high, timeline.unit),
        bottom=quantity(low, timeline.unit),
        start=clock(start),
        end=clock(end),
        peak=quantity(_farthest([value for _, value in points], expected), timeline.unit),
        band=band,
        expected=interval(*expected, timeline.unit) if expected else "",
        window=(left, right - left),
        onset=onset if 0 <= onset <= 100 else None,
        detected=detected if 0 <= detected <= 100 else None,
        is_cause=is_cause,
        data=Geometry(json.dumps(labels)),
    )


def _expected(timeline: Timeline, evidence: Iterable[Evidence]) -> tuple[float, float] | None:
    """The interval that the evidence about this very signal expected."""
    for one in evidence:
        same = all(one.attributes.get(key, value) == value for key, value in timeline.entity.items())
        if one.name == timeline.name and same and all(math.isfinite(bound) for bound in one.expected):
            return min(one.expected), max(one.expected)
    return None


def _usual(before: Sequence[float]) -> tuple[float, float] | None:
    """Where nine in ten values before onset lie; None where there are too few to say."""
    if len(before) < _MIN_HISTORY:
        return None
    ranked = sorted(before)
    return ranked[len(ranked) // 20], ranked[-1 - len(ranked) // 20]


def _range(values: Sequence[float], expected: tuple[float, float] | None) -> tuple[float, float]:
    """The axis: all values, zero where it is near, and what was expected unless that would flatten the line."""
    low, high = min(values), max(values)
    if expected:
        reach = (high - low) or abs(high) or 1.0
        low = min(low, max(expected[0], low - reach))
        high = max(high, min(expected[1], high + reach))
    if low > 0 and low < 0.6 * high:
        low = 0.0
    if low == high:
        low, high = (low - 1.0, high + 1.0) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    return low, high


def _thin(points: Sequence[tuple[int, float]], expected: tuple[float, float] | None) -> list[tuple[int, float]]:
    """At most ``MAX_POINTS``: of each group of neighbours the one farthest from what was expected, so peaks stay."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size == 1:
        return list(points)
    groups = (points[index : index + size] for index in range(0, len(points), size))
    return [group[_farthest_index([value for _, value in group], expected)] for group in groups]


def _farthest_index(values: Sequence[float], expected: tuple[float, float] | None) -> int:
    middle = sum(expected) / 2 if expected else sorted(values)[len(values) // 2]
    return max(range(len(values)), key=lambda index: abs(values[index] - middle))


def _farthest(values: Sequence[float], expected: tuple[float, float] | None) -> float:
    return values[_farthest_index(values, expected)]


def _share(at: int, start: int, end: int) -> float:
    return 100.0 * (at - start) / (end - start)


def _height(value: float, low: float, high: float) -> float:
    return 4.0 + (HEIGHT - 8.0) * (1.0 - (value - low) / (high - low))


def _line(places: Sequence[tuple[float, float]], times: Sequence[int]) -> str:
    """Path data, broken where more than three usual steps are missing."""
    steps = sorted(after - before for before, after in pairwise(times))
    longest = 3 * steps[len(steps) // 2]
    text = ""
    for index, (x, y) in enumerate(places):
        joined = index > 0 and times[index] - times[index - 1] <= longest
        text += f"{'L' if joined else 'M'}{x * WIDTH / 100:.1f},{y:.1f}"
    return text


def strip(views: Sequence[IncidentView], summary: RunSummary) -> Strip:
    """Incidents as bars over the run's time; bars that overlap go to lanes of their own."""
    start = min([summary.start_ns, *(view.onset_ns for view in views)])
    end = max([summary.end_ns, *(view.end_ns for view in views), start + SECOND_NS])
    free: list[float] = []  # where each lane is free again
    bars = []
    for at, view in sorted(enumerate(views, 1), key=lambda one: (one[1].onset_ns, one[0])):
        x = _share(view.onset_ns, start, end)
        until = 100.0 if view.is_open and view.end_ns >= end else _share(view.end_ns, start, end)
        width = min(max(until - x, 1.2), 100.0 - min(x, 98.8))
        x = min(x, 98.8)
        lane = next((index for index, busy in enumerate(free) if busy <= x), len(free))
        free[lane : lane + 1] = [x + max(width, 4.0)]
        bars.append(Bar(x, width, lane, at, view))
    return Strip(tuple(bars), _ticks(start, end), max(1, len(free)))


def _ticks(start: int, end: int) -> tuple[Tick, ...]:
    seconds = (end - start) / SECOND_NS
    step = (
        next((one for one in _TICKS if seconds / one <= 6), _TICKS[-1] * math.ceil(seconds / 6 / _TICKS[-1]))
        * SECOND_NS
    )
    first = -(-start // step) * step
    ticks = []
    for at in range(first, end + 1, step):
        when = moment(at)
        label = f"{when:%H:%M:%S}" if step < 60 * SECOND_NS else f"{when:%H:%M}"
        if step >= 86_400 * SECOND_NS or (when.hour == when.minute == when.second == 0):
            label = f"{when.day} {when:%b}"
        ticks.append(Tick(_share(at, start, end), label))
    return tuple(ticks)


def meter(share: float) -> str:
    """A share as a percent with one decimal, for an SVG width.

    >>> meter(0.824)
    '82.4%'
    """
    return f"{number(min(max(share, 0.0), 1.0) * 100)}%"
