"""The long-lived program over a real Kafka: intents in, actions, outcomes out; at least once in, at most once acted."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import orjson
import pytest

from connectors.config import KafkaConfig, Topics
from connectors.errors import TopicError
from connectors.kafka_client import make_consumer, topic_partition
from connectors.kafka_sink import KafkaWriter, OutRecord
from flows.remediate import run
from incidents.memory import Memory
from remediation.config import RemediationConfig
from remediation.decide import Decider
from remediation.journal import Journal
from remediation.playbook import load_playbooks
from remediation.policy import load_policy
from remediation.runners import Registry, StepResult, WaitRunner

pytestmark = pytest.mark.kafka

POLICY = """\
apiVersion: mendstream.io/v1
kind: RemediationPolicy
metadata: {name: flow}
spec: {mode: enforce, rules: [{name: all, match: 'true', decision: auto}]}
"""
PLAYBOOK = """\
apiVersion: mendstream.io/v1
kind: Playbook
metadata: {name: restart, version: 1.0.0}
spec:
  trigger: {faultKind: [latency]}
  parameters: {service: {type: string, required: true, from: 'target["service.name"]'}}
  risk: {tier: low, reversible: false}
  preconditions: ['incident.state == "open"']
  steps: STEPS
"""
NOW_NS = 1_790_000_000_000_000_000


class Recorder:
    """A runner that counts its runs."""

    name = "fake"

    def __init__(self):
        self.services = []

    def check(self, step):
        return None

    def run(self, step, params, context):
        self.services.append(params["service"])
        return StepResult("ok", changed=True)


@pytest.fixture
def brokers(kafka, topics):
    own = Topics(
        root_causes=topics("root-causes"),
        remediation_intents=topics("intents"),
        remediation_outcomes=topics("outcomes"),
        dead_letters=topics("dead"),
    )
    return KafkaConfig(bootstrap_servers=[kafka], topics=own)


@pytest.fixture
def room(tmp_path, request):
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "restart.yaml").write_text(PLAYBOOK.replace("STEPS", "[{id: act, runner: fake}]"))
    return RemediationConfig(
        database=f"sqlite:///{tmp_path}/flow.sqlite3",
        policy=tmp_path / "policy.yaml",
        playbooks=tmp_path / "books",
        executor_id="one",
        consumer_group=f"test-{tmp_path.name}-{time.time_ns()}",
        poll_s=0.05,
    )


def send(brokers, topic, *values):
    writer = KafkaWriter(brokers, topic)
    writer.write([OutRecord(b"key", value if isinstance(value, bytes) else orjson.dumps(value)) for value in values])
    writer.close()


def received(brokers, topic, count, timeout_s=60.0):
    """The first ``count`` values of a topic, as they came."""
    consumer = make_consumer(brokers)
    partition = topic_partition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    values, end = [], time.monotonic() + timeout_s
    while len(values) < count and time.monotonic() < end:
        for records in consumer.poll(timeout_ms=200).values():
            values += [record.value for record in records]
    consumer.close(autocommit=False)
    return values


class Program:
    """``run`` in a thread until the block ends."""

    def __init__(self, room, brokers, runner):
        self.stop = threading.Event()
        self.error = None
        registry = Registry(runner, WaitRunner())
        self._thread = threading.Thread(target=self._run, args=(room, brokers, registry))

    def _run(self, room, brokers, registry):
        try:
            run(room, brokers, stop=self.stop, clock=lambda: NOW_NS, registry=registry)
        except Exception as error:  # noqa: BLE001 - shown when the block ends
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self.error is None, self.error


def decided(room, *events):
    decider = Decider(load_policy(room.policy), load_playbooks(room.playbooks), source="/test")
    return [intent for event in events for intent in decider.process(event)]


def test_an_intent_is_acted_on_once_and_its_outcome_is_published(room, brokers, make_event):
    event = make_event()
    (intent,) = decided(room, event)
    runner = Recorder()
    send(brokers, brokers.topics.root_causes, event.to_json(), event.to_json())
    send(brokers, brokers.topics.remediation_intents, b"not json", intent.to_json(), intent.to_json())
    with Program(room, brokers, runner):
        (outcome,) = received(brokers, brokers.topics.remediation_outcomes, 1)
        (letter,) = received(brokers, brokers.topics.dead_letters, 1)
    assert orjson.loads(outcome)["data"]["status"] == "executed"
    assert letter == b"not json"
    send(brokers, brokers.topics.remediation_intents, intent.to_json())  # again, to a program that was restarted
    with Program(room, brokers, runner):
        journal, memory = Journal(room.database), Memory(room.database)
        assert received(brokers, brokers.topics.remediation_outcomes, 2, timeout_s=3) == [outcome]
    assert runner.services == ["payment"]
    assert journal.ledger.verify(journal.anchors()).intact
    assert [(kept.playbook, kept.status) for kept in memory.outcomes("inc-1")] == [("restart", "executed")]
    assert memory.event("inc-1") == event
    journal.close()
    memory.close()


def test_an_incident_that_is_resolved_by_now_is_left_alone(room, brokers, make_event):
    opened, resolved = make_event(), make_event(revision=2, state="resolved", at_s=1)
    (intent,) = decided(room, opened)
    runner = Recorder()
    send(brokers, brokers.topics.root_causes, opened.to_json(), resolved.to_json())
    memory = Memory(room.database)  # as if the incident's end had been read before the intent
    memory.record(resolved)
    memory.close()
    send(brokers, brokers.topics.remediation_intents, intent.to_json())
    with Program(room, brokers, runner):
        (outcome,) = received(brokers, brokers.topics.remediation_outcomes, 1)
    data = orjson.loads(outcome)["data"]
    assert (data["status"], runner.services) == ("blocked", [])
    assert "precondition does not hold" in data["reason"]


def test_a_topic_that_does_not_exist_is_named_or_made(room, brokers, make_event):
    name = f"intents-{time.time_ns()}"
    elsewhere = brokers.topics.model_copy(update={"remediation_intents": name})
    strict = brokers.model_copy(update={"topics": elsewhere})
    with pytest.raises(TopicError, match=f"do not exist at .*: {name}; create them"):
        run(room, strict, stop=threading.Event(), clock=lambda: NOW_NS, registry=Registry(Recorder()))
    lenient = strict.model_copy(update={"missing_topics": "create"})
    (intent,) = decided(room, make_event())
    with Program(room, lenient, Recorder()):
        send(lenient, name, intent.to_json())
        assert len(received(lenient, lenient.topics.remediation_outcomes, 1)) == 1


def test_sigterm_ends_the_program_between_steps_with_its_outcome_published(room, brokers, make_event, tmp_path):
    steps = "[{id: pause, runner: wait, with: {duration: 4m}}, {id: tell, runner: notify, with: {message: done}}]"
    (tmp_path / "books" / "restart.yaml").write_text(PLAYBOOK.replace("STEPS", steps))
    event = make_event(at_s=(time.time_ns() - NOW_NS) // 1_000_000_000)
    (intent,) = decided(room, event)
    send(brokers, brokers.topics.remediation_intents, intent.to_json())
    settings = {"kafka": {"topics": brokers.topics.model_dump(mode="json")}}
    settings["remediation"] = {"consumer_group": room.consumer_group, "poll_s": 0.05}
    (tmp_path / "settings.yaml").write_bytes(orjson.dumps(settings))  # JSON is YAML
    command = [sys.executable, "-c", "from flows.commands.remediate import app; app()", "run"]
    command += ["--config", str(tmp_path / "settings.yaml"), "--database", room.database, "--policy", str(room.policy)]
    command += ["--playbooks", str(room.playbooks), "--kafka", ",".join(brokers.bootstrap_servers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        journal = Journal(room.database)
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            record = journal.find(intent.id)
            if record is not None and record.state == "running":
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert journal.find(intent.id).state == "cancelled", output
    journal.close()
    (outcome,) = received(brokers, brokers.topics.remediation_outcomes, 1)
    assert orjson.loads(outcome)["data"]["reason"] == "the executor was told to stop"
