"""What every runner promises, checked for each registered one; and what is particular to each."""

from __future__ import annotations

import pytest
import structlog

from remediation.playbook import Step
from remediation.runners import (
    NotifyRunner,
    Registry,
    RunnerError,
    StepContext,
    StepResult,
    WaitRunner,
    default_registry,
)

GOOD = {
    "ansible": {"id": "a", "runner": "ansible", "file": "ansible/step.yml"},
    "notify": {"id": "n", "runner": "notify", "with": {"message": "look"}},
    "wait": {"id": "w", "runner": "wait", "with": {"duration": "1ms"}},
}
BAD = {
    "ansible": [{}, {"file": "step.sh"}, {"file": "a.yml", "with": {"extra": 1}}],
    "notify": [{}, {"with": {"message": 3}}, {"with": {"message": "x", "to": "y"}}, {"with": {"text": "x"}}],
    "wait": [{}, {"with": {"duration": "soon"}}, {"with": {"duration": "10m"}}, {"with": {"duration": "1s", "x": 1}}],
}
CONTEXT = StepContext("int-1", "inc-1", {"service.name": "payment"})


def step(name, **fields):
    return Step.model_validate({"id": "s", "runner": name} | fields)


def check_a_good_step_passes(name, runner):
    runner.check(Step.model_validate(GOOD[name]))


def check_a_bad_step_is_refused_before_it_runs_with_a_remedy(name, runner):
    for fields in BAD[name]:
        with pytest.raises(RunnerError, match="step s"):
            runner.check(step(name, **fields))


def check_an_answer_is_a_result_whatever_the_parameters(name, runner):
    for value in ("payment", "{{ 7*7 }}", "$(touch x)", "", "\x1b[31m", "x" * 10_000):
        result = runner.run(Step.model_validate(GOOD[name]), {"service": value}, CONTEXT)
        assert isinstance(result, StepResult)
        assert result.status in {"ok", "failed", "timeout", "cancelled"}
        assert "\n" not in result.message
        assert "\x1b" not in result.stdout


def check_it_stops_when_it_is_cancelled_or_has_nothing_to_stop(name, runner):
    cancelled = StepContext("int-1", "inc-1", {}, cancelled=lambda: True)
    long = {**GOOD[name], "with": {"duration": "4m"}} if name == "wait" else GOOD[name]
    result = runner.run(Step.model_validate(long), {}, cancelled)
    assert result.status == {"wait": "cancelled", "notify": "ok", "ansible": "failed"}[name]


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list(default_registry()))
def test_runner_contract(name, check):
    check(name, default_registry().get(name))


def test_a_name_is_registered_once():
    with pytest.raises(RunnerError, match="'wait' is registered already"):
        Registry(WaitRunner(), WaitRunner())


def test_waiting_takes_the_time_it_says():
    now, slept = [0.0], []

    def pause(seconds):
        slept.append(seconds)
        now[0] += seconds

    result = WaitRunner(pause, lambda: now[0]).run(step("wait", **{"with": {"duration": "2s"}}), {}, CONTEXT)
    assert result.status == "ok"
    assert sum(slept) == pytest.approx(2.0)


def test_a_notification_carries_parameters_as_fields_and_never_inside_its_text():
    with structlog.testing.capture_logs() as logs:
        NotifyRunner().run(step("notify", **{"with": {"message": "look"}}), {"service": "{{ x }}"}, CONTEXT)
    assert [(entry["message"], entry["params"]) for entry in logs] == [("look", {"service": "{{ x }}"})]
