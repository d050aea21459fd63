"""From root-cause events to remediation intents: a pure function of (state, event), in event time.

For the top candidate of every open revision the applicable playbooks are found, the policy is asked, and one intent per
(incident, playbook, target) is emitted. When the cause is revised or the incident ends, what is pending is revoked.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from incidents.model import RootCauseEvent, State, Verdict, epoch_ns, rfc3339
from remediation import params as parameters
from remediation.cel import ConditionError, compile_condition
from remediation.context import Situation, service_key, situation, target_key
from remediation.guards import Ruling, rule
from remediation.history import History
from remediation.intents import (
    ApprovalRequest,
    DecisionRecord,
    ExpectedEffect,
    IncidentRef,
    Intent,
    IntentData,
    PlaybookRef,
    PreconditionRef,
    Revocation,
    Risk,
    VerificationPlan,
)
from remediation.playbook import Playbook
from remediation.policy import DECISION_SCOPE, Approval, Policy
from remediation.values import Decision, digest, format_duration

_TIERS: Final = ("low", "medium", "high")
_ACTING: Final = frozenset({Decision.APPROVE, Decision.AUTO})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A playbook that would have applied and became no intent."""

    incident: str
    playbook: str
    reason: str


@dataclass(slots=True)
class _Incident:
    """What is remembered of one incident."""

    revision: int = 0
    cause: tuple[str, str] | None = None  # target key and fault kind
    target: str = ""  # the service last blamed, for when the incident ends
    pending: dict[str, Intent] = field(default_factory=dict)  # by playbook
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (playbook, target key)


@dataclass(slots=True)
class _Choice:
    """An applicable playbook with its parameters and the ruling so far."""

    situation: Situation
    params: parameters.Params
    ruling: Ruling


