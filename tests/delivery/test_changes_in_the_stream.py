"""A recording with a bad and a harmless deploy: both are judged when they come, and learnt from later."""

from __future__ import annotations

import json

import pytest

from connectors.recording import RecordingSource, iterate
from flows.detect import Job
from flows.incident_stage import IncidentStage
from flows.layout import Layout
from flows.replay import replay, write_results
from flows.settings import load_settings
from incidents.model import Provenance
from tests.support.live import settings_file, simulated
from tests.support.stages import Pump

FAULTS = [
    {"kind": "bad_deploy", "service": "catalog", "start": 130, "duration": 200, "latency_ms": 400, "error_rate": 0.5},
    {"kind": "harmless_deploy", "service": "payment", "start": 180, "duration": 20},
]


@pytest.fixture(scope="module")
def deploys(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("deploys") / "recording", minutes=6, faults=FAULTS)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return load_settings(settings_file(tmp_path_factory.mktemp("settings"), {"delivery": {"watch_s": 90}}))


@pytest.fixture(scope="module")
def replayed(deploys, settings):
    return replay(deploys, settings)


def test_every_change_is_written_with_its_risk(replayed, tmp_path):
    write_results(replayed, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    assert [line["service"] for line in lines[:2]] == ["catalog", "payment"]
    assert lines == sorted(lines, key=lambda line: line["at_unix_ns"])
    for line in lines:
        assert 0 < line["probability"] < 1
        assert line["gate"] in ("proceed", "canary", "hold")
        assert line["reasons"]


def test_the_model_has_learnt_the_failure_and_the_success(deploys, settings):
    source = RecordingSource(deploys)
    layout = Layout(settings.stream.shards, source.partitions_by_signal())
    pump = Pump(Job(settings, layout, Provenance(mode="replay", pipeline="test", config_hash=settings.digest)))
    pump.feed(iterate(source))
    stage = pump.stages[layout.incidents]
    assert isinstance(stage, IncidentStage)
    (watch,) = stage.watches.values()
    assert (watch.risk.outcomes, watch.risk.failures) == (2, 1)
    assert list(watch.risk.services["catalog"].outcomes) == [True]
    assert list(watch.risk.services["payment"].outcomes) == [False]


@pytest.mark.parametrize("batch_rows", [613, 9_001])
def test_the_size_of_batches_changes_no_assessment(deploys, settings, replayed, batch_rows):
    assert replay(deploys, settings, batch_rows=batch_rows).assessments == replayed.assessments
