"""Root-cause events, policies and playbooks as small as they can be, for the tests of the remediation room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from incidents.memory import Memory
from incidents.model import RootCauseEvent, rfc3339
from remediation.checks import World
from remediation.config import RemediationConfig
from remediation.decide import Decider
from remediation.executor import Executor
from remediation.intents import Intent, Outcome
from remediation.journal import Journal, Record
from remediation.people import approve, reject
from remediation.playbook import Playbook, Step, load_playbooks, parse_playbook
from remediation.policy import Policy, parse_policy
from remediation.runners import AnsibleRunner, NotifyRunner, Registry, StepContext, StepResult, WaitRunner

START_NS = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
LIBRARY = Path(__file__).parents[2] / "remediation" / "library"


def event_document(
    *,
    incident: str = "inc-1",
    revision: int = 1,
    state: str = "open",
    verdict: str = "identified",
    at_s: int = 0,
    service: str = "payment",
    instance: str = "",
    fault_kind: str = "latency",
    confidence: float = 0.9,
    second: float = 0.2,
    fingerprint: str = "fp-1",
    change: dict[str, str] | None = None,
    templates: tuple[str, ...] = (),
    entry_points: tuple[str, ...] = ("GET /checkout",),
) -> dict[str, Any]:
    """A root-cause event as plain JSON."""
    at = rfc3339(START_NS + at_s * SECOND)
    entity = {"deployment.environment.name": "prod", "service.namespace": "shop", "service.name": service}
    if instance:
        entity["service.instance.id"] = instance
    common = {"calibration": {"method": "prior", "n": 0}, "path": ["frontend", service], "evidence": []}
    cause = {"rank": 1, "entity": entity, "fault_kind": fault_kind, "score": 3.0, "confidence": confidence, **common}
    other = {"service.name": "catalogue", "service.namespace": "shop", "deployment.environment.name": "prod"}
    runner_up = {"rank": 2, "entity": other, "fault_kind": "load", "score": 1.0, "confidence": second, **common}
    evidence = [
        {
            "id": f"ev-{index}",
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
        for index, template in enumerate(templates)
    ]
    edges = [("frontend", "checkout"), ("checkout", service), ("mobile", "frontend"), (service, "ledger")]
    return {
        "source": "/mendstream/test",
        "id": f"{incident}/r{revision}",
        "subject": f"incident/{incident}",
        "time": at,
        "partitionkey": incident,
        "correlationid": incident,
        "sequence": f"{revision:010d}",
        "data": {
            "incident": {
                "id": incident,
                "revision": revision,
                "state": state,
                "fingerprint": fingerprint,
                "started_at": at,
                "detected_at": at,
                "last_seen_at": at,
                "ended_at": at if state == "resolved" else None,
            },
            "title": f"{service}: {fault_kind}",
            "severity": "major",
            "verdict": verdict,
            "candidates": [{**cause, "change": change}, runner_up],
            "evidence": evidence,
            "impact": {"services": ["frontend", "checkout"], "entry_points": list(entry_points)},
            "novelty": {"label": "known"},
            "graph": [{"caller": caller, "callee": callee, "requests": 10.0} for caller, callee in edges],
            "provenance": {"mode": "replay", "pipeline": "0.1.0", "config_hash": "sha256:00"},
        },
    }


@pytest.fixture
def make_event() -> Callable[..., RootCauseEvent]:
    """Builds a root-cause event; every argument of ``event_document`` may be given."""
    return lambda **fields: RootCauseEvent.model_validate(event_document(**fields))


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """Builds a policy from the lines of its spec; enforced unless the lines say otherwise."""

    def build(*lines: str, mode: str = "enforce") -> Policy:
        body = "\n".join(f"  {line}" for line in (f"mode: {mode}", *lines))
        head = "apiVersion: mendstream.io/v1\nkind: RemediationPolicy\nmetadata: {name: test}\nspec:\n"
        return parse_policy(head + body + "\n", "test.yaml")

    return build


def playbook_text(
    name: str = "restart-instance",
    *,
    kinds: str = "[latency, error]",
    steps: str = "[{id: restart, runner: fake}]",
    extra: str = "",
    risk: str = "{tier: low, reversible: false}",
) -> str:
    """A playbook document with one service parameter."""
    return f"""
