"""The live job over a real Kafka, in real processes: it says what a replay says, whatever happens to it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import urllib.error
import urllib.request

import jsonschema
import orjson
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from prometheus_client.parser import text_string_to_metric_families

from incidents.memory import Memory
from tests.support.live import ROOT, differences, make_inputs, read_topic, told
from tests.support.telemetry import produce

pytestmark = pytest.mark.kafka

#: Little at a time, so that there is a middle of the stream to be disturbed in.
SLOW = {"max_poll_records": 8, "max_ahead_s": 10, "poll_interval_ms": 5}


def schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(orjson.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_bytes()))


def agrees(job, undisturbed) -> None:
    """What the job wrote, repeats dropped, is what the replay says; each incident's revisions are in order."""
    causes, intents = job.documents("root_causes"), job.documents("remediation_intents")
    assert differences(told(causes), undisturbed.causes) == []
    assert differences(told(intents), undisturbed.intents) == []
    assert all(event["data"]["provenance"]["mode"] == "live" for event in causes)
    for incident in {event["correlationid"] for event in causes}:
        first_seen = list(dict.fromkeys(event["sequence"] for event in causes if event["correlationid"] == incident))
        assert first_seen == sorted(first_seen)


def rows_of(lines) -> int:
    """Rows that a run says it has read."""
    return sum(sum(line["rows"].values()) for line in lines if line.get("event") == "ended")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_live_job_says_what_a_replay_says(job, undisturbed, processes):
    live = job()
    lines = live.run("--stop-at-end", "--processes", str(processes))
    assert rows_of(lines) == undisturbed.rows
    agrees(live, undisturbed)
    for output, name in (("root_causes", "root_cause.v1"), ("remediation_intents", "remediation_intent.v1")):
        for document in live.documents(output):
            schema(name).validate(document)
    assert live.documents("dead_letters") == []


def test_incidents_are_in_the_database_once_and_their_topic_is_compacted_by_incident(job, kafka, undisturbed):
    live = job()
    for _ in range(2):
        live.run("--stop-at-end", "--no-recovery")
    assert len(live.documents("root_causes")) == 2 * len(undisturbed.causes)
    memory = Memory(f"sqlite:///{live.folder / 'mendstream.sqlite3'}")
    stored = {event.id: event for one in memory.incidents() if (event := memory.event(one.id))}
    memory.close()
    assert set(stored) <= set(undisturbed.causes)
    assert {event.correlationid for event in stored.values()} == {name.partition("/")[0] for name in undisturbed.causes}
    with sqlite3.connect(live.folder / "mendstream.sqlite3") as connection:
        (revisions,) = connection.execute("select count(*) from incident_revisions").fetchone()
    assert revisions == len(undisturbed.causes)
    topic = live.outputs["root_causes"]
    wanted = {name.partition("/")[0].encode() for name in undisturbed.causes}
    assert {record.key for record in read_topic(kafka, topic)} == wanted
    admin = KafkaAdminClient(bootstrap_servers=[kafka])
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    admin.close()
    assert described["topic"][topic]["cleanup.policy"]["value"] == "compact"


def test_a_killed_job_goes_on_from_its_recovery_store_and_says_the_same(job, undisturbed):
    live = job(**SLOW)
    process = live.start("--stop-at-end")
    live.wait_for(lambda: live.told("topic created") and live.documents("root_causes"))
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    lines = live.run("--stop-at-end")
    assert 0 < rows_of(lines) < undisturbed.rows
    agrees(live, undisturbed)


def test_when_one_process_of_several_dies_all_go_on_from_the_recovery_store(job, undisturbed):
    live = job(**SLOW)
    process = live.start("--stop-at-end", "--processes", "2")
    live.wait_for(lambda: live.told("processes started") and live.documents("root_causes"))
    os.kill(live.told("processes started")["pids"][1], signal.SIGKILL)
    assert process.wait(120) == 0
    assert live.told("a process died; all were stopped")
    assert live.told("restarting all processes from the recovery store")["restart"] == 1
    agrees(live, undisturbed)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_asked_to_stop_saves_its_state_and_ends_well_within_seconds(job, undisturbed, processes):
    live = job(**SLOW)
    process = live.start("--stop-at-end", "--processes", str(processes))
    live.wait_for(lambda: live.told("topic created") and live.documents("root_causes"))
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert time.monotonic() - asked < 10
    first = rows_of(live.log())
    lines = live.run("--stop-at-end", "--processes", "1")
    assert first + rows_of(lines) == undisturbed.rows
    agrees(live, undisturbed)


