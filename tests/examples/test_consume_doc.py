"""``docs/consume.md`` says what is so: its field tables match the models, its recipes run, its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.support.event_tables import MEANING, tables
from tests.support.example_runs import body_of
from tests.support.sample_events import sample_events

DOC = Path(__file__).parents[2] / "docs" / "consume.md"
_START = "<!-- fields: made by tests/examples/test_consume_doc.py; run it with UPDATE_DOCS=1 to write them -->\n"
_END = "<!-- end of fields -->\n"


def recipes() -> list[str]:
    return [block for block in re.findall("```sh\n(.*?)```", DOC.read_text(), re.DOTALL) if block.startswith("jq ")]


def run_recipe(recipe: str, folder: Path) -> list[str]:
    if shutil.which("jq") is None:
        if os.environ.get("CI"):
            pytest.fail("jq is not installed")
        pytest.skip("jq is not installed")
    (folder / "incidents.jsonl").write_bytes(b"\n".join(body_of(event) for event in sample_events()))
    done = subprocess.run(["bash", "-c", recipe], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_field_tables_are_those_of_the_models() -> None:
    text = DOC.read_text()
    before, rest = text.split(_START)
    _, after = rest.split(_END)
    current = f"{before}{_START}\n{tables()}\n{_END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        DOC.write_text(current)
    assert DOC.read_text() == current, "run this test with UPDATE_DOCS=1"


def test_no_meaning_is_told_of_a_field_that_is_gone() -> None:
    told = tables()
    assert [name for name in MEANING if f"| `{name.partition('.')[2]}` |" not in told] == []


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.split("\n")[0][:50])
def test_each_recipe_runs_and_tells_something(recipe: str, tmp_path: Path) -> None:
    assert run_recipe(recipe, tmp_path)


def test_the_recipes_tell_what_they_promise(tmp_path: Path) -> None:
    newest, still_open, sure, why, evolved, values = (run_recipe(recipe, tmp_path) for recipe in recipes())
    assert {json.loads(line)["id"] for line in newest} == {"inc-7f3a/r3", "inc-7f3b/r2", "inc-91c2/r2", "inc-b7/r1"}
    assert [line.split("\t")[0] for line in still_open] == ["critical", "minor"]
    assert sure == [f"inc-7f3a/r{revision}\tpayment\tchange\t0.82\t412" for revision in (2, 3)]
    assert "+ 31 % of payment's own requests fail; the errors begin there" in why
    assert "- payment's CPU is as busy as always, so it is not starved" in why
    assert [line.split("\t")[1] for line in evolved] == ["ambiguous", "identified", "identified"]
    assert values[0].startswith('"inc-7f3a/r1","payment","error ratio",')


def test_the_schema_that_is_named_accepts_the_events() -> None:
    links = re.findall(r"\]\((schemas/[^)]+)\)", DOC.read_text())
    schema = json.loads((DOC.parent / links[0]).read_text())
    for event in sample_events():
        jsonschema.validate(json.loads(body_of(event)), schema)


def test_links_lead_to_files_that_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", DOC.read_text()):
        assert (DOC.parent / link).exists(), link
