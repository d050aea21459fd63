"""The examples of CONTRIBUTING.md are cut out of the page and held to the contracts they are examples of."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from connectors.iterate import iterate
from detectors.checks import CHECKS
from detectors.config import DetectorsConfig
from detectors.registry import Registry as Detectors
from detectors.river_models import RiverPanel
from remediation.playbook import Step, parse_playbook
from remediation.runners import NotifyRunner, Registry, RunnerError, StepContext, StepResult
from remediation.world import check_steps
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetters
from signals.schema import METRICS, Signal

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCKS = {
    block.split("\n", 1)[0].removeprefix("# ").strip(): block
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
}
MODULES = [name for name in BLOCKS if name.endswith(".py")]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a block to a file of its own and imports it."""

    def module(name: str) -> ModuleType:
        path = tmp_path / Path(name).name
        path.write_text(BLOCKS[name], encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, made.__name__, made)  # so that its classes pickle
        spec.loader.exec_module(made)
        return made

    return module


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_detector_meets_every_check(check, load) -> None:
    registry = Detectors()
    registry.register("range", load("detectors/range_detector.py").RangeDetector)
    check(registry.create("range"))


def test_the_river_models_of_the_settings_example_can_be_built() -> None:
    settings = yaml.safe_load(BLOCKS["mendstream.yaml"])
    RiverPanel(DetectorsConfig.model_validate(settings["detectors"]).river)


ROWS = [f"{1_700_000_000 + step},cart,queue_length,{step % 7}" for step in range(40)]
BROKEN = "1700000019.5,cart,queue_length,nan"


@pytest.fixture
def source(load, tmp_path: Path):
    """A source over a file with one line that cannot be read; ``source(rows at once)``."""
    file = tmp_path / "gauges.csv"
    file.write_text("\n".join(["unix_s,service,metric,value", *ROWS[:20], "no,gauge", BROKEN, *ROWS[20:]]) + "\n")
    made = load("connectors/csv_gauges.py")
    return lambda rows: made.CsvGauges(file, environment="test", batch_rows=rows)


def _steps(source: Any, state: Any = None) -> list[tuple[list[Any], bytes]]:
    partition = source.build_part("test", source.list_parts()[0], state)
    steps = []
    while True:
        try:
            items = partition.next_batch()
        except StopIteration:
            return steps
        steps.append((items, pickle.dumps(partition.snapshot())))


def _rows(steps: list[tuple[list[Any], bytes]]) -> pl.DataFrame:
    frames = [item.frame for items, _ in steps for item in items if isinstance(item, Batch)]
    return pl.concat([pl.DataFrame(schema=METRICS), *frames])


def test_the_source_gives_every_row_once_in_the_schema_of_its_signal(source) -> None:
    items = list(iterate(source(7)))
    frames = [item.frame for item in items if isinstance(item, Batch)]
    assert all(frame.schema == METRICS for frame in frames)
    assert pl.concat(frames)["value"].to_list() == [float(step % 7) for step in range(40)]
    assert [item.skipped for item in items if isinstance(item, Batch) and item.skipped] == [{"not_finite": 1}]


def test_the_watermark_of_the_source_never_decreases_and_no_later_row_is_older(source) -> None:
    watermark = NO_WATERMARK
    for items, _ in _steps(source(1)):  # some batches have no row at all
        for batch in (item for item in items if isinstance(item, Batch)):
            assert batch.frame.is_empty() or batch.frame["time_ns"].min() >= watermark
            assert batch.watermark_ns >= watermark
            watermark = batch.watermark_ns
    assert watermark == END_OF_STREAM


def test_the_source_resumes_exactly_at_every_snapshot(source) -> None:
    steps = _steps(source(3))
    for place, (_, snapshot) in enumerate(steps):
        again = _steps(source(5), pickle.loads(snapshot))  # noqa: S301 - our own bytes
        assert_frame_equal(_rows(again), _rows(steps[place + 1 :]))


def test_a_line_that_cannot_be_read_becomes_a_dead_letter_with_its_number(source) -> None:
    letters = [item for items, _ in _steps(source(7)) for item in items if isinstance(item, DeadLetters)]
    assert [(letter.offset, letter.value) for item in letters for letter in item.letters] == [(21, b"no,gauge")]


def test_the_source_says_which_partitions_hold_which_signal_and_stops_when_asked(source) -> None:
    asked = source(1)
    assert asked.partitions_by_signal() == {Signal.METRICS: tuple(asked.list_parts())}
    partition = asked.build_part("test", asked.list_parts()[0], None)
    partition.next_batch()
    asked.request_stop()
    with pytest.raises(StopIteration):
        partition.next_batch()


@pytest.fixture
def flag(load):
    """The runner."""
    return load("remediation/runners/flag.py").FlagRunner()


def _step(**settings: Any) -> Step:
    return Step.model_validate({"id": "s", "runner": "flag", "with": settings})


@pytest.mark.parametrize("settings", [{}, {"path": "relative.json"}, {"path": 3}, {"path": "/x", "more": 1}])
def test_the_runner_refuses_a_bad_step_with_a_remedy(flag, settings) -> None:
    with pytest.raises(RunnerError, match=r"step s: flag takes with: \{path"):
        flag.check(_step(**settings))


@pytest.mark.parametrize("value", ["search", "{{ 7*7 }}", "$(touch x)", "../../etc/passwd", "\x1b[31m", ""])
def test_the_runner_treats_parameters_as_data_whatever_they_say(flag, tmp_path, value) -> None:
    file = tmp_path / "flag.json"
    context = StepContext("int-1", "inc-1", {})
    result = flag.run(_step(path=str(file)), {"service": value}, context)
    assert (result.status, result.changed) == ("ok", True)
    assert json.loads(file.read_text()) == {"intent": "int-1", "params": {"service": value}}
    assert not flag.run(_step(path=str(file)), {"service": value}, context).changed
    assert [path.name for path in tmp_path.glob("*.json")] == ["flag.json"]


def test_the_runner_answers_for_what_goes_wrong_and_stops_when_cancelled(flag, tmp_path) -> None:
    nowhere = _step(path=str(tmp_path / "missing" / "flag.json"))
    failed = flag.run(nowhere, {}, StepContext("int-1", "inc-1", {}))
    assert isinstance(failed, StepResult)
    assert failed.status == "failed"
    cancelled = flag.run(nowhere, {}, StepContext("int-1", "inc-1", {}, cancelled=lambda: True))
    assert cancelled.status == "cancelled"


def test_the_playbook_that_names_the_runner_is_accepted_with_it_and_refused_without(flag) -> None:
    playbook = parse_playbook(BLOCKS["playbooks/degrade-search.yaml"])
    check_steps({playbook.name: playbook}, Registry(flag, NotifyRunner()))
    with pytest.raises(RunnerError, match="no runner is called 'flag'"):
        check_steps({playbook.name: playbook}, Registry(NotifyRunner()))


def test_the_examples_pass_the_linter_as_files_of_their_rooms(tmp_path: Path) -> None:
    root = PAGE.parent
    for name in MODULES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BLOCKS[name], encoding="utf-8")
    ruff = [str(Path(sys.executable).parent / "ruff"), "--config", str(root / "pyproject.toml")]
    # Magic methods and the engine's interface are documented where they are defined; arguments are the contract's.
    lenient = ["--ignore", "INP001,D102,ARG002"]
    for command in (["check", *lenient], ["format", "--diff"]):
        done = subprocess.run(
            [ruff[0], command[0], *ruff[1:], *command[1:], str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
