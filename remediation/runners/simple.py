"""Runners that touch nothing outside: ``wait`` for things to settle, ``notify`` into the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from remediation.params import Params
from remediation.playbook import Step
from remediation.runners.base import RunnerError, StepContext, StepResult
from remediation.values import format_duration, parse_duration

_log = structlog.get_logger("mendstream.remediation")
_NS: Final = 1_000_000_000
_LOOK_S: Final = 0.2


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


class WaitRunner:
    """Waits for ``with.duration``, at most the step's timeout, looking for a cancellation all the time."""

    name = "wait"

    def __init__(self, pause: Callable[[float], None] = _pause, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause
        self._clock = clock

    def check(self, step: Step) -> None:
        """``with: {duration: 30s}`` and nothing else."""
        if set(step.with_) != {"duration"} or step.bind or step.file:
            raise RunnerError(f"step {step.id}: wait takes with: {{duration: 30s}} and nothing else")
        try:
            duration = parse_duration(step.with_["duration"])
        except ValueError as error:
            raise RunnerError(f"step {step.id}: {error}") from error
        if duration > step.timeout:
            raise RunnerError(f"step {step.id}: waits longer than its timeout {format_duration(step.timeout)}")

    def run(self, step: Step, params: Params, context: StepContext) -> StepResult:  # noqa: ARG002 - the contract's
        """Wait."""
        self.check(step)
        end = self._clock() + parse_duration(step.with_["duration"]) / _NS
        while (left := end - self._clock()) > 0:
            if context.cancelled():
                return StepResult("cancelled", message=f"cancelled with {left:.1f} s left to wait")
            self._pause(min(left, _LOOK_S))
        return StepResult("ok", message=f"waited {step.with_['duration']}")


class NotifyRunner:
    """Writes ``with.message`` to the structured log, with the parameters as fields."""

    name = "notify"

    def check(self, step: Step) -> None:
        """``with: {message: text}``; parameters are added as fields, never put into the text."""
        message = step.with_.get("message")
        if set(step.with_) != {"message"} or not isinstance(message, str) or step.bind or step.file:
            raise RunnerError(f"step {step.id}: notify takes with: {{message: text}} and nothing else")

    def run(self, step: Step, params: Params, context: StepContext) -> StepResult:
        """Log the message."""
        self.check(step)
        message = str(step.with_["message"])
        _log.warning(
            "remediation_notification",
            message=message,
            intent=context.intent_id,
            incident=context.incident,
            target=dict(context.target),
            params=dict(params),
        )
        return StepResult("ok", message=message[:300])
