"""Outcomes of changes in event time: blamed by an incident within the watch, or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from delivery.change import Assessment, ChangeFacts
from delivery.config import DeliveryConfig
from delivery.risk import ChangeRisk

_NS: Final = 1_000_000_000


@dataclass(slots=True)
class ChangeWatch:
    """Changes of one environment from their assessment to their outcome."""

    risk: ChangeRisk = field(default_factory=ChangeRisk)
    due: dict[str, int] = field(default_factory=dict)  # change id -> event time at which it is judged
    blamed: set[str] = field(default_factory=set)  # of those in ``due``

    @classmethod
    def of(cls, config: DeliveryConfig) -> ChangeWatch:
        """With nothing learnt."""
        return cls(ChangeRisk(config))

    def adopt(self, config: DeliveryConfig) -> None:
        """Go by other settings from now on; watches that run keep their end."""
        self.risk.config = config

    def assess(self, change: ChangeFacts) -> Assessment:
        """Judge a change and begin to watch it."""
        told = self.risk.assess(change)
        self.due.setdefault(change.change_id, change.at_ns + int(self.risk.config.watch_s * _NS))
        if len(self.due) > len(self.risk.watched):  # some were forgotten at the limit
            self.due = {one: at for one, at in self.due.items() if one in self.risk.watched}
            self.blamed &= self.due.keys()
        return told

    def blame(self, change_id: str, at_ns: int) -> None:
        """An incident named the change as its first candidate's, at event time ``at_ns``."""
        if at_ns <= self.due.get(change_id, -1):
            self.blamed.add(change_id)

    def settle(self, now_ns: int) -> None:
        """Event time has come to ``now_ns``: learn the outcomes of changes whose watch is over, in order of time."""
        for _, change_id in sorted((at, one) for one, at in self.due.items() if at <= now_ns):
            self.risk.learn(change_id, change_id in self.blamed)
            del self.due[change_id]
            self.blamed.discard(change_id)
