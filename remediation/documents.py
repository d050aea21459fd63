"""Operator-written YAML into models, with errors that name file, line, column, key and remedy.

The position of every key is kept while loading, so that a model's complaint points at the line a person has to change.
Not here: what the documents mean (``remediation.policy``, ``remediation.playbook``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

#: A hand-written policy or playbook is far below these; a file above them is a mistake or an attack (alias bombs).
MAX_BYTES: Final = 1_000_000
MAX_NODES: Final = 50_000


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a document; line and column count from 1."""

    file: str
    line: int
    column: int
    key: str  # e.g. spec.rules[2].decision, "" for the document itself
    message: str  # what is wrong and what to write instead

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        return f"{where}{self.key}: {self.message}" if self.key else f"{where}{self.message}"


class DocumentError(ValueError):
    """A document was refused; ``problems`` holds everything found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(slots=True)
class Marked:
    """Plain data of a YAML document and where each of its keys and items stands."""

    file: str
    data: Any = None
    marks: dict[Location, tuple[int, int]] = field(default_factory=dict)

    def problem(self, location: Location, message: str) -> Problem:
        """A problem at ``location``, or at the closest parent that the file holds."""
        known = location
        while known and known not in self.marks:
            known = known[:-1]
        line, column = self.marks.get(known, (1, 1))
        return Problem(self.file, line, column, dotted(location), message)


def dotted(location: Location) -> str:
    """A location as people write it.

    >>> dotted(("spec", "rules", 2, "decision"))
    'spec.rules[2].decision'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


class _Walker:
    """Turns composed YAML nodes into data, recording marks and refusing what a reader could not foresee."""

    def __init__(self, loader: yaml.SafeLoader, marked: Marked) -> None:
        self._loader = loader
        self._marked = marked
        self._nodes = 0

    def walk(self, node: yaml.Node, location: Location) -> object:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise DocumentError([self._at(node, location, f"more than {MAX_NODES} values; split the file")])
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            items: list[object] = []
            for index, child in enumerate(node.value):
                self._mark(child, (*location, index))
                items.append(self.walk(child, (*location, index)))
            return items
        try:
            scalar: object = self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or str(error)
            raise DocumentError([self._at(node, location, f"cannot be read: {reason}")]) from error
        return scalar

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            merges = key_node.tag == "tag:yaml.org,2002:merge"
            key: Hashable = None if merges else self._loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                message = f"key {key_node.value!r} is not plain text; quote it, and write merged keys out"
                raise DocumentError([self._at(key_node, location, message)])
            here = (*location, key)
            if key in result:
                first = self._marked.marks[here][0]
                raise DocumentError([self._at(key_node, here, f"given twice (first on line {first}); keep one")])
            self._mark(key_node, here)
            result[key] = self.walk(value_node, here)
        return result

    def _mark(self, node: yaml.Node, location: Location) -> None:
        self._marked.marks[location] = (node.start_mark.line + 1, node.start_mark.column + 1)

    def _at(self, node: yaml.Node, location: Location, message: str) -> Problem:
        mark = node.start_mark
        return Problem(self._marked.file, mark.line + 1, mark.column + 1, dotted(location), message)


def parse(text: str, file: str) -> Marked:
    """Read one YAML document. Raises ``DocumentError`` for bad syntax, repeated keys and oversized files."""
    marked = Marked(file)
    if len(text.encode()) > MAX_BYTES:
        raise DocumentError([Problem(file, 1, 1, "", f"larger than {MAX_BYTES} bytes; split the file")])
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            marked.data = _Walker(loader, marked).walk(node, ())
    except RecursionError as error:
        raise DocumentError([Problem(file, 1, 1, "", "nested too deeply, or an alias of itself")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        reason = f"not valid YAML: {error.problem or error.context}"
        raise DocumentError([Problem(file, line, column, "", reason)]) from error
    except yaml.YAMLError as error:
        raise DocumentError([Problem(file, 1, 1, "", f"not valid YAML: {error}")]) from error
    finally:
        loader.dispose()
    return marked


def read(path: Path) -> Marked:
    """``parse`` a file. Raises ``DocumentError`` when it cannot be opened or is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError([Problem(str(path), 1, 1, "", f"cannot be opened: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise DocumentError([Problem(str(path), 1, 1, "", "not UTF-8; save it as UTF-8 text")]) from error
    return parse(text, str(path))


def build(marked: Marked, model: type[M]) -> M:
    """Validate a document against its model. Raises ``DocumentError`` with one problem per complaint."""
    if not isinstance(marked.data, Mapping):
        message = f"the document is {_noun(marked.data)}; write keys: apiVersion, kind, metadata, spec"
        raise DocumentError([marked.problem((), message)])
    try:
        return model.model_validate(marked.data)
    except ValidationError as error:
        raise DocumentError(_explain(marked, model, detail) for detail in error.errors()) from error


def _explain(marked: Marked, model: type[BaseModel], detail: ErrorDetails) -> Problem:
    location: Location = detail["loc"]
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        message = f"unknown field; {hint}"
    elif kind == "missing":
        message = "required and missing; add it"
    elif kind in {"enum", "literal_error"}:
        choices = ", ".join(re.findall(r"'([^']*)'", str(context["expected"]))) or str(context["expected"])
        message = f"{given!r} is none of {choices}"
    elif kind == "value_error":
        message = str(context["error"])
    else:
        text = detail["msg"]
        message = f"{text[:1].lower()}{text[1:]}, not {_noun(given)}"
    return marked.problem(location, message)


def _noun(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Names of the fields a document may hold at ``location``."""
    current: object = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            fields = {info.alias or name: info.annotation for name, info in current.model_fields.items()}
            current = _inner_model(fields.get(part))
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [info.alias or name for name, info in current.model_fields.items()]
    return []


def _inner_model(annotation: object) -> object:
    """The model inside ``X``, ``X | None``, ``list[X]``, ``tuple[X, ...]`` or ``dict[str, X]``, else the annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        inner = _inner_model(argument)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return annotation
