"""The stage that correlates: findings of all shards in, incident revisions, diagnoses and risks of changes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from delivery.change import Assessment
from delivery.config import DeliveryConfig
from delivery.watch import ChangeWatch
from flows.change_risk import blame, facts_of
from flows.findings import Findings
from flows.layout import Layout
from flows.messages import DIAGNOSIS, FINDINGS, TEMPLATES, Rollup, Rows
from flows.stages import Message, Progress, Vitals
from flows.windows import Window, WindowFindings
from incidents.build import Context
from incidents.config import IncidentConfig
from incidents.correlate import Correlator
from incidents.describe import fault_kind_of
from incidents.model import Provenance, RootCauseEvent
from incidents.report import BucketReport, Change, Template
from signals.batch import END_OF_STREAM
from signals.buckets import floor_to
from topology.graph import ServiceGraph
from topology.ranking import Deviation, RankingConfig, Suspect, rank, rank_from_symptom


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The ranking for one window that was asked about."""

    window: str
    environment: str
    suspects: tuple[Suspect, ...]

    def to_json(self) -> dict[str, Any]:
        """One line of ``mendstream diagnose``."""
        return {
            "id": self.window,
            "candidates": [
                {
                    "entity": {"deployment.environment.name": self.environment, "service.name": one.service}
                    | ({"service.instance.id": one.instance} if one.instance else {}),
                    "score": round(one.score, 6),
                    "fault_kind": str(fault_kind_of(one.credits, changed=False)),
                }
                for one in self.suspects
            ],
        }


#: What the stage says.
Told: TypeAlias = RootCauseEvent | Diagnosis | Assessment


