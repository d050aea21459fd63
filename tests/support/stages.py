"""The stages wired by hand, without the stream engine: for tests that look at state between messages."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flows.detect import Job, _detect_stage, _incident_stage, _log_stage, _trace_stage
from flows.messages import Addressed
from flows.stages import Stage
from incidents.model import RootCauseEvent
from signals.batch import Batch, SourceItem

_BUILD: dict[str, Callable[[Job, str], Stage]] = {
    "logs": _log_stage,
    "traces": _trace_stage,
    "detect": _detect_stage,
    "incidents": _incident_stage,
}


@dataclass
class Pump:
    """Every shard of every stage; messages are delivered one by one, depth first."""

    job: Job
    stages: dict[str, Stage] = field(default_factory=dict)

    def feed(self, items: Iterable[SourceItem]) -> list[RootCauseEvent]:
        """Items of a source through all stages; the revisions they lead to."""
        events: list[RootCauseEvent] = []
        for item in items:
            if isinstance(item, Batch):
                self._deliver(self.job.layout.route(item), events)
        return events

    def saved(self) -> dict[str, bytes]:
        """Every shard's state, as a snapshot holds it."""
        return {name: pickle.dumps(stage, protocol=5) for name, stage in self.stages.items()}

    def restart(self) -> None:
        """As after a crash: every stage is restored from its snapshot into a newly built job."""
        saved = self.saved()
        restored: dict[str, Stage] = {name: pickle.loads(saved[name]) for name in saved}  # noqa: S301 - made just now
        for name, stage in restored.items():
            stage.adopt(self._built(name))
        self.stages = restored

    def _deliver(self, messages: Iterable[Addressed], events: list[RootCauseEvent]) -> None:
        for to, message in messages:
            if to not in self.stages:
                self.stages[to] = self._built(to)
            out: list[Any] = self.stages[to].feed([message])
            if to == self.job.layout.incidents:
                events += [one for one in out if isinstance(one, RootCauseEvent)]
            else:
                self._deliver(out, events)

    def _built(self, name: str) -> Stage:
        return partial(_BUILD[name.rpartition("-")[0]], self.job)(name)
