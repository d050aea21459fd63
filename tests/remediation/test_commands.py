"""The remediate and policy commands, as an operator meets them."""

from __future__ import annotations

import re
import time

import pytest
from typer.testing import CliRunner

from flows.commands.remediate import app, policy_app
from incidents.memory import Memory
from incidents.model import RootCauseEvent
from remediation.config import LIBRARY, RemediationConfig
from remediation.decide import Decider
from remediation.executor import Executor
from remediation.journal import Journal
from remediation.playbook import load_playbooks
from remediation.policy import load_policy
from remediation.runners import default_registry
from remediation.world import WorldFiles

POLICY = """\
apiVersion: mendstream.io/v1
kind: RemediationPolicy
metadata: {name: cli}
spec:
  mode: enforce
  rules:
    - {name: ask, match: 'true', decision: approve, approval: {roles: [sre], timeout: 5m}}
"""
PLAYBOOK = """\
apiVersion: mendstream.io/v1
kind: Playbook
metadata: {name: tell, version: 1.0.0}
spec:
  trigger: {faultKind: [latency]}
  risk: {tier: low, reversible: false}
  steps: [{id: tell, runner: notify, with: {message: something was done}}]
"""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    monkeypatch.delenv("MENDSTREAM_CONFIG", raising=False)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def options(tmp_path):
    """A policy, a playbook and a database with one pending intent of now; the commands' options."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "tell.yaml").write_text(PLAYBOOK)
    url = f"sqlite:///{tmp_path}/cli.sqlite3"
    return ["--database", url, "--policy", str(tmp_path / "policy.yaml"), "--playbooks", str(tmp_path / "books")]


@pytest.fixture
def pending(options, make_event):
    """The id of an intent that waits for approval."""
    _, url, _, policy, _, playbooks = options
    now = time.time_ns()
    at = (now - 1_790_000_000_000_000_000) // 1_000_000_000
    memory, journal = Memory(url), Journal(url)
    event: RootCauseEvent = make_event(at_s=at)
    memory.record(event)
    config = RemediationConfig(database=url, policy=policy, playbooks=playbooks)
    world = WorldFiles(config, default_registry(), memory)
    decider = Decider(load_policy(policy), load_playbooks(playbooks), source="/test")
    executor = Executor(journal, world, clock=time.time_ns, settings=config)
    intents = decider.process(event)
    executor.submit(intents)
    journal.close()
    memory.close()
    return intents[0].id


def invoke(*arguments, application=app, code=0):
    result = CliRunner().invoke(application, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_list_shows_what_waits(options, pending):
    output = invoke("list", *options)
    assert re.search(rf"{pending}\s+pending\s+approve\s+tell\s+service/prod/shop/payment\s+inc-1", output)
    assert pending not in invoke("list", *options, "--state", "executed")


def test_show_says_why_what_and_who(options, pending):
    output = invoke("show", pending, *options)
    assert "rule ask decides approve" in output
    assert "1 of sre, until" in output
    assert re.search(r"ledger\s+1 \S+ received", output)


def test_approving_now_runs_it_and_the_ledger_stays_whole(options, pending):
    output = invoke("approve", pending, "--by", "ada", "--role", "sre", "--now", *options)
    assert "executed: every step succeeded" in output
    assert "tell: ok: something was done" in output
    assert re.search(r"6 entries, unbroken; the last is [0-9a-f]{64}", invoke("verify-ledger", *options))


def test_approving_without_the_role_or_twice_is_refused_with_a_remedy(options, pending):
    assert "one of the roles sre: --role ROLE" in invoke("approve", pending, "--by", "ada", *options, code=1)
    assert "the executor runs it next" in invoke("approve", pending, "--by", "ada", "--role", "sre", *options)
    assert "is ready; only a pending" in invoke("approve", pending, "--by", "bob", "--role", "sre", *options, code=1)


def test_rejecting_needs_a_reason_and_ends_it(options, pending):
    assert "is rejected" in invoke("reject", pending, "--reason", "we are on it", *options)
    assert "rejected by operator: we are on it" in invoke("show", pending, *options)
    assert "only a waiting intent" in invoke("reject", pending, "--reason", "again", *options, code=1)


def test_an_unknown_intent_is_answered_in_words(options):
    for command in (["show", "int-x"], ["approve", "int-x", "--by", "a"], ["reject", "int-x", "--reason", "r"]):
        assert "there is no intent 'int-x'" in invoke(*command, *options, code=1)


def test_a_tampered_ledger_is_an_error(options, pending):
    journal = Journal(options[1])
    with journal.write() as connection:
        connection.exec_driver_sql("UPDATE remediation_ledger SET kind = 'executed' WHERE seq = 1")
    journal.close()
    assert f"entry 1 (executed, {pending}) was changed" in invoke("verify-ledger", *options, code=1)


def test_policy_check_prints_every_mistake_with_line_and_column(tmp_path):
    broken = tmp_path / "policy.yaml"
    broken.write_text(POLICY.replace("approve, appr", "aprove, appr").replace("mode: enforce", "mode: on"))
    lines = invoke("check", broken, application=policy_app, code=1).strip().splitlines()
    assert lines == [
        f"{broken}:5:3: spec.mode: True is none of shadow, enforce",
        f"{broken}:7:34: spec.rules[0].decision: 'aprove' is none of never, shadow, propose, approve, auto",
    ]


def test_policy_check_accepts_the_starting_policy():
    output = invoke("check", LIBRARY / "policy.yaml", application=policy_app)
    assert "policy starter is valid: 5 rules, mode shadow" in output


def test_a_broken_policy_or_a_playbook_nobody_can_run_stops_the_start(options, tmp_path):
    (tmp_path / "books" / "tell.yaml").write_text(PLAYBOOK.replace("notify", "magic"))
    assert "no runner is called 'magic'" in invoke("run", *options, "--kafka", "127.0.0.1:1", code=1)
    (tmp_path / "policy.yaml").write_text(POLICY.replace("mode:", "mood:"))
    (tmp_path / "books" / "tell.yaml").write_text(PLAYBOOK)
    assert "policy.yaml:5:3: spec.mood: unknown field; did you" in invoke(
        "run", *options, "--kafka", "127.0.0.1:1", code=1
    )
