"""The console over a real server: what it shows, that it only reads, and that telemetry stays text."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
import uvicorn
from typer.testing import CliRunner

from console.app import build_app
from console.load import LoadError, load_results
from flows.cli import app as cli
from incidents.memory import Memory
from incidents.model import RootCauseEvent
from tests.support.chromium import find_chromium
from tests.support.hostile_events import hostile_events
from tests.support.sample_events import sample_events


class Answer(NamedTuple):
    status: int
    headers: Message
    text: str


class Site:
    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, path: str, method: str = "GET", host: str = "") -> Answer:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        if host:
            request.add_header("Host", host)
        try:
            with urllib.request.urlopen(request, timeout=10) as found:  # noqa: S310 - http to our own server
                return Answer(found.status, found.headers, found.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read().decode())


@contextmanager
def serving(folder: Path, events: Sequence[RootCauseEvent], **settings) -> Iterator[Site]:
    memory = Memory(f"sqlite:///{folder / 'memory.sqlite3'}")
    for one in events:
        memory.record(one)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(memory, **settings), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.02)
        assert server.started
        try:
            yield Site(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)
            memory.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("console"), sample_events()) as found:
        yield found


def storable(events: Sequence[RootCauseEvent]) -> list[RootCauseEvent]:
    """Without lone surrogates, which no UTF-8 of a wire or a database can hold."""
    texts = [json.dumps(one.model_dump()).replace("\\ud800", "") for one in events]
    return [RootCauseEvent.model_validate_json(text) for text in texts]


NEWEST = {one.data.incident.id: one for one in sorted(sample_events(), key=lambda one: one.data.incident.revision)}


def test_the_list_names_every_incident_newest_first(site):
    page = site("/")
    assert page.status == 200
    ids = sorted(NEWEST, key=lambda one: NEWEST[one].data.incident.started_at, reverse=True)
    places = [page.text.index(f'href="/incidents/{quote(one, safe="")}"') for one in ids]
    assert places == sorted(places)
    assert f"{len(ids)} incidents" in page.text


@pytest.mark.parametrize(
    ("word", "states"), [("open", {"open", "updated"}), ("resolved", {"resolved"}), ("merged", {"merged"})]
)
def test_a_state_filters_the_list_and_updated_is_open(site, word, states):
    wanted = {one for one, event in NEWEST.items() if event.data.incident.state in states}
    assert wanted
    found = json.loads(site(f"/api/incidents?state={word}").text)
    assert {one["subject"] for one in found} == {NEWEST[one].subject for one in wanted}
    page = site(f"/?state={word}").text
    assert {one for one in NEWEST if f"/incidents/{one}" in page} == wanted


def test_a_service_filters_by_the_first_candidate(site):
    service = next(one for one in NEWEST.values() if one.data.candidates).data.candidates[0].entity["service.name"]
    found = json.loads(site(f"/api/incidents?service={quote(service)}").text)
    assert found
    assert {one["data"]["candidates"][0]["entity"]["service.name"] for one in found} == {service}
    assert "No incident like that" in site("/?service=nobody").text


def test_pages_follow_each_other_without_loss(tmp_path):
    with serving(tmp_path, sample_events(), page_size=1) as site:
        seen, path = [], "/api/incidents"
        while path:
            answer = site(path)
            assert answer.headers["X-Total-Count"] == str(len(NEWEST))
            seen += [one["data"]["incident"]["id"] for one in json.loads(answer.text)]
            link = answer.headers["Link"]
            path = link.split(">")[0].strip("<") if link else ""
        assert len(seen) == len(NEWEST)
        assert set(seen) == set(NEWEST)
        assert f"Page 2 of {len(NEWEST)}" in site("/?page=2").text
        assert site(f"/?page={len(NEWEST) + 1}").status == 404


def test_json_is_every_revision_as_stored(site):
    for incident in NEWEST:
        answer = site(f"/api/incidents/{quote(incident, safe='')}")
        assert answer.headers["Content-Type"].startswith("application/cloudevents-batch+json")
        stored = [one for one in sample_events() if one.data.incident.id == incident]
        found = [RootCauseEvent.model_validate(one) for one in json.loads(answer.text)]
        assert found == sorted(stored, key=lambda one: one.data.incident.revision)


def test_an_incident_has_its_report_and_a_way_back(site):
    for incident, event in NEWEST.items():
        page = site(f"/incidents/{quote(incident, safe='')}")
        assert page.status == 200
        assert incident in page.text
        assert event.data.title.split()[0] in page.text
        assert '<a href="/">All incidents</a>' in page.text
        assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/nothing", "/incidents/nothing", "/api/incidents/nothing", "/api/nothing"])
def test_what_is_not_there_is_404_as_page_or_json(site, path):
    answer = site(path)
    assert answer.status == 404
    if path.startswith("/api/"):
        assert json.loads(answer.text)["status"] == 404
    else:
        assert "<h1>" in answer.text


@pytest.mark.parametrize("query", ["state=broken", "page=0", "page=x", "page=-1"])
def test_a_query_that_means_nothing_is_told_so(site, query):
    assert site(f"/?{query}").status == site(f"/api/incidents?{query}").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/incidents/x", "/api/incidents", "/api/incidents/x", "/healthz"])
def test_other_methods_are_refused(site, method, path):
    answer = site(path, method)
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


def test_health_answers(site):
    assert json.loads(site("/healthz").text) == {"status": "ok"}


@pytest.mark.parametrize("path", ["/", "/?page=x", "/incidents/x", "/api/incidents", "/api/incidents/x", "/healthz"])
@pytest.mark.parametrize("host", ["", "evil.example"])
def test_every_answer_carries_the_security_headers(site, path, host):
    headers = site(path, host=host).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_foreign_host_name_is_refused(site):
    assert site("/", host="evil.example").status == 400
    assert site("/", host=f"localhost:{site.port}").status == 200


def test_an_error_inside_tells_no_details_and_keeps_the_headers(tmp_path):
    with serving(tmp_path, sample_events()) as site:
        with closing(sqlite3.connect(tmp_path / "memory.sqlite3")) as database:
            database.execute("DROP TABLE incidents")
        for path in ("/", "/api/incidents"):
            answer = site(path)
            assert answer.status == 500
            assert "sqlite" not in answer.text.lower()
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert site("/healthz").status == 503


def test_hostile_text_stays_text_in_a_browser(tmp_path):
    browser = find_chromium(tmp_path)
    with serving(tmp_path, storable(hostile_events())) as site:
        for path in ("/", f"/incidents/{quote(storable(hostile_events())[0].data.incident.id, safe='')}"):
            answer = site(path)
            assert answer.status == 200
            saved = tmp_path / "page.html"
            saved.write_text(answer.text, encoding="utf-8")  # without the header: escaping alone must hold
            shown = browser.dom(saved)
            assert "&lt;script&gt;document.title=" in shown
            assert "<title>PWNED" not in shown
            assert "<img" not in shown
            assert "<iframe" not in shown
            assert "{{ 7*7 }}" in shown
            assert "\x1b" not in shown


def test_results_of_a_replay_fill_a_memory_once(tmp_path):
    events = sample_events()
    (tmp_path / "incidents.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in events))
    memory = Memory("sqlite://")
    assert load_results(tmp_path, memory) == len(events)
    assert load_results(tmp_path, memory) == 0
    memory.close()


def test_results_that_are_none_are_refused_with_their_line(tmp_path):
    memory = Memory("sqlite://")
    with pytest.raises(LoadError, match="mendstream replay"):
        load_results(tmp_path, memory)
    first = json.dumps(sample_events()[0].to_json())
    (tmp_path / "incidents.jsonl").write_text(first + '\n{"specversion": "1.0"}\n')
    with pytest.raises(LoadError, match=r"incidents\.jsonl, line 2 is no root-cause event: source"):
        load_results(tmp_path, memory)
    memory.close()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--from", "nowhere"], 1, "mendstream replay"),
        (["--database", "sqlite:///nowhere.sqlite3"], 1, "There is no database"),
        (["--database", "mysql://x/y"], 1, "sqlite or postgresql"),
        (["--from", "a", "--database", "sqlite://"], 2, "--from or --database"),
    ],
)
def test_the_command_says_what_is_wrong(words, code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["console", *words], env={"COLUMNS": "300"})
    assert result.exit_code == code
    assert says in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_the_command_serves_a_replays_results_and_leaves_nothing_behind(tmp_path):
    results, scratch = tmp_path / "results", tmp_path / "scratch"
    results.mkdir()
    scratch.mkdir()
    (results / "incidents.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in sample_events()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "console", "--from", str(results), "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            found = until_answered(Site(port), process)
        finally:
            process.terminate()
            said = process.communicate(timeout=30)[0].decode()
    assert len(json.loads(found.text)) == len(NEWEST)
    assert f"http://127.0.0.1:{port}/" in said
    assert "Traceback" not in said
    assert process.returncode == 0
    assert not list(scratch.iterdir())


def until_answered(site: Site, process: subprocess.Popen[bytes]) -> Answer:
    end = time.monotonic() + 40
    while process.poll() is None and time.monotonic() < end:
        try:
            return site("/api/incidents")
        except urllib.error.URLError:
            time.sleep(0.1)
    pytest.fail("the console did not come up")
