"""Made-up cells: what trace assembly would have counted in one bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from detectors.span_behaviour import SpanBehaviour
from signals.cells import CELLS, Cell
from tests.support.traces import SECOND, START, bin_of

BUCKET = 10 * SECOND
MS = 1_000_000

Row = tuple[Any, ...]


def operation(
    service: str,
    n: int,
    *,
    name: str = "op",
    caller: str = "",
    instance: str = "",
    environment: str = "test",
    shown: Mapping[tuple[Cell, str], int] | None = None,
    times: Mapping[tuple[Cell, int], int] | None = None,
) -> list[Row]:
    """Cells of ``n`` spans: ``shown`` counts (kind, what), ``times`` counts (kind, duration in milliseconds)."""
    entity = (environment, "", service, instance)
    rows: list[Row] = [(*entity, name, caller, int(Cell.SPANS), "", 0, n)] if n else []
    for (kind, what), k in (shown or {}).items():
        if k:
            rows.append((*entity, name, caller, int(kind), what, 0, k))
    for (kind, lasts_ms), k in (times or {}).items():
        if k:
            named = "" if kind is Cell.GAP else name
            rows.append((*entity, named, caller, int(kind), "", bin_of(lasts_ms * MS), k))
    return rows


def cell_frame(*parts: Iterable[Row]) -> pl.DataFrame:
    """Rows as a frame of the schema CELLS."""
    return pl.DataFrame([row for part in parts for row in part], schema=CELLS, orient="row")


def feed(behaviour: SpanBehaviour, number: int, *parts: Iterable[Row]) -> pl.DataFrame:
    """Bucket ``number`` after START; returns the evidence."""
    return behaviour.process(START + number * BUCKET, BUCKET, cell_frame(*parts))


def teach(behaviour: SpanBehaviour, *parts: Iterable[Row], buckets: int = 40, first: int = 0) -> int:
    """The same cells again and again; returns the number of the next bucket."""
    rows = [row for part in parts for row in part]
    for number in range(first, first + buckets):
        feed(behaviour, number, rows)
    return first + buckets
