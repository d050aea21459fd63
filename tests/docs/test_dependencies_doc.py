"""``docs/dependencies.md`` names what ``pyproject.toml`` names, with the licences of the installed distributions."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([\w.-]+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = [found.group() for one in wanted if (found := _NAME.match(one))]
    return [name for name in names if name != project["name"]]  # an extra that takes in another


def told() -> dict[str, str]:
    rows = ROW.findall((ROOT / "docs" / "dependencies.md").read_text())
    return {name: licence for name, _, _, licence in rows if name != "dependency"}


def test_every_dependency_has_its_line_and_every_line_a_dependency() -> None:
    assert sorted(told()) == sorted(declared())


@pytest.mark.parametrize("name", declared())
def test_the_licence_is_the_one_that_the_distribution_declares(name: str) -> None:
    """By its SPDX expression, where the distribution has one in the words used here."""
    try:
        expression = metadata(name).get("License-Expression") or metadata(name).get("License") or ""
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    licence = told()[name]
    spdx = re.fullmatch(r"[\w.()+ -]+", expression) and len(expression) < 60
    if not spdx or " " in expression.replace(" AND ", "").replace(" OR ", ""):
        assert re.fullmatch(r"[\w.-]+", licence), f"{name} declares no expression; write one identifier"
        return
    assert licence.split(" AND ")[0] in expression, f"{name} declares {expression}"
