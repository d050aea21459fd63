"""The executor sees the policy as it is on disk; while that is broken, nothing acts."""

from __future__ import annotations

import os

import pytest

from remediation import checks
from remediation.config import LIBRARY, RemediationConfig
from remediation.documents import DocumentError
from remediation.runners import NotifyRunner, Registry, RunnerError, default_registry
from remediation.world import WorldFiles


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text((LIBRARY / "policy.yaml").read_text())
    return RemediationConfig(policy=path)


def rewrite(path, text, stamp):
    path.write_text(text)
    os.utime(path, ns=(stamp, stamp))


def test_a_changed_policy_counts_at_once(config):
    world = WorldFiles(config, default_registry())
    before = world().policy.digest
    assert checks.stopped(world()) == ""
    rewrite(config.policy, config.policy.read_text().replace("killSwitch: false", "killSwitch: true"), 1)
    assert checks.stopped(world()) == "the policy's kill switch is on"
    assert world().policy.digest != before


def test_while_the_policy_on_disk_is_refused_nothing_acts_until_it_is_mended(config):
    world, good = WorldFiles(config, default_registry()), config.policy.read_text()
    rewrite(config.policy, good.replace("mode: shadow", "mode: enfroce"), 1)
    assert "spec.mode: 'enfroce' is none of shadow, enforce" in checks.stopped(world())
    rewrite(config.policy, good, 2)
    assert checks.stopped(world()) == ""
    config.policy.unlink()
    assert "cannot be opened" in checks.stopped(world())


def test_a_start_with_a_broken_policy_or_without_a_needed_runner_is_refused(config):
    with pytest.raises(RunnerError, match=r"playbook restart-instance, step restart: no runner is called 'ansible'"):
        WorldFiles(config, Registry(NotifyRunner()))
    config.policy.write_text("kind: nothing")
    with pytest.raises(DocumentError):
        WorldFiles(config, default_registry())