apiVersion: mendstream.io/v1
kind: Playbook
metadata: {{name: {name}, version: 1.0.0}}
spec:
  trigger: {{faultKind: {kinds}}}
  parameters:
    service: {{type: string, required: true, from: 'target["service.name"]'}}
  risk: {risk}
  steps: {steps}
{extra}
"""


@pytest.fixture
def make_playbook() -> Callable[..., Playbook]:
    """Builds a playbook; every argument of ``playbook_text`` may be given."""
    return lambda *args, **fields: parse_playbook(playbook_text(*args, **fields), "test-playbook.yaml")


@pytest.fixture
def library() -> dict[str, Playbook]:
    """The starter playbooks."""
    return load_playbooks(LIBRARY)


class FakeRunner:
    """Records what it is asked to do; its answer, or what it does instead of answering, is up to the test."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[Step, StepContext], StepResult] = lambda step, context: StepResult("ok", changed=True)

    def check(self, step: Step) -> None:
        return None

    def run(self, step: Step, params: dict[str, Any], context: StepContext) -> StepResult:
        self.calls.append((step.id, dict(params)))
        return self.answer(step, context)


class Bench:
    """A decider and an executor over one database, with a clock that stands until it is moved."""

    def __init__(self, url: str, policy: Policy, playbooks: list[Playbook], config: RemediationConfig) -> None:
        self.now = START_NS
        self.runner = FakeRunner()
        self.registry = Registry(self.runner, AnsibleRunner(), NotifyRunner(), WaitRunner())
        self.policy = policy
        self.playbooks = {playbook.name: playbook for playbook in playbooks}
        self.memory = Memory(url)
        self.journal = Journal(url)
        self.config = config
        self.stop = False
        self.decider = Decider(policy, self.playbooks, source="/mendstream/test")
        self.executor = self.restart()

    def restart(self) -> Executor:
        """An executor as after a restart of the program: the same database and name, nothing in memory."""
        self.executor = Executor(
            self.journal, self.world, clock=lambda: self.now, settings=self.config, stopping=lambda: self.stop
        )
        return self.executor

    def world(self) -> World:
        return World(self.policy, self.playbooks, self.registry, self.memory, self.config.kill_switch_file)

    def decide(self, **fields: Any) -> list[Intent]:
        """Process one event and submit what it gives rise to."""
        event = RootCauseEvent.model_validate(event_document(**fields))
        self.memory.record(event)
        intents = self.decider.process(event)
        self.executor.submit(intents)
        return intents

    def approve(self, intent_id: str, by: str = "ada", role: str | None = None) -> Record:
        return approve(self.journal, self.world(), intent_id, by=by, role=role, clock=lambda: self.now)

    def reject(self, intent_id: str, reason: str = "not now") -> Outcome:
        return reject(self.journal, intent_id, by="ada", reason=reason, source="/test", clock=lambda: self.now)

    def state(self, intent_id: str) -> str:
        record = self.journal.find(intent_id)
        assert record is not None
        return record.state


#: The executor's tests run on SQLite, and on PostgreSQL too where a server is named.
_POSTGRES = os.environ.get("MENDSTREAM_TEST_POSTGRES_URL", "")


@pytest.fixture(params=["sqlite", "postgresql"] if _POSTGRES else ["sqlite"])
def database(request, tmp_path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.sqlite3"
        return
    yield _POSTGRES
    engine = sa.create_engine(sa.engine.make_url(_POSTGRES).set(drivername="postgresql+psycopg"))
    metadata = sa.MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def bench(database, make_policy, make_playbook) -> Iterator[Callable[..., Bench]]:
    """Builds a bench from the lines of a policy's spec."""
    built: list[Bench] = []

    def build(*lines: str, playbooks: list[Playbook] | None = None, mode: str = "enforce", **config: Any) -> Bench:
        settings = RemediationConfig(source="/mendstream/test", database=database, executor_id="one", **config)
        bench = Bench(database, make_policy(*lines, mode=mode), playbooks or [make_playbook()], settings)
        built.append(bench)
        return bench

    yield build
    for bench in built:
        bench.memory.close()
        bench.journal.close()
