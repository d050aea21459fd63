"""What is remembered of incidents: every revision, what was done about them, and which of them look alike.

Everything is keyed by ids that the pipeline derives from its input, so writing the same thing again changes nothing,
and a replay into an empty database remembers the same as the live job. Times are event time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from incidents.model import RootCauseEvent, SimilarIncident, epoch_ns
from incidents.store import Store

_metadata = sa.MetaData()
_INCIDENTS: Final = sa.Table(
    "incidents",
    _metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("fingerprint", sa.String(255), nullable=False, index=True),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("fault_kind", sa.String(32), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("started_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("detected_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_ns", sa.BigInteger),
    sa.Column("resolution", sa.Text),
    sa.Column("resolved_by", sa.Text),
)
_REVISIONS: Final = sa.Table(
    "incident_revisions",
    _metadata,
    sa.Column("incident", sa.String(255), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
_FEATURES: Final = sa.Table(
    "incident_features",
    _metadata,
    sa.Column("incident", sa.String(255), primary_key=True),
    sa.Column("feature", sa.String(255), primary_key=True, index=True),
)
_OUTCOMES: Final = sa.Table(
    "incident_outcomes",
    _metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("incident", sa.String(255), nullable=False, index=True),
    sa.Column("playbook", sa.String(255), nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("recovered", sa.Boolean),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
)
_FINGERPRINTS: Final = sa.Table(
    "fingerprints",
    _metadata,
    sa.Column("fingerprint", sa.String(255), primary_key=True),
    sa.Column("incidents", sa.Integer, nullable=False),
    sa.Column("first_seen_ns", sa.BigInteger, nullable=False),
    sa.Column("last_seen_ns", sa.BigInteger, nullable=False),
)
_MAX_FEATURES: Final = 64
_MAX_COMPARED: Final = 200


@dataclass(frozen=True, slots=True)
class StoredIncident:
    """The newest revision's header, and how the incident was resolved."""

    id: str
    revision: int
    state: str
    fingerprint: str
    environment: str
    service: str  # of the top candidate, "" when there was none
    fault_kind: str
    severity: str
    title: str
    started_ns: int
    detected_ns: int
    updated_ns: int  # event time of the newest revision
    ended_ns: int | None
    resolution: str | None  # by a person
    resolved_by: str | None


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """What was tried about an incident."""

    id: str
    incident: str
    playbook: str
    target: str
    status: str  # as in the outcome event, e.g. executed, failed
    at_ns: int
    recovered: bool | None = None  # None until verification has looked


@dataclass(frozen=True, slots=True)
class Sighting:
    """How often a fingerprint was seen."""

    incidents: int
    first_seen_ns: int
    last_seen_ns: int


