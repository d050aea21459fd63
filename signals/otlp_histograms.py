"""Histogram buckets in one form: explicit upper bounds and counts, whatever OTLP shape they came in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from signals.otlp_values import OtlpError

#: A side (positive or negative) of an exponential histogram is scaled down until it has at most this many buckets.
MAX_SIDE_BUCKETS: Final = 160
#: Most buckets an explicit histogram may bring; more is refused as hostile.
MAX_BUCKETS: Final = 1_024

_LARGEST: Final = 1.7976931348623157e308


class HistogramError(OtlpError):
    """Buckets that contradict themselves; the point is dropped, not its message."""


@dataclass(frozen=True, slots=True)
class Side:
    """The positive or negative buckets of an exponential histogram; ``counts[i]`` belongs to index ``offset + i``."""

    offset: int = 0
    counts: Sequence[int] = field(default_factory=tuple)


def check_explicit(bounds: Sequence[float], counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Explicit buckets as they are; raises ``HistogramError`` where they contradict themselves.

    A trailing bound of +Inf (some exporters send it) is dropped: the last bucket is open anyway.
    """
    upper, numbers = list(bounds), list(counts)
    if upper and upper[-1] == math.inf and len(numbers) == len(upper):
        upper.pop()
    if not numbers and not upper:
        return [], []
    if min(numbers, default=0) < 0:
        raise HistogramError("histogram: negative bucket count")
    if len(numbers) != len(upper) + 1:
        raise HistogramError(f"histogram: {len(numbers)} bucket counts for {len(upper)} bounds")
    if len(numbers) > MAX_BUCKETS:
        raise HistogramError(f"histogram: {len(numbers)} buckets are more than {MAX_BUCKETS}")
    if not all(map(math.isfinite, upper)) or any(low >= high for low, high in pairwise(upper)):
        raise HistogramError("histogram: bounds are not finite and increasing")
    return upper, numbers


def explicit_buckets(
    scale: int, zero_count: int, zero_threshold: float, positive: Side, negative: Side
) -> tuple[list[float], list[int]]:
    """An exponential histogram as explicit bounds and counts.

    By OTLP's data model a positive bucket of index ``i`` counts values in (base^i, base^(i+1)] with
    ``base = 2^(2^-scale)``; lowering the scale by one merges pairs of buckets (index halved, rounded down), which loses
    resolution but no count. Bounds of one scale are among the bounds of any finer one, bit for bit, so that two points
    of a series that was scaled down in between can still be compared.

    >>> explicit_buckets(0, 1, 0.0, Side(0, [2, 3]), Side())
    ([0.0, 1.0, 2.0, 4.0], [1, 0, 2, 3, 0])
    """
    positive, negative = _trimmed(positive), _trimmed(negative)
    if not positive.counts and not negative.counts and not zero_count:
        return [], []
    shift = max(_shift(positive), _shift(negative), 0)
    threshold = zero_threshold if math.isfinite(zero_threshold) and zero_threshold > 0 else 0.0
    edges: list[float] = []  # edges[i] is the upper bound of buckets[i]; what lies above the last is empty
    buckets: list[int] = []
    scale -= shift
    below = _merged(negative, shift)
    if below.counts:
        edges += [-_bound(below.offset + place, scale) for place in range(len(below.counts), -1, -1)]
        buckets += [0, *reversed(below.counts)]
    if zero_count:
        if not edges or edges[-1] < -threshold:
            edges.append(-threshold)
            buckets.append(0)
        edges.append(threshold)
        buckets.append(zero_count)
    above = _merged(positive, shift)
    if above.counts:
        edges += [_bound(above.offset + place, scale) for place in range(len(above.counts) + 1)]
        buckets += [0, *above.counts]
    return _ordered(edges, [*buckets, 0])


def _trimmed(side: Side) -> Side:
    """Without empty buckets at either end, so that padding does not cost resolution."""
    used = [place for place, count in enumerate(side.counts) if count]
    if not used:
        return Side()
    return Side(side.offset + used[0], side.counts[used[0] : used[-1] + 1])


def _shift(side: Side) -> int:
    """By how much the scale must fall for the side to fit."""
    shift = 0
    while side.counts and _span(side, shift) > MAX_SIDE_BUCKETS:
        shift += 1
    return shift


def _span(side: Side, shift: int) -> int:
    return ((side.offset + len(side.counts) - 1) >> shift) - (side.offset >> shift) + 1


def _merged(side: Side, shift: int) -> Side:
    if not side.counts:
        return side
    first = side.offset >> shift
    counts = [0] * _span(side, shift)
    for place, count in enumerate(side.counts):
        counts[((side.offset + place) >> shift) - first] += count
    return Side(first, counts)


def _bound(index: int, scale: int) -> float:
    """base^index, kept inside what a float can hold."""
    exponent = math.ldexp(index, max(min(-scale, 64), -1074))
    if exponent >= 1024:
        return _LARGEST
    return 2.0**exponent if exponent > -1075 else 0.0


def _ordered(edges: list[float], buckets: list[int]) -> tuple[list[float], list[int]]:
    """Edges strictly increasing: a bucket whose edge does not exceed the one before is merged into its neighbour."""
    bounds: list[float] = []
    counts: list[int] = []
    carried = 0
    for edge, count in zip(edges, buckets, strict=False):
        carried += count
        if bounds and edge <= bounds[-1]:
            counts[-1] += carried
        else:
            bounds.append(edge + 0.0)
            counts.append(carried)
        carried = 0
    return bounds, [*counts, buckets[-1]]
