"""What people say about an intent: approve, reject. Bound to what was shown to them, and written to the ledger."""

from __future__ import annotations

from collections.abc import Callable

from incidents.model import rfc3339
from remediation import checks
from remediation.checks import World
from remediation.endings import Ending, end
from remediation.intents import ApprovalGiven, ApprovalRequest, Outcome, Status
from remediation.journal import PENDING, READY, Journal, Record
from remediation.values import Decision


class ApprovalError(ValueError):
    """An approval or rejection was not accepted; the message says why and what to do."""


def requested(record: Record) -> ApprovalRequest:
    """What an intent asks for; an intent that was decided to run by itself and may not asks for anyone."""
    asked = record.intent.data.approval
    return asked or ApprovalRequest(required=1, roles=[], timeout=None, on_timeout="escalate")


def approve(
    journal: Journal, world: World, intent_id: str, *, by: str, role: str | None, clock: Callable[[], int]
) -> Record:
    """Approve an intent; with the last approval that it needs it becomes ready to run.

    The approval is for exactly this playbook and these parameters, by digest. Who someone is, and that they have the
    role, is for whatever gives access to the database to know: here it is only recorded.

    Raises:
        ApprovalError: unknown or no longer waiting, past its deadline, wrong role, the same person again, everything
            stopped, or a playbook here that is not the one decided on.
    """
    record = _waiting(journal, intent_id)
    data, now = record.intent.data, clock()
    asked = requested(record)
    if not by.strip():
        raise ApprovalError("an approval needs a name: --by NAME")
    if record.deadline_ns <= now:
        raise ApprovalError(f"{intent_id} could be approved until {rfc3339(record.deadline_ns)}; it expires now")
    if asked.roles and role not in asked.roles:
        raise ApprovalError(f"{intent_id} needs one of the roles {', '.join(asked.roles)}: --role ROLE")
    content = checks.unsafe_content(world, record.intent)
    refusal = checks.stopped(world) or checks.frozen(world, Decision.PROPOSE, now) or content
    if refusal:
        raise ApprovalError(f"{intent_id} cannot be approved: {refusal}")
    approval = ApprovalGiven(
        by=by,
        role=role,
        at=rfc3339(now),
        playbook_digest=world.playbooks[data.playbook.id].digest,
        params_digest=data.params_digest,
    )
    with journal.write() as connection:
        if not journal.add_approval(connection, intent_id, approval):
            raise ApprovalError(f"{by} has approved {intent_id} already; it needs {asked.required} different people")
        journal.ledger.append(connection, "approved", intent_id, approval.model_dump(), now)
        if len(journal.approvals(intent_id, connection)) >= asked.required:
            reason = f"approved by {by}"
            if not journal.move(connection, intent_id, (PENDING,), READY, reason=reason):
                raise ApprovalError(f"{intent_id} has ended meanwhile; look at it again")
    return _found(journal, intent_id)


def reject(journal: Journal, intent_id: str, *, by: str, reason: str, source: str, clock: Callable[[], int]) -> Outcome:
    """Reject an intent that has not begun, approved or not.

    Raises:
        ApprovalError: when it has begun or ended, or no reason is given.
    """
    record = _found(journal, intent_id)
    if not reason.strip():
        raise ApprovalError("a rejection needs a reason: --reason TEXT")
    ending = Ending(Status.REJECTED, f"rejected by {by}: {reason}")
    with journal.write() as connection:
        outcome = end(
            journal, connection, record.intent, ending, allowed=(PENDING, READY), at_ns=clock(), source=source
        )
    if outcome is None:
        raise ApprovalError(f"{intent_id} is {_found(journal, intent_id).state}; only a waiting intent can be rejected")
    return outcome


def _waiting(journal: Journal, intent_id: str) -> Record:
    record = _found(journal, intent_id)
    if record.state != PENDING:
        raise ApprovalError(f"{intent_id} is {record.state}; only a pending intent can be approved")
    return record


def _found(journal: Journal, intent_id: str) -> Record:
    record = journal.find(intent_id)
    if record is None:
        raise ApprovalError(f"there is no intent {intent_id!r}; `mendstream remediate list` shows those there are")
    return record
