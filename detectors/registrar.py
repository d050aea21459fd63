"""Rows for series: a bounded registry of keys; the longest unseen gives way.

Holds no detector state: whoever keeps state by row is told which rows were given anew.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Rows, Times

_NEVER = -(2**62)


class RowRegistry:
    """Keys to row numbers below ``capacity``.

    >>> registry = RowRegistry(2)
    >>> registry.locate(["a", "b"])
    (array([0, 1]), array([0, 1]))
    >>> registry.touch(np.array([0, 1]), np.array([10, 20]))
    >>> registry.locate(["c", "b"])  # "a" was seen longest ago: its row is given to "c"
    (array([0, 1]), array([0]))
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: dict[str, int] = {}
        self._keys: list[str] = []
        self._last_ns: Times = np.zeros(0, dtype=np.int64)
        self.dropped = 0  # keys that gave way

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def capacity(self) -> int:
        """Keys that can be held."""
        return self._capacity

    @property
    def keys(self) -> list[str]:
        """Keys by row."""
        return self._keys

    @property
    def last_ns(self) -> Times:
        """Event time each row was last seen, shape (rows,)."""
        return self._last_ns

    def fits(self, keys: set[str]) -> bool:
        """Whether all of these can be held beside those there are."""
        if len(self._rows) + len(keys) <= self._capacity:
            return True
        return len(self._rows) + len(keys - self._rows.keys()) <= self._capacity

    def locate(self, keys: list[str]) -> tuple[Rows, Rows]:
        """Row of each key, and the rows that were given to new keys in the order they came.

        Raises:
            ValueError: more distinct keys than there is room for.
        """
        rows = np.fromiter(map(self._rows.get, keys, [-1] * len(keys)), dtype=np.int64, count=len(keys))
        unknown = np.flatnonzero(rows < 0)
        if not len(unknown):
            return rows, unknown
        new = dict.fromkeys(keys[i] for i in unknown.tolist())
        free = self._make_room(len(new), np.unique(rows[rows >= 0]))
        for key, row in zip(new, free.tolist(), strict=True):
            self._keys[row] = key
            self._rows[key] = row
        rows[unknown] = [self._rows[keys[i]] for i in unknown.tolist()]
        return rows, free

    def touch(self, rows: Rows, t_ns: Times) -> None:
        """Note when rows were seen; rows at most once per call."""
        self._last_ns[rows] = t_ns

    def _make_room(self, wanted: int, in_use: Rows) -> Rows:
        held = len(self._keys)
        fresh = min(wanted, self._capacity - held)
        self._keys.extend([""] * fresh)
        self._last_ns = np.append(self._last_ns, np.full(fresh, _NEVER, dtype=np.int64))
        rows = np.arange(held, held + fresh)
        victims = wanted - fresh
        if victims == 0:
            return rows
        candidates = np.setdiff1d(np.arange(held), in_use)
        if len(candidates) < victims:
            raise ValueError(f"more than {self._capacity} series at one moment: raise max_series")
        oldest = candidates[np.lexsort((candidates, self._last_ns[candidates]))[:victims]]
        for row in oldest.tolist():
            del self._rows[self._keys[row]]
        self._last_ns[oldest] = _NEVER
        self.dropped += victims
        return np.concatenate([rows, oldest])
