"""The command line: every command answers ``--help`` with an example, and mistakes with an exit code."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

from flows.cli import app
from flows.version import VERSION


def commands(group, path=()):
    for name, command in getattr(group, "commands", {}).items():
        if getattr(command, "commands", None):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = sorted(commands(typer.main.get_command(app)))
GROUPS = sorted({path[:-1] for path in ALL})


def run(*words: str):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "TERM": "dumb"}, prog_name="mendstream")


def test_there_are_the_commands_that_the_documents_speak_of():
    assert {("replay",), ("diagnose",), ("backtest",), ("simulate",), ("record",), ("version",)} <= set(ALL)
    assert {("config", "check"), ("policy", "check"), ("remediate", "run"), ("dev", "kafka")} <= set(ALL)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_says_what_a_command_does_and_shows_an_example(path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    usage, rest = result.output.split("\n", 2)[1:]
    assert usage.strip().startswith(f"Usage: mendstream {' '.join(path)}")
    assert f"mendstream {' '.join(path)}" in " ".join(rest.split())
    assert "\\b" not in result.output


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_and_argument_is_explained(path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    for parameter in (one for one in command.params if not getattr(one, "hidden", False)):
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name}"


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "mendstream")
def test_a_group_without_a_command_shows_what_there_is(path):
    result = run(*path)
    assert "Usage:" in result.output
    for one in ALL:
        if one[:-1] == path:
            assert one[-1] in result.output


def test_version_names_what_decides_results():
    result = run("version")
    assert result.exit_code == 0
    assert result.output.startswith(f"mendstream {VERSION} (Python {platform.python_version()}, bytewax ")
    for library in ("polars", "river", "numpy"):
        assert f"{library} " in result.output


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 2),
        (["replay"], 2),
        (["replay", "nowhere"], 1),
        (["backtest", "nowhere"], 1),
        (["replay", "nowhere", "--config", "nowhere.yaml"], 2),
        (["replay", "nowhere", "--batch-rows", "0"], 2),
        (["policy", "check", "nowhere.yaml"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_mistakes_end_with_an_exit_code_and_no_traceback(words, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_help_comes_at_once_because_heavy_libraries_are_imported_only_when_used():
    code = (
        "import sys, flows.cli; print(sorted({'river', 'bytewax', 'sqlalchemy', 'ansible_runner'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
