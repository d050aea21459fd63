"""The live job as tests see it: a simulated recording, its replay, real processes, and what they wrote to Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from connectors.config import KafkaConfig
from connectors.kafka_client import Record, create_topics, make_consumer, topic_partition
from simulator import FaultPlan, SimulationConfig, simulate
from simulator.writer import RecordingSink

ROOT = Path(__file__).parents[2]
#: Two faults in six minutes, so the warm-up is short and incidents end soon.
SETTINGS: dict[str, Any] = {"incidents": {"warmup_s": 90, "close_buckets": 4}, "stream": {"shards": 2}}
FAULTS = [
    {"kind": "latency", "service": "payment", "start": 130, "duration": 70, "latency_ms": 400},
    {"kind": "error", "service": "search", "start": 250, "duration": 80, "error_rate": 0.6},
]


def simulated(folder: Path, *, minutes: float = 6, rate: float = 8, faults: Sequence[dict[str, Any]] = FAULTS) -> Path:
    """A recording of the simulated shop."""
    plan = FaultPlan.model_validate({"faults": list(faults)})
    simulate(SimulationConfig(minutes=minutes, rate=rate, faults=plan, season=False), RecordingSink(folder))
    return folder


def settings_file(folder: Path, values: dict[str, Any]) -> Path:
    """A settings file of SETTINGS with ``values`` over them, section by section."""
    merged = {name: {**SETTINGS.get(name, {}), **values.get(name, {})} for name in SETTINGS.keys() | values.keys()}
    path = folder / "mendstream.yaml"
    path.write_text(yaml.safe_dump(merged), encoding="utf-8")
    return path


def canonical(document: dict[str, Any]) -> bytes:
    """An event as canonical JSON, without the one part in which live and replay may differ."""
    data = {name: value for name, value in document["data"].items() if name != "provenance"}
    return orjson.dumps({**document, "data": data}, option=orjson.OPT_SORT_KEYS)


def told(documents: Iterable[dict[str, Any]]) -> dict[str, bytes]:
    """Canonical JSON by event id; a repeat must say the same as the first."""
    found: dict[str, bytes] = {}
    for document in documents:
        text = canonical(document)
        assert found.setdefault(document["id"], text) == text, f"{document['id']} was told in two ways"
    return found


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Where two sets of events differ, as paths and values: for people who read a failed test."""
    found = [f"only one: {name}" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        found += _differences(name, orjson.loads(one[name]), orjson.loads(other[name]))
    return found


def _differences(path: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line for key in sorted(one | other) for line in _differences(f"{path}.{key}", one.get(key), other.get(key))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for number, pair in enumerate(zip(one, other, strict=True))
            for line in _differences(f"{path}[{number}]", *pair)
        ]
    return [] if one == other else [f"{path}: {one!r} != {other!r}"]


def read_topic(bootstrap: str, topic: str) -> list[Record]:
    """Everything in a topic now, partition by partition."""
    consumer = make_consumer(KafkaConfig(bootstrap_servers=[bootstrap]))
    try:
        places = [topic_partition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        ends = consumer.end_offsets(places) if places else {}
        found: list[Record] = []
        for place in places:
            consumer.assign([place])
            consumer.seek(place, 0)
            deadline = time.monotonic() + 30
            while (consumer.position(place) or 0) < ends[place]:
                assert time.monotonic() < deadline, f"{topic} could not be read"
                found += consumer.poll(200).get(place, [])
        return found
    finally:
        consumer.close(autocommit=False)


@dataclass
class LiveJob:
    """One configuration of the live job: output topics, recovery store and database of its own."""

    folder: Path
    bootstrap: str
    config: Path
    outputs: dict[str, str]
    port: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start ``mendstream run``; its log lines go to ``log``."""
        command = [sys.executable, "-m", "flows.commands.run", "--config", str(self.config), *options]
        with self.log_file.open("a") as log:
            process = subprocess.Popen(command, cwd=ROOT, stderr=log, text=True, env=_environment())
        self.started.append(process)
        return process

    def run(self, *options: str, timeout_s: float = 120) -> list[dict[str, Any]]:
        """Run to the end; the log lines of this run. Fails unless it ended well."""
        before = len(self.log())
        code = self.start(*options).wait(timeout_s)
        lines = self.log()[before:]
        assert code == 0, f"exit code {code}: {lines[-5:]}"
        return lines

    @property
    def log_file(self) -> Path:
        return self.folder / "run.log"

    def log(self) -> list[dict[str, Any]]:
        """Log lines so far; what is not JSON as {"text"}."""
        text = self.log_file.read_text(encoding="utf-8") if self.log_file.exists() else ""
        return [json.loads(line) if line.startswith("{") else {"text": line} for line in text.splitlines()]

    def documents(self, output: str) -> list[dict[str, Any]]:
        """Events of an output topic."""
        return [orjson.loads(record.value or b"") for record in read_topic(self.bootstrap, self.outputs[output])]

    def wait_for(self, seen: Callable[[], Any], timeout_s: float = 90) -> Any:
        """Wait until something is seen while the last process runs."""
        deadline = time.monotonic() + timeout_s
        while not (found := seen()):
            assert self.started[-1].poll() is None, f"the process ended: {self.log()[-5:]}"
            assert time.monotonic() < deadline, f"nothing was seen in {timeout_s} s: {self.log()[-5:]}"
            time.sleep(0.05)
        return found

    def told(self, event: str) -> dict[str, Any] | None:
        """The last log line of an event."""
        lines = [line for line in self.log() if line.get("event") == event]
        return lines[-1] if lines else None

    def stop(self) -> None:
        """End what is left, the supervisor's children included."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def live_job(folder: Path, bootstrap: str, inputs: dict[str, str], port: int, **kafka: Any) -> Iterator[LiveJob]:
    """A job over input topics, with outputs of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {
        name: f"{name}-{uuid.uuid4().hex[:10]}" for name in ("root_causes", "remediation_intents", "dead_letters")
    }
    topics = {name: {"name": topic} if name != "changes" else topic for name, topic in inputs.items()}
    values = {
        "kafka": {
            "bootstrap_servers": [bootstrap],
            "topics": {**topics, **outputs},
            "missing_topics": "create",
            "auto_offset_reset": "earliest",
            **kafka,
        },
        "stream": {"recovery_dir": str(folder / "recovery"), "snapshot_s": 0.5},
        "remediation": {"database": f"sqlite:///{folder / 'mendstream.sqlite3'}"},
        "observe": {"port": port, "log_format": "json"},
    }
    job = LiveJob(folder, bootstrap, settings_file(folder, values), outputs, port)
    try:
        yield job
    finally:
        job.stop()


def make_inputs(bootstrap: str, partitions: int) -> tuple[KafkaConfig, dict[str, str]]:
    """Input topics that nobody else uses, and a configuration to publish to them."""
    names = {name: f"{name}-{uuid.uuid4().hex[:10]}" for name in ("spans", "logs", "metrics", "changes")}
    topics = {name: {"name": topic} if name != "changes" else topic for name, topic in names.items()}
    config = KafkaConfig.model_validate({"bootstrap_servers": [bootstrap], "topics": topics})
    create_topics(config, dict.fromkeys(names.values(), partitions))
    return config, names


def _environment() -> dict[str, str]:
    """The test's own, without a broker that would win over the settings, and with coverage of nothing else."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "MENDSTREAM"))}
