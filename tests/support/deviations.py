"""Made-up deviations, graphs and bucket reports: what the ranking and the correlator are told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from incidents.report import BucketReport
from signals.cells import Cell
from tests.support.traces import SECOND, START
from topology.graph import ServiceGraph
from topology.ranking import GOLDEN, METRIC, Deviation

BUCKET = 10 * SECOND


def deviation(service: str, kind: int = Cell.ORIGIN, raw: float = 40.0, **fields: Any) -> Deviation:
    """A strong deviation of a service, by default errors that begin in it."""
    values: dict[str, Any] = {
        "namespace": "",
        "instance": "",
        "operation": "op",
        "caller": "",
        "what": "",
        "before": 0.0,
        "after": 0.6,
        "n": 100,
        "observed": 0.6,
        "score": 0.999,
    }
    return Deviation(service=service, kind=int(kind), raw=raw, **(values | fields))


def slow(service: str, raw: float = 40.0, **fields: Any) -> Deviation:
    """Its own work takes longer."""
    values = {"observed": 2.0, "high": 0.5, "unit": "s", "before": 0.05, "after": 0.9}
    return deviation(service, Cell.EXCLUSIVE, raw, **(values | fields))


def gap(caller: str, callee: str, raw: float = 30.0, **fields: Any) -> Deviation:
    """The way between two services takes longer."""
    values = {"caller": caller, "operation": "", "observed": 2.0, "high": 0.5, "unit": "s"}
    return deviation(callee, Cell.GAP, raw, **(values | fields))


def refused(caller: str, callee: str, raw: float = 40.0, **fields: Any) -> Deviation:
    """Calls fail in the caller's client span without the callee ever having answered."""
    return deviation(caller, Cell.ORIGIN, raw, operation="call", outgoing=True, target=callee, **fields)


def metric(service: str, name: str, raw: float = 5.0, **fields: Any) -> Deviation:
    """A metric series far above what is expected."""
    values = {"operation": "", "unit": "", "observed": 97.0, "low": 20.0, "high": 40.0, "before": 0.0, "after": 0.0}
    return deviation(service, METRIC, raw, what=name, **(values | fields))


def golden(service: str, raw: float = 6.0) -> Deviation:
    """A model finds the service's golden signals unusual."""
    return deviation(service, GOLDEN, raw, what="latency_p95", operation="", detector="half_space_trees")


def graph_of(*pairs: str | tuple[str, str], at_ns: int = START) -> ServiceGraph:
    """``graph_of("ab", "bc")``: a calls b, b calls c; both answer with spans of their own."""
    graph = ServiceGraph()
    graph.update(at_ns, [(caller, callee, 100, 0, True) for caller, callee in pairs])
    return graph


def report(number: int, deviations: Iterable[Deviation] = (), **fields: Any) -> BucketReport:
    """Bucket ``number`` after START."""
    start = START + number * BUCKET
    return BucketReport(start, start + BUCKET, tuple(deviations), **fields)
