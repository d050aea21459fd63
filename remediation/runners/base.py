"""The contract of a runner, and the registry of them: everything that acts on the world goes through here.

A runner gets operator-written settings, validated parameters and a context; it says what happened. It never raises for
what goes wrong in the world, never outlives its timeout by much, and stops early when asked to.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from remediation.params import Params
from remediation.playbook import Step

StepStatus = Literal["ok", "failed", "timeout", "cancelled"]

#: How much of a runner's output goes into an outcome.
STDOUT_LIMIT = 4_000


class RunnerError(ValueError):
    """A step is written wrongly for its runner; found when playbooks are checked, or before anything ran."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did."""

    status: StepStatus
    changed: bool = False
    message: str = ""  # one line for people
    stdout: str = ""  # excerpt, at most STDOUT_LIMIT characters


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step may know beyond its settings and parameters."""

    intent_id: str
    incident: str
    target: Mapping[str, str]
    folder: Path | None = None  # where Step.file is looked for
    files: Mapping[str, str] = field(default_factory=dict)  # content digests that were approved
    inventory: Path | None = None  # operators' description of what may be touched
    cancelled: Callable[[], bool] = _never  # true: stop as soon as nothing is left half done


class Runner(Protocol):
    """Runs the steps that name it."""

    name: str

    def check(self, step: Step) -> None:
        """Refuse a step that could never run. Raises ``RunnerError`` with the remedy."""
        ...

    def run(self, step: Step, params: Params, context: StepContext) -> StepResult:
        """Run a step; ``params`` were validated against the playbook."""
        ...


class Registry:
    """Runners by name; a name is given once.

    >>> Registry().get("magic")
    Traceback (most recent call last):
    remediation.runners.base.RunnerError: no runner is called 'magic'; there are none
    """

    def __init__(self, *runners: Runner) -> None:
        self._runners: dict[str, Runner] = {}
        for runner in runners:
            self.add(runner)

    def add(self, runner: Runner) -> None:
        """Register a runner. Raises ``RunnerError`` if its name is taken."""
        if runner.name in self._runners:
            raise RunnerError(f"a runner called {runner.name!r} is registered already")
        self._runners[runner.name] = runner

    def get(self, name: str) -> Runner:
        """The runner of this name. Raises ``RunnerError`` if there is none."""
        if name not in self._runners:
            known = ", ".join(self._runners) or "none"
            raise RunnerError(f"no runner is called {name!r}; there are {known}")
        return self._runners[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._runners))


def excerpt(text: str) -> str:
    r"""The beginning and the end of a long text, without characters that would steer a terminal.

    >>> excerpt("ok\r\n\x1b[31mred")
    'ok\n[31mred'
    >>> len(excerpt("x" * 10_000)) <= STDOUT_LIMIT
    True
    """
    text = "".join(character for character in text if character in "\n\t" or unicodedata.category(character) != "Cc")
    if len(text) <= STDOUT_LIMIT:
        return text
    half = STDOUT_LIMIT // 2 - 20
    return f"{text[:half]}\n… {len(text) - 2 * half} more …\n{text[-half:]}"
