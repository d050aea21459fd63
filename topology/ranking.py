"""Whose fault it is: deviations are credited to the service they speak of, and explained away along the graph.

Three steps. *Credit*: each deviation says something of its own service or of the one it calls (a refused or slow call
speaks of the callee, even of one that is dead or sends no spans; a widened gap of both ends of the edge). *Explain*:
a service whose answers changed makes its callers behave differently, so deviations that can be inherited count less
where a callee deviates as much. *Rank*: what remains, strongest first. Not here: what deviates (``detectors``) or
when that is an incident (``incidents``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from signals.cells import Cell
from topology.graph import ServiceGraph


class Channel(StrEnum):
    """In which way a deviation speaks; decides the fault kind and whether it can be inherited from a callee."""

    TIME = "time"  # its own work takes longer
    ERROR = "error"  # it fails by itself
    LOST = "lost"  # calls to it do not arrive or are refused
    CALL = "call"  # calls to it, seen from the outside, are slow
    GAP = "gap"  # the way to and from it is slow
    BEHAVIOUR = "behaviour"  # it makes other calls or writes other lines
    METRIC = "metric"  # a metric of it deviates
    SYMPTOM = "symptom"  # its golden signals deviate, whoever is to blame


@dataclass(frozen=True, slots=True)
class Deviation:
    """One deviating behaviour or series, as detectors see it, in the terms of one environment."""

    service: str  # whose behaviour deviates (edges: the callee)
    namespace: str
    instance: str  # the one that stands out, "" where none does
    operation: str
    caller: str
    kind: int  # Cell, or METRIC
    what: str  # log template id, child, metric name
    raw: float  # strength: capped significance times size of change
    before: float = 0.0  # share in history
    after: float = 0.0  # share in the window
    alive: bool = True  # the newest bucket still shows it (or is too thin to tell)
    n: int = 0  # spans, lines or points of the window
    observed: float = 0.0  # in ``unit``
    low: float = 0.0  # expected interval
    high: float = 0.0
    unit: str = "1"
    outgoing: bool = False  # the operation is a call to somebody else
    target: str = ""  # to whom
    remote: bool = False  # who has answered with spans of its own
    score: float = 0.0  # calibrated, 1 - p
    detector: str = "span_behaviour"
    version: str = "1"


#: ``Deviation.kind`` of a metric series, and of a model on a service's golden signals.
METRIC: Final = -1
GOLDEN: Final = -2


@dataclass(frozen=True, slots=True)
class Credit:
    """A deviation credited to a service, with the weight it has there."""

    service: str
    channel: Channel
    weight: float
    deviation: Deviation


@dataclass(slots=True)
class Suspect:
    """A service in the ranking."""

    service: str
    score: float
    own: float  # before explaining away
    explained_by: str = ""  # the callee that explains a part of it
    credits: list[Credit] = field(default_factory=list)  # strongest first

    @property
    def instance(self) -> str:
        """The instance that most of the weight which names one agrees on, "" where there is none."""
        weight: dict[str, float] = {}
        for credit in self.credits[:8]:
            if credit.deviation.instance and credit.deviation.service == self.service:
                weight[credit.deviation.instance] = weight.get(credit.deviation.instance, 0.0) + credit.weight
        best = max(sorted(weight), key=lambda name: weight[name], default="")
        return best if best and weight[best] > 0.6 * sum(weight.values()) else ""


@dataclass(frozen=True, slots=True)
class RankingConfig:
    """Weights: few, and one setting for all systems."""

    inherited: float = 0.35  # what a fully explained, inheritable deviation still counts
    reach: int = 3  # hops downstream in which a reason is looked for
    distance: float = 0.8  # what a reason counts for one hop farther away
    secondary: float = 0.05  # share of the further credits of a service that is added to its strongest


#: Words of the field for what one wants more of, and less of; a deviation in the wanted direction hardly counts.
_GOOD_WHEN_HIGH: Final = ("availab", "success", "healthy", "idle", "free", "hit")
_BAD_WHEN_HIGH: Final = ("latency", "duration", "error", "fail", "fault", "timeout", "queue", "lag", "wait", "throttl")
_HARMLESS: Final = 0.2

#: Golden signals show that a service suffers, not that it is the cause: they are told, and hardly count.
_SYMPTOM_WEIGHT: Final = 0.02

#: Deviations that a deviating callee can bring about in its caller.
_INHERITABLE: Final = frozenset({Channel.TIME, Channel.BEHAVIOUR, Channel.ERROR})


def rank(deviations: Sequence[Deviation], graph: ServiceGraph, config: RankingConfig | None = None) -> list[Suspect]:
    """Suspects, best first; ties in the order of their names. Cost grows with the deviations, not with the graph."""
    config = config or RankingConfig()
    by_service: dict[str, list[Credit]] = defaultdict(list)
    for credit in [*_direct(deviations), *_gaps(deviations, graph)]:
        by_service[credit.service].append(credit)
    suspects = {}
    for service, credits in by_service.items():
        credits.sort(key=_strongest_first)
        suspects[service] = Suspect(service, 0.0, _total(credits, config), credits=credits)
    for suspect in suspects.values():
        _explain(suspect, suspects, graph, config)
    for suspect in list(suspects.values()):
        _seen_from_outside(suspect, suspects, graph, config)
    return sorted(suspects.values(), key=lambda one: (-one.score, one.service))


def rank_from_symptom(
    deviations: Sequence[Deviation], graph: ServiceGraph, service: str, metric: str, config: RankingConfig | None = None
) -> list[Suspect]:
    """Suspects that can explain a symptom somebody noticed: those its service reaches by calls come first.

    ``metric`` is the symptom's; deviations of metrics that share a word with it count double.
    """
    reached = graph.downstream(service)
    words = {word for word in metric.casefold().replace(".", "_").split("_") if word}
    weighed = []
    for one in deviations:
        related = one.kind == METRIC and words & set(one.what.casefold().replace(".", "_").split("_"))
        weighed.append(replace(one, raw=one.raw * 2.0) if related else one)
    ranked = rank(weighed, graph, config)
    return sorted(ranked, key=lambda one: (one.service not in reached, -one.score, one.service))


def _strongest_first(credit: Credit) -> tuple[float, str, str, str, str]:
    deviation = credit.deviation
    return -credit.weight, credit.channel, deviation.operation, deviation.caller, deviation.what


def _total(credits: Sequence[Credit], config: RankingConfig) -> float:
    """The strongest credit, and a little of the others, so that many signs beat one."""
    if not credits:
        return 0.0
    weights = [credit.weight for credit in credits]
    return max(weights) + config.secondary * (sum(sorted(weights, reverse=True)[1:6]))


def _direct(deviations: Sequence[Deviation]) -> list[Credit]:
    """Credits of everything but gaps; errors and durations as such are symptoms and credit nobody."""
    credits = []
    for one in deviations:
        if one.kind in (Cell.GAP, Cell.ERRORS, Cell.DURATION):
            continue
        calls = one.outgoing and one.target
        if one.kind == Cell.CHILD and calls and one.what.partition("|")[0] == one.target and one.after < one.before:
            credits.append(Credit(one.target, Channel.LOST, one.raw, one))
        elif one.kind == Cell.ORIGIN:
            credits.append(
                Credit(one.target if calls else one.service, Channel.LOST if calls else Channel.ERROR, one.raw, one)
            )
        elif one.kind == Cell.EXCLUSIVE:
            whose, channel = (one.target, Channel.CALL) if calls else (one.service, Channel.TIME)
            credits.append(Credit(whose, channel, one.raw * _magnitude(one), one))
        elif one.kind == GOLDEN:
            credits.append(Credit(one.service, Channel.SYMPTOM, _SYMPTOM_WEIGHT * one.raw, one))
        elif one.kind == METRIC:
            credits.append(Credit(one.service, Channel.METRIC, one.raw * _harm(one), one))
        else:
            credits.append(Credit(one.service, Channel.BEHAVIOUR, one.raw, one))
    return credits


def _magnitude(one: Deviation) -> float:
    """How much longer, not only how sure: shares of slow calls saturate, seconds do not. 1 at four times the limit."""
    ratio = one.observed / one.high if one.high > 0 else math.nan
    if not math.isfinite(ratio) or ratio <= 0:
        return 1.0
    return min(1.5, max(0.25, math.log2(ratio) / 2.0))


def _harm(one: Deviation) -> float:
    """How far a deviation is bad news: more latency is, more availability is not; 1 where the name tells nothing."""
    name = one.what.casefold()
    good = any(word in name for word in _GOOD_WHEN_HIGH)
    bad = any(word in name for word in _BAD_WHEN_HIGH)
    if good == bad:
        return 1.0
    upward = one.observed > one.high
    return 1.0 if upward == bad else _HARMLESS


def _gaps(deviations: Sequence[Deviation], graph: ServiceGraph) -> list[Credit]:
    """Widened edges belong to the end they have in common: the one more of whose edges widened."""
    widened: dict[str, list[Deviation]] = defaultdict(list)
    for one in deviations:
        if one.kind == Cell.GAP:
            widened[one.service].append(one)
            widened[one.caller].append(one)
    credits = []
    for node, edges in widened.items():
        others = {edge.caller if edge.service == node else edge.service for edge in edges}
        neighbours = set(graph.callees.get(node, ())) | set(graph.callers.get(node, ())) | others
        share = len(others) / max(1, len(neighbours - graph.uninstrumented))
        total = sum(edge.raw * _magnitude(edge) for edge in edges) * min(1.0, share)
        strongest = max(edges, key=lambda edge: (edge.raw, edge.service, edge.caller))
        credits.append(Credit(node, Channel.GAP, total, strongest))
    return credits


def _seen_from_outside(
    suspect: Suspect, suspects: Mapping[str, Suspect], graph: ServiceGraph, config: RankingConfig
) -> None:
    """A node known only from its callers, by metrics alone, may be a caller's view of a service that deviates itself.

    Load balancers and client-side names stand in front of services that also report for themselves. Where a caller of
    such a node also calls a service that has callees of its own and deviates in the same metric, that service is meant.
    """
    if graph.callees.get(suspect.service) or any(credit.channel is not Channel.METRIC for credit in suspect.credits):
        return
    metrics = _metric_families(suspect)
    siblings = {other for caller in graph.callers_of(suspect.service) for other in graph.callees_of(caller)}
    meant = [
        suspects[other]
        for other in sorted(siblings - {suspect.service})
        if other in suspects and graph.callees.get(other) and suspect.service not in graph.callees[other]
        if metrics & _metric_families(suspects[other])
    ]
    if meant:
        # What the callers saw of it speaks for the service itself.
        service = max(meant, key=lambda one: (one.own, one.service))
        service.score += suspect.score * (1.0 - config.inherited)
        suspect.score *= config.inherited
        suspect.explained_by = service.service


def _metric_families(suspect: Suspect) -> set[str]:
    """First parts of the names of its deviating metrics: ``latency`` of ``latency.p99``."""
    return {
        credit.deviation.what.casefold().replace("_", ".").split(".")[0]
        for credit in suspect.credits
        if credit.channel is Channel.METRIC
    }


def _explain(suspect: Suspect, suspects: Mapping[str, Suspect], graph: ServiceGraph, config: RankingConfig) -> None:
    """Lower what a deviating callee may have brought about, in the measure in which the callee deviates."""
    best, other = 0.0, ""
    for callee, hops in graph.downstream(suspect.service, most=config.reach).items():
        reason = suspects.get(callee)
        if reason is None or callee == suspect.service or suspect.service in graph.callees.get(callee, ()):
            continue
        weight = reason.own * config.distance ** (hops - 1)
        if weight > best:
            best, other = weight, callee
    weights = []
    for credit in suspect.credits:
        keep = 1.0
        if credit.channel in _INHERITABLE and best > 0:
            keep = 1.0 - (1.0 - config.inherited) * min(1.0, best / max(credit.weight, 1e-9))
        weights.append(Credit(credit.service, credit.channel, credit.weight * keep, credit.deviation))
    suspect.score = _total(weights, config)
    if suspect.score < 0.9 * suspect.own:
        suspect.explained_by = other
