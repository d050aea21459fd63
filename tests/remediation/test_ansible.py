"""The starter playbooks on localhost: a real process is restarted, rolled back, scaled; hostile text is harmless."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

from remediation.playbook import Step, load_playbooks
from remediation.runners import AnsibleRunner, StepContext

_SCRIPT = Path(__file__).with_name("little_service.py")
_SPEC = importlib.util.spec_from_file_location("little_service", _SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
little_service = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(little_service)

HOSTILE = ["{{ 7*7 }}", "$(touch marker)", "; touch marker;", "{{ lookup('pipe', 'touch marker') }}", "`touch marker`"]


@pytest.fixture
def service(tmp_path):
    """A running little service; its folder."""
    folder = tmp_path / "payment"
    folder.mkdir()
    for name, text in (("version", "2.4.1\n"), ("previous_version", "2.4.0\n"), ("replicas", "2\n")):
        (folder / name).write_text(text)
    little_service.start(folder)
    yield folder
    little_service.stop(folder)


@pytest.fixture
def inventory(tmp_path, service):
    """What an operator writes: which services there are, and how each is controlled."""
    restart = [sys.executable, str(_SCRIPT), "restart", str(service)]
    payment = {
        "restart": restart,
        "apply": restart,
        "state_dir": str(service),
        "min_replicas": 1,
        "max_replicas": 3,
        "instances": {"payment-1": {"restart": restart}},
    }
    localhost = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "mendstream_services": {"payment": payment},
    }
    path = tmp_path / "inventory.yml"
    path.write_text(yaml.safe_dump({"mendstream": {"hosts": {"localhost": localhost}}}))
    return path


def context(playbook, inventory):
    return StepContext("int-1", "inc-1", {}, folder=playbook.folder, files=playbook.files, inventory=inventory)


def one_step(folder, text, timeout="1m"):
    """A playbook of one Ansible step."""
    (folder / "ansible").mkdir(parents=True)
    (folder / "ansible" / "step.yml").write_text(text)
    (folder / "book.yaml").write_text(
        "apiVersion: mendstream.io/v1\nkind: Playbook\nmetadata: {name: book, version: 1.0.0}\nspec:\n"
        "  trigger: {faultKind: [error]}\n  risk: {tier: low, reversible: false}\n"
        f"  steps: [{{id: step, runner: ansible, file: ansible/step.yml, timeout: {timeout}}}]\n"
    )
    return load_playbooks(folder)["book"]


def act(playbook, inventory, params, *, undo=False):
    step = (playbook.spec.undo if undo else playbook.spec.steps)[0]
    return AnsibleRunner().run(step, params, context(playbook, inventory))


def test_propose_then_approve_really_restarts_the_service_and_writes_the_outcome(bench, library, service, inventory):
    propose = "rules: [{name: all, match: 'true', decision: propose}]"
    subject = bench(propose, playbooks=[library["restart-instance"]], inventory=inventory)
    subject.registry.get("wait")._pause = lambda seconds: None
    subject.registry.get("wait")._clock = iter(range(0, 1000, 100)).__next__
    before = little_service.running(service)["pid"]
    (intent,) = subject.decide()
    subject.executor.tick()
    assert little_service.running(service)["pid"] == before  # a proposal does nothing
    subject.approve(intent.id)
    (outcome,) = subject.executor.tick()
    assert outcome.data.status == "executed", outcome.data.reason
    assert [(step.id, step.status, step.changed) for step in outcome.data.steps] == [
        ("restart", "ok", True),
        ("settle", "ok", False),
    ]
    assert "changed=1" in outcome.data.steps[0].stdout
    after = little_service.running(service)["pid"]
    assert after != before
    assert Path(f"/proc/{after}").exists()
    assert subject.journal.ledger.verify(subject.journal.anchors()).intact


def test_one_instance_is_restarted_by_its_own_command_and_an_unknown_one_by_none(library, service, inventory):
    before = little_service.running(service)["pid"]
    unknown = act(library["restart-instance"], inventory, {"service": "payment", "instance": "payment-9"})
    assert (unknown.status, little_service.running(service)["pid"]) == ("failed", before)
    assert "not among the service's instances" in unknown.message
    known = act(library["restart-instance"], inventory, {"service": "payment", "instance": "payment-1"})
    assert (known.status, known.changed) == ("ok", True)
    assert little_service.running(service)["pid"] != before


def test_a_rollback_brings_the_previous_version_back_and_its_undo_the_blamed_one(library, service, inventory):
    params = {"service": "payment", "bad_version": "2.4.1"}
    assert act(library["rollback-deploy"], inventory, params).status == "ok"
    assert little_service.running(service)["version"] == "2.4.0"
    again = act(library["rollback-deploy"], inventory, params)
    assert again.status == "failed"
    assert "another version than the blamed one runs by now" in again.message
    assert act(library["rollback-deploy"], inventory, params, undo=True).status == "ok"
    assert little_service.running(service)["version"] == "2.4.1"


def test_scaling_out_stops_at_the_most_that_the_inventory_allows_and_can_be_undone(library, service, inventory):
    params = {"service": "payment", "add": 5}
    assert act(library["scale-out"], inventory, params).status == "ok"
    assert little_service.running(service)["replicas"] == 3
    full = act(library["scale-out"], inventory, params)
    assert (full.status, full.changed) == ("failed", False)
    assert "max_replicas is reached" in full.message
    assert act(library["scale-out"], inventory, {"service": "payment", "add": 1}, undo=True).status == "ok"
    assert little_service.running(service)["replicas"] == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_that_got_past_the_pattern_would_still_only_be_data(tmp_path, inventory, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = tmp_path / "written"
    playbook = one_step(
        tmp_path / "book",
        "- hosts: mendstream\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.copy: {{content: '{{{{ mendstream_params.service }}}}', dest: '{written}'}}\n"
        "    - ansible.builtin.debug: {msg: 'service {{ mendstream_params.service }}'}\n"
        "    - ansible.builtin.command: {argv: [echo, '{{ mendstream_params.service }}']}\n",
    )
    result = act(playbook, inventory, {"service": text})  # as if validation had let it through
    assert result.status == "ok", result
    assert written.read_text() == text
    assert not list(tmp_path.rglob("marker"))


def test_an_ansible_file_that_changed_since_it_was_loaded_is_not_run(tmp_path, inventory):
    (tmp_path / "a.yml").write_text("- hosts: mendstream\n")
    step = Step.model_validate({"id": "a", "runner": "ansible", "file": "a.yml"})
    stale = StepContext("i", "i", {}, folder=tmp_path, files={"a.yml": "sha256:" + "0" * 64}, inventory=inventory)
    result = AnsibleRunner().run(step, {}, stale)
    assert (result.status, "has changed since it was loaded" in result.message) == ("failed", True)


def test_an_inventory_without_the_expected_hosts_is_a_failure_not_a_success_without_effect(tmp_path, library):
    empty = tmp_path / "empty.yml"
    empty.write_text("other: {hosts: {}}\n")
    result = act(library["restart-instance"], empty, {"service": "payment", "instance": "all"})
    assert (result.status, "no host of the inventory matched" in result.message) == ("failed", True)


def test_a_playbook_that_takes_too_long_is_stopped_at_its_timeout(tmp_path, inventory):
    tasks = "[{ansible.builtin.command: {argv: [sleep, '60']}}]"
    playbook = one_step(
        tmp_path / "book", f"- {{hosts: mendstream, gather_facts: false, tasks: {tasks}}}\n", timeout="3s"
    )
    result = act(playbook, inventory, {})
    assert (result.status, result.message) == ("timeout", "stopped at the step's timeout")


def test_the_example_inventory_describes_what_the_playbooks_ask_for(library):
    path = library["restart-instance"].folder / "ansible" / "inventory.example.yml"
    payment = yaml.safe_load(path.read_text())["mendstream"]["hosts"]["localhost"]["mendstream_services"]["payment"]
    asked = {"restart", "instances", "state_dir", "apply", "min_replicas", "max_replicas"}
    assert set(payment) == asked
    texts = [file.read_text() for file in path.parent.glob("*.yml") if file != path]
    assert all(any(f"].{name}" in text or f".{name}[" in text for text in texts) for name in asked)