@dataclass(slots=True)
class IncidentStage:
    """The correlators of all environments."""

    name: str
    layout: Layout
    bucket_ns: int
    source: str  # CloudEvents source prefix
    provenance: Provenance
    config: IncidentConfig = field(default_factory=IncidentConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    known_edges: tuple[tuple[str, str], ...] = ()
    windows: tuple[Window, ...] = ()
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    progress: Progress = field(init=False)
    correlators: dict[str, Correlator] = field(default_factory=dict)
    watches: dict[str, ChangeWatch] = field(default_factory=dict)  # by environment, as the correlators
    findings: dict[int, list[Findings]] = field(default_factory=dict)  # bucket start -> parts
    templates: dict[int, list[Template]] = field(default_factory=dict)
    changes: list[tuple[str, Change]] = field(default_factory=list)
    asked: dict[tuple[str, str], list[Deviation]] = field(default_factory=dict)  # (window, environment)
    answered: set[str] = field(default_factory=set)
    told_late: int = 0  # late rows the correlators have been told of

    def __post_init__(self) -> None:
        self.progress = Progress(self.layout.incident_origins(), self.bucket_ns)

    def feed(self, messages: Iterable[Message]) -> list[Told]:
        """Take findings, templates, changes and marks; correlate every bucket that is complete."""
        for message in messages:
            if isinstance(message, Rows):
                self._changes(message)
            elif isinstance(message, Rollup):
                self._rollup(message)
            else:
                self.progress.take(message)
        low = self.progress.low
        out: list[Told] = []
        # Templates of a bucket are kept in the order of buckets too, so that both are told in event time.
        due = sorted(start for start in self.findings.keys() | self.templates.keys() if start + self.bucket_ns <= low)
        for start_ns in due:
            out += self._diagnoses(start_ns)
            out += self._bucket(start_ns)
        out += self._diagnoses(low)
        # At the end of the stream event time has come to the last row, whatever the watermarks on the way there were.
        floor = floor_to(low if low < END_OF_STREAM else self.progress.newest_ns, self.bucket_ns)
        for name in sorted(self.correlators):
            out += self._tick(name, floor)
        return out

    def vitals(self) -> Vitals:
        """Open incidents, and the graph they are on."""
        correlators = self.correlators.values()
        sizes = {
            "open_incidents": sum(len(one.open) for one in correlators),
            "graph_edges": sum(len(one.context.graph.edges) for one in correlators),
        }
        return Vitals(self.progress.low, 0, sizes)

    def adopt(self, fresh: IncidentStage) -> None:
        """Take the partitions there are now, and settings of correlation and ranking that were changed."""
        self.layout, self.provenance, self.source = fresh.layout, fresh.provenance, fresh.source
        self.config, self.ranking, self.known_edges = fresh.config, fresh.ranking, fresh.known_edges
        self.delivery = fresh.delivery
        self.progress.expect(fresh.progress.origins)
        for watch in self.watches.values():
            watch.adopt(self.delivery)
        for name, one in self.correlators.items():
            one.config, one.ranking, one.context.source = self.config, self.ranking, f"{self.source}/{name}"
            one.context.graph.add_known(self.known_edges)
            offsets = one.context.provenance.input_offsets
            one.context.provenance = self.provenance.model_copy(update={"input_offsets": offsets})

    def _rollup(self, message: Rollup) -> None:
        if message.table == FINDINGS:
            self.findings.setdefault(message.start_ns, []).append(message.payload)
        elif message.table == TEMPLATES:
            self.templates.setdefault(message.start_ns, []).extend(message.payload)
        elif message.table == DIAGNOSIS:
            payload: WindowFindings = message.payload
            self.asked.setdefault((payload.window, payload.environment), []).extend(payload.deviations)

    def _changes(self, message: Rows) -> None:
        columns = message.frame.select("environment", "id", "type", "service", "version", "time_ns")
        self.changes += [(row[0], Change(*row[1:])) for row in columns.iter_rows()]

    def _bucket(self, start_ns: int) -> list[Told]:
        parts = sorted(
            self.findings.pop(start_ns, []), key=lambda one: (one.environment, repr(one.golden[:1]), repr(one))
        )
        templates = sorted(self.templates.pop(start_ns, []), key=lambda one: (one.id, one.text))
        end_ns = start_ns + self.bucket_ns
        changes = sorted(
            (one for one in self.changes if one[1].at_ns < end_ns), key=lambda one: (one[1].at_ns, one[1].id)
        )
        self.changes = [one for one in self.changes if one[1].at_ns >= end_ns]
        late = sum(self.progress.late.values())
        new_late, self.told_late = late - self.told_late, late
        out: list[Told] = []
        names = {one.environment for one in parts} | {name for name, _ in changes} | self.correlators.keys()
        for name in sorted(names):
            mine = [one for one in parts if one.environment == name]
            mine_changed = [change for env, change in changes if env == name]
            report = self._report(start_ns, mine, templates, mine_changed, new_late)
            # Assessed before the bucket is judged: on what was known when the change came.
            out += self._tick(name, start_ns)
            correlator, watch = self._correlator(name), self._watch(name)
            out += [watch.assess(facts_of(change, correlator)) for change in mine_changed]
            events = correlator.process(report)
            blame(watch, events)
            out += events
        return out

    def _tick(self, environment: str, at_ns: int) -> list[RootCauseEvent]:
        """Event time has come to ``at_ns``: incidents that are calm end, and watches that are over are learnt from."""
        events, watch = self._correlator(environment).tick(at_ns, self.bucket_ns), self._watch(environment)
        blame(watch, events)
        watch.settle(at_ns)
        return events

    def _watch(self, environment: str) -> ChangeWatch:
        if environment not in self.watches:
            self.watches[environment] = ChangeWatch.of(self.delivery)
        return self.watches[environment]

    def _report(
        self,
        start_ns: int,
        parts: Sequence[Findings],
        templates: Sequence[Template],
        changes: Sequence[Change],
        late: int,
    ) -> BucketReport:
        return BucketReport(
            start_ns,
            start_ns + self.bucket_ns,
            deviations=[one for part in parts for one in part.deviations],
            edges=_added(parts),
            golden=[one for part in parts for one in part.golden],
            entries=[one for part in parts for one in part.entries],
            changes=changes,
            examples=[one for part in parts for one in part.examples],
            templates=templates,
            late=late,
            offsets=dict(sorted(self.progress.offsets.items())),
        )

    def _correlator(self, environment: str) -> Correlator:
        found = self.correlators.get(environment)
        if found is None:
            graph = ServiceGraph()
            graph.add_known(self.known_edges)
            context = Context(environment, f"{self.source}/{environment}", graph, provenance=self.provenance)
            found = self.correlators[environment] = Correlator(context, self.config, self.ranking)
        return found

    def _diagnoses(self, at_ns: int) -> list[Told]:
        """Answers to the windows that have ended, from all shards' findings and the graph as it is by then."""
        out: list[Told] = []
        for window in self.windows:
            if window.end_ns > at_ns or window.id in self.answered:
                continue
            self.answered.add(window.id)
            mine = sorted((key, found) for key, found in self.asked.items() if key[0] == window.id)
            if not mine:
                out.append(Diagnosis(window.id, "", ()))
            for key, found in mine:
                del self.asked[key]
                graph = self._correlator(key[1]).context.graph
                ordered = sorted(found, key=repr)
                if window.symptom is not None:
                    ranked = rank_from_symptom(
                        ordered, graph, window.symptom.service, window.symptom.metric, self.ranking
                    )
                else:
                    ranked = rank(ordered, graph, self.ranking)
                out.append(Diagnosis(window.id, key[1], tuple(ranked)))
        return out


def _added(parts: Sequence[Findings]) -> list[tuple[str, str, int, int, bool]]:
    """Edges of all shards, counts added; an edge can be seen from both ends."""
    counts: dict[tuple[str, str], list[int]] = {}
    for part in parts:
        for caller, callee, requests, errors, instrumented in part.edges:
            one = counts.setdefault((caller, callee), [0, 0, 0])
            one[0] += requests
            one[1] += errors
            one[2] |= instrumented
    return [(caller, callee, n, bad, bool(own)) for (caller, callee), (n, bad, own) in sorted(counts.items())]
