"""``docs/architecture.md`` names the rooms and steps that there are, and limits that are not settings as they are."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from detectors.instances import with_instances
from flows import memory_sink
from flows.supervise import Restarts
from remediation.decide import Decider
from signals.metrics import MetricNormaliser
from topology.graph import ServiceGraph

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split())


def default(function: object, name: str) -> object:
    return inspect.signature(function).parameters[name].default


@pytest.mark.parametrize(
    ("told", "actual"),
    [
        ("graph edges | {:,} per environment", ServiceGraph().max_edges),
        ("incidents known to the decider | {:,}", default(Decider, "max_incidents")),
        ("counters' last points {:,}", default(MetricNormaliser, "max_series")),
        ("up to {:,} revisions wait", memory_sink._MAX_WAITING),
        ("shows {:.0%} of the excess", default(with_instances, "concentration")),
    ],
)
def test_a_limit_that_is_no_setting_is_told_as_it_is(told: str, actual: float) -> None:
    assert told.format(actual).replace("%", " %") in PAGE


def test_the_job_is_restarted_as_often_as_is_told() -> None:
    assert (Restarts().at_most, Restarts().within_s) == (5, 600.0)
    assert "at most five times in ten minutes" in PAGE


def test_every_room_is_told_of() -> None:
    rooms = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert [room for room in rooms if f"`{room}/`" not in PAGE] == []


def test_the_step_ids_told_are_those_of_the_flow() -> None:
    """They are an interface: state is found by them."""
    told = re.findall(r"\| \w+ \(`(\w+)`\) \|", PAGE)
    flow = (ROOT / "flows" / "detect.py").read_text(encoding="utf-8")
    assert told
    assert [step for step in told if f'"{step}"' not in flow] == []
