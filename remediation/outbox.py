"""Hands finished outcomes on: to the incident memory, then to the stream, then marks them as handed on.

A crash anywhere in between repeats it, and both ends take a repeat for what it is: the outcome's id is its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from incidents.memory import Memory
from remediation.endings import remember
from remediation.intents import Outcome
from remediation.journal import Journal


def drain(journal: Journal, memory: Memory | None, publish: Callable[[Sequence[Outcome]], None]) -> int:
    """Publish what is waiting. How many; an exception of ``publish`` leaves them waiting."""
    total = 0
    while outcomes := journal.unpublished():
        for outcome in outcomes:
            remember(memory, outcome)
        publish(outcomes)
        journal.published([outcome.data.intent_id for outcome in outcomes])
        total += len(outcomes)
    return total
