"""What operators rely on: supervision, the recovery store's rules, probes, logs, the status line, the database sink."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import bytewax.operators as op
import pytest
import structlog
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main
from prometheus_client import CollectorRegistry
from rich.console import Console
from sqlalchemy.exc import OperationalError

from flows.health import Endpoint, Health, ListenError
from flows.layout import Layout
from flows.logs import set_up_logs
from flows.memory_sink import MemorySink
from flows.observe import Tally, Telemetry
from flows.recovery import RecoveryError, delete_store, prepare_store, sole_user
from flows.settings import Settings
from flows.stages import Vitals
from flows.status import StatusLine, status_line
from flows.supervise import Restarts, Supervisor, free_addresses, when_orphaned
from signals.batch import END_OF_STREAM, Batch
from signals.schema import Signal, empty

QUICK = Restarts(at_most=2, first_pause_s=0.05, longest_pause_s=0.1)


def python(script: str):
    """A command of one process that runs a script with its number and the addresses as arguments."""
    return lambda number, addresses: [sys.executable, "-c", script, str(number), ";".join(addresses)]


# -- supervision -------------------------------------------------------------------------------------------------------


def test_processes_that_all_end_well_are_not_restarted(tmp_path):
    script = f"import sys; open({str(tmp_path)!r} + '/' + sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
    assert Supervisor(python(script), 3, QUICK).run() == 0
    told = [(tmp_path / str(number)).read_text().splitlines() for number in range(3)]
    assert [len(lines) for lines in told] == [1, 1, 1]
    assert len({lines[0] for lines in told}) == 1
    assert len(set(told[0][0].split(";"))) == 3


def test_one_that_dies_has_all_restarted_until_that_does_not_help(tmp_path):
    script = (
        "import sys, time, os\n"
        f"open({str(tmp_path)!r} + '/' + sys.argv[1], 'a').write('x')\n"
        "if sys.argv[1] == '1': sys.exit(3)\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    assert Supervisor(python(script), 2, QUICK, grace_s=2).run() == 1
    assert time.monotonic() - began < 30
    assert len((tmp_path / "1").read_text()) == 1 + QUICK.at_most


def test_without_a_recovery_store_there_is_no_restart(tmp_path):
    script = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); raise SystemExit(1)"
    assert Supervisor(python(script), 1, QUICK, may_restart=False).run() == 1
    assert (tmp_path / "runs").read_text() == "x"


def test_a_request_to_stop_reaches_every_process_and_what_does_not_stop_is_killed(tmp_path):
    script = (
        "import signal, sys, time\n"
        "stop = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: stop.append(1) if sys.argv[1] == '0' else None)\n"
        f"open({str(tmp_path)!r} + '/' + sys.argv[1], 'w').close()\n"
        "while not stop: time.sleep(0.02)\n"
    )
    supervisor = Supervisor(python(script), 2, QUICK, grace_s=1.0)

    def ask() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        supervisor.request_stop("test")

    threading.Thread(target=ask, daemon=True).start()
    assert supervisor.run() == 1
    assert all(child.poll() is not None for child in supervisor._children)
    assert supervisor._children[0].returncode == 0
    assert supervisor._children[1].returncode == -signal.SIGKILL


def test_a_child_learns_that_its_supervisor_is_gone():
    reading, writing = os.pipe()
    told, gone = [], threading.Event()
    when_orphaned(lambda why: (told.append(why), gone.set()), reading)
    assert not gone.wait(0.1)
    os.close(writing)
    assert gone.wait(5)
    assert told == ["the supervisor is gone"]


def test_addresses_are_different_and_free():
    addresses = free_addresses(4)
    assert len(set(addresses)) == 4


class _Where(StatefulBatchLogic[object, object, object]):
    """Notes which worker a key is on."""

    def __init__(self, seen: dict[str, int]) -> None:
        self._seen = seen

    def on_batch(self, values):
        self._seen[values[0]] = threading.get_ident()
        return [], StatefulBatchLogic.RETAIN

    def snapshot(self):
        return None


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_shards_of_every_stage_are_spread_evenly_over_workers(workers):
    layout = Layout(2 * workers, dict.fromkeys(Signal, ("one",)))
    names = [*layout.logs, *layout.traces, *layout.detect, layout.incidents]
    seen: dict[str, int] = {}
    flow = Dataflow("where")
    keyed = op.input("in", flow, TestingSource([(name, name) for name in names]))
    nothing = op.stateful_batch("held", keyed, lambda _: _Where(seen))
    op.output("out", nothing, TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    for stage in (layout.logs, layout.traces, layout.detect):
        assert sorted(Counter(seen[name] for name in stage).values()) == [2] * workers


# -- the recovery store ------------------------------------------------------------------------------------------------


def test_a_store_is_made_once_and_gone_on_with(tmp_path):
    store = tmp_path / "a" / "store"
    prepare_store(store, Settings(), finish=False)
    parts = {one.name: one.stat().st_mtime_ns for one in store.glob("part-*")}
    assert parts
    prepare_store(store, Settings(), finish=False)
    assert {one.name: one.stat().st_mtime_ns for one in store.glob("part-*")} == parts


@pytest.mark.parametrize(
    ("changed", "section"),
    [({"stream": {"bucket_s": 5}}, "stream"), ({"detectors": {"series": {"max_series": 7}}}, "detectors")],
)
def test_state_learnt_with_other_settings_is_refused_and_the_section_named(tmp_path, changed, section):
    prepare_store(tmp_path / "store", Settings(), finish=False)
    with pytest.raises(RecoveryError, match=rf"settings of {section};.*--fresh"):
        prepare_store(tmp_path / "store", Settings.model_validate(changed), finish=False)


@pytest.mark.parametrize("changed", [{"incidents": {"open_score": 9}}, {"stream": {"snapshot_s": 1}}])
def test_thresholds_of_incidents_and_the_pause_between_snapshots_may_change(tmp_path, changed):
    prepare_store(tmp_path / "store", Settings(), finish=False)
    prepare_store(tmp_path / "store", Settings.model_validate(changed), finish=False)


def test_a_finished_store_is_not_gone_on_with_but_may_be_finished_again(tmp_path):
    store = tmp_path / "store"
    prepare_store(store, Settings(), finish=False)
    prepare_store(store, Settings(), finish=True)
    prepare_store(store, Settings(), finish=True)
    with pytest.raises(RecoveryError, match="stop-at-end"):
        prepare_store(store, Settings(), finish=False)


def test_only_a_recovery_store_is_deleted_and_nothing_beside_it(tmp_path):
    store = tmp_path / "store"
    prepare_store(store, Settings(), finish=False)
    (store / "notes.txt").write_text("mine")
    assert delete_store(store)
    assert [one.name for one in store.iterdir()] == ["notes.txt"]
    with pytest.raises(RecoveryError, match="nothing was deleted"):
        delete_store(store)
    with pytest.raises(RecoveryError, match="no recovery store"):
        prepare_store(store, Settings(), finish=False)
    assert not delete_store(tmp_path / "never")


def test_two_runs_cannot_use_one_store(tmp_path):
    with sole_user(tmp_path / "store"):
        prepare_store(tmp_path / "store", Settings(), finish=False)
        with pytest.raises(RecoveryError, match="in use"), sole_user(tmp_path / "store"):
            pytest.fail("it was given twice")
    with sole_user(tmp_path / "store"):
        prepare_store(tmp_path / "store", Settings(), finish=False)


# -- metrics and probes ------------------------------------------------------------------------------------------------


def test_a_source_without_a_turn_for_long_is_a_hang_but_heavy_work_is_not():
    tally = Tally()
    health = Health(tally, stalled_s=60, monotonic=lambda: 1_000.0)
    assert health.alive()[0]
    assert not health.ready()[0]
    tally.turned_at = 995.0
    assert health.alive()[0]
    assert health.ready()[0]
    tally.turned_at = 900.0
    assert not health.alive()[0]
    tally.busy_at = 990.0
    assert health.alive()[0]


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read()


def test_probes_answer_with_status_and_reason():
    tally = Tally()
    with Endpoint("127.0.0.1", 0, CollectorRegistry(), Health(tally)) as endpoint:
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(endpoint.port, "/readyz")
        assert refused.value.code == 503
        assert b"no partition" in refused.value.read()
        for _ in range(3):  # headers of one answer must not be those of the next
            assert get(endpoint.port, "/healthz").startswith(b"ok: ")
        tally.turned_at = time.monotonic()
        assert get(endpoint.port, "/readyz").startswith(b"ok: ")
        with pytest.raises(ListenError, match=r"observe\.port"):
            Endpoint("127.0.0.1", endpoint.port, CollectorRegistry(), Health(tally)).__enter__()


def sample(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def test_event_time_delay_is_the_wall_clock_minus_the_least_watermark():
    now = [1_000.0]
    telemetry = Telemetry({}, wall=lambda: now[0])
    for shard, at_s in (("detect-0", 990), ("detect-1", 980)):
        telemetry.on_stage("judge", shard, 0.01, Vitals(at_s * 10**9, 3, {"series": 5}))
    assert sample(telemetry, "mendstream_event_time_delay_seconds", stage="judge") == 20.0
    now[0] = 1_060.0
    assert sample(telemetry, "mendstream_event_time_delay_seconds", stage="judge") == 80.0
    for shard in ("detect-0", "detect-1"):
        telemetry.on_stage("judge", shard, 0.01, Vitals(END_OF_STREAM, 3, {}))
    assert sample(telemetry, "mendstream_event_time_delay_seconds", stage="judge") == 0.0
    assert sample(telemetry, "mendstream_late_rows", stage="judge", shard="detect-1") == 3
    assert sample(telemetry, "mendstream_state_entries", stage="judge", shard="detect-0", of="series") == 5


def test_an_idle_partition_is_not_behind():
    telemetry = Telemetry({"t": Signal.SPANS}, wall=lambda: 1_000.0)
    for number, at_s in ((0, 990), (1, 100)):
        telemetry.on_poll(f"t/{number}", records=1, size_bytes=9, position=1, end_offset=4, watermark_ns=at_s * 10**9)
    assert sample(telemetry, "mendstream_event_time_delay_seconds", stage="source") == 900.0
    telemetry.on_batch(Batch(Signal.SPANS, "t/1", empty(Signal.SPANS), 100 * 10**9, idle=True))
    assert sample(telemetry, "mendstream_event_time_delay_seconds", stage="source") == 10.0
    assert sample(telemetry, "mendstream_consumer_lag_messages", topic="t", partition="1") == 3
    assert sample(telemetry, "mendstream_read_bytes_total", signal="spans") == 18


# -- logs and the status line ------------------------------------------------------------------------------------------


@pytest.fixture
def logs_restored():
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    yield
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


HOSTILE = "{evil} %s \x1b[31m \u202e\n"


@pytest.mark.usefixtures("logs_restored")
def test_hostile_text_is_data_in_json_logs(capsys):
    set_up_logs("info", "json", process=3)
    structlog.get_logger("test").warning("line seen", body=HOSTILE)
    structlog.get_logger("test").debug("not told")
    logging.getLogger("elsewhere").error("also %s", "this")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["body"], first["process"], first["level"]) == ("line seen", HOSTILE, 3, "warning")
    assert (second["event"], second["logger"]) == ("also this", "elsewhere")


@pytest.mark.usefixtures("logs_restored")
def test_hostile_text_cannot_steer_a_terminal(capsys):
    set_up_logs("info", "console")
    structlog.get_logger("test").warning("line seen", body=HOSTILE)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\x1b[31m" not in told
    assert "\u202e" not in told


def test_the_status_line_says_how_fast_how_far_behind_and_what_is_open():
    tally, now = Tally(), [0.0]
    line = StatusLine(tally, wall=lambda: 1_000.0, monotonic=lambda: now[0])
    assert "waiting for telemetry" in line.text().plain
    tally.rows.update({Signal.SPANS: 30_000})
    tally.lag = {"spans/0": 4, "spans/1": 1_500}
    tally.watermarks["source", "spans/0"] = 910 * 10**9
    tally.incidents["incidents-0"] = 2
    now[0] = 2.0
    said = line.text().plain
    assert "15.0k spans/s" in said
    assert "lag 1.5k messages" in said
    assert "1.5 min behind" in said
    assert "2 open incidents" in said


def test_without_a_terminal_there_is_no_status_line():
    out = io.StringIO()
    with status_line(Tally(), Console(file=out, force_terminal=False), every_s=0.01):
        time.sleep(0.05)
    assert out.getvalue() == ""
    with status_line(Tally(), Console(file=out, force_terminal=True), every_s=0.01):
        time.sleep(0.1)
    assert "waiting for telemetry" in out.getvalue()


# -- the database ------------------------------------------------------------------------------------------------------


class Flaky:
    """A memory whose database is away for a while."""

    def __init__(self) -> None:
        self.away, self.kept, self.closed = True, [], False

    def record(self, event) -> bool:
        if self.away:
            raise OperationalError("insert", {}, Exception("away"))
        self.kept.append(event.id)
        return True

    def close(self) -> None:
        self.closed = True


class Event:
    def __init__(self, number: int) -> None:
        self.id = f"inc/r{number}"


def test_a_database_that_is_away_stops_nothing_and_is_caught_up_with():
    memory, failures = Flaky(), []
    sink = MemorySink(lambda: memory, lambda: failures.append(1)).build("remember", 0, 1)
    sink.write_batch([Event(1), Event(2)])
    assert memory.kept == []
    assert failures == [1]
    memory.away = False
    sink.write_batch([Event(3)])
    assert memory.kept == ["inc/r1", "inc/r2", "inc/r3"]
    memory.away = True
    sink.write_batch([Event(4)])
    memory.away = False
    sink.close()
    assert memory.kept[-1] == "inc/r4"
    assert memory.closed