class Decider:
    """Turns incident revisions into intents and revocations; picklable and bounded.

    ``refusals`` keeps the last playbooks that applied and became no intent; ``counters`` says how often what happened.
    """

    def __init__(
        self,
        policy: Policy,
        playbooks: Mapping[str, Playbook],
        *,
        source: str,
        max_incidents: int = 10_000,
        max_attempts: int = 3,
    ) -> None:
        self.adopt(policy, playbooks)
        self.source = source
        self.max_incidents = max_incidents
        self.max_attempts = max_attempts
        self.history = History()
        self.refusals: deque[Refusal] = deque(maxlen=200)
        self.counters: Counter[str] = Counter()
        self._incidents: OrderedDict[str, _Incident] = OrderedDict()

    def adopt(self, policy: Policy, playbooks: Mapping[str, Playbook]) -> None:
        """Decide by these from now on, and keep what is remembered: for a state restored after the files changed."""
        self.policy = policy
        self.playbooks = {
            name: playbooks[name]
            for name in sorted(playbooks, key=lambda name: (_TIERS.index(playbooks[name].spec.risk.tier), name))
        }

    def process(self, event: RootCauseEvent) -> list[Intent]:
        """Intents and revocations that one incident revision gives rise to; revocations come first.

        A revision that was seen before, or an older one, gives nothing.
        """
        header = event.data.incident
        memory = self._remembered(header.id)
        if header.revision <= memory.revision:
            self.counters["repeated_revision"] += 1
            return []
        memory.revision = header.revision
        at_ns = epoch_ns(event.time)
        if header.state in {State.RESOLVED, State.MERGED}:
            ended = f"merged into {header.merged_into}" if header.state == State.MERGED else "resolved"
            revoked = self._revoke(memory, event, at_ns, f"the incident was {ended}")
            if memory.target:
                self.history.recovered(memory.target, at_ns)
            memory.cause = None
            return revoked
        cause = _cause(event)
        revoked = []
        if cause != memory.cause and memory.pending:
            now = "no longer identified" if cause is None else f"revised to {cause[1]} of {cause[0]}"
            revoked = self._revoke(memory, event, at_ns, f"the cause was {now}")
        memory.cause = cause
        return revoked if cause is None else [*revoked, *self._decide(memory, event, at_ns)]

    def _remembered(self, incident: str) -> _Incident:
        memory = self._incidents.setdefault(incident, _Incident())
        self._incidents.move_to_end(incident)
        while len(self._incidents) > self.max_incidents:
            self._incidents.popitem(last=False)
            self.counters["incidents_forgotten"] += 1
        return memory

    def _revoke(self, memory: _Incident, event: RootCauseEvent, at_ns: int, reason: str) -> list[Intent]:
        revision = event.data.incident.revision
        revoked = []
        for intent in memory.pending.values():
            if epoch_ns(intent.expirytime) <= at_ns:
                continue
            data = intent.data.model_copy(
                update={"state": "revoked", "revocation": Revocation(reason=reason, revision=revision)}
            )
            update = {"id": f"{intent.id}/revoked", "time": event.time, "causationid": event.id, "data": data}
            revoked.append(intent.model_copy(update=update))
            self.counters["revoked"] += 1
        memory.pending.clear()
        return revoked

    def _decide(self, memory: _Incident, event: RootCauseEvent, at_ns: int) -> list[Intent]:
        """Intents for the playbooks that apply and have none yet; at most one of them may act by itself."""
        choices = self._choices(memory, event, at_ns)
        acting = next(
            (name for name, intent in memory.pending.items() if intent.data.mode in {"approve", "auto"}), None
        )
        limits = self.policy.spec.limits
        intents = []
        for choice in choices:
            playbook, target = choice.situation.playbook, service_key(choice.situation.target)
            ruling = choice.ruling
            if acting is not None and acting != playbook.name:
                ruling = ruling.cap(Decision.PROPOSE, f"an alternative to {acting}, which goes first")
            choice.ruling = self.history.cap(ruling, target, playbook.name, limits, at_ns)
            if not self._worth_saying(memory, choice, event):
                continue
            if choice.ruling.decision in _ACTING:
                acting = playbook.name
                self.history.count(target, playbook.name, limits, at_ns)
            memory.target = target
            intents.append(self._intent(memory, choice, event, at_ns))
        return intents

    def _choices(self, memory: _Incident, event: RootCauseEvent, at_ns: int) -> list[_Choice]:
        """Applicable playbooks, the lowest risk first."""
        choices = []
        for playbook in self.playbooks.values():
            pending = memory.pending.get(playbook.name)
            if pending is not None and pending.data.mode != "shadow":
                continue
            considered = situation(playbook, event.data, self.policy.spec.targets)
            context = considered.conditions()
            trigger = playbook.spec.trigger
            if context["candidate"]["fault_kind"] not in [str(kind) for kind in trigger.fault_kind]:
                continue
            try:
                if trigger.match is not None and not compile_condition(trigger.match, DECISION_SCOPE).test(context):
                    continue
                filled = parameters.fill(playbook.spec.parameters, context)
            except (ConditionError, parameters.ParameterError) as error:
                self._refuse(event, playbook, str(error), "not_applicable")
                continue
            choices.append(_Choice(considered, filled, rule(self.policy, considered, at_ns)))
        return choices

    def _worth_saying(self, memory: _Incident, choice: _Choice, event: RootCauseEvent) -> bool:
        """Whether a ruling becomes an intent: it allows something, and more than the shadow already recorded."""
        playbook = choice.situation.playbook
        if choice.ruling.decision is Decision.NEVER:
            self._refuse(event, playbook, choice.ruling.reasons[-1], "never")
            return False
        if playbook.name in memory.pending and choice.ruling.decision is Decision.SHADOW:
            return False
        if memory.attempts[playbook.name, target_key(choice.situation.target)] >= self.max_attempts:
            self._refuse(event, playbook, f"{self.max_attempts} attempts were made for this incident", "attempts_used")
            return False
        return True

    def _refuse(self, event: RootCauseEvent, playbook: Playbook, reason: str, kind: str) -> None:
        self.refusals.append(Refusal(event.data.incident.id, playbook.name, reason))
        self.counters[f"refused_{kind}"] += 1

    def _intent(self, memory: _Incident, choice: _Choice, event: RootCauseEvent, at_ns: int) -> Intent:
        playbook, ruling = choice.situation.playbook, choice.ruling
        target, header = dict(choice.situation.target), event.data.incident
        where = target_key(target)
        memory.attempts[playbook.name, where] += 1
        attempt = memory.attempts[playbook.name, where]
        key = f"{header.id}:{playbook.name}:{where}:{attempt}"
        intent_id = "int-" + hashlib.sha256(key.encode()).hexdigest()[:16]
        intent = Intent(
            source=self.source,
            id=intent_id,
            subject=f"service/{where}",
            time=event.time,
            expirytime=rfc3339(at_ns + self.policy.spec.intent_ttl),
            partitionkey=service_key(target),
            correlationid=header.id,
            causationid=event.id,
            data=IntentData(
                intent_id=intent_id,
                idempotency_key=key,
                attempt=attempt,
                state="active",
                incident=IncidentRef(id=header.id, revision=header.revision),
                target=target,
                playbook=PlaybookRef(id=playbook.name, version=playbook.metadata.version, digest=playbook.digest),
                params=choice.params,
                params_digest=digest(choice.params),
                mode=ruling.decision.value,  # type: ignore[arg-type]  # never was left out above
                decision=_record(self.policy, choice),
                risk=_risk(choice.situation),
                preconditions=[PreconditionRef(expr=text) for text in playbook.spec.preconditions],
                expected_effect=[
                    ExpectedEffect(
                        metric=item.metric, op=item.op, value=item.value, within=format_duration(item.within)
                    )
                    for item in playbook.spec.expected_effect
                ],
                verify=[VerificationPlan.model_validate(item.model_dump(mode="json")) for item in playbook.spec.verify],
                approval=_approval(ruling),
            ),
        )
        memory.pending[playbook.name] = intent
        self.counters[f"intent_{ruling.decision.value}"] += 1
        return intent


def _cause(event: RootCauseEvent) -> tuple[str, str] | None:
    """Target and fault kind of the top candidate; None where the event names no cause."""
    if event.data.verdict == Verdict.UNKNOWN or not event.data.candidates:
        return None
    top = event.data.candidates[0]
    return target_key(top.entity), str(top.fault_kind)


def _record(policy: Policy, choice: _Choice) -> DecisionRecord:
    situation_, ruling = choice.situation, choice.ruling
    return DecisionRecord(
        policy=policy.name,
        policy_digest=policy.digest,
        rule=ruling.rule,
        decision=ruling.stated.value,  # type: ignore[arg-type]  # never was left out by the caller
        reasons=list(ruling.reasons),
        verdict=situation_.event.verdict,
        fault_kind=str(situation_.candidate.fault_kind),
        confidence=situation_.candidate.confidence,
        margin=situation_.margin,
    )


def _risk(considered: Situation) -> Risk:
    spec = considered.playbook.spec
    return Risk(
        tier=spec.risk.tier,
        reversible=spec.risk.reversible,
        undo=spec.undo[0].id if spec.undo else None,
        blast_radius=considered.blast,
    )


def _approval(ruling: Ruling) -> ApprovalRequest | None:
    if ruling.decision not in {Decision.PROPOSE, Decision.APPROVE}:
        return None
    asked = ruling.approval or Approval()
    return ApprovalRequest(
        required=asked.count,
        roles=list(asked.roles),
        timeout=None if asked.timeout is None else format_duration(asked.timeout),
        on_timeout=asked.on_timeout,
    )
