"""Where intents are in their life, who approved them, and outcomes waiting to be published: the executor's tables.

Every change of state is one transaction together with its ledger entry. Not here: when a state may change
(``remediation.executor``).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from incidents.model import epoch_ns
from incidents.store import Store
from remediation import ledger as ledger_module
from remediation.context import service_key, target_key
from remediation.intents import ApprovalGiven, Intent, LedgerRef, Outcome
from remediation.ledger import Ledger
from remediation.values import parse_duration

#: States before an end; the others are ``intents.Status``.
PENDING: Final = "pending"  # waits for people
READY: Final = "ready"  # may run
RUNNING: Final = "running"

_metadata = sa.MetaData()
_INTENTS: Final = sa.Table(
    "remediation_intents",
    _metadata,
    sa.Column("intent_id", sa.String(255), primary_key=True),
    sa.Column("idempotency_key", sa.String(512), nullable=False, unique=True),
    sa.Column("incident", sa.String(255), nullable=False, index=True),
    sa.Column("playbook", sa.String(255), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("received_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("deadline_ns", sa.BigInteger, nullable=False),
    sa.Column("expires_ns", sa.BigInteger, nullable=False),
    sa.Column("started_ns", sa.BigInteger, index=True),
    sa.Column("owner", sa.String(255)),
    sa.Column("lease_ns", sa.BigInteger),
    sa.Column("revocation", sa.Text),
)
_APPROVALS: Final = sa.Table(
    "remediation_approvals",
    _metadata,
    sa.Column("intent_id", sa.String(255), primary_key=True),
    sa.Column("person", sa.String(255), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
_OUTCOMES: Final = sa.Table(
    "remediation_outcomes",
    _metadata,
    sa.Column("intent_id", sa.String(255), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("published", sa.Boolean, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Record:
    """One intent and its state."""

    intent: Intent
    state: str  # pending, ready, running, or a Status
    reason: str
    received_ns: int
    deadline_ns: int  # until then people may approve
    expires_ns: int
    started_ns: int | None
    owner: str | None
    revocation: str | None  # set while it runs: stop at the next step

    @property
    def id(self) -> str:
        """The intent's id."""
        return self.intent.data.intent_id


