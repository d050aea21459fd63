"""What a reader needs of a run: incidents by identity with their newest revision first in rank, and what would be done.

Shared by the terminal and the HTML report. Remediation intents come as plain mappings, since this room knows nothing of
remediation: whatever is missing or of another shape is left out, never an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from incidents.model import Candidate, Evidence, RootCauseData, RootCauseEvent, State, Verdict, epoch_ns
from incidents.wording import FAULT_WORDS, clock, duration, percent, plain

_SEVERITY_ORDER: Final = {"critical": 0, "major": 1, "minor": 2, "info": 3}
_STATE_ORDER: Final = {State.OPEN: 0, State.UPDATED: 0, State.RESOLVED: 1, State.MERGED: 2}
_MAX_LIST: Final = 20
_COMPARISONS: Final = {"lt": "<", "le": "≤", "lte": "≤", "gt": ">", "ge": "≥", "gte": "≥", "eq": "="}


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
    def total_rows(self) -> int:
        """Rows of all signals."""
        return sum(self.rows.values())

    @property
    def rows_per_second(self) -> float:
        """Rows by wall time; 0 where the run took no time worth speaking of."""
        return self.total_rows / self.duration_s if self.duration_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class IntentView:
    """One remediation intent, as far as it could be read; every text is still hostile."""

    incident: str
    revision: str
    playbook: str
    version: str
    target: str
    mode: str
    rule: str
    policy: str
    revoked: bool
    reasons: tuple[str, ...]
    params: tuple[tuple[str, str], ...]
    risk: tuple[str, ...]  # short phrases: tier, undo, blast radius
    preconditions: tuple[str, ...]
    expected: tuple[str, ...]
    trust: str
    approval: str
    expires: str

    @property
    def mode_words(self) -> str:
        """What the mode means for the reader."""
        words = {
            "shadow": "recorded only; nothing runs",
            "propose": "proposed; a person may start it",
            "approve": "waits for approval",
            "auto": "runs by itself",
        }
        return "revoked by a later revision" if self.revoked else words.get(self.mode, self.mode or "no mode given")


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
        """The best candidate, if there is one worth naming."""
        ranked = sorted(self.data.candidates, key=lambda one: one.rank)
        return ranked[0] if ranked else None

    @property
    def rivals(self) -> list[Candidate]:
        """All other candidates, best first."""
        return sorted(self.data.candidates, key=lambda one: one.rank)[1:]

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
        """Who is blamed, for a headline."""
        if self.cause is None:
            return "not known"
        name = service_name(self.cause.entity)
        instance = self.cause.entity.get("service.instance.id", "")
        return f"{name} ({instance})" if instance and instance != name else name

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
        error = "" if calibration.ece is None else f", off by {percent(calibration.ece)} on average"
        return f"measured on {calibration.n:,} incidents{error}"

    @property
    def uninstrumented(self) -> frozenset[str]:
        """Services that sent no spans of their own (``spans:NAME`` among the missing signals)."""
        missing = self.data.data_quality.missing_signals
        return frozenset(one.partition(":")[2] for one in missing if one.startswith("spans:"))


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
        plans.setdefault(view.incident, {})[text_at(raw, "id") or str(number)] = view  # a later one replaces
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
    count = f"{len(live):,} incident{'' if len(live) == 1 else 's'}"
    state = "all resolved" if not still_open else f"{still_open:,} still open"
    return f"{count}, {state}; cause identified for {known:,}"


def text_at(raw: object, *keys: str) -> str:
    """The text under a path of keys; "" where there is none.

    >>> text_at({"a": {"b": 2}}, "a", "b"), text_at({"a": []}, "a", "b")
    ('2', '')
    """
    value = value_at(raw, *keys)
    return "" if value is None or isinstance(value, Mapping | list) else plain(value)


def value_at(raw: object, *keys: str) -> object:
    """The value under a path of keys; None where there is none."""
    for key in keys:
        if not isinstance(raw, Mapping):
            return None
        raw = raw.get(key)
    return raw


def _list_at(raw: object, *keys: str) -> list[Any]:
    value = value_at(raw, *keys)
    return list(value)[:_MAX_LIST] if isinstance(value, list | tuple) else []


def read_intent(raw: Mapping[str, Any]) -> IntentView:
    """An intent from its CloudEvent; fields that are missing read as empty."""
    target = value_at(raw, "data", "target")
    params = value_at(raw, "data", "params")
    status = text_at(raw, "data", "state") or text_at(raw, "data", "status")
    return IntentView(
        incident=text_at(raw, "data", "incident", "id") if value_at(raw, "data", "incident", "id") else text_at(raw, "correlationid"),
        revision=text_at(raw, "data", "incident", "revision"),
        playbook=text_at(raw, "data", "playbook", "id") or "unnamed playbook",
        version=text_at(raw, "data", "playbook", "version"),
        target=_target(target),
        mode=text_at(raw, "data", "mode"),
        rule=text_at(raw, "data", "decision", "rule"),
        policy=text_at(raw, "data", "decision", "policy"),
        revoked=status == "revoked" or value_at(raw, "data", "revoked") is True or text_at(raw, "type").endswith(".revoked.v1"),
        reasons=tuple(plain(one) for one in _list_at(raw, "data", "decision", "reasons")),
        params=tuple((plain(key), plain(value)) for key, value in list(params.items())[:_MAX_LIST])
        if isinstance(params, Mapping)
        else (),
        risk=_risk(value_at(raw, "data", "risk")),
        preconditions=tuple(
            text_at(one, "expr") or plain(one) for one in _list_at(raw, "data", "preconditions")
        ),
        expected=tuple(_effect(one) for one in _list_at(raw, "data", "expected_effect")),
        trust=_trust(value_at(raw, "data", "decision", "trust")),
        approval=_approval(value_at(raw, "data", "approval")),
        expires=text_at(raw, "expirytime"),
    )


def _target(raw: object) -> str:
    name = text_at(raw, "service.name") or text_at(raw, "service")
    instance = text_at(raw, "service.instance.id") or text_at(raw, "k8s.pod.name")
    return f"{name} ({instance})" if name and instance else name or instance or "no target"


def _risk(raw: object) -> tuple[str, ...]:
    found = [f"{tier} risk"] if (tier := text_at(raw, "tier")) else []
    reversible = value_at(raw, "reversible")
    if isinstance(reversible, bool):
        undo = text_at(raw, "undo")
        found.append((f"undo by {undo}" if undo else "can be undone") if reversible else "cannot be undone")
    fraction = value_at(raw, "blast_radius", "fraction")
    if isinstance(fraction, int | float):
        found.append(f"{percent(fraction)} of instances")
    if pods := text_at(raw, "blast_radius", "pods"):
        found.append(f"{pods} pods")
    if dependents := text_at(raw, "blast_radius", "dependents"):
        found.append(f"{dependents} services depend on it")
    return tuple(found)


def _effect(raw: object) -> str:
    if not isinstance(raw, Mapping):
        return plain(raw)
    sign = _COMPARISONS.get(text_at(raw, "op"), text_at(raw, "op"))
    within = text_at(raw, "within")
    return f"{text_at(raw, 'metric')} {sign} {text_at(raw, 'value')}" + (f" within {within}" if within else "")


def _trust(raw: object) -> str:
    runs, successes = text_at(raw, "runs"), text_at(raw, "successes")
    if not runs:
        return ""
    bound = value_at(raw, "lower_bound")
    least = f", so at least {percent(bound)} likely to help" if isinstance(bound, int | float) else ""
    return f"helped {successes} of {runs} times{least}"


def _approval(raw: object) -> str:
    roles = ", ".join(plain(one) for one in _list_at(raw, "roles"))
    if not roles:
        return ""
    timeout = text_at(raw, "timeout")
    return f"by {text_at(raw, 'required') or '1'} of {roles}" + (f" within {timeout}" if timeout else "")
