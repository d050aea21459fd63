"""A recording through the main dataflow, in this process: for replay, backtests, diagnoses and the demo."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from connectors.errors import RecordingError
from connectors.otlp_files import OtlpFileSource
from connectors.recording import RecordingSource
from connectors.recording_reader import load_topology
from flows.anomalies import anomaly_frame
from flows.detect import Job, Outputs, build_flow
from flows.layout import Layout
from flows.process import peak_mib
from flows.settings import Settings
from flows.version import VERSION
from flows.windows import Symptom, Window
from incidents.model import Provenance, RootCauseEvent
from incidents.report_view import RunSummary
from remediation.decide import Decider
from remediation.playbook import load_playbooks
from remediation.policy import load_policy
from signals.batch import Batch, DeadLetters
from signals.schema import EVENT_TIME, Signal

TOPOLOGY_FILE: Final = "topology.json"


class CollectSink(DynamicSink[Any]):
    """Keeps what it is given in a list of this process."""

    def __init__(self, into: list[Any]) -> None:
        self._into = into

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:  # noqa: ARG002 - Bytewax's signature
        """One partition per worker, all with the same list."""
        return _Collect(self._into)


class _Collect(StatelessSinkPartition[Any]):
    def __init__(self, into: list[Any]) -> None:
        self._into = into

    def write_batch(self, items: list[Any]) -> None:
        self._into.extend(items)


@dataclass(slots=True)
class Replayed:
    """What a replay gave."""

    name: str
    events: list[RootCauseEvent] = field(default_factory=list)
    intents: list[dict[str, Any]] = field(default_factory=list)
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    assessments: list[dict[str, Any]] = field(default_factory=list)  # risks of changes
    anomalies: list[tuple[Any, ...]] = field(default_factory=list)
    letters: list[DeadLetters] = field(default_factory=list)
    rows: Counter[Signal] = field(default_factory=Counter)
    start_ns: int = 0
    end_ns: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0

    def summary(self) -> RunSummary:
        """For the report and the terminal."""
        last = self.events[-1].data if self.events else None
        services = {edge for event in self.events for one in event.data.graph for edge in (one.caller, one.callee)}
        return RunSummary(
            name=self.name,
            mode="replay",
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            rows={str(signal): count for signal, count in self.rows.items()},
            duration_s=self.seconds,
            late=last.data_quality.late_dropped if last else 0,
            dead_lettered=sum(len(one.letters) for one in self.letters),
            services=len(services),
            edges=len({(e.caller, e.callee) for event in self.events for e in event.data.graph}),
            anomalies=len(self.anomalies),
        )


def replay(
    path: Path,
    settings: Settings,
    *,
    windows: tuple[Window, ...] = (),
    known_topology: Path | None = None,
    batch_rows: int | None = None,
    on_batch: Callable[[Batch], None] | None = None,
) -> Replayed:
    """Run the flow over a recording (a folder) or an OTLP file; labels are never read.

    Raises:
        RecordingError: ``path`` is neither.
        documents.DocumentError: the policy or a playbook is refused.
    """
    source, partitions, name = _source(path, settings, batch_rows)
    out = Replayed(name)
    known = _known(path, known_topology)

    def seen(batch: Batch) -> None:
        _count(out, batch)
        if on_batch is not None:
            on_batch(batch)

    job = Job(
        settings,
        Layout(settings.stream.shards, partitions),
        Provenance(mode="replay", pipeline=VERSION, config_hash=settings.digest),
        decider=decider_of(settings),
        known_edges=known,
        windows=windows,
        on_batch=seen,
    )
    events: list[Any] = []
    intents: list[Any] = []
    diagnoses: list[Any] = []
    assessments: list[Any] = []
    letters: list[Any] = []
    outputs = Outputs(
        root_causes=CollectSink(events),
        intents=CollectSink(intents),
        dead_letters=CollectSink(letters),
        diagnoses=CollectSink(diagnoses),
        assessments=CollectSink(assessments),
        anomalies=CollectSink(out.anomalies),
    )
    began = time.perf_counter()
    run_main(build_flow(source, job, outputs))  # type: ignore[no-untyped-call]  # Bytewax gives it no types
    out.seconds = time.perf_counter() - began
    out.peak_mib = peak_mib()
    out.events = [RootCauseEvent.model_validate(orjson.loads(value)) for _, value in events]
    out.intents = [orjson.loads(value) for _, value in intents]
    out.diagnoses = [orjson.loads(value) for _, value in diagnoses]
    out.assessments = [orjson.loads(value) for _, value in assessments]
    out.letters = [item for _, item in letters]
    return out


def decider_of(settings: Settings) -> Callable[[], Decider]:
    """Builds the decider that the settings name; reads and checks policy and playbooks now."""
    policy, playbooks = load_policy(settings.remediation.policy), load_playbooks(settings.remediation.playbooks)
    return lambda: Decider(policy, playbooks, source=settings.remediation.source)


def write_results(result: Replayed, out: Path) -> None:
    """``incidents.jsonl`` (every revision), ``intents.jsonl``, ``changes.jsonl`` and ``anomalies.parquet``."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [orjson.dumps(event.to_json()) + b"\n" for event in result.events]
    (out / "incidents.jsonl").write_bytes(b"".join(lines))
    (out / "intents.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in result.intents))
    (out / "changes.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in result.assessments))
    anomaly_frame(result.anomalies).write_parquet(out / "anomalies.parquet")


def load_windows(path: Path) -> tuple[Window, ...]:
    """Windows to diagnose, one JSON object a line; fields that are not asked for are passed over.

    Raises:
        RecordingError: a line cannot be used; the message names file and line.
    """
    windows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            symptom = one.get("symptom")
            windows.append(
                Window(
                    str(one["id"]),
                    int(one["start_unix_ns"]),
                    int(one["end_unix_ns"]),
                    Symptom(str(symptom["service"]), str(symptom["metric"])) if symptom else None,
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordingError(
                f'{path}:{number}: not a window: {error!r}; each line is {{"id", "start_unix_ns", "end_unix_ns"}}, '
                f'and may have "symptom": {{"service", "metric"}}'
            ) from None
    return tuple(windows)


def _source(path: Path, settings: Settings, batch_rows: int | None) -> tuple[Any, dict[Signal, tuple[str, ...]], str]:
    if path.is_dir():
        options = {"batch_rows": batch_rows} if batch_rows else {}
        recording = RecordingSource(path, max_ahead_s=settings.kafka.max_ahead_s, **options)  # type: ignore[arg-type]
        return recording, recording.partitions_by_signal(), recording.recording.name
    if path.is_file():
        otlp = OtlpFileSource(
            [path], environment=settings.environment, allowed_lateness_s=settings.kafka.allowed_lateness_s
        )
        return otlp, otlp.partitions_by_signal(), path.stem
    raise RecordingError(f"{path}: there is no such recording; `mendstream simulate --out {path}` makes one")


def _known(path: Path, given: Path | None) -> tuple[tuple[str, str], ...]:
    """A recording's own topology and the one given, if any."""
    files = [one for one in (path / TOPOLOGY_FILE if path.is_dir() else None, given) if one is not None]
    edges = [edge for file in files if file.exists() or file is given for edge in load_topology(file)[1]]
    return tuple(dict.fromkeys(edges))


def _count(out: Replayed, batch: Batch) -> None:
    if batch.frame.height == 0:
        return
    out.rows[batch.signal] += batch.frame.height
    times = batch.frame[EVENT_TIME[batch.signal]]
    first, last = times.min(), times.max()
    if isinstance(first, int) and isinstance(last, int):
        out.start_ns = min(out.start_ns or first, first)
        out.end_ns = max(out.end_ns, last)
