"""What is known of a change when it comes, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

Gate = Literal["proceed", "canary", "hold"]


class ChangeKind(StrEnum):
    """What was done, by CDEvents type."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    CONFIGURATION = "configuration"


def kind_of(type_: str) -> ChangeKind:
    """The kind of a CDEvents type; a type that is not known counts as a deploy.

    >>> kind_of("dev.cdevents.service.rolledback.0.3.0"), kind_of("dev.cdevents.environment.modified.0.3.0")
    (<ChangeKind.ROLLBACK: 'rollback'>, <ChangeKind.CONFIGURATION: 'configuration'>)
    """
    if ".rolledback" in type_:
        return ChangeKind.ROLLBACK
    return ChangeKind.CONFIGURATION if ".environment." in type_ else ChangeKind.DEPLOY


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """A change and the state of its environment just before it was taken in."""

    change_id: str
    service: str
    at_ns: int  # event time, UTC epoch nanoseconds
    kind: ChangeKind = ChangeKind.DEPLOY
    callers: int = 0  # services that call it
    upstream: int = 0  # services that reach it by calls, however far
    open_incidents: int = 0
    involving: int = 0  # open incidents that the service is part of


@dataclass(frozen=True, slots=True)
class Assessment:
    """How likely a change is to fail, and what to do about it."""

    change_id: str
    service: str
    at_ns: int  # event time of the change
    probability: float  # of failure, in (0, 1)
    gate: Gate
    reasons: tuple[str, ...]  # what moved the probability most, in words; quotes no telemetry
    outcomes: int  # outcomes learnt before it, in its environment

    def to_json(self) -> dict[str, Any]:
        """One line of ``changes.jsonl``."""
        return {
            "change_id": self.change_id,
            "service": self.service,
            "at_unix_ns": self.at_ns,
            "probability": round(self.probability, 6),
            "gate": self.gate,
            "reasons": list(self.reasons),
            "outcomes": self.outcomes,
        }
