"""How an intent ends: its last state, its ledger entry and its outcome event, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection

from incidents.memory import Memory, OutcomeRecord
from incidents.model import epoch_ns, rfc3339
from remediation.context import target_key
from remediation.intents import Intent, Outcome, OutcomeData, Status, StepOutcome
from remediation.journal import Journal


@dataclass(frozen=True, slots=True)
class Ending:
    """What there is to say about the end of an intent."""

    status: Status
    reason: str
    escalated: bool = False
    steps: Sequence[StepOutcome] = ()
    would_run: Sequence[str] = field(default=())
    started_ns: int | None = None


def end(
    journal: Journal,
    connection: Connection,
    intent: Intent,
    ending: Ending,
    *,
    allowed: Sequence[str],
    at_ns: int,
    source: str,
) -> Outcome | None:
    """End an intent that still is in one of the ``allowed`` states; None when it is not."""
    data = intent.data
    if not journal.move(connection, data.intent_id, allowed, ending.status.value, reason=ending.reason, owner=None):
        return None
    approvals = journal.approvals(data.intent_id, connection)
    body = {
        "status": ending.status.value,
        "reason": ending.reason,
        "escalated": ending.escalated,
        "steps": [step.model_dump(mode="json") for step in ending.steps],
    }
    reference = journal.ledger.append(connection, ending.status.value, data.intent_id, body, at_ns)
    outcome = Outcome(
        source=source,
        id=f"{data.intent_id}/outcome",
        subject=intent.subject,
        time=rfc3339(at_ns),
        partitionkey=intent.partitionkey,
        correlationid=intent.correlationid,
        causationid=intent.id,
        data=OutcomeData(
            intent_id=data.intent_id,
            idempotency_key=data.idempotency_key,
            incident=data.incident,
            target=data.target,
            playbook=data.playbook,
            params=data.params,
            mode=data.mode,
            status=ending.status,
            reason=ending.reason,
            steps=list(ending.steps),
            would_run=list(ending.would_run),
            approvals=approvals,
            escalated=ending.escalated,
            started_at=None if ending.started_ns is None else rfc3339(ending.started_ns),
            ended_at=rfc3339(at_ns),
            ledger=reference,
        ),
    )
    journal.add_outcome(connection, outcome)
    return outcome


def remember(memory: Memory | None, outcome: Outcome) -> None:
    """Tell the incident memory what was tried; repeating it changes nothing."""
    if memory is None:
        return
    data = outcome.data
    memory.record_outcome(
        OutcomeRecord(
            id=outcome.id,
            incident=data.incident.id,
            playbook=data.playbook.id,
            target=target_key(data.target),
            status=str(data.status),
            at_ns=epoch_ns(outcome.time),
        )
    )
