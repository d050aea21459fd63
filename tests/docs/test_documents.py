"""What the documents name exists: files, headings, commands with options, settings with defaults, make targets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from flows.cli import app
from flows.settings import ENV_PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SECTIONS = {name for name, info in Settings.model_fields.items() if isinstance(info.annotation, type)}
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE = re.compile(r"(?:[\w.-]+/)+[\w.-]+\.(?:py|yaml|yml|md|json|service|svg|txt|css|js|j2)")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return text.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leaves the repository"
        if heading:
            assert heading in anchors(target), f"{page.name}: {link} is none of {sorted(anchors(target))}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths in code spans that begin with a folder of this repository."""
    for span in _CODE.findall(prose(page)):
        if _FILE.fullmatch(span) and (ROOT / span.split("/", 1)[0]).is_dir():
            assert (ROOT / span).exists(), f"{page.name}: {span}"


def commands(page: Path) -> list[str]:
    """Every ``mendstream ...`` of a page, in shell blocks and in code spans."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```(?:sh|bash|console|ini)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = re.sub(r"\\\n\s*", " ", blocks).splitlines()
    found = [part for line in lines for part in re.split(r"&&|\||;| # |^#", line)]
    spans = [span for span in _CODE.findall(prose(page)) if span.startswith("mendstream ")]
    stripped = [re.sub(r"^(\$ |[A-Z_]+=\S+ |ExecStart=)*(\S*/)?(?=mendstream )", "", one.strip()) for one in found]
    return [one for one in (*stripped, *spans) if one.startswith("mendstream ")]


def misused(command: str) -> str:
    """What is wrong with a command: "" where all its words are commands, options and arguments that there are."""
    words = shlex.split(command.partition(" > ")[0])[1:]
    here: Any = typer.main.get_command(app)
    while (inner := getattr(here, "commands", None)) is not None and words and not words[0].startswith("-"):
        if words[0] not in inner:
            return f"{here.name} has no command {words[0]!r}"
        here, words = inner[words[0]], words[1:]
    options = {name: one for one in here.params for name in one.opts if name.startswith("-")}
    options |= dict.fromkeys(("--help", "-h"))
    places = [one for one in here.params if one.param_type_name == "argument"]
    while words:
        word = words.pop(0)
        name = word.partition("=")[0]
        if word in {"…", "..."}:
            continue
        if not word.startswith("-"):
            if not places:
                return f"{here.name} takes no further argument {word!r}"
            places.pop(0)
        elif name not in options:
            return f"{here.name} has no option {name}"
        elif "=" not in word and _takes_value(options[name]):
            if not words:
                return f"{name} needs a value"
            words.pop(0)
    return ""


def _takes_value(option: Any) -> bool:
    return option is not None and not option.is_flag


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_scripts_and_modules_that_are_run_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for script in re.findall(r"^python (\S+\.py)", text, re.MULTILINE):
        assert (ROOT / script).exists(), f"{page.name}: {script}"
    for paths in re.findall(r"python -m pytest ([^#\n`]+)", text):
        assert all((ROOT / path).exists() for path in paths.split() if not path.startswith("-")), (
            f"{page.name}: {paths}"
        )


def test_there_are_commands_to_check() -> None:
    assert len({command for page in PAGES for command in commands(page)}) > 15


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    wrong = {command: problem for command in commands(page) if (problem := misused(command))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("mendstream paint", "no command 'paint'"),
        ("mendstream replay shop --colour", "no option --colour"),
        ("mendstream replay shop --out", "needs a value"),
        ("mendstream version now", "no further argument"),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(command: str, problem: str) -> None:
    assert problem in misused(command)


def resolve(key: str) -> Any:
    """A settings field by its dotted key; None where there is none."""
    model: Any = Settings
    info: Any = None
    for part in key.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return None
        info = model.model_fields[part]
        inner = [one for one in get_args(info.annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
        model = inner[0] if inner else info.annotation
    return info


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_that_are_named_exist_and_have_the_default_that_is_told(page: Path) -> None:
    """A key in a code span that begins with a section; a default follows it in brackets."""
    for key, default in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`(?: \(([\d.]+)\))?", prose(page)):
        if key.partition(".")[0] not in SECTIONS or key.endswith((".jsonl", ".parquet")) or _is_code(key):
            continue
        info = resolve(key)
        assert info is not None, f"{page.name}: there is no setting {key}"
        if default:
            assert str(info.default) == default, f"{page.name}: the default of {key} is {info.default}"


def _is_code(key: str) -> bool:
    """A module or a name in one, such as ``detectors.bank``: rooms and sections share names."""
    parts = key.split(".")
    return any((ROOT / Path(*parts[:length])).with_suffix(".py").exists() for length in range(2, len(parts) + 1))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_environment_variables_that_are_named_are_settings(page: Path) -> None:
    for name in re.findall(rf"{ENV_PREFIX}([A-Z0-9_]+[A-Z0-9])", page.read_text(encoding="utf-8")):
        assert resolve(name.lower().replace("__", ".")) is not None, f"{page.name}: {ENV_PREFIX}{name}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_environment_variables_work_with_the_values_that_are_told(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in re.findall(rf"({ENV_PREFIX}\w+)=('[^']+'|[^\s`.]+)", page.read_text(encoding="utf-8")):
        with monkeypatch.context() as environment:
            environment.setenv(name, value.strip("'"))
            load_settings()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)(?=`|$|\s+#)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


def test_every_decision_is_listed_and_says_what_would_change_our_mind() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for record in sorted(folder.glob("0*.md")):
        text = record.read_text(encoding="utf-8")
        assert f"({record.name})" in index
        for part in ("Context", "Decision", "Consequences", "What would change our mind"):
            assert f"**{part}.**" in text, f"{record.name}: {part}"
