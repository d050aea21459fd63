"""A hash-chained, append-only ledger of what was about to be done, and of what was done.

Every entry holds the hash of the one before it, so that a change, an insertion or a removal anywhere shows; a head row
shows a removal at the end. Outcomes carry the sequence number and hash of their last entry into Kafka, which anchors
the chain outside of the database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from incidents.store import Store
from remediation.intents import LedgerRef
from remediation.values import canonical_json

metadata = sa.MetaData()
_ENTRIES: Final = sa.Table(
    "remediation_ledger",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("intent_id", sa.String(255), nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
_HEAD: Final = sa.Table(
    "remediation_ledger_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
GENESIS: Final = "0" * 64
_CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger."""

    seq: int  # from 1, without gaps
    at_ns: int  # the executor's clock
    kind: str  # started, step, finished, approved, …
    intent_id: str
    body: str  # canonical JSON
    previous: str
    hash: str

    def expected_hash(self) -> str:
        """The hash that this content must have."""
        content: dict[str, str | int] = {
            "seq": self.seq,
            "at_ns": self.at_ns,
            "kind": self.kind,
            "intent_id": self.intent_id,
            "body": self.body,
        }
        return entry_hash(self.previous, content)

    def data(self) -> dict[str, Any]:
        """The body as data."""
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What a verification found; no problem means an unbroken chain."""

    entries: int
    head: LedgerRef | None
    problems: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def entry_hash(previous: str, content: Mapping[str, str | int]) -> str:
    """SHA-256, hex, over the previous hash and the canonical JSON of an entry's content."""
    return hashlib.sha256(f"{previous}\n{canonical_json(content)}".encode()).hexdigest()


class Ledger:
    """Appends inside the caller's transaction, so that a state never changes without its entry."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def lock(self, connection: Connection) -> tuple[int, str]:
        """Take the ledger's head for this transaction; others that write wait. Sequence number and hash."""
        self._store.insert_missing(connection, _HEAD, {"id": 1, "seq": 0, "hash": GENESIS})
        row = connection.execute(sa.select(_HEAD).where(_HEAD.c.id == 1).with_for_update()).one()
        return row.seq, row.hash

    def append(
        self, connection: Connection, kind: str, intent_id: str, body: Mapping[str, Any], at_ns: int
    ) -> LedgerRef:
        """Add an entry."""
        last, previous = self.lock(connection)
        seq = last + 1
        values: dict[str, str | int] = {
            "seq": seq,
            "at_ns": at_ns,
            "kind": kind,
            "intent_id": intent_id,
            "body": canonical_json(body),
        }
        hashed = entry_hash(previous, values)
        connection.execute(_ENTRIES.insert().values(**values, previous=previous, hash=hashed))
        connection.execute(_HEAD.update().where(_HEAD.c.id == 1).values(seq=seq, hash=hashed))
        return LedgerRef(seq=seq, hash=hashed)

    def entries(self, intent_id: str | None = None) -> Iterator[Entry]:
        """Entries in order; those of one intent, or all."""
        after = 0
        while True:
            query = sa.select(_ENTRIES).where(_ENTRIES.c.seq > after).order_by(_ENTRIES.c.seq).limit(_CHUNK)
            if intent_id is not None:
                query = query.where(_ENTRIES.c.intent_id == intent_id)
            with self._store.read() as connection:
                rows = [Entry(**row) for row in connection.execute(query).mappings()]
            if not rows:
                return
            yield from rows
            after = rows[-1].seq

    def verify(self, anchors: Mapping[int, str] | None = None) -> LedgerReport:
        """Walk the chain. ``anchors`` are hashes by sequence number known from elsewhere, such as outcomes in Kafka."""
        problems: list[str] = []
        previous, last, head = GENESIS, 0, None
        wanted = dict(anchors or {})
        for entry in self.entries():
            if entry.seq != last + 1:
                problems.append(f"entry {last + 1} is missing (the next is {entry.seq})")
            if entry.previous != previous:
                problems.append(f"entry {entry.seq} does not follow the one before it")
            if entry.hash != entry.expected_hash():
                problems.append(f"entry {entry.seq} ({entry.kind}, {entry.intent_id}) was changed after it was written")
            if wanted.pop(entry.seq, entry.hash) != entry.hash:
                problems.append(f"entry {entry.seq} is not the one that was published")
            previous, last = entry.hash, entry.seq
            head = LedgerRef(seq=entry.seq, hash=entry.hash)
        problems += [f"entry {seq} was published and is missing" for seq in sorted(wanted)]
        with self._store.read() as connection:
            row = connection.execute(sa.select(_HEAD).where(_HEAD.c.id == 1)).one_or_none()
        if row is None and last:
            problems.append("the head is missing")
        elif row is not None and (row.seq, row.hash) != (last, previous):
            problems.append(f"the head names entry {row.seq}, the last one is {last}: entries were cut off or added")
        return LedgerReport(last, head, tuple(problems))
