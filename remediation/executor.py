"""Acts on intents: by their mode, behind guards read again at the moment of acting, and never twice.

Before anything runs, the state ``running`` and a ledger entry are committed. A run found in that state after a crash is
ended as ``interrupted`` and escalated: how far it came is unknown, so it is never repeated. Times are those of the
injected clock; in production that is the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import structlog
from sqlalchemy.engine import Connection

from remediation import checks
from remediation.checks import World
from remediation.config import RemediationConfig
from remediation.endings import Ending, end
from remediation.intents import Intent, Outcome, Status, StepOutcome
from remediation.journal import PENDING, READY, RUNNING, Journal, Record
from remediation.playbook import Playbook, Step
from remediation.runners.base import StepContext
from remediation.steps import Run, run_steps
from remediation.values import Decision, weakest

_log = structlog.get_logger("mendstream.remediation")
_WAITING: Final = (PENDING, READY)
_LATE: Final = Ending(Status.EXPIRED, "it could not run in time", escalated=True)


class Executor:
    """Takes intents in and carries them out, one at a time.

    ``world`` is asked for anew at every intent, so that a policy changed on disk, or a kill switch, counts at once.
    ``stopping`` says that the program is about to end: no further step is begun.
    """

    def __init__(
        self,
        journal: Journal,
        world: Callable[[], World],
        *,
        clock: Callable[[], int],
        settings: RemediationConfig,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._world = world
        self._clock = clock
        self._settings = settings
        self._stopping = stopping

    def submit(self, intents: Iterable[Intent]) -> None:
        """Take intents and revocations in; nothing runs yet. One that is known already changes nothing."""
        for intent in intents:
            if intent.data.state == "revoked":
                self._revoke(intent)
            else:
                self._accept(intent)

    def recover(self) -> list[Outcome]:
        """End the runs that a crash left behind; call once at the start, before anything else."""
        outcomes = []
        for record in self._journal.dead(self._settings.executor, self._clock()):
            reason = "the executor stopped while it ran; how far it came is unknown, so it is not repeated"
            ending = Ending(Status.INTERRUPTED, reason, escalated=True, started_ns=record.started_ns)
            outcomes += self._end(record.intent, ending, allowed=(RUNNING,))
        return outcomes

    def tick(self) -> list[Outcome]:
        """Let what is overdue expire, then run what may run. Outcomes of this call, in order."""
        outcomes = self._expire()
        for record in self._journal.records(READY):
            if self._stopping():
                break
            outcomes += self._act(record)
        return outcomes

    def act(self, intent_id: str) -> list[Outcome]:
        """Run one intent, if it may run; other than ``tick``, leave all others alone."""
        record = self._journal.find(intent_id)
        return self._act(record) if record is not None and record.state == READY else []

    def _accept(self, intent: Intent) -> None:
        world, mode = self._world(), Decision(intent.data.mode)
        effective = weakest(mode, checks.allowed(world, intent))
        reason = intent.data.decision.reasons[-1] if intent.data.decision.reasons else ""
        if effective is not mode:
            reason = f"decided as {mode.value}; the policy as it is now allows {effective.value}"
        state = READY if effective is Decision.AUTO else PENDING
        with self._journal.write() as connection:
            now = self._clock()
            if not self._journal.add(connection, intent, state, reason, now):
                return
            body = {"intent": intent.to_json(), "state": state, "reason": reason}
            self._journal.ledger.append(connection, "received", intent.data.intent_id, body, now)
            if effective.rank <= Decision.SHADOW.rank:
                self._end_in(connection, intent, self._shadow(world, intent, effective, reason), (state,))
        _log.info("remediation_intent", intent=intent.data.intent_id, mode=effective.value, reason=reason)

    def _shadow(self, world: World, intent: Intent, effective: Decision, reason: str) -> Ending:
        if effective is Decision.NEVER:
            return Ending(Status.BLOCKED, reason)
        why = checks.unsafe_content(world, intent)
        if why:
            return Ending(Status.SHADOWED, f"it would have been refused: {why}")
        steps = [step.id for step in world.playbooks[intent.data.playbook.id].spec.steps]
        return Ending(Status.SHADOWED, f"nothing ran: {reason}", would_run=steps)

    def _revoke(self, revocation: Intent) -> None:
        intent_id = revocation.data.intent_id
        why = revocation.data.revocation.reason if revocation.data.revocation else "revoked"
        with self._journal.write() as connection:
            # A revocation that overtook its intent is kept, so that the intent finds itself revoked.
            if self._journal.add(connection, revocation, PENDING, why, self._clock()):
                self._end_in(connection, revocation, Ending(Status.REVOKED, why), (PENDING,))
            elif self._journal.ask_to_stop(connection, intent_id, why):
                self._journal.ledger.append(connection, "revocation", intent_id, {"reason": why}, self._clock())
            else:
                self._end_in(connection, revocation, Ending(Status.REVOKED, why), _WAITING)

    def _expire(self) -> list[Outcome]:
        now, outcomes = self._clock(), []
        for record in self._journal.records(*_WAITING):
            approval = record.intent.data.approval
            if record.state == PENDING and record.deadline_ns <= now:
                asked = record.intent.data.mode == "approve" and approval is not None
                if asked and approval is not None and approval.on_timeout == "reject":
                    ending = Ending(Status.REJECTED, "nobody approved it in time")
                else:
                    ending = Ending(Status.EXPIRED, "nobody approved it in time", escalated=asked)
            elif record.expires_ns <= now:
                ending = _LATE
            else:
                continue
            outcomes += self._end(record.intent, ending, allowed=(record.state,))
        return outcomes

    def _act(self, record: Record) -> list[Outcome]:
        world, intent, now = self._world(), record.intent, self._clock()
        if record.expires_ns <= now:  # those before it in this round may have taken long
            return self._end(intent, _LATE, allowed=(READY,))
        refusal = self._refusal(world, record, now)
        if refusal:
            return self._end(intent, Ending(Status.BLOCKED, refusal, escalated=True), allowed=(READY,))
        playbook = world.playbooks[intent.data.playbook.id]
        started_ns = self._begin(world, intent, playbook)
        if started_ns is None:
            return []
        run = self._run(world, intent, playbook)
        return self._end(intent, _ending(run, started_ns), allowed=(RUNNING,))

    def _refusal(self, world: World, record: Record, now: int) -> str:
        """Why an intent that may run must not, by what is true now."""
        intent = record.intent
        approved = bool(self._journal.approvals(record.id))
        needed = Decision.PROPOSE if approved else Decision.AUTO
        allowed = checks.allowed(world, intent)
        if allowed.rank < needed.rank:
            return f"the policy as it is now allows no more than {allowed.value}"
        return (
            checks.stopped(world)
            or checks.frozen(world, needed, now)
            or checks.unsafe_content(world, intent)
            or checks.unmet_precondition(world, intent, now)
            or ("" if approved else self._acted_before(intent))
        )

    def _acted_before(self, intent: Intent) -> str:
        with self._journal.write() as connection:
            earlier = self._journal.acted_before(connection, intent)
        return f"{earlier} did the same for this incident; once more is for a person to decide" if earlier else ""

    def _begin(self, world: World, intent: Intent, playbook: Playbook) -> int | None:
        """Write ahead that it runs; None when it may not begin now, because of a limit or of another executor."""
        data = intent.data
        with self._journal.write() as connection:
            self._journal.ledger.lock(connection)  # limits are counted with nobody else beginning
            now = self._clock()
            wait = checks.limits_used(world, self._journal, connection, intent, now)
            if wait:
                self._journal.move(connection, data.intent_id, (READY,), READY, reason=f"waits: {wait}")
                return None
            margin_ns = int(self._settings.lease_margin_s * 1_000_000_000)
            lease_ns = now + sum(step.timeout for step in playbook.spec.steps) + margin_ns
            values = {"owner": self._settings.executor, "lease_ns": lease_ns, "started_ns": now}
            if not self._journal.move(connection, data.intent_id, (READY,), RUNNING, **values):
                return None
            approvals = self._journal.approvals(data.intent_id, connection)
            body = {
                "executor": self._settings.executor,
                "playbook": data.playbook.model_dump(),
                "params": data.params,
                "policy": world.policy.digest,
                "approvals": [approval.model_dump() for approval in approvals],
            }
            self._journal.ledger.append(connection, "started", data.intent_id, body, now)
        return now

    def _run(self, world: World, intent: Intent, playbook: Playbook) -> Run:
        data = intent.data

        def stop() -> str:
            if self._stopping():
                return "the executor was told to stop"
            record = self._journal.find(data.intent_id)
            if record is not None and record.revocation:
                return f"revoked while it ran: {record.revocation}"
            return checks.stopped(self._world())

        def before(step: Step) -> None:
            self._note("step", data.intent_id, {"step": step.id, "runner": step.runner})

        def after(outcome: StepOutcome) -> None:
            self._note("step_done", data.intent_id, {"step": outcome.id, "status": outcome.status})

        context = StepContext(
            intent_id=data.intent_id,
            incident=data.incident.id,
            target=data.target,
            folder=playbook.folder,
            files=playbook.files,
            inventory=self._settings.inventory,
            cancelled=lambda: bool(stop()),
        )
        return run_steps(
            playbook.spec.steps,
            dict(data.params),
            context,
            registry=world.registry,
            clock=self._clock,
            stop=stop,
            before=before,
            after=after,
        )

    def _note(self, kind: str, intent_id: str, body: dict[str, str]) -> None:
        with self._journal.write() as connection:
            self._journal.ledger.append(connection, kind, intent_id, body, self._clock())

    def _end(self, intent: Intent, ending: Ending, *, allowed: tuple[str, ...]) -> list[Outcome]:
        with self._journal.write() as connection:
            outcome = self._end_in(connection, intent, ending, allowed)
        return [] if outcome is None else [outcome]

    def _end_in(
        self, connection: Connection, intent: Intent, ending: Ending, allowed: tuple[str, ...]
    ) -> Outcome | None:
        now = self._clock()
        source = self._settings.source
        outcome = end(self._journal, connection, intent, ending, allowed=allowed, at_ns=now, source=source)
        if outcome is not None:
            say = _log.warning if ending.escalated else _log.info
            say("remediation_outcome", intent=intent.data.intent_id, status=ending.status.value, reason=ending.reason)
        return outcome


def _ending(run: Run, started_ns: int) -> Ending:
    if run.cancelled:
        return Ending(
            Status.CANCELLED, run.cancelled, escalated=bool(run.steps), steps=run.steps, started_ns=started_ns
        )
    if run.failed:
        return Ending(Status.FAILED, run.failed, escalated=True, steps=run.steps, started_ns=started_ns)
    return Ending(Status.EXECUTED, "every step succeeded", steps=run.steps, started_ns=started_ns)
