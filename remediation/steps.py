"""Carries out a playbook's steps in the order its outcomes say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from incidents.model import rfc3339
from remediation.intents import StepOutcome
from remediation.params import Params
from remediation.playbook import END, Step
from remediation.runners.base import Registry, RunnerError, StepContext, StepResult


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a list of steps."""

    steps: tuple[StepOutcome, ...]
    failed: str  # why, "" when every step that ran succeeded
    cancelled: str  # why, "" when it ran to its end


def run_steps(
    steps: list[Step],
    params: Params,
    context: StepContext,
    *,
    registry: Registry,
    clock: Callable[[], int],
    stop: Callable[[], str],
    before: Callable[[Step], None],
    after: Callable[[StepOutcome], None],
) -> Run:
    """Run steps from the first on, following ``on_success`` and ``on_failure``.

    Without ``on_success`` the next step in the list follows; without ``on_failure`` a failure ends the run. A run in
    which any step failed has failed, even if the step that handled the failure succeeded.

    Args:
        steps: the playbook's steps, checked to go forward only.
        params: validated parameters.
        context: what the steps may know.
        registry: where runners are found.
        clock: UTC epoch nanoseconds.
        stop: a reason to stop, "" to go on; asked before every step, and passed on as cancellation into it.
        before: called before a step runs (write-ahead).
        after: called with each step's outcome.
    """
    outcomes: list[StepOutcome] = []
    position: int | None = 0
    failed = ""
    while position is not None:
        step = steps[position]
        reason = stop()
        if reason:
            return Run(tuple(outcomes), failed, reason)
        before(step)
        started_ns = clock()
        result = _run(step, params, context, registry)
        outcome = StepOutcome(
            id=step.id,
            runner=step.runner,
            status=result.status,
            changed=result.changed,
            started_at=rfc3339(started_ns),
            ended_at=rfc3339(clock()),
            message=result.message,
            stdout=result.stdout,
        )
        outcomes.append(outcome)
        after(outcome)
        if result.status == "cancelled":
            return Run(tuple(outcomes), failed, stop() or result.message)
        if result.status != "ok":
            failed = failed or f"step {step.id}: {result.message}"
        position = _following(steps, position, succeeded=result.status == "ok")
    return Run(tuple(outcomes), failed, "")


def _run(step: Step, params: Params, context: StepContext, registry: Registry) -> StepResult:
    try:
        return registry.get(step.runner).run(step, params, context)
    except RunnerError as error:
        return StepResult("failed", message=str(error))
    except Exception as error:  # noqa: BLE001 - a defect of a runner must not lose the outcome of what it did
        return StepResult("failed", message=f"runner {step.runner} broke: {type(error).__name__}: {error}"[:300])


def _following(steps: list[Step], position: int, *, succeeded: bool) -> int | None:
    step = steps[position]
    named = step.on_success if succeeded else step.on_failure
    if named == END or (named is None and not succeeded):
        return None
    if named is not None:
        return next(index for index, other in enumerate(steps) if other.id == named)
    return position + 1 if position + 1 < len(steps) else None
