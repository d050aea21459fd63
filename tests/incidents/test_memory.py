"""Memory keeps incidents, outcomes and fingerprints, says what is alike, and does not mind being told twice."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from incidents.memory import Memory, OutcomeRecord, Sighting, features_of
from incidents.model import RootCauseEvent, rfc3339
from incidents.store import Store, StoreError

START_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000_000


def event(incident="inc-1", revision=1, at_s=0, **fields):
    """A small root-cause event; ``fields`` are service, kind, fingerprint, state, template, entry."""
    at = rfc3339(START_NS + at_s * SECOND)
    started = rfc3339(START_NS + fields.get("started_s", at_s) * SECOND)
    service, template = fields.get("service", "payment"), fields.get("template")
    candidate = {
        "rank": 1,
        "entity": {"service.name": service, "deployment.environment.name": "prod"},
        "fault_kind": fields.get("kind", "error"),
        "score": 1.0,
        "confidence": 0.9,
        "calibration": {"method": "prior", "n": 0},
        "path": [service],
        "evidence": [],
    }
    evidence = {
        "id": "ev-1",
        "signal": "log",
        "name": "log rate",
        "attributes": {"service.name": service},
        "window": [at, at],
        "observed": 9.0,
        "expected": [0.0, 1.0],
        "direction": "new",
        "anomaly_score": 0.99,
        "detector": {"name": "templates", "version": "1"},
        "refs": {"log_template": template},
        "statement": "a line never seen before",
    }
    header = {
        "id": incident,
        "revision": revision,
        "state": fields.get("state", "open"),
        "fingerprint": fields.get("fingerprint", f"fp-{incident}"),
        "started_at": started,
        "detected_at": at,
        "last_seen_at": at,
        "ended_at": at if fields.get("state") == "resolved" else None,
    }
    data = {
        "incident": header,
        "title": f"{service} fails",
        "severity": "major",
        "verdict": "identified",
        "candidates": [candidate],
        "evidence": [evidence] if template else [],
        "impact": {"services": ["frontend"], "entry_points": [fields.get("entry", "GET /checkout")]},
        "novelty": {"label": "novel"},
        "provenance": {"mode": "replay", "pipeline": "0.1.0", "config_hash": "x"},
    }
    envelope = {"source": "/test", "id": f"{incident}/r{revision}", "subject": f"incident/{incident}", "time": at}
    routing = {"partitionkey": incident, "correlationid": incident, "sequence": f"{revision:010d}"}
    return RootCauseEvent.model_validate({**envelope, **routing, "data": data})


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A database of its own; PostgreSQL where MENDSTREAM_TEST_POSTGRES_URL names a server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/deep/er/memory.sqlite3"
        return
    server = os.environ.get("MENDSTREAM_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("set MENDSTREAM_TEST_POSTGRES_URL to a PostgreSQL database whose tables may be dropped")
    yield server
    engine = sa.create_engine(sa.engine.make_url(server).set(drivername="postgresql+psycopg"))
    metadata = sa.MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def memory(url):
    memory = Memory(url)
    yield memory
    memory.close()


def test_a_revision_is_kept_as_it_was_and_repeating_it_changes_nothing(memory):
    first = event(revision=1)
    assert memory.record(first) is True
    assert memory.record(first) is False
    assert memory.event("inc-1") == first
    assert memory.seen("fp-inc-1") == Sighting(1, START_NS, START_NS)


def test_the_newest_revision_is_the_header_in_whatever_order_they_come(memory):
    for revision, state in ((1, "open"), (3, "resolved"), (2, "updated")):
        memory.record(event(revision=revision, state=state, at_s=revision))
    header = memory.incident("inc-1")
    assert (header.revision, header.state, header.ended_ns) == (3, "resolved", START_NS + 3 * SECOND)
    assert memory.event("inc-1", 2).data.incident.state == "updated"
    assert memory.event("inc-1", 9) is None
    assert memory.incident("inc-9") is None


def test_headers_are_listed_by_last_change_and_state(memory):
    memory.record(event("inc-a", at_s=5))
    memory.record(event("inc-b", at_s=9, state="resolved"))
    memory.record(event("inc-c", at_s=7))
    assert [header.id for header in memory.incidents()] == ["inc-b", "inc-c", "inc-a"]
    assert [header.id for header in memory.incidents(state="open", limit=1)] == ["inc-c"]


def test_an_equal_fingerprint_is_the_same_thing_again(memory):
    memory.record(event("inc-old", at_s=0, fingerprint="fp", service="a", entry="x"))
    memory.record(event("inc-like", at_s=1, service="payment"))
    (first, second) = memory.similar(event("inc-new", at_s=100, fingerprint="fp"))
    assert (first.incident, first.similarity) == ("inc-old", 1.0)
    assert second.incident == "inc-like"
    assert [found.incident for found in memory.similar("fp")] == ["inc-old"]


def test_what_is_rare_says_more_than_what_is_common(memory):
    for number in range(8):
        memory.record(event(f"inc-{number}", at_s=number, service=f"other-{number}", entry=f"GET /{number}"))
    memory.record(event("inc-kind", at_s=20, service="cart", entry="GET /cart"))
    memory.record(event("inc-template", at_s=21, service="cart", entry="GET /cart", kind="latency", template="t1"))
    wanted = event("inc-new", at_s=100, service="payment", template="t1")
    found = memory.similar(wanted, limit=3)
    assert found[0].incident == "inc-template"
    assert found[0].similarity > found[1].similarity > 0


def test_neither_itself_nor_what_came_later_is_similar(memory):
    for name, at_s in (("inc-before", 0), ("inc-now", 50), ("inc-after", 90)):
        memory.record(event(name, at_s=at_s))
    assert [found.incident for found in memory.similar(event("inc-now", at_s=50))] == ["inc-before"]


def test_nothing_is_similar_in_an_empty_memory(memory):
    assert memory.similar(event()) == []


def test_a_similar_incident_says_what_worked_and_a_persons_word_stands_above(memory):
    memory.record(event("inc-old", at_s=0, fingerprint="fp"))
    for number, (playbook, status) in enumerate([("scale-out", "failed"), ("restart-instance", "executed")]):
        outcome = OutcomeRecord(f"o-{number}", "inc-old", playbook, "prod/-/payment", status, START_NS + number)
        assert memory.record_outcome(outcome) is True
        assert memory.record_outcome(outcome) is False
    assert memory.similar("fp")[0].resolution == "restart-instance"
    assert memory.verified("o-1", recovered=False) is True
    assert memory.similar("fp")[0].resolution is None
    assert memory.resolve("inc-old", "raised the pool size", by="ada") is True
    memory.record(event("inc-old", revision=2, at_s=1, fingerprint="fp", state="resolved"))
    assert memory.similar("fp")[0].resolution == "raised the pool size"
    assert [outcome.recovered for outcome in memory.outcomes("inc-old")] == [None, False]
    assert memory.verified("o-9", recovered=True) is False
    assert memory.resolve("inc-9", "x", by="ada") is False


def test_a_fingerprint_counts_incidents_and_follows_one_that_changes(memory):
    memory.record(event("inc-a", at_s=0, fingerprint="fp-1"))
    memory.record(event("inc-b", at_s=5, fingerprint="fp-1"))
    memory.record(event("inc-b", revision=2, at_s=9, fingerprint="fp-2"))
    assert memory.seen("fp-1").incidents == 1
    assert memory.seen("fp-2") == Sighting(1, START_NS + 9 * SECOND, START_NS + 9 * SECOND)
    assert memory.seen("fp-3") is None


def test_pruning_forgets_old_closed_incidents_and_keeps_how_often_they_were_seen(memory):
    memory.record(event("inc-open", at_s=0, fingerprint="fp"))
    memory.record(event("inc-closed", at_s=1, fingerprint="fp", state="resolved"))
    memory.record(event("inc-new", at_s=100, fingerprint="fp", state="resolved"))
    assert memory.prune(START_NS + 50 * SECOND) == 1
    assert sorted(header.id for header in memory.incidents()) == ["inc-new", "inc-open"]
    assert memory.event("inc-closed") is None
    assert memory.seen("fp").incidents == 3


def test_writers_at_the_same_time_lose_nothing(memory):
    events = [
        event(f"inc-{number % 5}", revision=1 + number // 5, at_s=number, fingerprint="fp") for number in range(40)
    ]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(memory.record, events))
    assert memory.seen("fp").incidents == 5
    assert {header.revision for header in memory.incidents()} == {8}


def test_features_are_bounded_and_do_not_depend_on_the_order_of_evidence():
    wide = event(template="t1")
    evidence = [item.model_copy(update={"name": f"metric {n}"}) for n in range(200) for item in wide.data.evidence]
    forward = wide.model_copy(update={"data": wide.data.model_copy(update={"evidence": evidence})})
    backward = wide.model_copy(update={"data": wide.data.model_copy(update={"evidence": evidence[::-1]})})
    assert features_of(forward) == features_of(backward)
    assert len(features_of(forward)) == 64


def test_a_database_moves_forward_once_and_a_newer_one_is_refused(url):
    ran = []

    def migration(name):
        return lambda connection: ran.append(name)

    Store(url, "part", [migration("one")]).close()
    Store(url, "part", [migration("one"), migration("two")]).close()
    Store(url, "other", [migration("three")]).close()
    assert ran == ["one", "two", "three"]
    with pytest.raises(StoreError, match="version 2, this program knows 1: use the newer program"):
        Store(url, "part", [migration("one")])


def test_a_migration_that_fails_leaves_the_version_as_it_was(url):
    def broken(connection):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Store(url, "part", [broken])
    ran = []
    Store(url, "part", [lambda connection: ran.append(1)]).close()
    assert ran == [1]


@pytest.mark.parametrize(
    ("bad", "remedy"), [("memory.db", "write sqlite:///file"), ("mysql://host/name", "use a sqlite or postgresql URL")]
)
def test_a_url_that_cannot_be_used_is_refused_with_a_remedy(bad, remedy):
    with pytest.raises(StoreError, match=remedy):
        Memory(bad)
