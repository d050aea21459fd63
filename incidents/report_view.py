"""What a reader needs of a run: incidents by identity with their newest revision first in rank, and what would be done.

Shared by the terminal and the HTML report, which only draw it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from incidents.intent_view import IntentView, read_intent
from incidents.model import Candidate, Evidence, RootCauseData, RootCauseEvent, State, Verdict, epoch_ns
from incidents.wording import FAULT_WORDS, clock, duration, interval, plain, quantity

_SEVERITY_ORDER: Final = {"critical": 0, "major": 1, "minor": 2, "info": 3}
_STATE_ORDER: Final = {State.OPEN: 0, State.UPDATED: 0, State.RESOLVED: 1, State.MERGED: 2}


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run watched; times are event time, UTC epoch nanoseconds."""

    name: str  # of the recording, or of the live job
    mode: str  # "live" or "replay"
    start_ns: int
    end_ns: int
    rows: Mapping[str, int] = field(default_factory=dict)  # rows per signal: spans, logs, metrics, changes
    duration_s: float = 0.0  # wall time the run took
    late: int = 0  # rows that came after their bucket had closed
    dead_lettered: int = 0  # messages that could not be decoded
    services: int = 0
    edges: int = 0  # call edges of the service graph
    series: int = 0  # watched by detectors; 0 where not counted
    anomalies: int = 0  # raised by detectors; 0 where not counted

    @property
    def signals(self) -> list[tuple[str, int]]:
        """Signals that had rows, the four kinds of telemetry in their usual order and others by name."""
        usual = ("spans", "logs", "metrics", "changes")
        known = [name for name in usual if self.rows.get(name)]
        others = sorted(name for name, count in self.rows.items() if count and name not in usual)
        return [(name, self.rows[name]) for name in [*known, *others]]

    @property
    def total_rows(self) -> int:
        """Rows of all signals."""
        return sum(self.rows.values())

    @property
    def rows_per_second(self) -> float:
        """Rows by wall time; 0 where the run took no time worth speaking of."""
        return self.total_rows / self.duration_s if self.duration_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class IncidentView:
    """One incident: its newest revision, how the answer evolved, and what would be done."""

    revisions: tuple[RootCauseEvent, ...]  # ascending, at least one
    intents: tuple[IntentView, ...] = ()

    @property
    def event(self) -> RootCauseEvent:
        """The newest revision."""
        return self.revisions[-1]

    @property
    def data(self) -> RootCauseData:
        """The newest revision's data."""
        return self.event.data

    @property
    def id(self) -> str:
        """The incident's id."""
        return self.data.incident.id

    @property
    def is_open(self) -> bool:
        """Whether it still goes on."""
        return self.data.incident.state in {State.OPEN, State.UPDATED}

    @property
    def state_word(self) -> str:
        """``updated`` is open to a reader."""
        return "open" if self.is_open else str(self.data.incident.state)

    @property
    def onset_ns(self) -> int:
        """Estimated start."""
        return epoch_ns(self.data.incident.started_at)

    @property
    def detected_ns(self) -> int:
        """When it was opened."""
        return epoch_ns(self.data.incident.detected_at)

    @property
    def end_ns(self) -> int:
        """Its end, or the last evidence of one that is open; never before onset."""
        header = self.data.incident
        return max(self.onset_ns, epoch_ns(header.ended_at or header.last_seen_at))

    @property
    def cause(self) -> Candidate | None:
        """The best candidate; None where the verdict is that the cause is not known."""
        ranked = sorted(self.data.candidates, key=lambda one: one.rank)
        return ranked[0] if ranked and self.data.verdict != Verdict.UNKNOWN else None

    @property
    def rivals(self) -> list[Candidate]:
        """All other candidates, best first."""
        return sorted(self.data.candidates, key=lambda one: one.rank)[0 if self.cause is None else 1 :]

    @property
    def reasons(self) -> list[Evidence]:
        """Evidence for the best candidate in its order; without a candidate, what stands out most."""
        if self.cause:
            return self.pick(self.cause.evidence)
        return sorted(self.data.evidence, key=lambda one: (-one.anomaly_score, one.id))

    @property
    def objections(self) -> list[Evidence]:
        """Evidence against the best candidate."""
        return self.pick(self.cause.counter_evidence) if self.cause else []

    def pick(self, ids: Sequence[str]) -> list[Evidence]:
        """Evidence by id; ids without evidence are left out."""
        known = {one.id: one for one in self.data.evidence}
        return [known[one] for one in ids if one in known]

    @property
    def cause_name(self) -> str:
        """Who is blamed, for a headline; where several fit, all that are at least half as likely as the first."""
        if self.cause is None:
            return "No cause stands out"
        blamed = [self.cause]
        if self.data.verdict == Verdict.AMBIGUOUS:
            blamed += [one for one in self.rivals if one.confidence >= self.cause.confidence / 2]
        names = list(dict.fromkeys(service_name(one.entity) for one in blamed))  # one service may have two faults
        return " or ".join(names[:3]) + (" or others" if len(names) > 3 else "")

    @property
    def cause_instance(self) -> str:
        """The blamed instance, where only one service is blamed and the evidence points at one instance of it."""
        if self.cause is None or self.data.verdict != Verdict.IDENTIFIED:
            return ""
        instance = self.cause.entity.get("service.instance.id", "")
        return "" if instance == service_name(self.cause.entity) else instance

    @property
    def cause_words(self) -> str:
        """What is wrong with it, as a sentence part."""
        if self.cause is None:
            return "no service explains what is seen"
        change = self.cause.change
        if change is None:
            return FAULT_WORDS[self.cause.fault_kind]
        before = self.onset_ns - epoch_ns(change.at)
        when = f"{duration(before)} before onset" if before > 0 else f"at {clock(epoch_ns(change.at))}"
        what = f"version {change.version}" if change.version else change.type
        return f"changed {when}: {what}"

    @property
    def calibration_words(self) -> str:
        """What the confidence is worth."""
        if self.cause is None:
            return ""
        calibration = self.cause.calibration
        if calibration.n == 0:
            return "a prior: not yet measured on any incident"
        error = "" if calibration.ece is None else f", off by {calibration.ece * 100:.0f} points on average"
        return f"measured on {calibration.n:,} incidents{error}"

    @property
    def uninstrumented(self) -> frozenset[str]:
        """Services that sent no spans of their own (``spans:NAME`` among the missing signals)."""
        missing = self.data.data_quality.missing_signals
        return frozenset(one.partition(":")[2] for one in missing if one.startswith("spans:"))


