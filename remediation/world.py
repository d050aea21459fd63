"""The guards' view of the files on disk: a policy read again when it changes, and playbooks checked at start."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from incidents.memory import Memory
from remediation.checks import World
from remediation.config import RemediationConfig
from remediation.documents import DocumentError
from remediation.playbook import Playbook, load_playbooks
from remediation.policy import Policy, load_policy
from remediation.runners.base import Registry, RunnerError

_log = structlog.get_logger("mendstream.remediation")


class WorldFiles:
    """Builds a ``World`` at every call; while the policy on disk is refused, that world is halted.

    Raises:
        DocumentError: at construction, for a policy or playbook that is refused.
        RunnerError: at construction, for a playbook whose steps no runner here can run.
    """

    def __init__(self, config: RemediationConfig, registry: Registry, memory: Memory | None = None) -> None:
        self._config = config
        self._registry = registry
        self._memory = memory
        self._playbooks = load_playbooks(config.playbooks)
        check_steps(self._playbooks, registry)
        self._stamp = self._stat()
        self._policy: Policy = load_policy(config.policy)
        self._halted = ""

    def __call__(self) -> World:
        """The world as it is now."""
        stamp = self._stat()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload()
        return World(
            policy=self._policy,
            playbooks=self._playbooks,
            registry=self._registry,
            memory=self._memory,
            kill_switch_file=self._config.kill_switch_file,
            halted=self._halted,
        )

    def _reload(self) -> None:
        try:
            self._policy, self._halted = load_policy(self._config.policy), ""
            _log.info("remediation_policy_loaded", policy=self._policy.name, digest=self._policy.digest)
        except DocumentError as error:
            self._halted = f"the policy on disk is refused, so nothing acts: {error.problems[0]}"
            _log.error("remediation_policy_refused", problems=[str(problem) for problem in error.problems])

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._config.policy.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)


def check_steps(playbooks: Mapping[str, Playbook], registry: Registry) -> None:
    """Refuse playbooks whose steps no runner can run. Raises ``RunnerError`` naming playbook and step."""
    for playbook in playbooks.values():
        for step in (*playbook.spec.steps, *playbook.spec.undo):
            try:
                registry.get(step.runner).check(step)
            except RunnerError as error:
                raise RunnerError(f"playbook {playbook.name}, step {step.id}: {error}") from error