class Journal:
    """Reads and writes the executor's tables in one database."""

    def __init__(self, url: str) -> None:
        self.store = Store(url, "remediation", [_create])
        self.ledger = Ledger(self.store)

    def write(self) -> AbstractContextManager[Connection]:
        """One transaction for a change of state with its ledger entry."""
        return self.store.write()

    def add(self, connection: Connection, intent: Intent, state: str, reason: str, at_ns: int) -> bool:
        """Keep an intent. Whether it was new, by id and by idempotency key."""
        data, expires_ns = intent.data, epoch_ns(intent.expirytime)
        timeout = data.approval.timeout if data.approval else None
        deadline_ns = (
            expires_ns if timeout is None else min(expires_ns, epoch_ns(intent.time) + parse_duration(timeout))
        )
        values = {
            "intent_id": data.intent_id,
            "idempotency_key": data.idempotency_key,
            "incident": data.incident.id,
            "playbook": data.playbook.id,
            "target": target_key(data.target),
            "service": service_key(data.target),
            "mode": data.mode,
            "state": state,
            "reason": reason,
            "document": intent.model_dump_json(),
            "received_ns": at_ns,
            "deadline_ns": deadline_ns,
            "expires_ns": expires_ns,
        }
        return self.store.insert_missing(connection, _INTENTS, values)

    def move(self, connection: Connection, intent_id: str, allowed: Iterable[str], state: str, **values: Any) -> bool:  # noqa: ANN401 - columns
        """Change the state, if it still is one of ``allowed``. Whether it did."""
        update = _INTENTS.update().where(_INTENTS.c.intent_id == intent_id, _INTENTS.c.state.in_(list(allowed)))
        return bool(connection.execute(update.values(state=state, **values)).rowcount == 1)

    def ask_to_stop(self, connection: Connection, intent_id: str, reason: str) -> bool:
        """Leave word for a run that is under way. Whether there is one."""
        update = _INTENTS.update().where(_INTENTS.c.intent_id == intent_id, _INTENTS.c.state == RUNNING)
        return bool(connection.execute(update.values(revocation=reason)).rowcount == 1)

    def find(self, intent_id: str) -> Record | None:
        """One intent."""
        return next(iter(self._select(sa.select(_INTENTS).where(_INTENTS.c.intent_id == intent_id))), None)

    def records(self, *states: str, limit: int = 1_000) -> list[Record]:
        """Intents in these states, or in any; the earliest received first."""
        query = sa.select(_INTENTS).order_by(_INTENTS.c.received_ns, _INTENTS.c.intent_id)
        return self._select((query.where(_INTENTS.c.state.in_(states)) if states else query).limit(limit))

    def latest(self, limit: int = 100) -> list[Record]:
        """The most recently received intents, newest first."""
        query = sa.select(_INTENTS).order_by(_INTENTS.c.received_ns.desc(), _INTENTS.c.intent_id)
        return self._select(query.limit(limit))

    def dead(self, owner: str, at_ns: int) -> list[Record]:
        """Runs that nobody carries on any more: this owner's from before, and those whose lease has passed."""
        gone = sa.or_(_INTENTS.c.owner == owner, _INTENTS.c.lease_ns < at_ns)
        return self._select(sa.select(_INTENTS).where(_INTENTS.c.state == RUNNING, gone))

    def started_since(
        self, connection: Connection, since_ns: int, *, service: str | None = None, playbook: str | None = None
    ) -> int:
        """How many runs began after a moment."""
        query = sa.select(sa.func.count()).select_from(_INTENTS).where(_INTENTS.c.started_ns > since_ns)
        if service is not None:
            query = query.where(_INTENTS.c.service == service)
        if playbook is not None:
            query = query.where(_INTENTS.c.playbook == playbook)
        return int(connection.execute(query).scalar_one())

    def running(self, connection: Connection) -> int:
        """How many runs are under way, by any executor."""
        query = sa.select(sa.func.count()).select_from(_INTENTS).where(_INTENTS.c.state == RUNNING)
        return int(connection.execute(query).scalar_one())

    def acted_before(self, connection: Connection, intent: Intent) -> str | None:
        """An earlier intent for the same incident, playbook and target that began to run."""
        data = intent.data
        query = sa.select(_INTENTS.c.intent_id).where(
            _INTENTS.c.incident == data.incident.id,
            _INTENTS.c.playbook == data.playbook.id,
            _INTENTS.c.target == target_key(data.target),
            _INTENTS.c.intent_id != data.intent_id,
            _INTENTS.c.started_ns.is_not(None),
        )
        return connection.execute(query.limit(1)).scalar_one_or_none()

    def add_approval(self, connection: Connection, intent_id: str, approval: ApprovalGiven) -> bool:
        """Keep an approval. Whether it is this person's first."""
        values = {"intent_id": intent_id, "person": approval.by, "document": approval.model_dump_json()}
        return self.store.insert_missing(connection, _APPROVALS, values)

    def approvals(self, intent_id: str, connection: Connection | None = None) -> list[ApprovalGiven]:
        """Who agreed, in order of name."""
        query = sa.select(_APPROVALS.c.document).where(_APPROVALS.c.intent_id == intent_id)
        ordered = query.order_by(_APPROVALS.c.person)
        if connection is not None:
            documents = list(connection.execute(ordered).scalars())
        else:
            with self.store.read() as reading:
                documents = list(reading.execute(ordered).scalars())
        return [ApprovalGiven.model_validate_json(document) for document in documents]

    def add_outcome(self, connection: Connection, outcome: Outcome) -> None:
        """Keep an outcome until it is published; an intent ends once."""
        values = {"intent_id": outcome.data.intent_id, "document": outcome.model_dump_json()}
        times = {"at_ns": epoch_ns(outcome.time), "published": False}
        connection.execute(_OUTCOMES.insert().values(**values, **times))

    def outcome(self, intent_id: str) -> Outcome | None:
        """How an intent ended."""
        with self.store.read() as connection:
            query = sa.select(_OUTCOMES.c.document).where(_OUTCOMES.c.intent_id == intent_id)
            document = connection.execute(query).scalar_one_or_none()
        return None if document is None else Outcome.model_validate_json(document)

    def unpublished(self, limit: int = 500) -> list[Outcome]:
        """Outcomes that Kafka has not confirmed yet, oldest first."""
        query = sa.select(_OUTCOMES.c.document).where(_OUTCOMES.c.published.is_(False))
        with self.store.read() as connection:
            ordered = query.order_by(_OUTCOMES.c.at_ns, _OUTCOMES.c.intent_id).limit(limit)
            return [Outcome.model_validate_json(document) for document in connection.execute(ordered).scalars()]

    def published(self, intent_ids: list[str]) -> None:
        """Note that outcomes were confirmed."""
        with self.store.write() as connection:
            connection.execute(_OUTCOMES.update().where(_OUTCOMES.c.intent_id.in_(intent_ids)).values(published=True))

    def anchors(self) -> dict[int, str]:
        """Ledger entries that outcomes refer to, as ``Ledger.verify`` takes them."""
        with self.store.read() as connection:
            documents = list(connection.execute(sa.select(_OUTCOMES.c.document)).scalars())
        references: list[LedgerRef] = [Outcome.model_validate_json(text).data.ledger for text in documents]
        return {reference.seq: reference.hash for reference in references}

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def _select(self, query: sa.Select[Any]) -> list[Record]:
        with self.store.read() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]


def _create(connection: Connection) -> None:
    _metadata.create_all(connection)
    ledger_module.metadata.create_all(connection)


def _record(row: RowMapping) -> Record:
    return Record(
        intent=Intent.model_validate_json(row["document"]),
        state=row["state"],
        reason=row["reason"],
        received_ns=row["received_ns"],
        deadline_ns=row["deadline_ns"],
        expires_ns=row["expires_ns"],
        started_ns=row["started_ns"],
        owner=row["owner"],
        revocation=row["revocation"],
    )
