"""The stage that learns and judges: cells and metrics of some services in, findings out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import polars as pl

from detectors.calibrate import TailCalibrator
from detectors.config import CalibrationConfig
from detectors.instances import with_instances
from detectors.river_models import RiverPanel
from detectors.series import SeriesScreen
from detectors.span_behaviour import EVIDENCE, SpanBehaviour
from flows.findings import (
    ASKED_FLOOR,
    Findings,
    entries_of,
    examples_of,
    golden_deviations,
    golden_of,
    series_deviations,
    span_deviations,
)
from flows.layout import Layout
from flows.messages import CELLS, DIAGNOSIS, EXEMPLARS, FINDINGS, Addressed, Rollup, Rows
from flows.rollups import golden_signals
from flows.stages import Message, Progress, Vitals
from flows.windows import Window, WindowFindings, WindowJudge
from signals.batch import END_OF_STREAM
from signals.buckets import BucketBuffer
from signals.cells import CELLS as CELL_SCHEMA
from signals.metrics import MetricNormaliser
from signals.schema import SERIES
from topology.assembly import EXEMPLARS as EXEMPLAR_SCHEMA
from topology.graph import edges_of

_NS: Final = 1_000_000_000
_T = TypeVar("_T")


@dataclass(slots=True)
class DetectStage:
    """One shard of services."""

    name: str
    layout: Layout
    bucket_ns: int
    behaviour: SpanBehaviour
    screen: SeriesScreen
    panel: RiverPanel
    windows: tuple[Window, ...] = ()  # asked for by ``mendstream diagnose``
    normaliser: MetricNormaliser = field(default_factory=MetricNormaliser)
    calibrator: TailCalibrator = field(default_factory=lambda: TailCalibrator(CalibrationConfig()))
    progress: Progress = field(init=False)
    metrics: BucketBuffer = field(init=False)
    tables: dict[int, dict[str, list[pl.DataFrame]]] = field(default_factory=dict)  # bucket start -> table -> parts
    recent: deque[tuple[int, pl.DataFrame]] = field(default_factory=deque)  # cells of the window
    judge: WindowJudge = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.layout.detect_origins(), self.bucket_ns)
        order = (
            "environment",
            "service",
            "instance",
            "metric",
            "attributes",
            "namespace",
            "shape",
            "start_ns",
            "value",
            "count",
        )
        self.metrics = BucketBuffer("time_ns", self.bucket_ns, order)
        self.judge = WindowJudge(self.windows)

    def feed(self, messages: Iterable[Message]) -> list[Addressed]:
        """Take metrics, rollups and marks; judge every bucket that closes."""
        for message in messages:
            if isinstance(message, Rows):
                self.metrics.add(message.frame)
            elif isinstance(message, Rollup):
                self.tables.setdefault(message.start_ns, {}).setdefault(message.table, []).append(message.payload)
            else:
                self.progress.take(message)
        low = self.progress.low
        points = dict(self.metrics.close(low))
        due = {start for start in self.tables if start + self.bucket_ns <= low}
        out: list[Addressed] = []
        for start_ns in sorted(due | points.keys()):
            out += self._windows_before(start_ns)
            out += self._bucket(start_ns, self.tables.pop(start_ns, {}), points.get(start_ns))
        out += self._windows_before(low)
        mark = self.progress.promise(self.name, self.metrics.late)
        if mark is not None:
            out.append(Addressed(self.layout.incidents, mark))
        return out

    def vitals(self) -> Vitals:
        """Points that wait, and metric series known."""
        sizes = {"buffered_rows": self.metrics.rows, "series": len(self.screen)}
        return Vitals(self.progress.low, self.metrics.late, sizes)

    def adopt(self, fresh: DetectStage) -> None:
        """Take the partitions there are now."""
        self.layout = fresh.layout
        self.progress.expect(fresh.progress.origins)

    def _bucket(
        self, start_ns: int, tables: dict[str, list[pl.DataFrame]], points: pl.DataFrame | None
    ) -> list[Addressed]:
        end_ns = start_ns + self.bucket_ns
        cells = _all(tables.get(CELLS), CELL_SCHEMA)
        self.judge.open(end_ns, self.behaviour)
        self.judge.take_cells(cells)
        screened = self._series(points)
        self.judge.take_series(screened)
        if cells.height == 0 and not self.recent:
            # Only metrics: the frames below would all be empty, and empty frames cost as much as small ones.
            series = series_deviations(screened)
            found = [Findings(name, tuple(series[name])) for name in sorted(series)]
            return [Addressed(self.layout.incidents, Rollup(FINDINGS, start_ns, one)) for one in found]
        evidence = self._spans(start_ns, cells)
        golden = golden_signals(cells)
        models = self._river(end_ns, golden)
        found = self._findings(
            cells, evidence, (screened, models), golden, _all(tables.get(EXEMPLARS), EXEMPLAR_SCHEMA)
        )
        return [Addressed(self.layout.incidents, Rollup(FINDINGS, start_ns, one)) for one in found]

    def _spans(self, start_ns: int, cells: pl.DataFrame) -> pl.DataFrame:
        horizon = start_ns - (self.behaviour.config.window_buckets - 1) * self.bucket_ns
        if cells.height:
            self.recent.append((start_ns, cells))
        while self.recent and self.recent[0][0] < horizon:
            self.recent.popleft()
        evidence = self.behaviour.process(start_ns, self.bucket_ns, cells)
        self._calibrate(start_ns, cells, evidence)
        if evidence.height == 0:
            return _scored_empty()
        window = pl.concat([frame for _, frame in self.recent])
        return self._scored(with_instances(evidence, window))

    def _calibrate(self, start_ns: int, cells: pl.DataFrame, evidence: pl.DataFrame) -> None:
        """Every service is one test per bucket: its strongest deviation, 0 where it has none."""
        services = cells.select("environment", "service").unique()
        worst = evidence.group_by("environment", "service").agg(pl.col("raw").max())
        tested = services.join(worst, on=["environment", "service"], how="left")["raw"].fill_null(0.0)
        self.calibrator.advance(start_ns)
        self.calibrator.observe(tested.sort().to_numpy())

    def _scored(self, evidence: pl.DataFrame) -> pl.DataFrame:
        return evidence.with_columns(
            pl.Series("score", self.calibrator.score(evidence["raw"].to_numpy()), dtype=pl.Float64)
        )

    def _series(self, points: pl.DataFrame | None) -> pl.DataFrame:
        rows = self.normaliser.process(points) if points is not None else pl.DataFrame(schema=SERIES)
        return self.screen.process(rows)

    def _river(self, end_ns: int, golden: pl.DataFrame) -> pl.DataFrame:
        """The configured River models on each service's golden signals."""
        features = golden.select(
            "environment",
            "namespace",
            "service",
            pl.lit(end_ns).alias("time_ns"),
            (pl.col("requests") / (self.bucket_ns / _NS)).alias("rate"),
            (pl.col("errors") / pl.col("requests")).alias("error_ratio"),
            pl.col("p50_s").alias("latency_p50"),
            pl.col("p95_s").alias("latency_p95"),
            pl.lit(float("nan")).alias("saturation"),
        )
        return self.panel.process(features)

    def _findings(
        self,
        cells: pl.DataFrame,
        evidence: pl.DataFrame,
        others: tuple[pl.DataFrame, pl.DataFrame],
        golden: pl.DataFrame,
        exemplars: pl.DataFrame,
    ) -> list[Findings]:
        kinds = span_deviations(evidence), series_deviations(others[0]), golden_deviations(others[1])
        deviations = {name: [one for kind in kinds for one in kind.get(name, ())] for name in set().union(*kinds)}
        edges = _grouped(self._edges(cells))
        goldens, entries, examples = (
            _grouped(golden_of(golden)),
            _grouped(entries_of(cells, evidence)),
            _grouped(examples_of(exemplars, evidence)),
        )
        names = sorted({*deviations, *edges, *goldens, *entries, *examples})
        return [
            Findings(
                name,
                tuple(deviations.get(name, ())),
                tuple(edges.get(name, ())),
                tuple(goldens.get(name, ())),
                tuple(entries.get(name, ())),
                tuple(examples.get(name, ())),
            )
            for name in names
        ]

    def _edges(self, cells: pl.DataFrame) -> list[tuple[str, tuple[str, str, int, int, bool]]]:
        seen = [(row[0], row[1:]) for row in edges_of(cells).iter_rows()]
        return [*seen, *self.behaviour.peer_edges(cells)]

    def _windows_before(self, at_ns: int) -> list[Addressed]:
        """Answers for the diagnose windows that end at or before ``at_ns``."""
        done = self.judge.close(at_ns if at_ns < END_OF_STREAM else END_OF_STREAM)
        out = []
        for window, evidence, series in done:
            ready = (
                self._scored(evidence.with_columns(pl.lit("").alias("instance")))
                if evidence.height
                else _scored_empty()
            )
            found = span_deviations(ready)
            for name, more in series_deviations(series, ASKED_FLOOR).items():
                found.setdefault(name, []).extend(more)
            for name in sorted(found):
                payload = WindowFindings(window.id, name, tuple(found[name]))
                out.append(Addressed(self.layout.incidents, Rollup(DIAGNOSIS, window.end_ns, payload)))
        return out


def _scored_empty() -> pl.DataFrame:
    return pl.DataFrame(schema={**EVIDENCE, "instance": pl.String, "score": pl.Float64})


def _all(parts: list[pl.DataFrame] | None, schema: pl.Schema) -> pl.DataFrame:
    """Parts of several shards, in an order that does not depend on who came first."""
    if not parts:
        return pl.DataFrame(schema=schema)
    return pl.concat(parts).sort(list(schema))


def _grouped(pairs: Iterable[tuple[str, _T]]) -> dict[str, list[_T]]:
    found: dict[str, list[_T]] = {}
    for name, one in pairs:
        found.setdefault(name, []).append(one)
    return found
