"""Which instance stands out: the one that shows most of a deviation while its peers behave as before."""

from __future__ import annotations

from typing import Final

import polars as pl

from signals.cells import BINS_PER_OCTAVE, Cell

_KEY: Final = ["environment", "namespace", "service", "operation", "caller"]
_TIMES: Final = [int(Cell.EXCLUSIVE), int(Cell.GAP), int(Cell.DURATION)]


def with_instances(evidence: pl.DataFrame, cells: pl.DataFrame, concentration: float = 0.7) -> pl.DataFrame:
    """EVIDENCE rows with the column ``instance``: who shows at least ``concentration`` of the excess, else "".

    ``cells`` are those of the window, per instance. A service with one instance is that instance.
    """
    if evidence.height == 0:
        return evidence.with_columns(pl.lit("").alias("instance"))
    rows = evidence.with_row_index("_row")
    mine = cells.join(rows.select(_KEY).unique(), on=_KEY, how="semi")
    shown = rows.join(mine, on=[*_KEY, "kind", "what"], how="inner", suffix="_cell")
    # A time bin counts when it lies above the limit that the evidence was measured by.
    limit_bin = ((pl.col("expected_s") * 1e6).log(2.0) * BINS_PER_OCTAVE).round()
    slow = ~pl.col("kind").is_in(_TIMES) | (pl.col("bin") >= limit_bin)
    per_kind = shown.group_by("_row", "instance", "before").agg(
        pl.col("n").filter(slow).sum().alias("k"), pl.col("n").sum().alias("total")
    )
    spans = (
        mine.filter(pl.col("kind") == int(Cell.SPANS))
        .group_by([*_KEY, "instance"])
        .agg(pl.col("n").sum().alias("spans"))
    )
    all_of = rows.select("_row", *_KEY, "kind", "before").join(spans, on=_KEY, how="inner")
    counted = all_of.join(per_kind.drop("before"), on=["_row", "instance"], how="left").with_columns(
        pl.col("k").fill_null(0), pl.col("total").fill_null(0)
    )
    timed = per_kind.join(rows.select("_row", "kind"), on="_row").filter(pl.col("kind").is_in(_TIMES))
    shares = pl.concat(
        [
            counted.filter(~pl.col("kind").is_in(_TIMES)).select(
                "_row", "instance", "before", "k", pl.col("spans").alias("n")
            ),
            timed.select("_row", "instance", "before", "k", pl.col("total").alias("n")),
        ]
    )
    excess = (pl.col("k") - pl.col("before") * pl.col("n")).abs()
    best = (
        shares.with_columns(excess.alias("excess"))
        .sort("_row", "excess", "instance", descending=[False, True, False])
        .group_by("_row", maintain_order=True)
        .agg(pl.col("instance").first(), pl.col("excess").first().alias("most"), pl.col("excess").sum().alias("all"))
        .filter(pl.col("most") >= concentration * pl.col("all"))
    )
    return (
        rows.join(best.select("_row", "instance"), on="_row", how="left", maintain_order="left")
        .with_columns(pl.col("instance").fill_null(""))
        .drop("_row")
    )
