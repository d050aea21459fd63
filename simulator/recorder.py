"""Collects what happens as rows of numbers and turns them into frames of the internal schemas, a part at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from signals.schema import ATTRIBUTES, LOGS, METRICS, SPANS, Signal
from simulator.draws import Draws
from simulator.shapes import ShapeTable
from simulator.templates import TemplateTable
from simulator.world import Instance

#: Columns beyond the schema that spans have here: attributes as JSON.
SPAN_COLUMNS: Final = (*SPANS, ATTRIBUTES)

#: start, end (relative ns), shape, entity, version, trace high, low, span, parent, path parameter
SpanRow = tuple[float, float, int, int, int, int, int, int, int, int]
#: time (relative ns), entity, version, template, trace high, low, span, value, random bits
LogRow = tuple[float, int, int, int, int, int, int, float, int]
#: time (relative ns), entity, metric, attributes, shape, value, start (relative ns), count, bounds, counts
MetricRow = tuple[float, int, str, str, int, float, float, int, list[float], list[int]]


@dataclass(frozen=True, slots=True)
class Frames:
    """What happened in one slice: spans in order of end, logs and metrics in order of time."""

    spans: pl.DataFrame  # signals.schema.SPANS with raw span names, and attributes
    logs: pl.DataFrame
    metrics: pl.DataFrame

    def by_signal(self) -> dict[Signal, pl.DataFrame]:
        """The three frames under their signals."""
        return {Signal.SPANS: self.spans, Signal.LOGS: self.logs, Signal.METRICS: self.metrics}


class Recorder:
    """Rows in, frames out; nothing before time 0 is kept (the warm-up)."""

    def __init__(
        self,
        *,
        start_ns: int,
        environment: str,
        namespace: str,
        shapes: ShapeTable,
        templates: TemplateTable,
        draws: Draws,
    ) -> None:
        self.start_ns = start_ns
        self.spans: list[SpanRow] = []
        self.logs: list[LogRow] = []
        self.metrics: list[MetricRow] = []
        self._environment = environment
        self._namespace = namespace
        self._shapes = shapes
        self._templates = templates
        self._bits = draws.bits
        self._services: list[str] = []
        self._instances: list[str] = []
        self._versions: dict[str, int] = {}

    def entity(self, service: str, instance: str) -> int:
        """Number of a new entity; call once per process name."""
        self._services.append(service)
        self._instances.append(instance)
        return len(self._services) - 1

    def version(self, text: str) -> int:
        """Number of a version."""
        return self._versions.setdefault(text, len(self._versions))

    def log(
        self, at: float, instance: Instance, template: int, span: tuple[int, int, int] = (0, 0, 0), value: float = 0.0
    ) -> None:
        """One log line of a process; ``span`` is trace high, low and span id."""
        if at >= 0.0:
            row = (at + instance.skew_ns, instance.entity, instance.version_id, template, *span, value, self._bits())
            self.logs.append(row)

    def host_log(self, at: float, host: int, template: int) -> None:
        """One line of a host's own log."""
        if at >= 0.0:
            self.logs.append((at, host, self.version(""), template, 0, 0, 0, 0.0, self._bits()))

    def drain(self) -> Frames:
        """All rows since the last call."""
        frames = Frames(self._span_frame(), self._log_frame(), self._metric_frame())
        self.spans.clear()
        self.logs.clear()
        self.metrics.clear()
        return frames

    def _entities(self, numbers: npt.NDArray[np.int64]) -> dict[str, Any]:
        return {
            "environment": pl.repeat(self._environment, len(numbers), eager=True, dtype=pl.String),
            "namespace": pl.repeat(self._namespace, len(numbers), eager=True, dtype=pl.String),
            "service": _gather(self._services, numbers),
            "instance": _gather(self._instances, numbers),
        }

    def _absolute(self, relative: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return relative.astype(np.int64) + self.start_ns

    def _span_frame(self) -> pl.DataFrame:
        if not self.spans:
            return pl.DataFrame(schema={**SPANS, ATTRIBUTES: pl.String})
        start, end, shape, entity, version, high, low, span, parent, parameter = zip(*self.spans, strict=True)
        shapes = np.array(shape, dtype=np.int64)
        table = self._shapes
        frame = pl.DataFrame(
            {
                **self._entities(np.array(entity, dtype=np.int64)),
                "version": _gather(list(self._versions), np.array(version, dtype=np.int64)),
                "name": _gather(table.names, shapes),
                "kind": np.array(table.kinds, dtype=np.int8)[shapes],
                "status": np.array(table.statuses, dtype=np.int8)[shapes],
                "start_ns": self._absolute(np.array(start)),
                "end_ns": self._absolute(np.array(end)),
                "trace_hi": np.array(high, dtype=np.uint64),
                "trace_lo": np.array(low, dtype=np.uint64),
                "span_id": np.array(span, dtype=np.uint64),
                "parent_id": np.array(parent, dtype=np.uint64),
                "peer": _gather(table.peers, shapes),
                "_prefix": _gather(table.prefixes, shapes),
                "_suffix": _gather(table.suffixes, shapes),
                "_parameter": np.array(parameter, dtype=np.int64),
            }
        )
        path = pl.concat_str("_prefix", pl.col("_parameter").cast(pl.String), "_suffix")
        attributes = pl.when(pl.col("_suffix") == "").then(pl.col("_prefix")).otherwise(path).alias(ATTRIBUTES)
        return frame.with_columns(attributes).sort("end_ns", "span_id").select(SPAN_COLUMNS)

    def _log_frame(self) -> pl.DataFrame:
        if not self.logs:
            return pl.DataFrame(schema=LOGS)
        at, entity, version, template, high, low, span, value, bits = zip(*self.logs, strict=True)
        templates = np.array(template, dtype=np.int64)
        severities = np.array([t.severity for t in self._templates.templates], dtype=np.int8)
        frame = pl.DataFrame(
            {
                **self._entities(np.array(entity, dtype=np.int64)),
                "version": _gather(list(self._versions), np.array(version, dtype=np.int64)),
                "time_ns": self._absolute(np.array(at)),
                "severity": severities[templates],
                "body": self._bodies(templates, np.array(bits, dtype=np.uint64), np.array(value)),
                "trace_hi": np.array(high, dtype=np.uint64),
                "trace_lo": np.array(low, dtype=np.uint64),
                "span_id": np.array(span, dtype=np.uint64),
            }
        )
        return frame.sort("time_ns", maintain_order=True)

    def _bodies(
        self, templates: npt.NDArray[np.int64], bits: npt.NDArray[np.uint64], values: npt.NDArray[np.float64]
    ) -> list[str]:
        bodies = [""] * len(templates)
        order = np.argsort(templates, kind="stable")
        cuts = np.flatnonzero(np.diff(templates[order])) + 1
        for rows in np.split(order, cuts):
            rendered = self._templates.templates[int(templates[rows[0]])].render(bits[rows], values[rows])
            for row, body in zip(rows.tolist(), rendered, strict=True):
                bodies[row] = body
        return bodies

    def _metric_frame(self) -> pl.DataFrame:
        if not self.metrics:
            return pl.DataFrame(schema=METRICS)
        at, entity, metric, attributes, shape, value, start, count, bounds, counts = zip(*self.metrics, strict=True)
        begin = np.array(start)
        frame = pl.DataFrame(
            {
                **self._entities(np.array(entity, dtype=np.int64)),
                "time_ns": self._absolute(np.array(at)),
                "metric": pl.Series(metric, dtype=pl.String),
                "attributes": pl.Series(attributes, dtype=pl.String),
                "shape": np.array(shape, dtype=np.int8),
                "value": np.array(value, dtype=np.float64),
                "start_ns": np.where(np.isnan(begin), 0, self._absolute(np.nan_to_num(begin))),
                "count": np.array(count, dtype=np.uint64),
                "bounds": pl.Series(bounds, dtype=pl.List(pl.Float64)),
                "counts": pl.Series(counts, dtype=pl.List(pl.UInt64)),
            }
        )
        return frame.sort("time_ns", maintain_order=True)


def _gather(table: list[str], numbers: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(table, dtype=pl.String).gather(numbers)
