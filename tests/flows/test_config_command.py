"""``mendstream config``: what is in force, what there is, and what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.config_cmd import example_text, reference_text
from flows.settings import Settings, load_settings


@pytest.fixture
def run(monkeypatch, tmp_path):
    import os

    for name in os.environ:
        if name.upper().startswith("MENDSTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})


def keys(one: BaseModel, prefix: str = ""):
    for name, value in one:
        if isinstance(value, BaseModel):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_example_loads_back_as_the_defaults(run, tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(run("config", "example").output, encoding="utf-8")
    assert load_settings(path) == Settings()
    assert path.read_text(encoding="utf-8") == example_text()


def test_the_example_and_the_reference_name_every_key():
    example, reference = example_text(), reference_text()
    for key in keys(Settings()):
        assert re.search(rf"^ *(?:# )?{key.rsplit('.', 1)[-1]}: ", example, re.M), key
        assert f"| `{key}` | `" in reference, key


def test_neither_shows_a_path_of_the_machine_it_was_made_on():
    for text in (example_text(), reference_text()):
        assert str(Path(__file__).parents[2]) not in text


def test_the_reference_does_not_depend_on_the_environment_it_is_made_in(monkeypatch):
    before = reference_text(), example_text()
    monkeypatch.setenv("MENDSTREAM__ENVIRONMENT", "prod")
    assert (reference_text(), example_text()) == before


def test_rows_of_the_reference_are_tables_of_three_columns():
    for line in reference_text().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 4, line


def test_a_good_file_passes_the_check(run, tmp_path):
    (tmp_path / "good.yaml").write_text("environment: prod", encoding="utf-8")
    result = run("config", "check", "good.yaml")
    assert result.exit_code == 0
    assert "good.yaml: fine (sha256:" in result.output


def test_the_defaults_pass_the_check(run):
    assert run("config", "check").exit_code == 0


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("stream: {shards: 0}", 2, "stream.shards"),
        ("strem: {}", 2, "strem: no such setting"),
        ("remediation: {policy: nowhere.yaml}", 1, "nowhere.yaml"),
        ("remediation: {policy: broken.yaml}", 1, "broken.yaml"),
        ("detectors: {river: {models: [{name: x, model: river.anomaly.NoSuchModel}]}}", 1, "NoSuchModel"),
        ("detectors: {river: {models: [{name: x, model: os.system}]}}", 1, "os.system"),
    ],
)
def test_a_bad_file_or_one_that_names_something_bad_fails_the_check_with_one_line(run, tmp_path, text, code, told):
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("kind: Policy\nspec: 3\n", encoding="utf-8")
    result = run("config", "check", "bad.yaml")
    assert result.exit_code == code
    assert told in result.output
    assert "Traceback" not in result.output


def test_show_puts_file_variables_and_defaults_together_and_masks_secrets(run, tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text("environment: prod\nkafka: {sasl_plain_password: hunter2}\n", encoding="utf-8")
    monkeypatch.setenv("MENDSTREAM__STREAM__SHARDS", "5")
    result = run("config", "show", "--config", "own.yaml")
    shown = yaml.safe_load(result.output)
    assert result.exit_code == 0
    assert (shown["environment"], shown["stream"]["shards"], shown["stream"]["bucket_s"]) == ("prod", 5, 10.0)
    assert "hunter2" not in result.output
    assert set(shown) == set(Settings.model_fields)


def test_docs_prints_the_reference(run):
    assert run("config", "docs").output.strip() == reference_text().strip()
