"""Playbooks: what can be done about a fault, step by step, with typed parameters.

A playbook is a YAML document (``kind: Playbook``) in a folder; the files its steps run lie in folders beside it. Its
digest covers the document and those files, so that an approval is for exactly what will run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator

from incidents.model import FaultKind
from remediation import documents
from remediation.cel import Scope, compile_condition
from remediation.params import Parameter
from remediation.policy import DecisionCondition, Name
from remediation.values import Document, Duration, digest

#: What a precondition may speak of, read at the moment of acting.
PRECONDITION_SCOPE: Final[Scope] = (
    ("incident", frozenset({"id", "revision", "state"})),
    ("playbook", frozenset({"id", "version"})),
    ("target", None),
    ("params", None),
    ("blast", frozenset({"dependents", "instances", "fraction"})),
    ("freeze", frozenset({"active"})),
)
#: What a step's ``bind`` may speak of: validated parameters and nothing else.
BIND_SCOPE: Final[Scope] = (("params", None),)
#: What a verification's ``successCondition`` may speak of: the measurement.
RESULT_SCOPE: Final[Scope] = (("result", None),)
END: Final = "end"


def _checked_precondition(text: str) -> str:
    compile_condition(text, PRECONDITION_SCOPE)
    return text


def _checked_bind(text: str) -> str:
    compile_condition(text, BIND_SCOPE)
    return text


def _checked_result(text: str) -> str:
    compile_condition(text, RESULT_SCOPE)
    return text


Precondition = Annotated[str, AfterValidator(_checked_precondition), Field(description="CEL, true or false")]
Bind = Annotated[str, AfterValidator(_checked_bind), Field(description="CEL over params")]


class PlaybookMetadata(Document):
    """Identity of a playbook."""

    name: Name
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$", description="Semantic version")]
    description: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class Trigger(Document):
    """When it applies to the top candidate of an incident."""

    fault_kind: Annotated[list[FaultKind], Field(min_length=1)]
    match: DecisionCondition | None = None


class PlaybookRisk(Document):
    """How much can go wrong, as its author sees it."""

    tier: Literal["low", "medium", "high"]
    reversible: bool


class Step(Document):
    """One action of one runner."""

    id: Name
    runner: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", description="A registered runner")]
    timeout: Duration = Field(default="5m", validate_default=True)
    file: str | None = Field(default=None, description="What the runner runs, relative to the playbook's folder")
    with_: dict[str, Any] = Field(default_factory=dict, alias="with", description="Fixed settings, as written here")
    bind: dict[str, Bind] = Field(default_factory=dict, description="Settings taken from parameters")
    on_success: str | None = Field(
        default=None, alias="on_success", description="A step id, or 'end'; default: the next"
    )
    on_failure: str | None = Field(default=None, alias="on_failure", description="A step id, or 'end'; default: end")

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        path = PurePosixPath(value or "")
        if path.is_absolute() or ".." in path.parts or "\\" in (value or ""):
            raise ValueError(f"{value!r} leaves the playbook's folder; give a path below it")
        return value

    @field_validator("with_")
    @classmethod
    def _no_templates(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, item in value.items():
            if isinstance(item, str) and ("{{" in item or "{%" in item):
                raise ValueError(f"{key!r} holds a template, and none is filled in; use bind: {{{key}: params.…}}")
        return value


class Effect(Document):
    """What should be seen afterwards."""

    metric: str
    op: Literal["lt", "le", "gt", "ge"]
    value: float
    within: Duration


class Verify(Document):
    """Repeated measurement after acting, with the semantics of an Argo Rollouts analysis."""

    name: Name
    initial_delay: Duration = 0
    interval: Duration
    count: Annotated[int, Field(ge=1, le=1_000)]
    success_condition: Annotated[str, AfterValidator(_checked_result), Field(description="CEL over result")]
    failure_limit: Annotated[int, Field(ge=0)] = 0
    inconclusive_limit: Annotated[int, Field(ge=0)] = 0
    provider: dict[str, Any] = Field(default_factory=dict)


class PlaybookSpec(Document):
    """The playbook itself."""

    trigger: Trigger
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    risk: PlaybookRisk
    preconditions: list[Precondition] = Field(default_factory=list)
    steps: Annotated[list[Step], Field(min_length=1)]
    expected_effect: list[Effect] = Field(default_factory=list)
    verify: list[Verify] = Field(default_factory=list)
    undo: list[Step] = Field(default_factory=list)


class Playbook(Document):
    """A playbook document, with the digests of its files and the folder they lie in."""

    api_version: Literal["mendstream.io/v1"]
    kind: Literal["Playbook"]
    metadata: PlaybookMetadata
    spec: PlaybookSpec
    _files: dict[str, str] = PrivateAttr(default_factory=dict)
    _folder: Path | None = PrivateAttr(default=None)
    _digest: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """The playbook's id in policies and intents."""
        return self.metadata.name

    @property
    def folder(self) -> Path | None:
        """Where ``Step.file`` is looked for; None for a playbook that was not loaded from a folder."""
        return self._folder

    @property
    def files(self) -> dict[str, str]:
        """Content digest of each file that a step names, by the name in the step."""
        return dict(self._files)

    @property
    def digest(self) -> str:
        """``sha256:`` over the document's canonical JSON and its files' contents."""
        if not self._digest:
            document = self.model_dump(mode="json", by_alias=True)
            self._digest = digest({"document": document, "files": self._files})
        return self._digest

    def runners(self) -> frozenset[str]:
        """Names of the runners its steps need."""
        return frozenset(step.runner for step in (*self.spec.steps, *self.spec.undo))


