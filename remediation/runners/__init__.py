"""Runners: what steps of playbooks are carried out by."""

from __future__ import annotations

from remediation.runners.ansible import AnsibleRunner
from remediation.runners.base import Registry, Runner, RunnerError, StepContext, StepResult
from remediation.runners.simple import NotifyRunner, WaitRunner

__all__ = [
    "AnsibleRunner",
    "NotifyRunner",
    "Registry",
    "Runner",
    "RunnerError",
    "StepContext",
    "StepResult",
    "WaitRunner",
    "default_registry",
]


def default_registry() -> Registry:
    """Every runner that needs no further configuration."""
    return Registry(AnsibleRunner(), NotifyRunner(), WaitRunner())