class Memory:
    """Incidents, outcomes and fingerprints in a database (``sqlite:///file`` or ``postgresql://…``)."""

    def __init__(self, url: str) -> None:
        self._store = Store(url, "memory", [_metadata.create_all])

    def record(self, event: RootCauseEvent) -> bool:
        """Keep a revision. Whether it was new; an older one is kept without replacing a newer one's header."""
        header = event.data.incident
        with self._store.write() as connection:
            values = {"incident": header.id, "revision": header.revision, "document": event.model_dump_json()}
            if not self._store.insert_missing(connection, _REVISIONS, values):
                return False
            row = _header_row(event)
            known: RowMapping | None = None
            if not self._store.insert_missing(connection, _INCIDENTS, row):
                query = sa.select(_INCIDENTS).where(_INCIDENTS.c.id == header.id).with_for_update()
                known = connection.execute(query).mappings().one()
                if known["revision"] > header.revision:
                    return True
                connection.execute(_INCIDENTS.update().where(_INCIDENTS.c.id == header.id).values(**row))
            self._sight(connection, known, row)
            connection.execute(_FEATURES.delete().where(_FEATURES.c.incident == header.id))
            features = [{"incident": header.id, "feature": name} for name in sorted(features_of(event))]
            connection.execute(_FEATURES.insert(), features)
        return True

    def incident(self, incident: str) -> StoredIncident | None:
        """The newest header of an incident."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(_INCIDENTS).where(_INCIDENTS.c.id == incident)).mappings().first()
        return None if row is None else StoredIncident(**row)

    def incidents(self, *, limit: int = 100, state: str | None = None) -> list[StoredIncident]:
        """Headers, the most recently changed first."""
        query = sa.select(_INCIDENTS).order_by(_INCIDENTS.c.updated_ns.desc(), _INCIDENTS.c.id).limit(limit)
        if state is not None:
            query = query.where(_INCIDENTS.c.state == state)
        with self._store.read() as connection:
            return [StoredIncident(**row) for row in connection.execute(query).mappings()]

    def event(self, incident: str, revision: int | None = None) -> RootCauseEvent | None:
        """A revision as it was recorded; the newest by default."""
        query = sa.select(_REVISIONS.c.document).where(_REVISIONS.c.incident == incident)
        if revision is not None:
            query = query.where(_REVISIONS.c.revision == revision)
        with self._store.read() as connection:
            document = connection.execute(query.order_by(_REVISIONS.c.revision.desc()).limit(1)).scalar_one_or_none()
        return None if document is None else RootCauseEvent.model_validate_json(document)

    def record_outcome(self, outcome: OutcomeRecord) -> bool:
        """Keep what was tried. Whether it was new."""
        values = {name: getattr(outcome, name) for name in OutcomeRecord.__slots__}
        with self._store.write() as connection:
            return self._store.insert_missing(connection, _OUTCOMES, values)

    def verified(self, outcome: str, *, recovered: bool) -> bool:
        """Add what verification saw to an outcome. Whether there is such an outcome."""
        update = _OUTCOMES.update().where(_OUTCOMES.c.id == outcome).values(recovered=recovered)
        with self._store.write() as connection:
            return bool(connection.execute(update).rowcount)

    def outcomes(self, incident: str) -> list[OutcomeRecord]:
        """What was tried about an incident, oldest first."""
        query = sa.select(_OUTCOMES).where(_OUTCOMES.c.incident == incident).order_by(_OUTCOMES.c.at_ns, _OUTCOMES.c.id)
        with self._store.read() as connection:
            return [OutcomeRecord(**row) for row in connection.execute(query).mappings()]

    def resolve(self, incident: str, resolution: str, *, by: str) -> bool:
        """Note how a person resolved an incident; survives later revisions. Whether there is such an incident."""
        update = _INCIDENTS.update().where(_INCIDENTS.c.id == incident)
        with self._store.write() as connection:
            return bool(connection.execute(update.values(resolution=resolution, resolved_by=by)).rowcount)

    def seen(self, fingerprint: str) -> Sighting | None:
        """How often a fingerprint was seen, forgotten incidents included."""
        query = sa.select(_FINGERPRINTS).where(_FINGERPRINTS.c.fingerprint == fingerprint)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else Sighting(row["incidents"], row["first_seen_ns"], row["last_seen_ns"])

    def similar(
        self, of: RootCauseEvent | str, limit: int = 5, *, before_ns: int | None = None
    ) -> list[SimilarIncident]:
        """Earlier incidents like this one, the most alike first, then the most recent.

        An equal fingerprint is similarity 1. Otherwise it is the Jaccard index of the two incidents' features, each
        weighted by how rare it is, ``ln(1 + (N + 1) / (n + 1))`` for n of N incidents in memory: a shared log template
        says more than a shared kind of fault.

        Args:
            of: a revision, or a fingerprint alone (then only equal fingerprints are found).
            limit: how many at most.
            before_ns: only incidents that started before this event time; a revision's own start by default.
        """
        event = of if isinstance(of, RootCauseEvent) else None
        fingerprint = event.data.incident.fingerprint if event else str(of)
        own = event.data.incident.id if event else ""
        if before_ns is None and event is not None:
            before_ns = epoch_ns(event.data.incident.started_at)
        with self._store.read() as connection:
            scores = {} if event is None else _jaccard(connection, features_of(event))
            query = sa.select(_INCIDENTS).where(
                sa.or_(_INCIDENTS.c.fingerprint == fingerprint, _INCIDENTS.c.id.in_(list(scores)))
            )
            if before_ns is not None:
                query = query.where(_INCIDENTS.c.started_ns < before_ns)
            rows = [StoredIncident(**row) for row in connection.execute(query).mappings() if row["id"] != own]
            ranked = sorted(
                ((1.0 if row.fingerprint == fingerprint else scores[row.id], row) for row in rows),
                key=lambda pair: (-pair[0], pair[1].fingerprint != fingerprint, -pair[1].started_ns, pair[1].id),
            )[:limit]
            worked = _what_worked(connection, [row.id for _, row in ranked])
        return [
            SimilarIncident(
                incident=row.id, similarity=round(score, 6), resolution=row.resolution or worked.get(row.id)
            )
            for score, row in ranked
        ]

    def prune(self, before_ns: int) -> int:
        """Forget closed incidents last changed before an event time, but not their fingerprints. How many."""
        old = sa.select(_INCIDENTS.c.id).where(
            _INCIDENTS.c.updated_ns < before_ns, _INCIDENTS.c.state.in_(["resolved", "merged"])
        )
        with self._store.write() as connection:
            for column in (_REVISIONS.c.incident, _FEATURES.c.incident, _OUTCOMES.c.incident):
                connection.execute(sa.delete(column.table).where(column.in_(old)))
            return int(connection.execute(_INCIDENTS.delete().where(_INCIDENTS.c.id.in_(old))).rowcount)

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def _sight(self, connection: Connection, known: RowMapping | None, row: dict[str, Any]) -> None:
        """Count an incident under its fingerprint once, and move it when a revision changes the fingerprint."""
        table = _FINGERPRINTS
        if known is not None and known["fingerprint"] != row["fingerprint"]:
            old = table.update().where(table.c.fingerprint == known["fingerprint"])
            connection.execute(old.values(incidents=table.c.incidents - 1))
        first = known is None or known["fingerprint"] != row["fingerprint"]
        values = {"fingerprint": row["fingerprint"], "incidents": 0}
        times = {"first_seen_ns": row["started_ns"], "last_seen_ns": row["updated_ns"]}
        self._store.insert_missing(connection, table, {**values, **times})
        here = table.update().where(table.c.fingerprint == row["fingerprint"])
        connection.execute(here.values(incidents=table.c.incidents + (1 if first else 0)))
        later = sa.and_(table.c.fingerprint == row["fingerprint"], table.c.last_seen_ns < row["updated_ns"])
        connection.execute(table.update().where(later).values(last_seen_ns=row["updated_ns"]))
        earlier = sa.and_(table.c.fingerprint == row["fingerprint"], table.c.first_seen_ns > row["started_ns"])
        connection.execute(table.update().where(earlier).values(first_seen_ns=row["started_ns"]))


def features_of(event: RootCauseEvent) -> frozenset[str]:
    """What an incident is compared by: cause, signals and templates that spoke, and what it hurt; at most 64."""
    return frozenset(sorted(set(_features(event)))[:_MAX_FEATURES])


def _features(event: RootCauseEvent) -> Iterator[str]:
    data = event.data
    if data.candidates:
        top = data.candidates[0]
        yield f"cause:{top.entity.get('service.name', '')}"[:255]
        yield f"kind:{top.fault_kind}"
    for evidence in data.evidence:
        yield f"signal:{evidence.signal}:{evidence.direction}:{evidence.name}"[:255]
        if evidence.refs.log_template:
            yield f"template:{evidence.refs.log_template}"[:255]
    yield from (f"entry:{name}"[:255] for name in data.impact.entry_points)
    yield from (f"hurt:{name}"[:255] for name in data.impact.services)


def _header_row(event: RootCauseEvent) -> dict[str, Any]:
    header, data = event.data.incident, event.data
    top = data.candidates[0] if data.candidates else None
    entity = top.entity if top else {}
    return {
        "id": header.id,
        "revision": header.revision,
        "state": str(header.state),
        "fingerprint": header.fingerprint,
        "environment": entity.get("deployment.environment.name", ""),
        "service": entity.get("service.name", ""),
        "fault_kind": str(top.fault_kind) if top else "unknown",
        "severity": data.severity,
        "title": data.title,
        "started_ns": epoch_ns(header.started_at),
        "detected_ns": epoch_ns(header.detected_at),
        "updated_ns": epoch_ns(event.time),
        "ended_ns": None if header.ended_at is None else epoch_ns(header.ended_at),
    }


def _jaccard(connection: Connection, wanted: frozenset[str]) -> dict[str, float]:
    """Similarity to the incidents that share most features, by id."""
    shared = sa.func.count().label("shared")
    query = sa.select(_FEATURES.c.incident, shared).where(_FEATURES.c.feature.in_(sorted(wanted)))
    query = query.group_by(_FEATURES.c.incident).order_by(shared.desc(), _FEATURES.c.incident.desc())
    ids = [row.incident for row in connection.execute(query.limit(_MAX_COMPARED))]
    features: dict[str, set[str]] = {name: set() for name in ids}
    rows = connection.execute(sa.select(_FEATURES).where(_FEATURES.c.incident.in_(ids)))
    for row in rows:
        features[row.incident].add(row.feature)
    weight = _rarity(connection, wanted.union(*features.values()))
    return {
        name: _weigh(wanted & other, weight) / _weigh(wanted | other, weight)
        for name, other in features.items()
        if other
    }


def _rarity(connection: Connection, names: Iterable[str]) -> dict[str, float]:
    total = connection.execute(sa.select(sa.func.count()).select_from(_INCIDENTS)).scalar_one() + 1
    query = sa.select(_FEATURES.c.feature, sa.func.count().label("n")).group_by(_FEATURES.c.feature)
    wanted = sorted(names)
    counts: Counter[str] = Counter()
    for start in range(0, len(wanted), 500):  # SQLite bounds the number of bound values
        rows = connection.execute(query.where(_FEATURES.c.feature.in_(wanted[start : start + 500])))
        counts.update({row.feature: row.n for row in rows})
    return {name: math.log1p(total / (counts[name] + 1)) for name in wanted}


def _weigh(names: Iterable[str], weight: dict[str, float]) -> float:
    return math.fsum(weight[name] for name in names)


def _what_worked(connection: Connection, ids: list[str]) -> dict[str, str]:
    """The last playbook that ran through for each incident and was not seen to fail."""
    query = sa.select(_OUTCOMES).where(
        _OUTCOMES.c.incident.in_(ids),
        _OUTCOMES.c.status == "executed",
        sa.or_(_OUTCOMES.c.recovered.is_(None), _OUTCOMES.c.recovered.is_(True)),
    )
    ordered = query.order_by(_OUTCOMES.c.at_ns, _OUTCOMES.c.id)
    return {row["incident"]: row["playbook"] for row in connection.execute(ordered).mappings()}
