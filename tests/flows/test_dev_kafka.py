"""``mendstream dev kafka`` and the broker behind it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from connectors import broker
from connectors.broker import BrokerError, fetch_jars, java_version, require_java, start_broker
from connectors.config import KafkaConfig
from connectors.kafka_client import make_consumer, make_producer
from flows.commands.dev import app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.skipif(java_version() is None, reason="a local broker needs Java")
def test_the_command_runs_a_broker_until_it_is_interrupted_and_keeps_topics_in_a_folder(tmp_path):
    port = free_port()
    command = [sys.executable, "-c", "from flows.commands.dev import app; app()", "kafka", "--port", str(port)]
    for round_ in range(2):
        process = subprocess.Popen([*command, "--data", tmp_path / "data"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert f"export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{port}" in said
        config = KafkaConfig(bootstrap_servers=[f"127.0.0.1:{port}"])
        if round_ == 0:
            producer = make_producer(config)
            producer.send("kept", b"x").get(timeout=10)
            producer.close()
        consumer = make_consumer(config)
        assert consumer.partitions_for_topic("kept") == {0}
        consumer.close(autocommit=False)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_without_java_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(broker.shutil, "which", lambda _: None)
    with pytest.raises(BrokerError, match=r"Java 17 or newer.*apt install.*KAFKA_BOOTSTRAP_SERVERS"):
        require_java()
    done = CliRunner().invoke(app, ["kafka"])
    assert done.exit_code == 1
    assert "apt install" in done.output


def test_an_old_java_is_named(monkeypatch):
    monkeypatch.setattr(broker, "java_version", lambda: 11)
    with pytest.raises(BrokerError, match="the one on the PATH is 11"):
        require_java()


def test_without_maven_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(broker.shutil, "which", lambda _: None)
    with pytest.raises(BrokerError, match="apt install maven"):
        fetch_jars(cache=tmp_path)


def test_a_taken_port_is_named_before_anything_is_started(monkeypatch, tmp_path):
    monkeypatch.setattr(broker, "require_java", lambda: None)
    monkeypatch.setattr(broker, "fetch_jars", lambda: tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} .*--port"):
            start_broker(tmp_path / "data", port=port)
    assert not Path(tmp_path / "data" / "broker.log").exists()
