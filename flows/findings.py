"""What a detect shard tells the correlator of one bucket, and how its frames become the correlator's terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import polars as pl

from detectors.series import DETECTOR_NAME as SERIES_DETECTOR
from detectors.series import DETECTOR_VERSION as SERIES_VERSION
from incidents.report import Entry, Example, Golden
from signals.cells import Cell
from signals.ids import format_trace_id
from topology.ranking import GOLDEN, METRIC, Deviation

#: Metric surprise (decades of tail probability) below which a point says nothing, and above which it says no more.
SURPRISE_FLOOR: Final = 3.0
SURPRISE_CAP: Final = 9.0
#: The same floor where a person asks about a window: something is wrong, so weaker signs are heard.
ASKED_FLOOR: Final = 1.0
_WEAK: Final = 0.1
#: Share of the window's change that its newest bucket must still show for the change to count as going on.
ALIVE_SHARE: Final = 0.4


@dataclass(frozen=True, slots=True)
class Findings:
    """One shard's part of one bucket of one environment, in a fixed order."""

    environment: str
    deviations: tuple[Deviation, ...] = ()
    edges: tuple[tuple[str, str, int, int, bool], ...] = ()
    golden: tuple[Golden, ...] = ()
    entries: tuple[Entry, ...] = ()
    examples: tuple[Example, ...] = ()


def span_deviations(evidence: pl.DataFrame) -> dict[str, list[Deviation]]:
    """EVIDENCE rows (with ``instance`` and ``score``) as deviations, per environment."""
    found: dict[str, list[Deviation]] = {}
    ordered = evidence.sort("environment", "service", "operation", "caller", "kind", "what", "namespace")
    for row in ordered.iter_rows(named=True):
        timed = row["expected_s"] is not None
        found.setdefault(row["environment"], []).append(
            Deviation(
                service=row["service"],
                namespace=row["namespace"],
                instance=row["instance"],
                operation=row["operation"],
                caller=row["caller"],
                kind=row["kind"],
                what=row["what"],
                raw=row["raw"],
                before=row["before"],
                after=row["after"],
                alive=row["latest"] is None
                or abs(row["latest"] - row["before"]) >= ALIVE_SHARE * abs(row["after"] - row["before"]),
                n=row["n_after"],
                observed=row["observed_s"] if timed else row["after"],
                low=0.0 if timed else row["before"],
                high=row["expected_s"] if timed else row["before"],
                unit="s" if timed else "1",
                outgoing=row["outgoing"],
                target=row["target"],
                remote=row["remote"],
                score=row["score"],
            )
        )
    return found


def series_deviations(points: pl.DataFrame, floor: float = SURPRISE_FLOOR) -> dict[str, list[Deviation]]:
    """Screened series points that deviate (columns of ``SeriesScreen.process``), strongest point per series.

    ``floor`` is the surprise from which a point speaks, in decades of tail probability.
    """
    found: dict[str, list[Deviation]] = {}
    keys = ["environment", "service", "instance", "metric", "attributes"]
    strong = _surprising(points, floor).sort([*keys, "surprise", "time_ns"], descending=[False] * 5 + [True, False])
    for row in strong.unique(keys, keep="first", maintain_order=True).iter_rows(named=True):
        name = row["metric"] + (f" {row['attributes']}" if row["attributes"] else "")
        found.setdefault(row["environment"], []).append(
            Deviation(
                service=row["service"],
                namespace=row["namespace"],
                instance=row["instance"],
                operation="",
                caller="",
                kind=METRIC,
                what=name,
                raw=_strength(row["surprise"], floor),
                n=1,
                observed=row["value"],
                low=row["lo"],
                high=row["hi"],
                unit="",
                score=row["score"],
                detector=SERIES_DETECTOR,
                version=SERIES_VERSION,
            )
        )
    return found


def _surprising(scored: pl.DataFrame, floor: float) -> pl.DataFrame:
    """Rows whose tail probability lies more than ``floor`` decades down, with the column ``surprise``."""
    surprise = (-(1.0 - pl.col("score")).clip(1e-15, 1.0).log10()).alias("surprise")
    return scored.with_columns(surprise).filter(pl.col("surprise") > floor)


