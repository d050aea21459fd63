"""Runs Ansible playbooks through ansible-runner, with parameters as data.

Ansible treats every variable as a template unless told otherwise. Parameters therefore go into a variables file as
``!unsafe`` text, below the single name ``mendstream_params``: never on a command line, never evaluated, and unable to
replace any other variable. A private folder holds everything and is removed afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from remediation.cel import ConditionError, compile_condition
from remediation.params import Params
from remediation.playbook import BIND_SCOPE, Step
from remediation.runners.base import RunnerError, StepContext, StepResult, StepStatus, excerpt

_NS: Final = 1_000_000_000
_STATUS: Final[Mapping[str, StepStatus]] = {"successful": "ok", "timeout": "timeout", "canceled": "cancelled"}


class AnsibleRunner:
    """``file`` is an Ansible playbook below the playbook's folder; ``bind`` adds values made of parameters.

    Fails, rather than succeeds without effect, when no host of the inventory matched.
    """

    name = "ansible"

    def check(self, step: Step) -> None:
        """A ``file`` and, at most, ``bind``."""
        if not step.file or not step.file.endswith((".yml", ".yaml")):
            raise RunnerError(f"step {step.id}: ansible needs file: with a playbook, such as ansible/restart.yml")
        if step.with_:
            raise RunnerError(f"step {step.id}: ansible takes no with:; put fixed variables into the inventory")

    def run(self, step: Step, params: Params, context: StepContext) -> StepResult:
        """Run the Ansible playbook against the operators' inventory."""
        import ansible_runner

        try:
            self.check(step)
            content = _approved(step, context)
            variables = _variables(step, params)
        except (RunnerError, ConditionError) as error:
            return StepResult("failed", message=str(error))
        if context.inventory is None or not context.inventory.exists():
            return StepResult("failed", message="no Ansible inventory; set remediation.inventory to one")
        if context.cancelled():
            return StepResult("cancelled", message="cancelled before it ran")
        with tempfile.TemporaryDirectory(prefix="mendstream-ansible-", ignore_cleanup_errors=True) as folder:
            root = Path(folder)
            _lay_out(root, content, variables)
            run = ansible_runner.run(
                private_data_dir=str(root),
                playbook="playbook.yml",
                inventory=str(context.inventory.resolve()),
                envvars=_environment(root),
                timeout=max(1, round(step.timeout / _NS)),
                quiet=True,
                suppress_env_files=True,
                # Ours, so that ansible-runner leaves the program's signal handlers alone; a run that has begun is
                # let finish within its timeout, because half a change is worse than a whole one.
                cancel_callback=lambda: False,
            )
            return _result(run)


def _approved(step: Step, context: StepContext) -> bytes:
    """The playbook file's content, if it is still the one that was approved."""
    if context.folder is None or step.file is None:
        raise RunnerError(f"step {step.id}: the playbook was not loaded from a folder, so it has no files")
    try:
        content = (context.folder / step.file).read_bytes()
    except OSError as error:
        raise RunnerError(f"step {step.id}: {step.file} cannot be read: {error.strerror}") from error
    if "sha256:" + hashlib.sha256(content).hexdigest() != context.files.get(step.file):
        raise RunnerError(f"step {step.id}: {step.file} has changed since it was loaded; restart and decide again")
    return content


def _variables(step: Step, params: Params) -> dict[str, Any]:
    bound = {name: compile_condition(text, BIND_SCOPE).value({"params": params}) for name, text in step.bind.items()}
    return {**params, **bound}


def _lay_out(root: Path, content: bytes, variables: Mapping[str, Any]) -> None:
    for name in ("project", "env", "tmp"):
        (root / name).mkdir(mode=0o700)
    (root / "project" / "playbook.yml").write_bytes(content)
    (root / "env" / "extravars").write_text(unsafe_yaml(variables), encoding="utf-8")


def unsafe_yaml(variables: Mapping[str, str | int | float | bool]) -> str:
    """Variables as a YAML file for Ansible in which text is data: tagged ``!unsafe``, so never a template.

    >>> print(unsafe_yaml({"service": "{{ 7*7 }}", "add": 2}), end="")
    mendstream_params:
      "service": !unsafe "{{ 7*7 }}"
      "add": 2
    """
    if not variables:
        return "mendstream_params: {}\n"
    lines = ["mendstream_params:"]
    for name, value in variables.items():
        # JSON text is YAML text; with ASCII only there is nothing left that a YAML reader could take otherwise.
        tag = "!unsafe " if isinstance(value, str) else ""
        lines.append(f"  {json.dumps(name)}: {tag}{json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _environment(root: Path) -> dict[str, str]:
    """Ansible beside this Python, with its own temporary folders and no colours."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        "PATH": path,
        "ANSIBLE_HOME": str(root / "tmp"),
        "ANSIBLE_LOCAL_TEMP": str(root / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_INJECT_FACT_VARS": "0",
    }


def _result(run: Any) -> StepResult:  # noqa: ANN401 - ansible-runner has no types
    """What ansible-runner's events add up to."""
    stats: Mapping[str, Mapping[str, int]] = run.stats or {}
    changed = bool(sum((stats.get("changed") or {}).values()))
    hosts = set().union(*(stats.get(name) or {} for name in ("ok", "failures", "dark")))
    lines, failure = [], ""
    for event in run.events:
        if event.get("stdout"):
            lines.append(str(event["stdout"]))
        if event.get("event") in {"runner_on_failed", "runner_on_unreachable"}:
            data = event.get("event_data", {})
            message = str(data.get("res", {}).get("msg", ""))
            failure = f"task {data.get('task')!r}: {message}"
    status: StepStatus = _STATUS.get(run.status, "failed")
    if status == "ok" and not hosts:
        status, failure = "failed", "no host of the inventory matched; the library's playbooks act on group mendstream"
    words = {"ok": "every task succeeded", "timeout": "stopped at the step's timeout", "cancelled": "cancelled"}
    message = words.get(status) or failure or f"ansible ended with {run.status}, return code {run.rc}"
    return StepResult(status, changed, message.splitlines()[0][:300], excerpt("\n".join(lines)))
