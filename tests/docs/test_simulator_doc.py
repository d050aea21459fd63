"""``docs/simulator.md`` says what the simulator takes: kinds with their keys and defaults, a schedule that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from simulator.config import KEYS_OF_KIND, FaultSpec, Kind, ScheduleError, SimulationConfig, load_schedule
from simulator.effects import DEFAULT_ERROR_RATE, DEFAULT_LATENCY_MS
from simulator.faults import LABEL_KINDS, check
from simulator.run import topology_of

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
KINDS = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE))


def test_every_kind_is_told_with_the_keys_it_takes() -> None:
    assert set(KINDS) == set(get_args(Kind))
    for kind, text in KINDS.items():
        keys = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", text)))
        assert keys == KEYS_OF_KIND[kind], kind


@pytest.mark.parametrize(("key", "kind"), [("cpu_left", "cpu_saturation"), ("factor", "traffic_spike")])
def test_the_defaults_told_are_those_of_the_settings(key: str, kind: str) -> None:
    assert f"`{key}` ({FaultSpec.model_fields[key].default})" in KINDS[kind]


def test_the_other_defaults_told_are_those_of_the_effects() -> None:
    assert f"({DEFAULT_LATENCY_MS:g})" in KINDS["latency"]
    assert f"({DEFAULT_ERROR_RATE:g})" in KINDS["error"]
    assert f"({FaultSpec.model_fields['loss'].default:g})" in KINDS["network_loss"]
    assert f"({FaultSpec.model_fields['lines_per_s'].default:g})" in KINDS["log_storm"]


def test_kinds_with_a_label_of_another_name_are_named() -> None:
    for kind, label in LABEL_KINDS.items():
        assert f"`{kind}` is labelled `{label}`" in PAGE or f"`{kind}` `{label}`" in PAGE


def test_the_schedule_is_accepted_for_the_shop_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "schedule.yaml"
    file.write_text(block, encoding="utf-8")
    config = SimulationConfig()
    topology = topology_of(config)
    plan = load_schedule(file)
    check(plan, topology, config)
    assert len(plan.faults) == 4
    file.write_text(block.replace("service: pricing", "service: prices"), encoding="utf-8")
    with pytest.raises(ScheduleError, match=r"faults\[0\]\.service: 'prices' is no service"):
        check(load_schedule(file), topology, config)
