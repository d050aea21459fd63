"""Deviations become incidents: clusters on the graph that last, with a life of their own.

One correlator holds one environment and is fed one report per bucket, in order. Hysteresis: a cluster opens an incident
when its first suspect has held the opening score for some buckets in a row, and is resolved after some calm ones; a
recurrence soon after reopens it. Everything is event time; identifiers follow from the input alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from incidents.build import Context, build_event, more_asked
from incidents.cluster import clusters
from incidents.config import IncidentConfig
from incidents.incident import Incident, incident_id, verdict_of
from incidents.model import RootCauseEvent, State
from incidents.report import BucketReport, Entry, Golden
from topology.ranking import Channel, RankingConfig, Suspect, rank

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(slots=True)
class _Rising:
    """A cluster that has not lasted long enough yet."""

    onset_ns: int
    last_ns: int
    buckets: list[list[Suspect]] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)  # traffic of the entry points that suffered meanwhile


@dataclass(slots=True)
class Correlator:
    """One environment."""

    context: Context
    config: IncidentConfig = field(default_factory=IncidentConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    open: list[Incident] = field(default_factory=list)
    resolved: deque[Incident] = field(default_factory=lambda: deque(maxlen=200))
    rising: list[_Rising] = field(default_factory=list)
    first_ns: int = -1
    late: int = 0
    refused: int = 0  # incidents beyond max_open
    suspects: list[Suspect] = field(default_factory=list)  # of the last bucket, for inspection

    def process(self, report: BucketReport) -> list[RootCauseEvent]:
        """One bucket of the environment; returns the revisions it decides."""
        if self.first_ns < 0:
            self.first_ns = report.start_ns
        bucket_ns = report.end_ns - report.start_ns
        earlier = self.tick(report.start_ns, bucket_ns)
        self._observe(report)
        self.suspects = rank(report.deviations, self.context.graph, self.ranking)
        groups = clusters(self.suspects, self.context.graph, self.config.join_score)
        fresh = [group for group in groups if not self._joins_open(group, report)]
        events = earlier + [event for one in list(self.open) for event in self._advance(one, report)]
        if report.start_ns - self.first_ns >= self.config.warmup_s * 1e9:
            events += self._rise(fresh, report)
        return events

    def tick(self, at_ns: int, bucket_ns: int) -> list[RootCauseEvent]:
        """Event time has come to ``at_ns`` and all reports up to it are in: what has been calm for long is resolved."""
        calm_ns = self.config.close_buckets * bucket_ns
        due = [one for one in self.open if at_ns - one.last_seen_ns >= calm_ns]
        # In event time, as they would come if this were asked after every bucket.
        due.sort(key=lambda one: one.last_seen_ns)
        return [self._resolve(one, one.last_seen_ns + calm_ns) for one in due]

    # -- one bucket -----------------------------------------------------------------------------------------------

    def _observe(self, report: BucketReport) -> None:
        context = self.context
        context.graph.update(report.start_ns, report.edges)
        context.changes.extend(report.changes)
        for template in report.templates:
            context.templates[template.id] = template
        _bound(context.templates, 200_000)
        for one in report.deviations:
            context.namespaces.setdefault(one.service, one.namespace)
        for example in report.examples:
            key = (example.service, example.operation)
            known = context.traces.get(key, ())
            context.traces[key] = tuple(dict.fromkeys([example.trace_id, *known]))[:3]
        _bound(context.traces, 20_000)
        for golden in report.golden:
            self._remember(report.end_ns, golden)
        self.late = max(self.late, report.late)
        for entry in report.entries:
            label = f"{entry.service} {entry.operation}"
            context.entries[label] = entry.service
            for incident in self.open:
                self._count_entry(incident, entry)
        _bound(context.entries, 20_000)

    def _remember(self, at_ns: int, golden: Golden) -> None:
        kept = self.context.golden.get(golden.service)
        if kept is None:
            if len(self.context.golden) >= self.config.max_services:
                return
            kept = self.context.golden[golden.service] = deque(maxlen=self.config.history_buckets)
        kept.append((at_ns, golden))

    def _count_entry(self, incident: Incident, entry: Entry) -> None:
        """Requests that failed or were slow where the incident can have reached them."""
        if entry.service in incident.services or self._leads_to(entry.service, incident):
            label = f"{entry.service} {entry.operation}"
            _count(incident.failed, label, entry.errors)
            _count(incident.slow, label, entry.slow)

    def _leads_to(self, service: str, incident: Incident) -> bool:
        first = incident.buckets[-1][0].service if incident.buckets and incident.buckets[-1] else ""
        return bool(first) and service in self.context.graph.upstream(first)

    def _joins_open(self, group: list[Suspect], report: BucketReport) -> bool:
        """Give a cluster to the open incident it continues; several that it continues become one.

        A cluster continues an incident when it holds the incident's first suspect, or is led by one of its serious
        suspects. What merely touches an incident is its echo while it is weak, and another cause when it is strong.
        """
        names = {one.service for one in group}
        alive = [one for one in self.open if not one.merged_into]  # a cluster before this one may have merged some
        serious = {one.id: _serious(one) for one in alive}
        continued = [one for one in alive if serious[one.id][:1] and serious[one.id][0] in names] or [
            one for one in alive if group[0].service in serious[one.id]
        ]
        if not continued:
            return group[0].score < self.config.open_score and any(one.services & names for one in alive)
        keeper = min(continued, key=lambda one: (one.onset_ns, one.id))
        keeper.services.update(names)
        if group[0].own >= self.config.close_score:
            # Weaker buckets, as at the end of an incident, would only blur who was to blame.
            keeper.add(group, self.config.memory_buckets)
            keeper.last_seen_ns = report.end_ns
        for other in continued:
            if other is not keeper:
                keeper.take_over(other)
        return True

    def _advance(self, incident: Incident, report: BucketReport) -> list[RootCauseEvent]:
        """Let an open incident live through the bucket."""
        if incident.merged_into:
            self.open.remove(incident)
            incident.state, incident.ended_ns = State.MERGED, report.end_ns
            return [self._tell(incident, report)]
        if incident.last_seen_ns != report.end_ns:
            calm_ns = self.config.close_buckets * (report.end_ns - report.start_ns)
            return [self._resolve(incident, report.end_ns)] if report.end_ns - incident.last_seen_ns >= calm_ns else []
        told = self._says(incident)
        if told == incident.told:
            return []
        incident.told = told
        incident.state = State.UPDATED
        return [self._tell(incident, report)]

    def _says(self, incident: Incident) -> tuple[str, ...]:
        """What a revision would say: news only when the first candidate or the verdict changes."""
        ranked = incident.ranking()
        verdict = verdict_of(ranked, self.config.identified_margin)
        return (verdict, *(one.service for one in ranked[:1]))

    def _resolve(self, incident: Incident, at_ns: int) -> RootCauseEvent:
        incident.state, incident.ended_ns = State.RESOLVED, at_ns
        self.open.remove(incident)
        self.resolved.append(incident)
        event = self._tell_at(incident, at_ns)
        past = self.context.past.setdefault(event.data.incident.fingerprint, [])
        if incident.id not in past:  # one that was reopened is still one incident
            past.append(incident.id)
            del past[:-10]
        _bound(self.context.past, self.config.max_fingerprints)
        return event

    def _rise(self, groups: Iterable[list[Suspect]], report: BucketReport) -> list[RootCauseEvent]:
        """Clusters that belong to no open incident: they open one when they last."""
        events, still = [], []
        for group in groups:
            if group[0].score < self.config.open_score or not _goes_on(group[0]):
                continue
            if self._more_of_the_load(group, report):
                continue
            names = {one.service for one in group}
            mine = next((one for one in self.rising if one.services & names and one.last_ns == report.start_ns), None)
            rising = mine or _Rising(report.start_ns, report.start_ns)
            rising.buckets.append(group)
            rising.services |= names
            rising.entries += report.entries
            rising.last_ns = report.end_ns
            if len(rising.buckets) >= self.config.open_buckets:
                events += self._open(rising, report)
            else:
                still.append(rising)
        self.rising = still
        return events

    def _more_of_the_load(self, group: list[Suspect], report: BucketReport) -> bool:
        """Whether a cluster only suffers from the traffic that an open incident already tells of."""
        ratio = self.config.load_ratio
        if more_asked(group[0], self.context) < ratio:
            return False
        for one in self.open:
            ranked = one.ranking()[:1]
            if ranked and one.asked.get(ranked[0].service, 0.0) >= ratio:
                one.services.update(suspect.service for suspect in group)
                one.last_seen_ns = report.end_ns
                return True
        return False

    def _open(self, rising: _Rising, report: BucketReport) -> list[RootCauseEvent]:
        if len(self.open) >= self.config.max_open:
            self.refused += 1
            return []
        again = self._recurrence(rising, report.end_ns)
        if again is not None:
            incident = again
            incident.state, incident.ended_ns = State.UPDATED, 0
            self.resolved.remove(again)
            incident.buckets.clear()
        else:
            first = rising.buckets[-1][0].service
            incident = Incident(
                incident_id(self.context.environment, rising.onset_ns, first),
                self.context.environment,
                rising.onset_ns,
                report.end_ns,
                report.end_ns,
            )
        for group in rising.buckets:
            incident.add(group, self.config.memory_buckets)
        incident.last_seen_ns = report.end_ns
        for entry in rising.entries:
            self._count_entry(incident, entry)
        self.open.append(incident)
        incident.told = self._says(incident)
        return [self._tell(incident, report)]

    def _recurrence(self, rising: _Rising, at_ns: int) -> Incident | None:
        """A resolved incident that ended a moment ago, of the same first suspect and in the same way."""
        first = rising.buckets[-1][0]
        for one in reversed(self.resolved):
            if at_ns - one.ended_ns > self.config.reopen_s * 1e9:
                continue
            before = one.ranking()[:1]
            if before and before[0].service == first.service and _channel(before[0]) == _channel(first):
                return one
        return None

    def _tell(self, incident: Incident, report: BucketReport) -> RootCauseEvent:
        context = self.context
        if report.offsets:
            context.provenance = context.provenance.model_copy(update={"input_offsets": dict(report.offsets)})
        return self._tell_at(incident, report.end_ns)

    def _tell_at(self, incident: Incident, at_ns: int) -> RootCauseEvent:
        incident.revision += 1
        incident.late = self.late
        for one in incident.ranking()[: self.config.max_candidates]:
            incident.asked[one.service] = max(incident.asked.get(one.service, 0.0), more_asked(one, self.context))
        return build_event(incident, at_ns, self.context, self.config)


def _serious(incident: Incident) -> list[str]:
    """An incident's suspects that stand at three tenths of its first or higher, best first."""
    ranked = incident.ranking()
    return [one.service for one in ranked if one.score >= 0.3 * ranked[0].score]


def _goes_on(suspect: Suspect) -> bool:
    """Whether the newest bucket still shows what is held against the suspect: a burst that is over opens nothing."""
    if not suspect.credits:
        return False
    floor = 0.5 * suspect.credits[0].weight
    return any(credit.deviation.alive for credit in suspect.credits if credit.weight >= floor)


def _channel(suspect: Suspect) -> Channel | None:
    return suspect.credits[0].channel if suspect.credits else None


def _count(counts: dict[str, int], label: str, n: int) -> None:
    if n > 0 and (label in counts or len(counts) < 200):
        counts[label] = counts.get(label, 0) + n


def _bound(table: dict[_K, _V], limit: int) -> None:
    """Forget the oldest entries of a table beyond its limit."""
    while len(table) > limit:
        del table[next(iter(table))]
