"""The detectors by name. A detector that is registered is run through every check of ``detectors.checks``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from river import anomaly

from detectors.bank import SeriesBank
from detectors.base import Detector, PerRow


class Registry:
    """Factories by name.

    >>> registry = Registry()
    >>> registry.register("bank", SeriesBank)
    >>> registry.register("bank", SeriesBank)
    Traceback (most recent call last):
    ValueError: a detector named 'bank' is already registered: choose another name
    """

    def __init__(self) -> None:
        self._factories: dict[str, Callable[[], Detector]] = {}

    def register(self, name: str, factory: Callable[[], Detector]) -> None:
        """Add a detector.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._factories:
            raise ValueError(f"a detector named {name!r} is already registered: choose another name")
        self._factories[name] = factory

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._factories))

    def create(self, name: str) -> Detector:
        """A fresh detector.

        Raises:
            KeyError: none has this name; the message lists those there are.
        """
        if name not in self._factories:
            raise KeyError(f"no detector named {name!r}: there are {', '.join(self)}")
        return self._factories[name]()


DETECTORS: Final = Registry()
DETECTORS.register("series_bank", SeriesBank)
DETECTORS.register("river_gaussian", partial(PerRow, partial(anomaly.GaussianScorer, grace_period=30)))
