"""An incident while it lives: its suspects over time, and the ranking they add up to."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from incidents.model import State, Verdict
from topology.ranking import Credit, Suspect


@dataclass(slots=True)
class Incident:
    """One incident; event time throughout."""

    id: str
    environment: str
    onset_ns: int  # start of the first deviating bucket
    detected_ns: int  # close of the bucket that opened it
    last_seen_ns: int
    state: State = State.OPEN
    revision: int = 0
    ended_ns: int = 0
    merged_into: str = ""
    services: set[str] = field(default_factory=set)  # everything that has been a suspect
    buckets: deque[list[Suspect]] = field(default_factory=deque)
    told: tuple[str, ...] = ()  # what the last revision said, to tell news from noise
    failed: dict[str, int] = field(default_factory=dict)  # entry point -> failing requests since onset
    slow: dict[str, int] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)  # suspect -> most traffic towards it since onset, as a ratio
    late: int = 0

    def add(self, group: Sequence[Suspect], memory_buckets: int) -> None:
        """Take a bucket's suspects."""
        self.buckets.append(list(group))
        while len(self.buckets) > memory_buckets:
            self.buckets.popleft()
        self.services.update(one.service for one in group)

    def take_over(self, other: Incident) -> None:
        """Go on as one with another incident that turned out to be the same."""
        other.merged_into = self.id
        self.services |= other.services
        for mine, theirs in ((self.failed, other.failed), (self.slow, other.slow)):
            for label, n in theirs.items():
                mine[label] = max(mine.get(label, 0), n)  # both counted the same requests while they lived together

    def ranking(self) -> list[Suspect]:
        """Suspects by their mean score over the buckets remembered."""
        total: dict[str, float] = {}
        explained: dict[str, str] = {}
        best: dict[str, dict[tuple[object, ...], Credit]] = {}
        for group in self.buckets:
            for one in group:
                total[one.service] = total.get(one.service, 0.0) + one.score
                explained[one.service] = one.explained_by
                for credit in one.credits:
                    seen = best.setdefault(one.service, {})
                    key = observation(credit)
                    if key not in seen or credit.weight > seen[key].weight:
                        seen[key] = credit
        ranked = [
            Suspect(
                service,
                score / len(self.buckets),
                0.0,
                explained[service],
                sorted(best.get(service, {}).values(), key=lambda credit: (-credit.weight, str(observation(credit)))),
            )
            for service, score in total.items()
        ]
        return sorted(ranked, key=lambda one: (-one.score, one.service))


def observation(credit: Credit) -> tuple[object, ...]:
    """What makes two credits the same observation at different times."""
    one = credit.deviation
    return (credit.channel, one.service, one.instance, one.operation, one.caller, one.kind, one.what)


def incident_id(environment: str, onset_ns: int, service: str) -> str:
    """Deterministic: the same input opens the same incident in every run.

    >>> incident_id("prod", 0, "payment") == incident_id("prod", 0, "payment")
    True
    """
    digest = hashlib.blake2b(f"{environment}\x1f{onset_ns}\x1f{service}".encode(), digest_size=6).hexdigest()
    return f"inc-{digest}"


def verdict_of(ranked: Sequence[Suspect], identified_margin: float) -> Verdict:
    """``identified`` when one suspect leads clearly, ``unknown`` when there is none worth naming."""
    if not ranked or ranked[0].score <= 0:
        return Verdict.UNKNOWN
    second = ranked[1].score if len(ranked) > 1 else 0.0
    lead = (ranked[0].score - second) / ranked[0].score
    return Verdict.IDENTIFIED if lead >= identified_margin else Verdict.AMBIGUOUS
