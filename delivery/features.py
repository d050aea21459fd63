"""Features of a change for the risk model, and the sentence that says each of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from delivery.change import ChangeFacts, ChangeKind

_S: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _S
_DAY_NS: Final = 24 * _HOUR_NS
_WEEK_NS: Final = 7 * _DAY_NS
_LONG_S: Final = 30 * 86_400.0  # "never before" counts as this long ago
_PRIOR_FAILED: Final = 1.0  # Beta(1, 9): one change in ten fails until history says otherwise
_PRIOR_CHANGES: Final = 10.0
_OWN_WEIGHT: Final = 2.0  # changes that the base rate counts for beside a service's own record

Features = dict[str, float]


@dataclass(slots=True)
class ServiceRecord:
    """The newest changes of one service and how they ended."""

    changes: deque[int] = field(default_factory=lambda: deque(maxlen=200))  # event times, nanoseconds
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=50))  # True: failed
    failed_ns: int = -1  # event time of the newest change that failed

    def since(self, at_ns: int, span_ns: int) -> int:
        """Changes in the span of event time before ``at_ns``."""
        return sum(at_ns - span_ns < one <= at_ns for one in self.changes)

    def failed(self) -> int:
        """How many of the outcomes remembered were failures."""
        return sum(self.outcomes)


def base_rate(failed: int, outcomes: int) -> float:
    """Mean of the Beta posterior of the share of changes that fail.

    >>> base_rate(0, 0), base_rate(9, 10)
    (0.1, 0.5)
    """
    return (_PRIOR_FAILED + failed) / (_PRIOR_CHANGES + outcomes)


def own_rate(record: ServiceRecord, base: float) -> float:
    """A service's share of failed changes, drawn towards the base rate while it has few."""
    return (record.failed() + _OWN_WEIGHT * base) / (len(record.outcomes) + _OWN_WEIGHT)


def features_of(change: ChangeFacts, record: ServiceRecord, base: float) -> Features:
    """Numbers for the model, from what was known before the change."""
    angle = 2 * math.pi * (change.at_ns % _WEEK_NS) / _WEEK_NS
    return {
        "changes_day": float(record.since(change.at_ns, _DAY_NS)),
        "changes_hour": float(record.since(change.at_ns, _HOUR_NS)),
        "own_rate": own_rate(record, base),
        "base_rate": base,
        "since_change": _log_age(change.at_ns, max(record.changes, default=-1)),
        "since_failed": _log_age(change.at_ns, record.failed_ns),
        "callers": float(change.callers),
        "upstream": float(change.upstream),
        "open_incidents": float(change.open_incidents),
        "involving": float(change.involving),
        "week_sin": math.sin(angle),
        "week_cos": math.cos(angle),
        "rollback": float(change.kind == ChangeKind.ROLLBACK),
        "configuration": float(change.kind == ChangeKind.CONFIGURATION),
    }


def record_sentence(record: ServiceRecord) -> str:
    """The service's own record in words.

    >>> record_sentence(ServiceRecord(outcomes=deque([True, True, False, True])))
    '3 of its last 4 changes led to incidents'
    """
    total, failed = len(record.outcomes), record.failed()
    if not total:
        return "none of its changes has been judged yet"
    if total == 1:
        return "its last change led to an incident" if failed else "its last change led to no incident"
    return f"{failed or 'none'} of its last {total} changes led to incidents"


def sentences(change: ChangeFacts, record: ServiceRecord, features: Mapping[str, float]) -> dict[str, str]:
    """What each feature says of this change, in words."""
    day, hour = int(features["changes_day"]), int(features["changes_hour"])
    open_, mine = change.open_incidents, change.involving
    return {
        "changes_day": f"{_count(day, 'change')} of it in the last day",
        "changes_hour": f"{_count(hour, 'change')} of it in the last hour",
        "own_rate": record_sentence(record),
        "base_rate": f"{features['base_rate']:.0%} of all changes here are expected to fail",
        "since_change": _ago("it was last changed", "no earlier change of it is known", record.changes, change.at_ns),
        "since_failed": _ago(
            "a change of it last failed",
            "no change of it is known to have failed",
            [record.failed_ns] if record.failed_ns >= 0 else [],
            change.at_ns,
        ),
        "callers": f"{_count(change.callers, 'service')} {'calls' if change.callers == 1 else 'call'} it directly",
        "upstream": f"{_count(change.upstream, 'service')} {'depends' if change.upstream == 1 else 'depend'} on it",
        "open_incidents": f"{_count(open_, 'incident')} {'is' if open_ == 1 else 'are'} open in its environment",
        "involving": ("an incident is" if mine == 1 else f"{_count(mine, 'incident')} are") + " open on it",
        "week_sin": "the time of the week",
        "week_cos": "the time of the week",
        "rollback": "it is a rollback" if features["rollback"] else "it is no rollback",
        "configuration": "it changes configuration" if features["configuration"] else "it changes no configuration",
    }


def _log_age(at_ns: int, then_ns: int) -> float:
    if then_ns < 0:
        return math.log1p(_LONG_S)
    return math.log1p(min(_LONG_S, max(0, at_ns - then_ns) / _S))


def _count(n: int, noun: str) -> str:
    return f"{n or 'no'} {noun}{'' if n == 1 else 's'}"


def _ago(what: str, never: str, times: Iterable[int], at_ns: int) -> str:
    newest = max(times, default=-1)
    if newest < 0:
        return never
    minutes = max(0, at_ns - newest) // (60 * _S)
    if minutes < 120:
        return f"{what} {_count(minutes, 'minute') if minutes else 'less than a minute'} before"
    return f"{what} {minutes // 60} hours before" if minutes < 2880 else f"{what} {minutes // 1440} days before"
