"""What the dataflow tells whoever operates it; the default tells nobody. Nothing here decides a result."""

from __future__ import annotations

from typing import Protocol

from flows.stages import Vitals
from incidents.model import RootCauseEvent
from remediation.intents import Intent
from signals.batch import Batch, DeadLetters


class FlowObserver(Protocol):
    """Is told of everything that passes; called from the dataflow's own thread, so it must be quick."""

    def on_batch(self, batch: Batch) -> None:
        """A poll was decoded."""

    def on_letters(self, letters: DeadLetters) -> None:
        """Messages could not be decoded."""

    def on_stage(self, step: str, shard: str, seconds: float, vitals: Vitals) -> None:
        """A shard has worked through what it was given."""

    def on_snapshot(self, step: str, shard: str, seconds: float, size_bytes: int) -> None:
        """A shard's state was saved."""

    def on_event(self, event: RootCauseEvent) -> None:
        """An incident revision goes out."""

    def on_intent(self, intent: Intent) -> None:
        """An intent goes out."""


class Unobserved:
    """Ignores everything."""

    def on_batch(self, batch: Batch) -> None:
        """Nothing to do."""

    def on_letters(self, letters: DeadLetters) -> None:
        """Nothing to do."""

    def on_stage(self, step: str, shard: str, seconds: float, vitals: Vitals) -> None:
        """Nothing to do."""

    def on_snapshot(self, step: str, shard: str, seconds: float, size_bytes: int) -> None:
        """Nothing to do."""

    def on_event(self, event: RootCauseEvent) -> None:
        """Nothing to do."""

    def on_intent(self, intent: Intent) -> None:
        """Nothing to do."""
