"""What has been learnt of operations and their behaviours: names, rows, counts, ageing and limits.

Row numbers are handed out in the order of sorted cells, so the same input gives the same tables whatever the batching.
Not here: comparing a window with this history (``detectors.span_behaviour``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from detectors.behaviour_state import Column, Dispersion, Floats, Ints
from detectors.span_config import SpanBehaviourConfig
from signals.cells import BINS, Cell

OperationKey = tuple[str, str, str, str, str]  # environment, namespace, service, operation, caller
ServiceKey = tuple[str, str, str]
BehaviourKey = tuple[int, int, str]  # operation row, Cell, what

#: Cells counted per operation as a share of its spans, and as histograms of time.
SHARES: Final = frozenset({Cell.ERRORS, Cell.ORIGIN, Cell.CHILD, Cell.LOG, Cell.LINE, Cell.CLIENT, Cell.PEER})
TIMES: Final = frozenset({Cell.DURATION, Cell.EXCLUSIVE, Cell.GAP})

_OPERATION: Final = ["environment", "namespace", "service", "operation", "caller"]
_HOUR_NS: Final = 3_600_000_000_000


@dataclass(slots=True)
class Counts:
    """One bucket, or several added up, as rows of the tables."""

    start_ns: int
    operations: Ints  # distinct rows
    n: Floats  # spans of each
    behaviours: Ints  # distinct rows
    k: Floats  # spans of the operation that showed it
    times: Ints  # distinct rows
    histograms: Floats  # shape (len(times), BINS)


@dataclass(slots=True)
class BehaviourTables:
    """Growing, ageing, bounded. Columns of one table share their row numbers."""

    config: SpanBehaviourConfig
    services: dict[ServiceKey, int] = field(default_factory=dict)
    operations: dict[OperationKey, int] = field(default_factory=dict)
    behaviours: dict[BehaviourKey, int] = field(default_factory=dict)
    times: dict[tuple[int, int], int] = field(default_factory=dict)  # (operation row, Cell) -> histogram row
    operation_names: list[OperationKey] = field(default_factory=list)
    behaviour_names: list[BehaviourKey] = field(default_factory=list)
    n: Column = field(default_factory=Column)  # per operation: spans learnt, decayed
    service: Column = field(default_factory=lambda: Column(dtype=np.int64))  # per operation: service row
    k: Column = field(default_factory=Column)  # per behaviour: spans that showed it, decayed
    operation: Column = field(default_factory=lambda: Column(dtype=np.int64))  # per behaviour: operation row
    kind: Column = field(default_factory=lambda: Column(dtype=np.int64))  # per behaviour: Cell
    spread: Dispersion = field(default_factory=Dispersion)  # per behaviour
    histogram: Column = field(default_factory=lambda: Column(BINS))  # per time row, decayed
    time_operation: Column = field(default_factory=lambda: Column(dtype=np.int64))
    time_kind: Column = field(default_factory=lambda: Column(dtype=np.int64))
    time_spread: Dispersion = field(default_factory=Dispersion)
    dropped: int = 0  # rows refused or forgotten at a limit
    _hour: int = 0

    def intern(self, start_ns: int, cells: pl.DataFrame) -> Counts:
        """Cells (any instances) as rows; new names get new rows while the limits allow."""
        summed = cells.group_by([*_OPERATION, "kind", "what", "bin"]).agg(pl.col("n").sum())
        summed = summed.sort([*_OPERATION, "kind", "what", "bin"])
        spans: dict[int, float] = {}
        shown: dict[int, float] = {}
        timed: dict[int, Floats] = {}
        shares, times = {int(kind) for kind in SHARES}, {int(kind) for kind in TIMES}
        for environment, namespace, service, operation, caller, kind, what, bin_, n in summed.iter_rows():
            row = self._operation_row((environment, namespace, service, operation, caller))
            if row < 0:
                continue
            if kind == Cell.SPANS:
                spans[row] = spans.get(row, 0.0) + n
            elif kind in shares:
                behaviour = self._behaviour_row((row, kind, what))
                if behaviour >= 0:
                    shown[behaviour] = shown.get(behaviour, 0.0) + n
            elif kind in times:
                time = self._time_row((row, kind))
                timed.setdefault(time, np.zeros(BINS))[bin_] += n
        return Counts(
            start_ns,
            np.fromiter(spans, np.int64, len(spans)),
            np.fromiter(spans.values(), np.float64, len(spans)),
            np.fromiter(shown, np.int64, len(shown)),
            np.fromiter(shown.values(), np.float64, len(shown)),
            np.fromiter(timed, np.int64, len(timed)),
            np.stack(list(timed.values())) if timed else np.zeros((0, BINS)),
        )

    def learn(self, counts: Counts, calm: Ints, limits: Ints) -> None:
        """Add a bucket to history, but for services that are held (``calm`` is 0 or 1 per service row).

        ``limits`` is the slow limit per time row, by which the dispersion of slow shares is measured.
        """
        n_now = np.zeros(self.n.size)
        k_now = np.zeros(self.k.size)
        learnt = calm[self.service.view[counts.operations]] > 0
        n_now[counts.operations[learnt]] = counts.n[learnt]
        k_now[counts.behaviours] = counts.k
        rows = np.flatnonzero(
            (n_now >= 3)[self.operation.view] & (self.n.view >= self.config.min_history)[self.operation.view]
        )
        of = self.operation.view[rows]
        share = np.clip(self.k.view[rows] / self.n.view[of], 0.0, 1.0)
        self.spread.learn(rows, np.minimum(k_now[rows], n_now[of]), n_now[of], share)
        keep = n_now[self.operation.view[counts.behaviours]] > 0
        self.k.view[counts.behaviours[keep]] += counts.k[keep]
        self.n.view[counts.operations[learnt]] += counts.n[learnt]
        self._learn_times(counts, calm, limits)

    def _learn_times(self, counts: Counts, calm: Ints, limits: Ints) -> None:
        learnt = calm[self.service.view[self.time_operation.view[counts.times]]] > 0
        rows, now = counts.times[learnt], counts.histograms[learnt]
        before = self.histogram.view[rows]
        n1, n2 = before.sum(axis=1), now.sum(axis=1)
        judged = (n1 >= self.config.min_history) & (n2 >= 3)
        above = np.arange(BINS)[None, :] > limits[rows][:, None]
        share = (before * above).sum(axis=1) / np.maximum(n1, 1e-9)
        slow = (now * above).sum(axis=1)
        self.time_spread.learn(rows[judged], slow[judged], n2[judged], np.clip(share[judged], 0.0, 1.0))
        self.histogram.view[rows] += now

    def age(self, now_ns: int) -> None:
        """Let history fade, once per hour of event time."""
        hour = now_ns // _HOUR_NS
        if self._hour == 0:
            self._hour = hour
        if hour <= self._hour:
            return
        factor = 0.5 ** ((hour - self._hour) / self.config.half_life_hours)
        self._hour = hour
        for column in (self.n, self.k, self.histogram, self.spread.histogram, self.time_spread.histogram):
            column.view[...] *= factor

    # -- rows -----------------------------------------------------------------------------------------------------

    def _operation_row(self, key: OperationKey) -> int:
        row = self.operations.get(key)
        if row is not None:
            return row
        if len(self.operations) >= self.config.max_operations:
            self.dropped += 1
            return -1
        row = len(self.operations)
        self.operations[key] = row
        self.operation_names.append(key)
        service = self.services.setdefault(key[:3], len(self.services))
        self.n.grow(row + 1)
        self.service.grow(row + 1)
        self.service.view[row] = service
        return row

    def _behaviour_row(self, key: BehaviourKey) -> int:
        row = self.behaviours.get(key)
        if row is not None:
            return row
        if len(self.behaviours) >= self.config.max_behaviours:
            self.dropped += 1
            return -1
        row = len(self.behaviours)
        self.behaviours[key] = row
        self.behaviour_names.append(key)
        for column in (self.k, self.operation, self.kind, self.spread):
            column.grow(row + 1)
        self.operation.view[row], self.kind.view[row] = key[0], key[1]
        return row

    def _time_row(self, key: tuple[int, int]) -> int:
        row = self.times.get(key)
        if row is None:
            row = self.times[key] = len(self.times)
            for column in (self.histogram, self.time_operation, self.time_kind, self.time_spread):
                column.grow(row + 1)
            self.time_operation.view[row], self.time_kind.view[row] = key
        return row

    def forget(self) -> Ints | None:
        """At a limit, keep the strongest nine tenths: of operations with all that belongs to them, or of behaviours.

        One operation with ever new behaviours (peers named by address, say) loses behaviours and costs nobody else.
        Returns the new operation row of each old one (-1: forgotten), or None where nothing had to go. Row numbers
        change, so ``Counts`` made before cannot be learnt after.
        """
        many_operations = len(self.operations) >= self.config.max_operations
        many_behaviours = len(self.behaviours) >= self.config.max_behaviours
        if not (many_operations or many_behaviours):
            return None
        operations = _strongest(self.n.view) if many_operations else np.arange(self.n.size)
        moved = np.full(self.n.size, -1, dtype=np.int64)
        moved[operations] = np.arange(len(operations))
        behaviours = np.flatnonzero(moved[self.operation.view] >= 0)
        if many_behaviours and len(behaviours) > 0.9 * self.config.max_behaviours:
            behaviours = behaviours[_strongest(self.k.view[behaviours])]
        self.dropped += self.n.size - len(operations) + self.k.size - len(behaviours)
        self._keep_operations(operations)
        self._keep_behaviours(behaviours, moved)
        self._keep_times(moved)
        return moved

    def _keep_operations(self, rows: Ints) -> None:
        self.operation_names = [self.operation_names[row] for row in rows.tolist()]
        self.operations = {key: row for row, key in enumerate(self.operation_names)}
        self.n.keep(rows)
        self.service.keep(rows)

    def _keep_behaviours(self, rows: Ints, moved: Ints) -> None:
        for column in (self.k, self.operation, self.kind, self.spread.histogram):
            column.keep(rows)
        self.operation.view[...] = moved[self.operation.view]
        names = [self.behaviour_names[row] for row in rows.tolist()]
        self.behaviour_names = [(int(moved[row]), kind, what) for row, kind, what in names]
        self.behaviours = {key: row for row, key in enumerate(self.behaviour_names)}

    def _keep_times(self, moved: Ints) -> None:
        rows = np.flatnonzero(moved[self.time_operation.view] >= 0)
        for column in (self.histogram, self.time_operation, self.time_kind, self.time_spread.histogram):
            column.keep(rows)
        self.time_operation.view[...] = moved[self.time_operation.view]
        keys = zip(self.time_operation.view.tolist(), self.time_kind.view.tolist(), strict=True)
        self.times = {key: row for row, key in enumerate(keys)}


def _strongest(weight: Floats) -> Ints:
    """Rows of the strongest nine tenths, in their order; at least one goes."""
    return np.sort(np.argsort(-weight, kind="stable")[: int(0.9 * len(weight))])