def _strength(surprise: float, floor: float) -> float:
    """Decades beyond the usual floor; what lies between a lower floor and it only breaks ties."""
    weak = _WEAK * (min(surprise, SURPRISE_FLOOR) - floor)
    return weak + max(0.0, min(surprise, SURPRISE_CAP) - SURPRISE_FLOOR)


def golden_deviations(panel: pl.DataFrame) -> dict[str, list[Deviation]]:
    """What the River models find in golden signals (columns of ``RiverPanel.process``)."""
    found: dict[str, list[Deviation]] = {}
    for row in _surprising(panel, SURPRISE_FLOOR).sort("environment", "service", "detector").iter_rows(named=True):
        single = bool(row["feature"])
        found.setdefault(row["environment"], []).append(
            Deviation(
                service=row["service"],
                namespace=row["namespace"],
                instance="",
                operation="",
                caller="",
                kind=GOLDEN,
                what=row["feature"] or "golden signals",
                raw=min(row["surprise"], SURPRISE_CAP) - SURPRISE_FLOOR,
                n=1,
                observed=row["value"] if single else row["score"],
                low=0.0,
                high=0.0,
                unit="s" if row["feature"].startswith("latency") else "1",
                score=row["score"],
                detector=row["detector"],
                version=row["version"],
            )
        )
    return found


def golden_of(golden: pl.DataFrame) -> Iterator[tuple[str, Golden]]:
    """(environment, golden signals) per service."""
    for environment, _, service, requests, errors, p50, p95 in golden.iter_rows():
        yield environment, Golden(service, requests, errors, p50, p95)


def entries_of(cells: pl.DataFrame, evidence: pl.DataFrame) -> Iterator[tuple[str, Entry]]:
    """(environment, traffic) per entry point that fails or is slow: operations that nobody inside calls."""
    keys = ["environment", "service", "operation"]
    outside = cells.filter(
        (pl.col("caller") == "") & pl.col("kind").is_in([int(Cell.SPANS), int(Cell.ERRORS), int(Cell.CLIENT)])
    )
    counts = outside.group_by(keys).agg(
        pl.col("n").filter(pl.col("kind") == int(Cell.SPANS)).sum().alias("requests"),
        pl.col("n").filter(pl.col("kind") == int(Cell.ERRORS)).sum().alias("errors"),
        pl.col("n").filter(pl.col("kind") == int(Cell.CLIENT)).sum().alias("outgoing"),
    )
    counts = counts.filter(pl.col("outgoing") < pl.col("requests"))
    symptoms = evidence.filter((pl.col("caller") == "") & pl.col("kind").is_in([int(Cell.DURATION), int(Cell.ERRORS)]))
    slow = symptoms.group_by(keys).agg(
        pl.col("after").filter(pl.col("kind") == int(Cell.DURATION)).max().alias("slow_share"),
        pl.col("after").filter(pl.col("kind") == int(Cell.ERRORS)).max().alias("error_share"),
    )
    for row in counts.join(slow, on=keys, how="inner").sort(keys).iter_rows(named=True):
        slow_requests = round((row["slow_share"] or 0.0) * row["requests"])
        errors = row["errors"] if row["error_share"] is not None else 0
        yield row["environment"], Entry(row["service"], row["operation"], row["requests"], errors, slow_requests)


def examples_of(exemplars: pl.DataFrame, evidence: pl.DataFrame) -> Iterator[tuple[str, Example]]:
    """(environment, trace) for operations that deviate: a failing and the slowest one."""
    keys = ["environment", "service", "operation"]
    wanted = exemplars.join(evidence.select(keys).unique(), on=keys, how="semi")
    wanted = wanted.sort([*keys, "kind", "trace_hi", "trace_lo"]).unique(
        [*keys, "kind"], keep="first", maintain_order=True
    )
    for row in wanted.iter_rows(named=True):
        trace = format_trace_id(row["trace_hi"], row["trace_lo"])
        yield row["environment"], Example(row["service"], row["operation"], trace, row["kind"] == Cell.ORIGIN)