def test_messages_that_cannot_be_read_are_put_aside_with_reason_and_place_and_change_nothing(
    job, kafka, published, undisturbed
):
    config, names = make_inputs(kafka, partitions=1)
    bad = {
        "spans": [b"\xff\xff\xff no protobuf", b"", b'{"resourceSpans":[]}'],
        "logs": [b"\x1f\x8b\x08"],
        "metrics": [],
    }
    wanted: dict[tuple[str, int], bytes] = {}
    for name, topic in published.items():
        # Partition after partition is out of order in event time; by timestamp they are as they were published.
        records = sorted(read_topic(kafka, topic), key=lambda one: (one.timestamp, one.partition, one.offset))
        values: list[bytes] = []
        for number, record in enumerate(records):
            foreign = bad.get(name, [])
            if number % 40 == 20 and foreign:
                values.append(foreign[number // 40 % len(foreign)] or (record.value or b"")[:-9])
                wanted[names[name], len(values) - 1] = values[-1]
            values.append(record.value or b"")
        produce(config, names[name], values)
    live = job(names, allowed_lateness_s=60)
    live.run("--stop-at-end")
    agrees(live, undisturbed)
    letters = read_topic(kafka, live.outputs["dead_letters"])
    told_of = {}
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["mendstream.reason"]
        told_of[headers["mendstream.topic"].decode(), int(headers["mendstream.offset"])] = letter.value
    assert len(wanted) > 5
    assert told_of == wanted


def test_metrics_and_health_answer_while_the_job_runs(job, undisturbed):
    live = job(idle_timeout_s=0.5)
    process = live.start()

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{live.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def values() -> dict[tuple[str, ...], float]:
        families = list(text_string_to_metric_families(get("/metrics")))
        assert all(family.documentation for family in families)
        return {
            (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
            for family in families
            for sample in family.samples
        }

    live.wait_for(lambda: live.told("started"))
    found = live.wait_for(lambda: (seen := values()).get(("mendstream_open_incidents",)) and seen)
    live.wait_for(lambda: sum(values()["mendstream_rows_total", name] for name in ("spans", "logs")) > 0)
    assert get("/healthz").startswith("ok")
    assert get("/readyz").startswith("ok: 12 partitions")
    live.wait_for(lambda: sum(n for key, n in values().items() if key[0] == "mendstream_consumer_lag_messages") == 0)
    found = values()
    assert sum(n for key, n in found.items() if key[0] == "mendstream_rows_total") == undisturbed.rows
    assert found["mendstream_incident_revisions_total", "open"] >= 2
    assert any(key[0] == "mendstream_intents_total" for key in found)
    for stage in ("mine_logs", "assemble_traces", "judge", "correlate"):
        assert found["mendstream_stage_seconds_count", stage] > 0
        assert found["mendstream_event_time_delay_seconds", stage] > 3600
        assert found["mendstream_snapshot_seconds_count", stage] > 0
    assert all(n == 0 for key, n in found.items() if key[0] == "mendstream_late_rows")
    with pytest.raises(urllib.error.HTTPError):
        get("/nothing")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_what_has_been_finished_or_learnt_otherwise_is_not_gone_on_with(job):
    live = job()
    live.run("--stop-at-end")
    assert live.start().wait(60) == 1
    assert "--fresh" in live.log()[-1]["text"] + live.log()[-2].get("text", "")
    text = live.config.read_text(encoding="utf-8").replace("shards: 2", "shards: 3")
    live.config.write_text(text, encoding="utf-8")
    assert live.start("--stop-at-end").wait(60) == 1
    live.run("--stop-at-end", "--fresh", "--yes")


def test_a_missing_output_topic_stops_the_start_unless_it_may_be_made(job):
    live = job(missing_topics="fail")
    assert live.start("--stop-at-end").wait(60) == 1
    text = " ".join(line.get("text", "") for line in live.log())
    assert live.outputs["root_causes"] in text
    assert "missing_topics" in text
