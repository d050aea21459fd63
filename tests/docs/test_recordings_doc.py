"""``docs/recordings.md`` tells the format that is read: its columns, its JSON files, and an example that replays."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from connectors.iterate import iterate
from connectors.recording import RecordingSource
from connectors.recording_columns import OPTIONAL, REQUIRED
from connectors.recording_reader import load_topology, open_recording
from incidents.scoring import load_faults
from signals.batch import Batch
from signals.schema import Signal

PAGE = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text(encoding="utf-8")
JSON = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
TYPES = {pl.String: "text", pl.Int8: "integer", pl.Int64: "integer", pl.Float64: "number"}


def columns(heading: str) -> list[tuple[str, str]]:
    section = PAGE.split(f"\n### {heading}\n", 1)[1].split("\n#", 1)[0]
    return re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)


@pytest.mark.parametrize("signal", [Signal.SPANS, Signal.LOGS, Signal.METRICS], ids=str)
def test_the_columns_are_those_that_are_read_in_their_order(signal: Signal) -> None:
    assert columns(f"`{signal}`") == [(name, TYPES[kind]) for name, kind in REQUIRED[signal].items()]


def test_the_optional_columns_are_those_that_are_read() -> None:
    assert columns("Columns that may be missing") == [(name, TYPES[kind]) for name, kind in OPTIONAL.items()]


def test_the_json_files_are_of_the_form_that_is_read(tmp_path: Path) -> None:
    about, topology, fault = JSON
    (tmp_path / "recording.json").write_text(json.dumps(about))
    (tmp_path / "changes.jsonl").write_text("")
    (tmp_path / "topology.json").write_text(json.dumps(topology))
    (tmp_path / "faults.jsonl").write_text(json.dumps(fault))
    assert open_recording(tmp_path).environment == "production"
    assert load_topology(tmp_path) == (["web", "cart", "redis"], [("web", "cart"), ("cart", "redis")])
    (label,) = load_faults(tmp_path / "faults.jsonl")
    assert label.accepts("cart-7")
    assert not label.accepts("web")


def test_the_example_writes_a_recording_that_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/recordings.md", "exec"), {})  # noqa: S102 - our own page
    batches = [item for item in iterate(RecordingSource(tmp_path / "friday")) if isinstance(item, Batch)]
    rows = pl.concat(batch.frame for batch in batches)
    assert rows.height == 180
    assert rows["environment"].unique().to_list() == ["production"]
    assert rows["value"].max() == 47.0
