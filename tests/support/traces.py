"""Made-up spans, and an independent, slow computation of their cells: span by span, intervals as sets of moments."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from signals.cells import CELLS, KEYS, Cell
from signals.schema import SPANS, SpanKind, SpanStatus
from topology.assembly import SPAN_LOGS

START = 1_700_000_000_000_000_000  # event time of everything made up here, UTC epoch nanoseconds; on a bucket's edge
SECOND = 1_000_000_000
US = 1_000

#: What the histograms are told by, and what they are cut at.
_LAST_BIN = 127


def span(service: str, name: str = "op", *, start: int = 0, end: int = 1_000, **fields: Any) -> dict[str, Any]:
    """A span of the schema SPANS; ``start`` and ``end`` in nanoseconds after START."""
    row = {
        "environment": "test",
        "namespace": "",
        "service": service,
        "instance": "",
        "version": "",
        "name": name,
        "kind": int(SpanKind.SERVER),
        "status": int(SpanStatus.UNSET),
        "start_ns": START + start,
        "end_ns": START + end,
        "trace_hi": 0,
        "trace_lo": 1,
        "span_id": 1,
        "parent_id": 0,
        "peer": "",
    }
    return row | fields


def span_frame(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a frame of the schema SPANS."""
    return pl.DataFrame(list(rows), schema=SPANS, orient="row")


def log_frame(rows: Iterable[tuple[int, int, int, str]] = ()) -> pl.DataFrame:
    """(nanoseconds after START, trace, span, template) as a frame of the schema SPAN_LOGS."""
    shifted = [(START + at, trace, span_id, template) for at, trace, span_id, template in rows]
    return pl.DataFrame(shifted, schema=SPAN_LOGS, orient="row")


def counted(cells: pl.DataFrame | Sequence[pl.DataFrame]) -> Counter[tuple[Any, ...]]:
    """Cells as counts by their keys, whatever their order and however they were split."""
    frame = cells if isinstance(cells, pl.DataFrame) else pl.concat([pl.DataFrame(schema=CELLS), *cells])
    found: Counter[tuple[Any, ...]] = Counter()
    for *key, n in frame.select(*KEYS, "n").iter_rows():
        found[tuple(key)] += n
    return found


def of_kind(cells: pl.DataFrame, kind: Cell, **where: str) -> pl.DataFrame:
    """Cells of one kind, with the given keys."""
    return cells.filter(pl.col("kind") == int(kind), *(pl.col(name) == value for name, value in where.items()))


def bin_of(nanoseconds: int) -> int:
    """Histogram bin of a duration: four an octave, from one microsecond."""
    octaves = math.log2(max(1.0, nanoseconds / US))
    return min(_LAST_BIN, math.floor(4 * octaves + 1e-9))


def exclusive_units(span_: Mapping[str, Any], children: Sequence[Mapping[str, Any]], unit: int) -> int:
    """Units of time in which the span ran and none of its children did: counted moment by moment."""
    moments = set(range(span_["start_ns"] // unit, span_["end_ns"] // unit))
    for child in children:
        moments -= set(range(child["start_ns"] // unit, child["end_ns"] // unit))
    return len(moments)


def reference_cells(
    rows: Sequence[Mapping[str, Any]], logs: Iterable[tuple[int, int, int, str]] = (), *, unit: int = US
) -> Counter[tuple[Any, ...]]:
    """The cells of complete traces, span by span; times are whole multiples of ``unit`` nanoseconds."""
    by_id = {(row["trace_lo"], row["span_id"]): row for row in rows}
    children = defaultdict(list)
    for row in rows:
        if row["parent_id"]:
            children[row["trace_lo"], row["parent_id"]].append(row)
    written = defaultdict(set)
    for _, trace, span_id, template in logs:
        written[trace, span_id].add(template)
    found: Counter[tuple[Any, ...]] = Counter()
    for key, row in by_id.items():
        parent = by_id.get((row["trace_lo"], row["parent_id"]))
        for kind, what, bin_ in _says(row, parent, children[key], written[key], unit):
            operation = "" if kind is Cell.GAP else row["name"]
            caller = parent["service"] if parent else ""
            entity = (row["environment"], row["namespace"], row["service"], row["instance"])
            found[*entity, operation, caller, int(kind), what, bin_] += 1
    return found


def _says(
    row: Mapping[str, Any],
    parent: Mapping[str, Any] | None,
    children: Sequence[Mapping[str, Any]],
    templates: Iterable[str],
    unit: int,
) -> Iterable[tuple[Cell, str, int]]:
    """What one span counts towards: (kind, what, bin)."""
    duration = row["end_ns"] - row["start_ns"]
    failed = row["status"] == SpanStatus.ERROR
    yield Cell.SPANS, "", 0
    yield Cell.DURATION, "", bin_of(duration)
    if failed:
        yield Cell.ERRORS, "", 0
        if all(child["status"] != SpanStatus.ERROR for child in children):
            yield Cell.ORIGIN, "", 0
    if all(child["service"] == row["service"] for child in children):
        yield Cell.EXCLUSIVE, "", bin_of(exclusive_units(row, children, unit) * unit)
    for what in {f"{child['service']}|{child['name']}" for child in children}:
        yield Cell.CHILD, what, 0
    for template in templates:
        yield Cell.LOG, template, 0
    if row["kind"] in (SpanKind.CLIENT, SpanKind.PRODUCER):
        yield Cell.CLIENT, "", 0
        if row["peer"]:
            yield Cell.PEER, row["peer"], 0
    if parent is not None and parent["service"] != row["service"] and row["kind"] != SpanKind.CONSUMER:
        gap = (parent["end_ns"] - parent["start_ns"]) - duration
        if gap >= 0:
            yield Cell.GAP, "", bin_of(gap)