def measured(one: Evidence) -> str:
    """What was seen and what was expected; "" where the evidence's statement says both already."""
    seen = quantity(one.observed, one.unit)
    usual = interval(*one.expected, one.unit)
    most = quantity(max(one.expected), one.unit)
    told = {"new": (seen,), "gone": (most,)}.get(one.direction, (seen, most))
    if all(re.search(rf"(?<![\d.,]){re.escape(plain(part))}(?!\w)", plain(one.statement)) for part in told):
        return ""
    if one.direction == "new":
        return f"{seen}, never before"
    return f"gone, usually {usual}" if one.direction == "gone" else f"{seen}, expected {usual}"


def service_name(entity: Mapping[str, str]) -> str:
    """The name of an entity's service.

    >>> service_name({"service.name": "payment", "service.instance.id": "payment-7"})
    'payment'
    """
    return entity.get("service.name") or next(iter(entity.values()), "unnamed")


def group_incidents(
    events: Sequence[RootCauseEvent], intents: Sequence[Mapping[str, Any]] = ()
) -> tuple[IncidentView, ...]:
    """Incidents in reading order: open before resolved before merged, then by severity and onset.

    Repeated events (delivery is at least once) count once; revisions may come in any order.
    """
    revisions: dict[str, dict[int, RootCauseEvent]] = {}
    for event in events:
        header = event.data.incident
        revisions.setdefault(header.id, {})[header.revision] = event
    plans: dict[str, dict[str, IntentView]] = {}
    for number, raw in enumerate(intents):
        view = read_intent(raw)
        plans.setdefault(view.incident, {})[view.id or str(number)] = view  # a revocation replaces what it revokes
    views = [
        IncidentView(tuple(found[one] for one in sorted(found)), tuple(plans.get(plain(incident), {}).values()))
        for incident, found in revisions.items()
    ]
    return tuple(sorted(views, key=_reading_order))


def _reading_order(view: IncidentView) -> tuple[int, int, int, str]:
    header = view.data.incident
    return (_STATE_ORDER[State(header.state)], _SEVERITY_ORDER[view.data.severity], view.onset_ns, view.id)


def headline(views: Sequence[IncidentView]) -> str:
    """The run in one line.

    >>> headline([])
    'No incident opened'
    """
    live = [view for view in views if view.data.incident.state != State.MERGED]
    if not live:
        return "No incident opened"
    still_open = sum(view.is_open for view in live)
    known = sum(view.data.verdict == Verdict.IDENTIFIED for view in live)
    if len(live) == 1:
        return f"1 incident, {'still open' if still_open else 'resolved'}; cause {'' if known else 'not '}identified"
    state = f"{still_open or 'none'} still open" if still_open < len(live) else "all still open"
    cause = {0: "no cause identified", len(live): "all causes identified"}.get(known, f"cause identified for {known:,}")
    return f"{len(live):,} incidents, {state}; {cause}"
