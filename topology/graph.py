"""The service graph: who calls whom, learnt from traces, ageing, with a known topology added where one is given.

Counts fade with a half-life, so an edge that is no longer used stops counting and, long after, is forgotten: a dead
edge must not blame. Nodes are service names within one environment; what is called but sends no spans of its own (a
database, a broker) is a node like any other, known from its callers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from signals.cells import Cell

#: Edges of one bucket, as ``edges_of`` makes them.
EDGES: Final = pl.Schema(
    {
        "environment": pl.String,
        "caller": pl.String,
        "callee": pl.String,
        "requests": pl.Int64,
        "errors": pl.Int64,
        "instrumented": pl.Boolean,  # the callee answered with spans of its own
    }
)


@dataclass(slots=True)
class Edge:
    """One call edge; counts are decayed to ``at_ns``."""

    requests: float
    errors: float
    at_ns: int  # event time of the last update
    known: bool = False  # given by a topology file: never forgotten


@dataclass(slots=True)
class ServiceGraph:
    """One environment's graph.

    At ``max_edges`` the weakest tenth of the learnt edges makes room. What has faded is forgotten four times a
    half-life, so that the cost of looking for it does not come with every bucket.
    """

    half_life_ns: int = 3_600_000_000_000
    forget_below: float = 0.01
    max_edges: int = 100_000
    edges: dict[tuple[str, str], Edge] = field(default_factory=dict)
    callees: dict[str, set[str]] = field(default_factory=dict)
    callers: dict[str, set[str]] = field(default_factory=dict)
    uninstrumented: set[str] = field(default_factory=set)  # called, and has never answered with spans of its own
    answered: set[str] = field(default_factory=set)  # has sent spans of its own
    dropped: int = 0  # edges that gave way or found no room at the limit
    swept_ns: int = 0  # event time at which faded edges were last looked for

    def add_known(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add a known topology: edges that stay whether or not traces show them."""
        for caller, callee in pairs:
            edge = self._edge(caller, callee, 0)
            if edge is None:
                self.dropped += 1
            else:
                edge.known = True

    def update(self, at_ns: int, rows: Iterable[tuple[str, str, int, int, bool]]) -> None:
        """Add one bucket's calls: (caller, callee, requests, errors, callee is instrumented)."""
        if at_ns - self.swept_ns >= self.half_life_ns // 4:
            self.swept_ns = at_ns
            self.forget(at_ns)
        for caller, callee, requests, errors, instrumented in rows:
            edge = self._edge(caller, callee, at_ns)
            if edge is None:
                self.dropped += 1
                continue
            fade = self._fade(edge, at_ns)
            edge.requests = edge.requests * fade + requests
            edge.errors = edge.errors * fade + errors
            edge.at_ns = at_ns
            self._note(caller)
            if instrumented:
                self._note(callee)
            elif callee not in self.answered and callee not in self.callees:
                self.uninstrumented.add(callee)

    def _note(self, service: str) -> None:
        """A service has sent spans of its own: one refused call later does not change that."""
        self.answered.add(service)
        self.uninstrumented.discard(service)

    def requests(self, caller: str, callee: str, now_ns: int) -> float:
        """Decayed number of calls on an edge, 0 when it is unknown."""
        edge = self.edges.get((caller, callee))
        return edge.requests * self._fade(edge, now_ns) if edge else 0.0

    def forget(self, now_ns: int) -> None:
        """Drop edges that have faded away, and services that no edge is left of."""
        for (caller, callee), edge in list(self.edges.items()):
            if not edge.known and edge.requests * self._fade(edge, now_ns) < self.forget_below:
                self._drop(caller, callee)

    def callees_of(self, service: str) -> list[str]:
        """Whom a service calls, sorted."""
        return sorted(self.callees.get(service, ()))

    def callers_of(self, service: str) -> list[str]:
        """Who calls a service, sorted."""
        return sorted(self.callers.get(service, ()))

    def downstream(
        self, service: str, within: frozenset[str] | None = None, *, most: int | None = None
    ) -> dict[str, int]:
        """Everything a service reaches by calls, with the number of hops; inside ``within``, up to ``most`` hops."""
        return _walk(service, self.callees, within, most)

    def upstream(self, service: str, within: frozenset[str] | None = None) -> dict[str, int]:
        """Everything that reaches a service by calls, with the number of hops; inside ``within`` where given."""
        return _walk(service, self.callers, within)

    def path(self, start: str, end: str) -> list[str]:
        """A shortest chain of calls from ``start`` to ``end``; empty where there is none."""
        hops = self.upstream(end)
        if start not in hops:
            return []
        path = [start]
        while path[-1] != end:
            path.append(
                min(callee for callee in self.callees[path[-1]] if hops.get(callee, 1 << 30) == hops[path[-1]] - 1)
            )
        return path

    def _edge(self, caller: str, callee: str, at_ns: int) -> Edge | None:
        edge = self.edges.get((caller, callee))
        if edge is None:
            if len(self.edges) >= self.max_edges and not self._make_room(at_ns):
                return None
            edge = self.edges[caller, callee] = Edge(0.0, 0.0, at_ns)
            self.callees.setdefault(caller, set()).add(callee)
            self.callers.setdefault(callee, set()).add(caller)
        return edge

    def _make_room(self, now_ns: int) -> bool:
        """Let the weakest tenth of the learnt edges go; False where all that there is is known."""
        learnt = sorted(
            (edge.requests * self._fade(edge, now_ns), *pair) for pair, edge in self.edges.items() if not edge.known
        )
        weakest = learnt[: -(-len(learnt) // 10)]
        for _, caller, callee in weakest:
            self._drop(caller, callee)
        self.dropped += len(weakest)
        return bool(weakest)

    def _drop(self, caller: str, callee: str) -> None:
        del self.edges[caller, callee]
        for table, service, other in ((self.callees, caller, callee), (self.callers, callee, caller)):
            table[service].discard(other)
            if not table[service]:
                del table[service]
        for service in (caller, callee):
            if service not in self.callees and service not in self.callers:
                self.uninstrumented.discard(service)
                self.answered.discard(service)

    def _fade(self, edge: Edge, now_ns: int) -> float:
        return float(0.5 ** (max(0, now_ns - edge.at_ns) / self.half_life_ns))


def _walk(
    start: str, neighbours: dict[str, set[str]], within: frozenset[str] | None, most: int | None = None
) -> dict[str, int]:
    """Breadth first; the start itself at 0 hops."""
    hops = {start: 0}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        if most is not None and hops[node] >= most:
            continue
        for other in sorted(neighbours.get(node, ())):
            if other not in hops and (within is None or other in within):
                hops[other] = hops[node] + 1
                queue.append(other)
    return hops


def edges_of(cells: pl.DataFrame) -> pl.DataFrame:
    """Calls between services in one bucket of cells, as the callee's own spans show them (schema EDGES)."""
    remote = (pl.col("caller") != "") & (pl.col("caller") != pl.col("service"))
    counted = cells.filter(remote & pl.col("kind").is_in([int(Cell.SPANS), int(Cell.ERRORS)]))
    return (
        counted.group_by("environment", "caller", pl.col("service").alias("callee"))
        .agg(
            pl.col("n").filter(pl.col("kind") == int(Cell.SPANS)).sum().alias("requests"),
            pl.col("n").filter(pl.col("kind") == int(Cell.ERRORS)).sum().alias("errors"),
        )
        .with_columns(pl.lit(value=True).alias("instrumented"))
        .sort("environment", "caller", "callee")
        .select(list(EDGES))
    )
