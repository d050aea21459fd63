"""Acting: by mode, behind guards, written ahead, and never twice."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from incidents.model import epoch_ns
from remediation.outbox import drain
from remediation.people import ApprovalError
from remediation.runners import StepResult
from remediation.values import digest

SECOND = 1_000_000_000
AUTO = "rules: [{name: all, match: 'true', decision: auto}]"
PROPOSE = "rules: [{name: all, match: 'true', decision: propose}]"
APPROVE = (
    "rules: [{name: all, match: 'true', decision: approve, "
    "approval: {roles: [sre, lead], count: 2, timeout: 5m, onTimeout: %s}}]"
)


class Crash(BaseException):
    """Stands for the death of the process: nothing of the executor runs after it."""


def crash(*_):
    raise Crash


def kinds(bench, intent_id):
    return [entry.kind for entry in bench.journal.ledger.entries(intent_id)]


def test_shadow_runs_nothing_and_says_what_would_have_run(bench):
    subject = bench(AUTO, mode="shadow")
    (intent,) = subject.decide()
    assert subject.executor.tick() == []
    outcome = subject.journal.outcome(intent.id)
    assert (outcome.data.status, outcome.data.would_run, subject.runner.calls) == ("shadowed", ["restart"], [])


def test_auto_runs_at_once_with_its_parameters_and_writes_ahead(bench):
    subject = bench(AUTO)
    (intent,) = subject.decide()
    seen = []
    subject.runner.answer = lambda step, context: (
        seen.append(kinds(subject, intent.id)) or StepResult("ok", changed=True)
    )
    (outcome,) = subject.executor.tick()
    assert outcome.data.status == "executed"
    assert subject.runner.calls == [("restart", {"service": "payment"})]
    assert seen == [["received", "started", "step"]]  # committed before the step ran
    assert kinds(subject, intent.id) == ["received", "started", "step", "step_done", "executed"]
    assert outcome.data.steps[0].changed


def test_the_same_intent_again_is_never_acted_on_twice_also_after_a_restart(bench):
    subject = bench(AUTO)
    (intent,) = subject.decide()
    subject.executor.tick()
    subject.executor.submit([intent])
    assert subject.executor.tick() == []
    again = subject.restart()
    again.submit([intent])
    assert again.recover() == []
    assert again.tick() == []
    assert len(subject.runner.calls) == 1


def test_an_equal_idempotency_key_under_another_id_is_the_same_intent(bench):
    subject = bench(AUTO)
    (intent,) = subject.decide()
    twin = intent.model_copy(
        update={"id": "int-other", "data": intent.data.model_copy(update={"intent_id": "int-other"})}
    )
    subject.executor.submit([twin])
    subject.executor.tick()
    assert len(subject.runner.calls) == 1


def test_a_crash_in_the_middle_ends_as_interrupted_and_is_not_repeated(bench):
    subject = bench(AUTO)
    (intent,) = subject.decide()
    subject.runner.answer = crash
    with pytest.raises(Crash):
        subject.executor.tick()
    subject.restart()
    (outcome,) = subject.executor.recover()
    assert (outcome.data.status, outcome.data.escalated) == ("interrupted", True)
    subject.executor.submit([intent])
    assert subject.executor.tick() == []
    assert subject.executor.recover() == []
    assert len(subject.runner.calls) == 1


def _die_in_the_middle(url, intent, policy, playbook, marker):
    from remediation.checks import World
    from remediation.config import RemediationConfig
    from remediation.executor import Executor
    from remediation.journal import Journal
    from remediation.runners import Registry

    class Deadly:
        name = "fake"

        def check(self, step):
            return None

        def run(self, step, params, context):
            marker.write_text("acted")
            os._exit(9)

    world = World(policy, {playbook.name: playbook}, Registry(Deadly()))
    settings = RemediationConfig(executor_id="one")
    executor = Executor(Journal(url), lambda: world, clock=lambda: epoch_ns(intent.time), settings=settings)
    executor.submit([intent])
    executor.tick()


def test_a_killed_process_leaves_a_run_that_the_next_one_ends_as_interrupted(bench, make_event, tmp_path):
    subject = bench(AUTO)
    (intent,) = subject.decider.process(make_event())
    marker = tmp_path / "acted"
    context = multiprocessing.get_context("fork")
    arguments = (subject.config.database, intent, subject.policy, subject.playbooks["restart-instance"], marker)
    process = context.Process(target=_die_in_the_middle, args=arguments)
    process.start()
    process.join(30)
    assert (process.exitcode, marker.read_text()) == (9, "acted")
    assert [outcome.data.status for outcome in subject.executor.recover()] == ["interrupted"]
    subject.executor.submit([intent])
    assert subject.executor.tick() == []
    assert subject.runner.calls == []
    assert subject.journal.ledger.verify().intact


def test_another_executors_run_is_dead_only_after_its_lease(bench):
    subject = bench(AUTO)
    subject.decide()
    subject.runner.answer = crash
    with pytest.raises(Crash):
        subject.executor.tick()
    subject.config = subject.config.model_copy(update={"executor_id": "two"})
    other = subject.restart()
    assert other.recover() == []
    subject.now += (300 + 60 + 1) * SECOND  # the step's timeout, the margin, and a moment
    assert [outcome.data.status for outcome in other.recover()] == ["interrupted"]


def test_a_proposal_waits_for_a_person_and_then_runs(bench):
    subject = bench(PROPOSE)
    (intent,) = subject.decide()
    assert subject.executor.tick() == []
    assert subject.approve(intent.id).state == "ready"
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, [given.by for given in outcome.data.approvals]) == ("executed", ["ada"])
    assert outcome.data.approvals[0].playbook_digest == subject.playbooks["restart-instance"].digest
    assert outcome.data.approvals[0].params_digest == digest({"service": "payment"})


def test_approval_asks_for_roles_and_for_different_people(bench):
    subject = bench(APPROVE % "escalate")
    (intent,) = subject.decide()
    with pytest.raises(ApprovalError, match="one of the roles sre, lead"):
        subject.approve(intent.id, "ada", "intern")
    assert subject.approve(intent.id, "ada", "sre").state == "pending"
    with pytest.raises(ApprovalError, match="needs 2 different people"):
        subject.approve(intent.id, "ada", "lead")
    assert subject.executor.tick() == []
    assert subject.approve(intent.id, "bob", "lead").state == "ready"
    assert [outcome.data.status for outcome in subject.executor.tick()] == ["executed"]


@pytest.mark.parametrize(
    ("on_timeout", "status", "escalated"), [("escalate", "expired", True), ("reject", "rejected", False)]
)
def test_an_approval_that_nobody_gives_ends_as_the_policy_says(bench, on_timeout, status, escalated):
    subject = bench(APPROVE % on_timeout)
    (intent,) = subject.decide()
    subject.now += 5 * 60 * SECOND
    with pytest.raises(ApprovalError, match="could be approved until"):
        subject.approve(intent.id, "ada", "sre")
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, outcome.data.escalated) == (status, escalated)


def test_a_rejected_intent_cannot_be_approved_any_more(bench):
    subject = bench(PROPOSE)
    (intent,) = subject.decide()
    assert subject.reject(intent.id).data.reason == "rejected by ada: not now"
    with pytest.raises(ApprovalError, match="is rejected; only a pending intent"):
        subject.approve(intent.id)
    assert subject.executor.tick() == []


def test_an_expired_intent_does_not_run(bench):
    subject = bench(AUTO)
    subject.decide()
    subject.now += 600 * SECOND
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, subject.runner.calls) == ("expired", [])


def test_a_revocation_stops_what_waits_and_leaves_what_has_ended(bench):
    subject = bench(PROPOSE)
    (intent,) = subject.decide(revision=1)
    subject.approve(intent.id)
    subject.decide(revision=2, state="resolved", at_s=5)
    assert subject.executor.tick() == []
    assert subject.journal.outcome(intent.id).data.status == "revoked"
    with pytest.raises(ApprovalError, match="is revoked"):
        subject.approve(intent.id)


def test_a_revocation_that_overtakes_its_intent_still_counts(bench, make_event):
    subject = bench(AUTO)
    (intent,) = subject.decider.process(make_event(revision=1))
    (revocation,) = subject.decider.process(make_event(revision=2, state="resolved"))
    subject.executor.submit([revocation, intent])
    assert subject.executor.tick() == []
    assert subject.state(intent.id) == "revoked"


def test_a_revocation_during_a_run_stops_it_at_the_next_step(bench, make_playbook):
    steps = "[{id: one, runner: fake}, {id: two, runner: fake}]"
    subject = bench(AUTO, playbooks=[make_playbook(steps=steps)])
    subject.decide(revision=1)

    def meanwhile(step, context):
        subject.decide(revision=2, state="resolved", at_s=5)
        return StepResult("ok")

    subject.runner.answer = meanwhile
    (outcome,) = subject.executor.tick()
    assert [call[0] for call in subject.runner.calls] == ["one"]
    assert (outcome.data.status, outcome.data.escalated) == ("cancelled", True)
    assert "the incident was resolved" in outcome.data.reason


def test_a_program_that_is_told_to_stop_begins_no_further_step(bench, make_playbook):
    steps = "[{id: one, runner: fake}, {id: two, runner: fake}]"
    subject = bench(AUTO, playbooks=[make_playbook(steps=steps)])
    subject.decide()

    def told(step, context):
        subject.stop = True
        return StepResult("ok")

    subject.runner.answer = told
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, len(outcome.data.steps)) == ("cancelled", 1)


def test_the_kill_switch_file_stops_what_was_decided_before_it(bench, tmp_path):
    subject = bench(AUTO, kill_switch_file=tmp_path / "stop")
    subject.decide()
    (tmp_path / "stop").touch()
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, outcome.data.escalated, subject.runner.calls) == ("blocked", True, [])
    assert "kill switch" in outcome.data.reason


def test_nobody_can_approve_while_everything_is_stopped_and_the_proposal_stays(bench, tmp_path):
    subject = bench(PROPOSE, kill_switch_file=tmp_path / "stop")
    (intent,) = subject.decide()
    (tmp_path / "stop").touch()
    with pytest.raises(ApprovalError, match="kill switch"):
        subject.approve(intent.id)
    assert subject.state(intent.id) == "pending"


def test_a_policy_that_has_changed_since_the_decision_takes_automation_back(bench, make_event, make_policy):
    subject = bench(AUTO)
    event = make_event()
    (intent,) = subject.decider.process(event)
    subject.policy = make_policy("killSwitch: false", AUTO, "intentTtl: 11m")
    subject.executor.submit([intent])
    assert subject.executor.tick() == []
    assert subject.state(intent.id) == "pending"
    subject.approve(intent.id)
    assert [outcome.data.status for outcome in subject.executor.tick()] == ["executed"]


def test_an_intent_that_claims_more_than_its_rule_allows_gets_no_further_than_the_rule(bench, make_event):
    subject = bench(PROPOSE)
    (intent,) = subject.decider.process(make_event())
    forged = intent.model_copy(update={"data": intent.data.model_copy(update={"mode": "auto"})})
    subject.executor.submit([forged])
    assert subject.executor.tick() == []
    assert subject.state(intent.id) == "pending"


@pytest.mark.parametrize("service", ["$(touch x)", "{{ 7*7 }}", "-rf", "a\n"])
def test_forged_parameters_are_refused_at_the_moment_of_acting(bench, make_event, service):
    subject = bench(AUTO)
    (intent,) = subject.decider.process(make_event())
    params = {"service": service}
    data = intent.data.model_copy(update={"params": params, "params_digest": digest(params)})
    subject.executor.submit([intent.model_copy(update={"data": data})])
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, subject.runner.calls) == ("blocked", [])
    assert "service" in outcome.data.reason


def test_parameters_that_changed_after_approval_are_refused(bench, make_event):
    subject = bench(PROPOSE)
    (intent,) = subject.decider.process(make_event())
    changed = intent.model_copy(update={"data": intent.data.model_copy(update={"params": {"service": "ledger"}})})
    subject.executor.submit([changed])
    with pytest.raises(ApprovalError, match="parameters are not the ones"):
        subject.approve(intent.id)


def test_a_playbook_that_changed_after_approval_is_not_run(bench, make_playbook):
    subject = bench(PROPOSE)
    (intent,) = subject.decide()
    subject.approve(intent.id)
    changed = make_playbook(steps="[{id: restart, runner: fake}, {id: more, runner: fake}]")
    subject.playbooks = {changed.name: changed}
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, subject.runner.calls) == ("blocked", [])
    assert "digest differs" in outcome.data.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [('incident.state == "open"', "does not hold"), ('target["ready_fraction"] == "1"', "cannot be read")],
)
def test_preconditions_are_read_again_and_one_without_an_answer_does_not_hold(
    bench, make_event, make_playbook, text, reason
):
    subject = bench(AUTO, playbooks=[make_playbook(extra=f"  preconditions: ['{text}']")])
    subject.decide()
    subject.memory.record(make_event(revision=2, state="resolved"))
    (outcome,) = subject.executor.tick()
    assert (outcome.data.status, subject.runner.calls) == ("blocked", [])
    assert reason in outcome.data.reason


def test_a_freeze_by_the_clock_holds_what_was_decided_before_it(bench):
    subject = bench("freezes: [{name: sale, start: 2026-09-21T14:13:30Z, end: 2026-09-21T15:00:00Z}]", AUTO)
    subject.decide(at_s=0)
    subject.now += 60 * SECOND
    (outcome,) = subject.executor.tick()
    assert outcome.data.status == "blocked"
    assert "freeze sale" in outcome.data.reason


def test_a_used_up_limit_defers_until_there_is_room_or_the_intent_expires(bench):
    subject = bench("limits: {perTarget: {max: 1, per: 4m}}", PROPOSE)
    ids = []
    for number in (1, 2):
        ids.append(subject.decide(incident=f"inc-{number}")[0].id)
        subject.approve(ids[-1])
        subject.now += 1
    assert len(subject.executor.tick()) == 1
    assert "limit perTarget: 1 of 1 in 4m" in subject.journal.find(ids[1]).reason
    subject.now += 239 * SECOND
    assert subject.executor.tick() == []
    subject.now += SECOND
    assert [outcome.data.status for outcome in subject.executor.tick()] == ["executed"]


def test_a_second_automatic_attempt_for_one_incident_is_left_to_a_person(bench):
    subject = bench("limits: {perTarget: {max: 9, per: 1s}}", AUTO)
    for revision, service in enumerate(["payment", "ledger", "payment"], start=1):
        subject.decide(revision=revision, state="updated", at_s=revision * 5, service=service)
        subject.now += 5 * SECOND
        outcomes = subject.executor.tick()
    assert [outcome.data.status for outcome in outcomes] == ["blocked"]
    assert "once more is for a person" in outcomes[0].data.reason


def test_steps_follow_success_and_failure_and_a_handled_failure_is_still_one(bench, make_playbook):
    steps = (
        "[{id: act, runner: fake, on_success: settle, on_failure: tell}, "
        "{id: settle, runner: fake, on_success: end}, {id: tell, runner: fake}]"
    )
    subject = bench(AUTO, playbooks=[make_playbook(steps=steps)])
    subject.runner.answer = lambda step, context: StepResult("failed" if step.id == "act" else "ok", message="no")
    subject.decide()
    (outcome,) = subject.executor.tick()
    assert [call[0] for call in subject.runner.calls] == ["act", "tell"]
    assert (outcome.data.status, outcome.data.escalated, outcome.data.reason) == ("failed", True, "step act: no")


def test_a_runner_that_breaks_is_a_failed_step_not_a_lost_outcome(bench):
    subject = bench(AUTO)
    subject.runner.answer = lambda step, context: 1 / 0
    subject.decide()
    (outcome,) = subject.executor.tick()
    assert outcome.data.status == "failed"
    assert "ZeroDivisionError" in outcome.data.steps[0].message


def test_outcomes_wait_until_they_are_published_and_then_are_in_memory(bench):
    subject = bench(AUTO)
    (intent,) = subject.decide()
    subject.executor.tick()
    published = []

    def broken(outcomes):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        drain(subject.journal, subject.memory, broken)
    assert drain(subject.journal, subject.memory, published.extend) == 1
    assert drain(subject.journal, subject.memory, published.extend) == 0
    assert [outcome.data.intent_id for outcome in published] == [intent.id]
    assert [(o.playbook, o.status) for o in subject.memory.outcomes("inc-1")] == [("restart-instance", "executed")]
