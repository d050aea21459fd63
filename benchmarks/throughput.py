"""How fast the live job is beside the floor of only reading: ``python -m benchmarks.throughput [RECORDING]``.

The bytes of a recording are published once to a real Kafka as OTLP protobuf. Then, in processes of their own and one
after the other, they are read and decoded by the job's own connector and nothing else (the floor), and put through the
live job with its recovery store, from Kafka to Kafka (``mendstream run --stop-at-end``). Efficiency is the ratio of the
two. Both clocks start when the process is up and connected to nothing yet, and stop when the last row has been dealt
with. On a machine that is busy with other things, go by processor time: ``cpu_efficiency``.

Much of the job's work is per bucket and service, not per row, so efficiency rises with the rate of events in event
time, which is printed too. Without arguments: ``$MENDSTREAM_DATA/recordings/boutique-dev``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from connectors.broker import local_broker
from connectors.config import KafkaConfig
from flows.commands.publish import publish_recording

ROOT: Final = Path(__file__).parents[1]
#: What is read together; changes are few and go along with everything.
MIXES: Final = {"spans": ("spans",), "logs": ("logs",), "metrics": ("metrics",), "all": ("spans", "logs", "metrics")}

_FLOOR: Final = """
import json, sys, time
from pathlib import Path
from connectors.iterate import iterate
from connectors.kafka_source import KafkaSource
from flows.process import cpu_s, peak_mib
from flows.settings import load_settings
from signals.batch import Batch

settings = load_settings(Path(sys.argv[1]))
began, used, rows, size = time.perf_counter(), cpu_s(), {}, 0

class Count:
    def on_poll(self, partition, *, records, size_bytes, position, end_offset, watermark_ns):
        global size
        size += size_bytes

source = KafkaSource(settings.kafka, environment="default", stop_at_end=True, observer=Count())
for item in iterate(source):
    if isinstance(item, Batch):
        rows[item.signal.value] = rows.get(item.signal.value, 0) + item.frame.height
seconds = time.perf_counter() - began
told = {"rows": rows, "bytes": size, "seconds": seconds, "cpu_s": cpu_s() - used, "peak_mib": peak_mib()}
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run; events are rows of all signals together."""

    events: int
    seconds: float
    cpu_s: float  # of all processes; less disturbed by what else the machine does
    peak_mib: int  # of the largest process

    @property
    def per_s(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def publish(recording: Path, bootstrap: str, partitions: int) -> dict[str, str]:
    """The recording in topics of its own; their names by signal."""
    names = {name: f"bench-{name}-{uuid.uuid4().hex[:8]}" for name in ("spans", "logs", "metrics", "changes")}
    topics: dict[str, Any] = {name: {"name": topic} for name, topic in names.items()} | {"changes": names["changes"]}
    config = KafkaConfig.model_validate({"bootstrap_servers": [bootstrap], "topics": topics})
    publish_recording(recording, config, partitions=partitions)
    return names


def settings_file(folder: Path, bootstrap: str, inputs: dict[str, str], signals: tuple[str, ...], shards: int) -> Path:
    """Settings that read only some signals, with outputs and a recovery store of their own."""
    folder.mkdir(parents=True)
    topics: dict[str, Any] = {name: {"name": inputs[name]} if name in signals else None for name in MIXES["all"]}
    outputs = ("root_causes", "remediation_intents", "dead_letters")
    topics |= {name: f"bench-{name}-{uuid.uuid4().hex[:8]}" for name in outputs} | {"changes": None}
    values = {
        "kafka": {
            "bootstrap_servers": [bootstrap],
            "topics": topics,
            "missing_topics": "create",
            "auto_offset_reset": "earliest",
        },
        "stream": {"recovery_dir": str(folder / "recovery"), "shards": shards},
        "remediation": {"database": f"sqlite:///{folder / 'mendstream.sqlite3'}"},
        "observe": {"port": 0, "log_format": "json"},
    }
    path = folder / "mendstream.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def floor(settings: Path) -> Measured:
    """Read and decode, nothing else."""
    done = _run([sys.executable, "-c", _FLOOR, str(settings)])
    told = json.loads(done.stdout)
    return Measured(sum(told["rows"].values()), told["seconds"], told["cpu_s"], told["peak_mib"])


def live(settings: Path, processes: int) -> Measured:
    """The live job to the end of the topics."""
    options = ["--config", str(settings), "--stop-at-end", "--processes", str(processes)]
    done = _run([sys.executable, "-m", "flows.commands.run", *options])
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    ended = [line for line in lines if line["event"] == "ended"]
    if len(ended) != processes:
        raise SystemExit(f"the live job did not end well:\n{done.stderr[-2000:]}")
    events = sum(sum(line["rows"].values()) for line in ended)
    return Measured(
        events,
        max(line["seconds"] for line in ended),
        sum(line["cpu_s"] for line in ended),
        max(line["peak_mib"] for line in ended),
    )


def length_s(recording: Path) -> float:
    """Event time that the recording covers, seconds."""
    about = json.loads((recording / "recording.json").read_text(encoding="utf-8"))
    return float(about["end_unix_ns"] - about["start_unix_ns"]) / 1e9


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": str(cores), "python": platform.python_version(), "load average": load}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    return done


def main() -> None:
    """Publish once, measure every mix, print figures."""
    data = os.environ.get("MENDSTREAM_DATA")
    default = Path(data) / "recordings" / "boutique-dev" if data else None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, nargs="?", default=default, help="folder of a recording")
    parser.add_argument("--bootstrap", help="brokers to use; a local one is started without it")
    parser.add_argument("--partitions", type=int, default=4, help="partitions of each topic")
    parser.add_argument("--processes", type=int, default=1, help="processes of the live job")
    parser.add_argument("--shards", type=int, default=2, help="logical shards per stage")
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES), help="what to measure")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    if arguments.recording is None:
        parser.error("name a recording, or set MENDSTREAM_DATA")
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    figures: dict[str, float] = {}
    seconds = length_s(arguments.recording)
    with ExitStack() as stack:
        bootstrap = arguments.bootstrap or stack.enter_context(local_broker()).bootstrap_servers
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mendstream-bench-")))
        inputs = publish(arguments.recording, bootstrap, arguments.partitions)
        for mix in arguments.mixes:
            settings = settings_file(folder / mix, bootstrap, inputs, MIXES[mix], arguments.shards)
            runs = {"floor": floor(settings), "live": live(settings, arguments.processes)}
            for name, run in runs.items():
                print(f"{mix:8} {name:6} {json.dumps(asdict(run))} {run.per_s:,.0f} events/s")
                figures[f"{mix}_{name}_per_s"] = round(run.per_s)
                figures[f"{mix}_per_s_of_event_time"] = round(run.events / seconds)
                figures[f"{mix}_{name}_peak_mib"] = run.peak_mib
                figures[f"{mix}_{name}_cpu_us_per_event"] = round(run.cpu_s / run.events * 1e6, 3)
            if runs["floor"].events != runs["live"].events:
                raise SystemExit(f"{mix}: the two runs did not read the same rows: {runs}")
            figures[f"{mix}_efficiency"] = round(runs["live"].per_s / runs["floor"].per_s, 4)
            figures[f"{mix}_cpu_efficiency"] = round(runs["floor"].cpu_s / runs["live"].cpu_s, 4)
    if arguments.json:
        whole = {"machine": about, "recording": arguments.recording.name, "figures": figures}
        arguments.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(name, value)


if __name__ == "__main__":
    main()
