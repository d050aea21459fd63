"""Rollups of logs and golden signals that belong to no single room: which rows become which cells."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from signals.cells import BINS, CELLS, Cell, bin_seconds

#: Stands for an operation where lines outside any span are counted per service.
LOG_OPERATION: Final = "(log lines)"
_ENTITY: Final = ["environment", "namespace", "service", "instance"]
_SEVERE: Final = 17  # OTLP SeverityNumber ERROR


def line_cells(lines: pl.DataFrame) -> pl.DataFrame:
    """Cells of log lines outside spans: how many, how severe, of which template.

    ``lines`` has the entity columns, ``severity`` and ``template``. Inside spans the span is what is counted.
    """

    def cells(rows: pl.DataFrame, kind: Cell, what: str | None) -> pl.DataFrame:
        counted = rows.group_by([*_ENTITY, *([what] if what else [])]).agg(pl.len().cast(pl.Int64).alias("n"))
        return counted.select(
            *_ENTITY,
            pl.lit(LOG_OPERATION).alias("operation"),
            pl.lit("").alias("caller"),
            pl.lit(int(kind), dtype=pl.Int8).alias("kind"),
            (pl.col(what) if what else pl.lit("")).alias("what"),
            pl.lit(0, dtype=pl.Int16).alias("bin"),
            "n",
        )

    if lines.height == 0:
        return pl.DataFrame(schema=CELLS)
    severe = lines.filter(pl.col("severity") >= _SEVERE)
    return pl.concat(
        [cells(lines, Cell.SPANS, None), cells(lines, Cell.LINE, "template"), cells(severe, Cell.SEVERE, None)]
    )


def golden_signals(cells: pl.DataFrame) -> pl.DataFrame:
    """Requests, errors and latency of each service as the world outside it sees them: spans not called by itself.

    One row per (environment, namespace, service): ``requests``, ``errors``, ``p50_s``, ``p95_s`` (upper edge of the
    histogram bin, seconds).
    """
    incoming = cells.filter((pl.col("caller") != pl.col("service")) & (pl.col("operation") != LOG_OPERATION))
    keys = ["environment", "namespace", "service"]
    counts = incoming.group_by(keys).agg(
        pl.col("n").filter(pl.col("kind") == int(Cell.SPANS)).sum().alias("requests"),
        pl.col("n").filter(pl.col("kind") == int(Cell.ERRORS)).sum().alias("errors"),
    )
    binned = incoming.filter(pl.col("kind") == int(Cell.DURATION)).group_by([*keys, "bin"]).agg(pl.col("n").sum())
    quantiles = (
        binned.sort([*keys, "bin"])
        .with_columns((pl.col("n").cum_sum().over(keys) / pl.col("n").sum().over(keys)).alias("reached"))
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col("bin").filter(pl.col("reached") >= 0.5).first().alias("p50"),
            pl.col("bin").filter(pl.col("reached") >= 0.95).first().alias("p95"),
        )
    )
    joined = counts.filter(pl.col("requests") > 0).join(quantiles, on=keys, how="left").sort(keys)
    upper = {name: bin_seconds(np.minimum(joined[name].fill_null(0).to_numpy() + 1, BINS)) for name in ("p50", "p95")}
    return joined.select(
        *keys,
        "requests",
        "errors",
        pl.Series("p50_s", upper["p50"], dtype=pl.Float64),
        pl.Series("p95_s", upper["p95"], dtype=pl.Float64),
    )
