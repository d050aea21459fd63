"""Stages and the decider as Bytewax sees them: state per key that is saved and restored, timed on the way."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

from bytewax.operators import StatefulBatchLogic

from flows.observer import FlowObserver
from flows.stages import Stage
from incidents.model import RootCauseEvent
from remediation.decide import Decider
from remediation.intents import Intent


class StageLogic(StatefulBatchLogic[Any, Any, bytes]):
    """One shard of a stage; values are (shard, message), since Bytewax tells a logic its key only with the values.

    The stage is built at the first message. A restored one is kept as it was, but for what ``Stage.adopt`` takes from a
    newly built one.
    """

    def __init__(
        self, step: str, build: Callable[[str], Stage], observer: FlowObserver, resume: bytes | None = None
    ) -> None:
        self._step, self._build, self._observer = step, build, observer
        self._saved = resume  # until the first message, which names the shard
        self._name = ""
        self._stage: Stage | None = None

    def on_batch(self, values: list[tuple[str, Any]]) -> tuple[list[Any], bool]:
        """Feed the stage."""
        began = time.perf_counter()
        stage = self._stage or self._begin(values[0][0])
        out = stage.feed([message for _, message in values])
        self._observer.on_stage(self._step, self._name, time.perf_counter() - began, stage.vitals())
        return out, StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        """The stage's state."""
        if self._stage is None and self._saved is not None:
            return self._saved
        began = time.perf_counter()
        saved = pickle.dumps(self._stage, protocol=5)
        self._observer.on_snapshot(self._step, self._name, time.perf_counter() - began, len(saved))
        return saved

    def _begin(self, name: str) -> Stage:
        self._name, stage = name, self._build(name)
        if self._saved is not None:
            restored: Stage = pickle.loads(self._saved)  # noqa: S301 - our own recovery store
            restored.adopt(stage)
            self._saved, stage = None, restored
        self._stage = stage
        return stage


class DecideLogic(StatefulBatchLogic[RootCauseEvent, Intent, bytes]):
    """Incident revisions to intents, per environment; a restored decider goes by the policy there is now."""

    def __init__(self, build: Callable[[], Decider], resume: bytes | None) -> None:
        self._decider = build()
        if resume is not None:
            restored: Decider = pickle.loads(resume)  # noqa: S301 - our own recovery store
            restored.adopt(self._decider.policy, self._decider.playbooks)
            self._decider = restored

    def on_batch(self, values: list[RootCauseEvent]) -> tuple[list[Intent], bool]:
        """Decide each revision."""
        return [intent for event in values for intent in self._decider.process(event)], StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        """The decider's state."""
        return pickle.dumps(self._decider, protocol=5)