def load_playbooks(folder: Path | str) -> dict[str, Playbook]:
    """Every ``*.yaml`` and ``*.yml`` directly in a folder whose kind is Playbook, by name.

    Documents of another kind are passed over, so that a policy may lie beside its playbooks.

    Raises:
        documents.DocumentError: for a file that is refused, a name used twice, or a folder without playbooks.
    """
    folder = Path(folder)
    found: dict[str, Playbook] = {}
    problems: list[documents.Problem] = []
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        try:
            marked = documents.read(path)
            if isinstance(marked.data, dict) and marked.data.get("kind", "Playbook") != "Playbook":
                continue
            playbook = _checked_playbook(marked, folder)
        except documents.DocumentError as error:
            problems.extend(error.problems)
            continue
        if playbook.name in found:
            problems.append(
                marked.problem(("metadata", "name"), f"{playbook.name!r} is used by another file; rename one")
            )
        found[playbook.name] = playbook
    if not found and not problems:
        problems.append(
            documents.Problem(str(folder), 1, 1, "", "no playbook here; name a folder with *.yaml playbooks")
        )
    if problems:
        raise documents.DocumentError(problems)
    return found


def parse_playbook(text: str, file: str = "playbook", folder: Path | None = None) -> Playbook:
    """Read one playbook from text; ``folder`` is where its steps' files lie. Raises ``documents.DocumentError``."""
    return _checked_playbook(documents.parse(text, file), folder)


def _checked_playbook(marked: documents.Marked, folder: Path | None) -> Playbook:
    playbook = documents.build(marked, Playbook)
    problems = [*_contradictions(marked, playbook.spec)]
    for name, steps in (("steps", playbook.spec.steps), ("undo", playbook.spec.undo)):
        for index, step in enumerate(steps):
            if step.file is None:
                continue
            try:
                playbook._files[step.file] = file_digest((folder or Path("/nonexistent")) / step.file)  # noqa: SLF001 - built here
            except OSError as error:
                message = f"{step.file!r} cannot be opened ({error.strerror}); paths start at the playbook's folder"
                problems.append(marked.problem(("spec", name, index, "file"), message))
    if problems:
        raise documents.DocumentError(problems)
    playbook._folder = folder  # noqa: SLF001 - built here
    return playbook


def file_digest(path: Path) -> str:
    """``sha256:`` of a file's content. Raises ``OSError``."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def _contradictions(marked: documents.Marked, spec: PlaybookSpec) -> Iterator[documents.Problem]:
    if spec.risk.reversible and not spec.undo:
        message = "reversible, yet there is no undo; add spec.undo steps or write reversible: false"
        yield marked.problem(("spec", "risk", "reversible"), message)
    for name, steps in (("steps", spec.steps), ("undo", spec.undo)):
        ids = [step.id for step in steps]
        for index, step in enumerate(steps):
            at = ("spec", name, index)
            if step.id == END or step.id in ids[:index]:
                yield marked.problem((*at, "id"), f"{step.id!r} is taken; give every step its own id")
            if step.timeout == 0:
                yield marked.problem((*at, "timeout"), "zero would stop it at once; write for example 5m")
            for key, following in (("on_success", step.on_success), ("on_failure", step.on_failure)):
                if following is None or following == END:
                    continue
                if following not in ids:
                    known = ", ".join([*ids, END])
                    yield marked.problem((*at, key), f"{following!r} is no step; here are {known}")
                elif ids.index(following) <= index:
                    yield marked.problem((*at, key), f"{following!r} does not come later; steps only go forward")
