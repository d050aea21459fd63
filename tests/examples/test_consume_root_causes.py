"""The example consumer, run as a user runs it, against a real Kafka."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.support.example_runs import command, fresh_topic, produce, run
from tests.support.hostile_events import hostile_events
from tests.support.sample_events import cache_incident, deploy_incident, sample_events

pytestmark = pytest.mark.kafka
SCRIPT = "consume_root_causes.py"


def arguments(kafka: str, topic: str, *more: str) -> list[str]:
    return ["--bootstrap", kafka, "--topic", topic, "--group", f"{topic}-readers", "--from-beginning", *more]


def test_prints_one_line_per_revision_in_order(kafka: str) -> None:
    topic = fresh_topic(kafka)
    events = sample_events()
    produce(kafka, topic, events)
    done = run(SCRIPT, *arguments(kafka, topic, "--max", str(len(events))))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [event.id for event in events]
    assert (
        "2026-09-01T10:16:00.000000000Z  inc-7f3a/r3  updated   identified: payment (change, 82%)  "
        "Checkout fails for 3 in 10 buyers since payment 2.4.1"
    ) in lines


def test_a_repeated_event_is_printed_once(kafka: str) -> None:
    topic = fresh_topic(kafka)
    first, second, third = deploy_incident()
    produce(kafka, topic, [first, second, second, first, third])
    done = run(SCRIPT, *arguments(kafka, topic, "--max", "3"))
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["inc-7f3a/r1", "inc-7f3a/r2", "inc-7f3a/r3"]
    assert "3 events, 2 repeats" in done.stderr


def test_goes_on_where_it_left_off(kafka: str) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident())
    run(SCRIPT, *arguments(kafka, topic, "--max", "2"))
    produce(kafka, topic, cache_incident()[:1])
    done = run(SCRIPT, *arguments(kafka, topic, "--max", "2"))
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["inc-7f3a/r3", "inc-91c2/r1"]


def test_what_is_no_root_cause_is_reported_and_passed_over(kafka: str) -> None:
    topic = fresh_topic(kafka)
    odd = [b"\xff\x00", b"[1, 2]", b'{"type": "other"}', b'{"type": "io.mendstream.root_cause.v1", "data": {}}', None]
    produce(kafka, topic, [*odd, deploy_incident()[0]])
    done = run(SCRIPT, *arguments(kafka, topic, "--max", "1"))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "1 events, 0 repeats, 5 unreadable" in done.stderr
    assert "a tombstone" in done.stderr


def test_telemetry_cannot_drive_the_terminal(kafka: str) -> None:
    topic = fresh_topic(kafka)
    clean = hostile_events()[0]
    title = clean.data.title.replace("\ud800", "")
    candidates = [
        one.model_copy(update={"entity": {"service.name": "\x1b[31mx"}, "evidence": []})
        for one in clean.data.candidates
    ]
    produce(
        kafka,
        topic,
        [clean.model_copy(update={"data": clean.data.model_copy(update={"title": title, "candidates": candidates})})],
    )
    done = run(SCRIPT, *arguments(kafka, topic, "--max", "1"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.removesuffix("\n").isprintable()


def test_a_termination_signal_stops_it_in_order(kafka: str) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident())
    process = subprocess.Popen(
        command(SCRIPT, *arguments(kafka, topic)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "3 events" in errors
    assert lines[-1].split()[1] == "inc-7f3a/r3"
    produce(kafka, topic, cache_incident()[:1])
    again = run(SCRIPT, *arguments(kafka, topic, "--max", "1"))
    assert again.stdout.split()[1] == "inc-91c2/r1", "what was handled before the signal was committed"
