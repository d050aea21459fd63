"""The ledger shows whatever was done to it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from remediation.journal import Journal


@pytest.fixture
def journal(tmp_path):
    journal = Journal(f"sqlite:///{tmp_path}/ledger.sqlite3")
    for number in range(5):
        with journal.write() as connection:
            journal.ledger.append(connection, "started", f"int-{number}", {"n": number}, 1_000 + number)
    yield journal
    journal.close()


def tamper(journal, statement):
    with journal.write() as connection:
        connection.execute(sa.text(statement))


def test_an_untouched_ledger_is_intact_and_its_head_is_the_last_entry(journal):
    report = journal.ledger.verify()
    assert (report.intact, report.entries, report.head.seq) == (True, 5, 5)
    assert [entry.data()["n"] for entry in journal.ledger.entries()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE remediation_ledger SET body = '{}' WHERE seq = 3", "entry 3 (started, int-2) was changed"),
        ("UPDATE remediation_ledger SET intent_id = 'int-9' WHERE seq = 2", "entry 2 (started, int-9) was changed"),
        ("UPDATE remediation_ledger SET at_ns = 1 WHERE seq = 1", "entry 1 (started, int-0) was changed"),
        ("DELETE FROM remediation_ledger WHERE seq = 3", "entry 3 is missing (the next is 4)"),
        ("DELETE FROM remediation_ledger WHERE seq = 5", "entries were cut off or added"),
        ("DELETE FROM remediation_ledger_head", "the head is missing"),
        (
            "INSERT INTO remediation_ledger SELECT 6, at_ns, kind, intent_id, body, previous, hash "
            "FROM remediation_ledger WHERE seq = 5",
            "entry 6 does not follow the one before it",
        ),
    ],
)
def test_tampering_shows(journal, statement, problem):
    tamper(journal, statement)
    report = journal.ledger.verify()
    assert not report.intact
    assert any(problem in found for found in report.problems)


def test_a_ledger_written_anew_with_right_hashes_still_differs_from_what_was_published(journal, tmp_path):
    anchors = {entry.seq: entry.hash for entry in journal.ledger.entries()}
    other = Journal(f"sqlite:///{tmp_path}/other.sqlite3")
    for number in range(4):
        with other.write() as connection:
            other.ledger.append(connection, "started", f"int-{number}", {"n": number + 1}, 1_000 + number)
    assert other.ledger.verify().intact
    problems = other.ledger.verify(anchors).problems
    assert problems[0] == "entry 1 is not the one that was published"
    assert problems[-1] == "entry 5 was published and is missing"
    other.close()


def _append_and_fail(journal):
    with journal.write() as connection:
        journal.ledger.append(connection, "started", "int-x", {}, 1)
        raise RuntimeError


def test_an_entry_and_the_change_it_speaks_of_are_committed_together_or_not_at_all(journal):
    with pytest.raises(RuntimeError):
        _append_and_fail(journal)
    assert journal.ledger.verify().entries == 5
