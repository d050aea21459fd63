"""What spans do, given their operation: learnt shares against the last few buckets.

The key is (service, operation, calling service); under it, the share of spans that log a template, call a child, fail
by themselves, or take longer than they used to, and per call edge the gap between what caller and callee saw.
Conditioning on the operation takes out what merely follows from more, fewer or no calls. A change counts by its
significance (G-test, divided by the share's own dispersion, capped) times its size: from never to always says more than
a large-n drift.

One object holds one shard. It is fed merged cells once per bucket, in order. Not here: whose fault a change is
(``topology.ranking``) and when it becomes an incident (``incidents.correlate``).
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from detectors.behaviour_state import Column, Dispersion, Floats, Ints, g_statistic
from detectors.behaviour_tables import BehaviourTables, Counts
from detectors.span_config import SpanBehaviourConfig
from signals.cells import BINS, BINS_PER_OCTAVE, Cell

NAME: Final = "span_behaviour"
VERSION: Final = "1"

#: Evidence of one bucket: one row per deviating behaviour.
EVIDENCE: Final = pl.Schema(
    {
        "environment": pl.String,
        "namespace": pl.String,
        "service": pl.String,
        "operation": pl.String,
        "caller": pl.String,
        "kind": pl.Int8,  # Cell
        "what": pl.String,
        "before": pl.Float64,  # share in history (times: share of spans above the limit)
        "after": pl.Float64,  # share in the window
        "latest": pl.Float64,  # share in the window's newest bucket; null where it has too few spans to tell
        "n_before": pl.Float64,  # spans behind the share, history decayed
        "n_after": pl.Int64,
        "expected_s": pl.Float64,  # times: limit that 95 % of history stayed below; else null
        "observed_s": pl.Float64,  # times: 95th percentile of the window; else null
        "raw": pl.Float64,  # capped significance times size of change
        "outgoing": pl.Boolean,  # the operation is a call to somebody else (client span)
        "target": pl.String,  # outgoing operations: whom they call, as learnt or as their attributes say
        "remote": pl.Boolean,  # the target is itself instrumented: it has answered with spans
    }
)

#: Errors and durations as such are symptoms: told where nobody inside calls the operation, credited to nobody.
_SYMPTOMS: Final = [int(kind) for kind in (Cell.ERRORS, Cell.DURATION)]
_FEW: Final = 3  # spans below which the newest bucket says nothing
_JUDGED_SHARES: Final = [int(kind) for kind in (Cell.ORIGIN, Cell.CHILD, Cell.LOG, Cell.LINE, Cell.ERRORS)]
_JUDGED_TIMES: Final = [int(kind) for kind in (Cell.EXCLUSIVE, Cell.GAP, Cell.DURATION)]
#: Fewer errors or faster answers are no fault.
_UPWARD_ONLY: Final = [int(kind) for kind in (Cell.EXCLUSIVE, Cell.GAP, Cell.ORIGIN, Cell.ERRORS, Cell.DURATION)]


@dataclass(slots=True)
class SpanBehaviour:
    """The learner and judge of one shard. ``process`` per bucket; ``twin`` to judge a longer window apart."""

    config: SpanBehaviourConfig = field(default_factory=SpanBehaviourConfig)
    tables: BehaviourTables = field(init=False)
    recent: deque[Counts] = field(default_factory=deque)  # the window: judged, not yet learnt
    learnt: Column = field(default_factory=lambda: Column(dtype=np.int64))  # per service: buckets learnt
    hot_at: Column = field(default_factory=lambda: Column(dtype=np.int64))  # per service: last hot bucket, ns
    held: Column = field(default_factory=lambda: Column(dtype=np.int64))  # per service: buckets held in a row

    def __post_init__(self) -> None:
        self.tables = BehaviourTables(self.config)

    # -- stream ---------------------------------------------------------------------------------------------------

    def process(self, start_ns: int, bucket_ns: int, cells: pl.DataFrame) -> pl.DataFrame:
        """Judge the window that ends with this bucket, then learn the bucket that leaves it.

        ``cells`` has the schema CELLS, summed over instances or not. Returns EVIDENCE rows.
        """
        self.tables.age(start_ns)
        if self.tables.forget() is not None:
            self.recent.clear()  # its rows are no longer those of the tables; two buckets are not judged again
        self.recent.append(self.tables.intern(start_ns, cells))
        horizon = start_ns - (self.config.window_buckets - 1) * bucket_ns
        while self.recent[0].start_ns < horizon:
            self.learn(self.recent.popleft(), start_ns, bucket_ns)
        evidence = self._judge(list(self.recent))
        self._mark_hot(evidence, start_ns)
        return evidence

    def twin(self) -> SpanBehaviour:
        """A copy that has also learnt what still waits, to judge a longer window against the state of now."""
        other = copy.deepcopy(self)
        while other.recent:
            counts = other.recent.popleft()
            other.learn(counts, counts.start_ns, 1)
        return other

    def judge_cells(self, cells: pl.DataFrame) -> pl.DataFrame:
        """EVIDENCE of a whole window of cells against what was learnt; learns nothing but names."""
        return self._judge([self.tables.intern(0, cells)])

    def _mark_hot(self, evidence: pl.DataFrame, start_ns: int) -> None:
        for column in (self.learnt, self.hot_at, self.held):
            column.grow(len(self.tables.services))
        hot = evidence.filter((pl.col("raw") >= self.config.hold_score) & ~pl.col("kind").is_in(_SYMPTOMS))
        for key in hot.select("environment", "namespace", "service").unique().iter_rows():
            self.hot_at.view[self.tables.services[key]] = start_ns

    def learn(self, counts: Counts, now_ns: int, bucket_ns: int) -> None:
        """Learn a bucket, but not of services that are or lately were deviating, unless they have been for long."""
        for column in (self.learnt, self.hot_at, self.held):
            column.grow(len(self.tables.services))
        config = self.config
        hot = self.hot_at.view > now_ns - 2 * config.window_buckets * bucket_ns
        present = np.zeros(len(self.learnt.view), dtype=bool)
        present[self.tables.service.view[counts.operations]] = True
        young = self.learnt.view < config.warmup_buckets
        calm = ~hot | young | (self.held.view >= config.max_hold_buckets)
        self.held.view[present & ~calm] += 1
        self.held.view[present & ~hot] = 0
        self.learnt.view[present & calm] += 1
        self.tables.learn(counts, calm.astype(np.int64), self._limits(self.tables.histogram.view))

    # -- judging --------------------------------------------------------------------------------------------------

    def _judge(self, buckets: Sequence[Counts]) -> pl.DataFrame:
        """Compare some buckets, added up, with history: all behaviours of their operations at once."""
        tables, config = self.tables, self.config
        n_now, k_now = np.zeros(tables.n.size), np.zeros(tables.k.size)
        for counts in buckets:
            n_now[counts.operations] += counts.n
            k_now[counts.behaviours] += counts.k
        known = (tables.n.view >= config.min_history) & (n_now >= config.min_window)
        rows = np.flatnonzero(known[tables.operation.view] & np.isin(tables.kind.view, _JUDGED_SHARES))
        operation = tables.operation.view[rows]
        n1, n2 = tables.n.view[operation], n_now[operation]
        k1, k2 = np.minimum(tables.k.view[rows], n1), np.minimum(k_now[rows], n2)
        raw = self._compare((k1, n1, k2, n2), tables.kind.view[rows], tables.spread, rows)
        raw[(tables.kind.view[rows] == Cell.LINE) & (n2 < config.min_lines)] = 0.0
        keep = raw > 0
        names = [tables.behaviour_names[row] for row in rows[keep].tolist()]
        shares = self._frame(operation[keep], tables.kind.view[rows][keep], (k1, n1, k2, n2), keep, raw)
        n_last, k_last = np.zeros(tables.n.size), np.zeros(tables.k.size)
        if buckets:
            n_last[buckets[-1].operations] = buckets[-1].n
            k_last[buckets[-1].behaviours] = buckets[-1].k
        shares = shares.with_columns(
            pl.Series("what", [name[2] for name in names], dtype=pl.String),
            _latest(k_last[rows[keep]], n_last[operation[keep]]),
        )
        found = pl.concat([shares, self._judge_times(buckets)])
        return found.filter(~pl.col("kind").is_in(_SYMPTOMS) | (pl.col("caller") == ""))

    def _judge_times(self, buckets: Sequence[Counts]) -> pl.DataFrame:
        tables, config = self.tables, self.config
        rows = np.unique(np.concatenate([counts.times for counts in buckets])) if buckets else np.zeros(0, np.int64)
        rows = rows[np.isin(tables.time_kind.view[rows], _JUDGED_TIMES)]
        now = np.zeros((len(rows), BINS))
        for counts in buckets:
            mine = np.isin(counts.times, rows)
            now[np.searchsorted(rows, counts.times[mine])] += counts.histograms[mine]
        learnt = tables.histogram.view[rows]
        enough = (learnt.sum(axis=1) >= config.min_history) & (now.sum(axis=1) >= config.min_window)
        rows, learnt, now = rows[enough], learnt[enough], now[enough]
        limit = self._limits(learnt)
        above = np.arange(BINS)[None, :] > limit[:, None]
        shares = (learnt * above).sum(axis=1), learnt.sum(axis=1), (now * above).sum(axis=1), now.sum(axis=1)
        raw = self._compare(shares, tables.time_kind.view[rows], tables.time_spread, rows)
        keep = raw > 0
        frame = self._frame(
            tables.time_operation.view[rows[keep]], tables.time_kind.view[rows[keep]], shares, keep, raw
        )
        last = np.zeros_like(now)
        if buckets:
            mine = np.isin(buckets[-1].times, rows)
            last[np.searchsorted(rows, buckets[-1].times[mine])] = buckets[-1].histograms[mine]
        reached = now[keep].cumsum(axis=1) >= 0.95 * shares[3][keep][:, None]
        return frame.with_columns(
            pl.Series("expected_s", _seconds(limit[keep] + 1), dtype=pl.Float64),
            pl.Series("observed_s", _seconds(np.argmax(reached, axis=1) + 1), dtype=pl.Float64),
            _latest((last * above).sum(axis=1)[keep], last.sum(axis=1)[keep]),
        )

    def _limits(self, histograms: Floats) -> Ints:
        """Bin that 95 % of history stayed in or below, plus the margin; spans above it count as slow."""
        total = histograms.sum(axis=1)
        reached = histograms.cumsum(axis=1) >= 0.95 * total[:, None] * (1.0 - 1e-12)
        return np.asarray(np.argmax(reached, axis=1) + self.config.tail_margin_bins, dtype=np.int64)

    def _compare(
        self, shares: tuple[Floats, Floats, Floats, Floats], kind: Ints, spread: Dispersion, rows: Ints
    ) -> Floats:
        """Raw scores, 0 where the change is too small or in a direction that says nothing."""
        k1, n1, k2, n2 = shares
        change = k2 / np.maximum(n2, 1e-9) - k1 / np.maximum(n1, 1e-9)
        at = np.flatnonzero((np.abs(change) >= self.config.min_effect) & ~(np.isin(kind, _UPWARD_ONLY) & (change < 0)))
        raw = np.zeros(len(rows))
        significance = g_statistic(k1[at], n1[at], k2[at], n2[at]) / spread.factor(rows[at])
        size = _surely(k1[at], n1[at], k2[at], n2[at], self.config.effect_z)
        raw[at] = np.minimum(significance, self.config.significance_cap) * size
        return raw

    def _frame(
        self, operation: Ints, kind: Ints, shares: tuple[Floats, Floats, Floats, Floats], keep: np.ndarray, raw: Floats
    ) -> pl.DataFrame:
        """Name deviating rows: they are few, so a little Python per row is cheap."""
        k1, n1, k2, n2 = (column[keep] for column in shares)
        names = [self.tables.operation_names[row] for row in operation.tolist()]
        calls = {row: self._call(row) for row in set(operation.tolist())}
        outgoing = [calls[row] for row in operation.tolist()]
        m = len(names)
        return pl.DataFrame(
            {
                **{column: [name[i] for name in names] for i, column in enumerate(list(EVIDENCE)[:5])},
                "kind": kind,
                "what": [""] * m,
                "before": k1 / np.maximum(n1, 1e-9),
                "after": k2 / np.maximum(n2, 1e-9),
                "latest": [None] * m,
                "n_before": n1,
                "n_after": n2.astype(np.int64),
                "expected_s": [None] * m,
                "observed_s": [None] * m,
                "raw": raw[keep],
                "outgoing": [call[0] for call in outgoing],
                "target": [call[1] for call in outgoing],
                "remote": [call[2] for call in outgoing],
            },
            schema=EVIDENCE,
        )

    def peer_edges(self, cells: pl.DataFrame) -> list[tuple[str, tuple[str, str, int, int, bool]]]:
        """Calls to what sends no spans of its own: (environment, (caller, callee, requests, errors, False)).

        Only of operations whose callee has never answered, so that a refused call makes no second node of it.
        """
        keys = ["environment", "namespace", "service", "operation", "caller"]
        peers = cells.filter(pl.col("kind") == int(Cell.PEER)).group_by(keys).agg(pl.col("n").sum())
        failed = cells.filter(pl.col("kind") == int(Cell.ERRORS)).group_by(keys).agg(pl.col("n").sum().alias("errors"))
        edges: dict[tuple[str, str, str], list[int]] = {}
        for *key, n, errors in peers.join(failed, on=keys, how="left").sort(keys).iter_rows():
            row = self.tables.operations.get((key[0], key[1], key[2], key[3], key[4]))
            if row is None:
                continue
            outgoing, target, remote = self._call(row)
            if outgoing and target and not remote:
                counts = edges.setdefault((key[0], key[2], target), [0, 0])
                counts[0] += n
                counts[1] += errors or 0
        return [
            (environment, (caller, callee, n, bad, False)) for (environment, caller, callee), (n, bad) in edges.items()
        ]

    def _call(self, operation: int) -> tuple[bool, str, bool]:
        """Whether an operation is a call to somebody, to whom, and whether they have answered with spans of their own.

        Known from the span kind; where instrumentation gives none, an operation that always has one remote child of
        the same method name is taken for the call itself.
        """
        tables = self.tables
        _, _, service, name, _ = tables.operation_names[operation]
        spans = float(tables.n.view[operation])
        client, callee, most, same, peer, peers = 0.0, "", 0.0, False, "", 0.0
        for row in np.flatnonzero(tables.operation.view == operation).tolist():
            _, kind, what = tables.behaviour_names[row]
            seen = float(tables.k.view[row])
            if kind == Cell.CLIENT:
                client = seen
            elif kind == Cell.PEER and seen > peers:
                peer, peers = what, seen
            elif kind == Cell.CHILD:
                child, _, child_name = what.partition("|")
                if child != service and seen > most:
                    callee, most, same = child, seen, _method(child_name) == _method(name)
        answered = most > 0.2 * spans
        outgoing = client > 0.5 * spans or (client == 0 and same and most > 0.8 * spans)
        if not outgoing:
            return False, "", False
        return True, callee if answered else peer, answered


def _method(name: str) -> str:
    """The last part of an operation's name: what client and server side of one call have in common."""
    return name.replace(".", "/").rsplit("/", 1)[-1].casefold()


def _surely(k1: Floats, n1: Floats, k2: Floats, n2: Floats, z: float) -> Floats:
    """Size of a change that the window's few spans make sure of: to the near end of its share's Wilson interval."""
    before, after = k1 / np.maximum(n1, 1e-9), k2 / np.maximum(n2, 1e-9)
    centre = (after + z**2 / (2 * n2)) / (1 + z**2 / n2)
    half = z / (1 + z**2 / n2) * np.sqrt(after * (1 - after) / n2 + z**2 / (4 * n2**2))
    near = np.where(after > before, centre - half, centre + half)
    return np.asarray(np.clip(np.where(after > before, near - before, before - near), 0.0, 1.0), dtype=np.float64)


def _latest(k: Floats, n: Floats) -> pl.Series:
    """Shares of the newest bucket; null where it holds fewer than three spans."""
    shares = pl.Series("latest", k / np.maximum(n, 1.0), dtype=pl.Float64)
    return shares.set(pl.Series(n < _FEW), None)


def _seconds(bins: Ints) -> Floats:
    return np.exp2(bins / BINS_PER_OCTAVE) * 1e-6
