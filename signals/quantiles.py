"""Quantiles of explicit histograms, and the difference of two histograms of one series."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

Buckets = tuple[Sequence[float], Sequence[int]]  # upper bounds, and counts: one more than bounds


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """The q-quantile of a histogram, None of an empty one.

    Linear interpolation inside the bucket that holds the rank, as Prometheus' ``histogram_quantile`` does
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile): the first bucket begins at 0
    if its bound is positive and is otherwise taken at its bound; in the open last bucket the answer is the highest
    bound.

    >>> quantile([10.0, 20.0], [1, 2, 1], 0.5)
    15.0
    """
    cumulative = list(accumulate(counts))
    if not bounds or not cumulative or cumulative[-1] <= 0:
        return None
    rank = q * cumulative[-1]
    place = bisect_left(cumulative, rank)
    if place >= len(bounds):
        return bounds[-1]
    upper = bounds[place]
    if place == 0 and upper <= 0:
        return upper
    lower = bounds[place - 1] if place else 0.0
    before = cumulative[place - 1] if place else 0
    return lower + (upper - lower) * ((rank - before) / counts[place])


def difference(older: Buckets, newer: Buckets) -> Buckets | None:
    """What ``newer`` counted that ``older`` had not, of two points of one cumulative series; None after a reset.

    Where the bounds differ (an exponential histogram that grew or lost resolution, a changed configuration) the
    difference is taken over those bounds of ``newer`` at which ``older``'s cumulative count is known: its own bounds,
    and everything beyond its ends if nothing lies there. No such bound: one open bucket, hence no quantiles.

    >>> difference(([1.0, 2.0], [1, 2, 0]), ([1.0, 2.0, 4.0], [1, 4, 3, 0]))
    ([1.0, 2.0, 4.0], [0, 2, 3, 0])
    """
    (old_bounds, old_counts), (bounds, counts) = older, newer
    if list(old_bounds) != list(bounds):
        known = _cumulative_at(old_bounds, old_counts)
        shared = [(bound, count) for bound in bounds if (count := known(bound)) is not None]
        bounds, counts = _coarser(bounds, counts, [bound for bound, _ in shared])
        older_at = [*(count for _, count in shared), sum(old_counts)]
        old_counts = [high - low for low, high in zip([0, *older_at], older_at, strict=False)]
    gained = [new - old for new, old in zip(counts, old_counts, strict=True)]
    return None if min(gained, default=0) < 0 else (bounds, gained)


class _cumulative_at:  # noqa: N801  (a function with a prepared table)
    """How many values of a histogram are at or below a bound; None where its buckets do not tell."""

    def __init__(self, bounds: Sequence[float], counts: Sequence[int]) -> None:
        totals = list(accumulate(counts)) or [0]
        self._at = dict(zip(bounds, totals, strict=False))
        self._total = totals[-1]
        self._floor = bounds[0] if bounds and counts[0] == 0 else None
        self._ceiling = bounds[-1] if bounds and counts[-1] == 0 else None

    def __call__(self, bound: float) -> int | None:
        if self._total == 0 or (self._floor is not None and bound < self._floor):
            return 0
        if self._ceiling is not None and bound > self._ceiling:
            return self._total
        return self._at.get(bound)


def _coarser(bounds: Sequence[float], counts: Sequence[int], kept: Sequence[float]) -> tuple[list[float], list[int]]:
    """The histogram over a subset of its bounds."""
    totals = dict(zip(bounds, accumulate(counts), strict=False))
    at = [*(totals[bound] for bound in kept), sum(counts)]
    return list(kept), [high - low for low, high in zip([0, *at], at, strict=False)]
