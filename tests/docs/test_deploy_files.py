"""The files under ``deploy/`` fit the program: settings load, topics agree with the Collector's, the unit is sound."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from connectors.config import KafkaConfig
from flows.settings import load_settings
from signals.schema import Signal

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "mendstream.service"


@pytest.fixture
def collector() -> dict:
    return yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text(encoding="utf-8"))


def test_the_example_settings_load_and_act_on_nothing() -> None:
    settings = load_settings(DEPLOY / "mendstream.yaml")
    policy = yaml.safe_load(settings.remediation.policy.read_text(encoding="utf-8"))
    assert policy["spec"]["mode"] == "shadow"


def test_the_collector_writes_the_topics_and_encodings_that_are_read(collector: dict) -> None:
    written = {
        signal: (collector["exporters"]["kafka"][key]["topic"], collector["exporters"]["kafka"][key]["encoding"])
        for signal, key in ((Signal.SPANS, "traces"), (Signal.LOGS, "logs"), (Signal.METRICS, "metrics"))
    }
    for kafka in (KafkaConfig(), load_settings(DEPLOY / "mendstream.yaml").kafka):
        read = {signal: (topic, str(encoding)) for signal, topic, encoding in kafka.topics.inputs() if encoding}
        assert read == written


def test_every_pipeline_of_the_collector_uses_what_is_defined(collector: dict) -> None:
    for pipeline in collector["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(collector[part])


def test_the_unit_keeps_state_where_the_settings_say() -> None:
    unit, settings = UNIT.read_text(encoding="utf-8"), load_settings(DEPLOY / "mendstream.yaml")
    state = Path("/var/lib") / re.findall(r"^StateDirectory=(.+)$", unit, re.MULTILINE)[0]
    assert settings.stream.recovery_dir is not None
    assert settings.stream.recovery_dir.is_relative_to(state)
    assert settings.remediation.database.removeprefix("sqlite:///").startswith(str(state))


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "mendstream"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "mendstream.service"
    # The program is not installed where the unit expects it; everything else is judged as it stands.
    unit.write_text(re.sub(r"(?<=ExecStart=)\S+", str(program), UNIT.read_text(encoding="utf-8")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr
