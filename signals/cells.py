"""Cells: the integer counts per bucket that trace assembly hands to the detectors.

A cell says how many spans of one operation did one thing in one bucket. All counts are integers and histograms have
fixed boundaries, so cells of several shards add up to the same whatever the order.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl


class Cell(IntEnum):
    """What a cell counts; ``what`` and ``bin`` are set where named."""

    SPANS = 0  # spans of the operation
    ERRORS = 1  # spans with error status
    ORIGIN = 2  # spans with error status and no failing child: the error began here
    DURATION = 3  # bin: log-scale histogram of the duration
    EXCLUSIVE = 4  # bin: duration minus the union of the children; only spans without a remote child
    CHILD = 5  # what: "service|operation" called at least once from inside the span
    LOG = 6  # what: template id (hex) written at least once inside the span
    PEER = 7  # what: name of the called peer, from the client span's own attributes
    GAP = 8  # bin: caller-seen minus callee-seen duration; service is the callee, caller the caller, no operation
    LINE = 9  # what: template id (hex); log lines of a service, whether or not in a span
    SEVERE = 10  # log lines of severity ERROR or above
    CLIENT = 11  # spans of kind CLIENT or PRODUCER


KEYS: Final = ("environment", "namespace", "service", "instance", "operation", "caller", "kind", "what", "bin")

CELLS: Final = pl.Schema(
    {
        "environment": pl.String,
        "namespace": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "operation": pl.String,
        "caller": pl.String,  # service of the parent span, "" for a root or an orphan
        "kind": pl.Int8,
        "what": pl.String,
        "bin": pl.Int16,
        "n": pl.Int64,
    }
)

#: Bins of the time histograms: four per octave from one microsecond, so a bin is 19 % wide; the last holds all above.
BINS: Final = 128
BINS_PER_OCTAVE: Final = 4


def time_bin(nanoseconds: pl.Expr) -> pl.Expr:
    """Histogram bin of a duration in nanoseconds, 0 to ``BINS`` - 1.

    >>> pl.DataFrame({"d": [500, 1_000, 2_000, 10**18]}).select(time_bin(pl.col("d")))["d"].to_list()
    [0, 0, 4, 127]
    """
    micros = (nanoseconds.cast(pl.Float64) / 1_000.0).clip(1.0, None)
    return (micros.log(2.0) * BINS_PER_OCTAVE + 1e-9).floor().clip(0, BINS - 1).cast(pl.Int16)


def bin_seconds(bins: npt.NDArray[np.int64] | npt.NDArray[np.int16] | int) -> npt.NDArray[np.float64]:
    """Lower boundary of histogram bins, in seconds.

    >>> bin_seconds(4).item()
    2e-06
    """
    return np.exp2(np.asarray(bins, dtype=np.float64) / BINS_PER_OCTAVE) * 1e-6
