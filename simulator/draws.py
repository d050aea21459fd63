"""Random numbers drawn in blocks, handed out one by one: an order of magnitude cheaper than a draw each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

_BLOCK: Final = 16_384
_MAX_ID: Final = np.uint64(2**64 - 1)


def _floats(draw: Callable[[int], np.ndarray[tuple[int], np.dtype[np.float64]]]) -> Iterator[float]:
    while True:
        yield from draw(_BLOCK).tolist()


def _ids(rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.integers(1, _MAX_ID, _BLOCK, dtype=np.uint64).tolist()


class Draws:
    """Independent streams, so that what one part draws does not move another part's numbers.

    Each attribute is a function without arguments: ``normal`` (standard), ``uniform`` in [0, 1), ``exponential`` (mean
    1), ``identifier`` (64 bits, never 0), ``bits`` (64 bits, for log parameters), ``network_ns`` (one way, lognormal,
    median 0.22 ms).
    """

    __slots__ = ("bits", "exponential", "identifier", "network_ns", "normal", "uniform")

    def __init__(self, seed: int) -> None:
        streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
        self.normal: Callable[[], float] = _floats(streams[0].standard_normal).__next__
        self.uniform: Callable[[], float] = _floats(streams[1].random).__next__
        self.exponential: Callable[[], float] = _floats(streams[2].standard_exponential).__next__
        self.identifier: Callable[[], int] = _ids(streams[3]).__next__
        self.bits: Callable[[], int] = _ids(streams[4]).__next__
        network = streams[5]
        self.network_ns: Callable[[], float] = _floats(lambda n: network.lognormal(12.3, 0.35, n)).__next__
