"""The example webhook sender, against a real Kafka and a real HTTP server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.example_runs import body_of, fresh_topic, produce, run
from tests.support.sample_events import deploy_incident

SCRIPT = "post_to_webhook.py"
KEY = b"a key of the receiver"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Receiver:
    """What an HTTP server received; answers come from ``statuses``, then 204."""

    statuses: Iterator[int]
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def receiver(statuses: Sequence[int] = ()) -> Iterator[Receiver]:
    seen = Receiver(itertools.chain(statuses, itertools.repeat(204)))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            status = next(seen.statuses)
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(kafka: str, topic: str, url: str, count: int, *, secret: str = SECRET, retries: int = 4):
    return run(
        SCRIPT,
        *("--bootstrap", kafka, "--topic", topic, "--group", f"{topic}-hook", "--from-beginning"),
        *("--max", str(count), "--url", url, "--backoff", "0.05", "--retries", str(retries)),
        MENDSTREAM_WEBHOOK_SECRET=secret,
    )


@pytest.mark.kafka
def test_each_event_arrives_once_unchanged_as_a_structured_cloudevent(kafka: str) -> None:
    topic = fresh_topic(kafka)
    first, second, third = deploy_incident()
    produce(kafka, topic, [first, first, second, third])
    with receiver() as seen:
        done = post(kafka, topic, seen.url, 3)
    assert done.returncode == 0, done.stderr
    assert seen.bodies == [body_of(event) for event in (first, second, third)]
    assert {one["content-type"] for one in seen.headers} == {"application/cloudevents+json; charset=UTF-8"}
    assert json.loads(seen.bodies[0])["specversion"] == "1.0"


@pytest.mark.kafka
@pytest.mark.parametrize(("secret", "key"), [(SECRET, KEY), ("plain words", b"plain words")])
def test_the_receiver_can_verify_who_sent_it_and_when(kafka: str, secret: str, key: bytes) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident()[:1])
    with receiver() as seen:
        post(kafka, topic, seen.url, 1, secret=secret)
    (headers,), (body,) = seen.headers, seen.bodies
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "inc-7f3a/r1"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60


@pytest.mark.kafka
def test_a_server_in_trouble_is_tried_again(kafka: str) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident()[:2])
    with receiver([503, 429, 200, 500]) as seen:
        done = post(kafka, topic, seen.url, 2)
    assert done.returncode == 0, done.stderr
    assert [one["webhook-id"] for one in seen.headers] == ["inc-7f3a/r1"] * 3 + ["inc-7f3a/r2"] * 2


@pytest.mark.kafka
def test_a_refused_event_is_passed_over_and_reported(kafka: str) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident()[:2])
    with receiver([422]) as seen:
        done = post(kafka, topic, seen.url, 2)
    assert done.returncode == 0
    assert "refused with 422: inc-7f3a/r1" in done.stderr
    assert "1 posted, 1 refused" in done.stderr
    assert len(seen.bodies) == 2


@pytest.mark.kafka
@pytest.mark.parametrize("statuses", [[200, 401], [200, 302], [200, 503, 503, 503]])
def test_an_event_that_was_not_taken_comes_again_after_a_restart(kafka: str, statuses: list[int]) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident())
    with receiver(statuses) as seen:
        failed = post(kafka, topic, seen.url, 3, retries=2)
        assert failed.returncode == 1
        assert "stopped: inc-7f3a/r2" in failed.stderr
        before = len(seen.headers)
        done = post(kafka, topic, seen.url, 2)
    assert done.returncode == 0
    assert [one["webhook-id"] for one in seen.headers[before:]] == ["inc-7f3a/r2", "inc-7f3a/r3"]


@pytest.mark.kafka
def test_nobody_listening_ends_it_with_a_clear_message(kafka: str) -> None:
    topic = fresh_topic(kafka)
    produce(kafka, topic, deploy_incident()[:1])
    with receiver() as gone:
        pass
    done = post(kafka, topic, gone.url, 1, retries=1)
    assert done.returncode == 1
    assert "stopped: inc-7f3a/r1 could not be delivered" in done.stderr


def test_it_does_not_start_without_a_secret_or_with_another_scheme() -> None:
    missing = run(SCRIPT, "--url", "https://example.com", MENDSTREAM_WEBHOOK_SECRET="")
    assert missing.returncode == 2
    assert "set MENDSTREAM_WEBHOOK_SECRET" in missing.stderr
    scheme = run(SCRIPT, "--url", "file:///etc/passwd", MENDSTREAM_WEBHOOK_SECRET=SECRET)
    assert scheme.returncode == 1
    assert "file:///etc/passwd is no http or https address" in scheme.stderr
