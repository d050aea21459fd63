"""How good were the answers: incidents and diagnoses against labelled faults. Only backtests read labels, only here.

A fault counts as detected by an incident whose first revision lies between its start and five minutes later (or its
end, if that is later); an incident belongs to the latest such fault. Incidents in the ten minutes after a fault are its
aftershocks; whatever else opens is false. An undetected fault is a miss in every figure, and a tie counts as the worst
rank it allows.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from incidents.model import RootCauseEvent, epoch_ns

_S: Final = 1_000_000_000
_GRACE_NS: Final = 300 * _S
_AFTER_NS: Final = 600 * _S
#: Labels that name no broken service: a harmless deploy, and more users than before.
HARMLESS: Final = frozenset({"benign", "load"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One label."""

    id: str
    start_ns: int
    end_ns: int
    service: str
    kind: str
    instance: str = ""
    accept: tuple[str, ...] = ()  # services that also count; "~text" accepts any name that holds the text

    @property
    def until_ns(self) -> int:
        """The latest moment at which it can be detected."""
        return max(self.end_ns, self.start_ns + _GRACE_NS)

    def accepts(self, service: str) -> bool:
        """Whether blaming this service is right."""
        names = self.accept or (self.service,)
        return any(service == name or (name.startswith("~") and name[1:] in service) for name in names)


@dataclass(slots=True)
class Verdicts:
    """What became of one fault."""

    fault: Fault
    incidents: int = 0
    delay_s: float | None = None
    first_rank: int | None = None
    last_rank: int | None = None
    instance_right: bool | None = None  # None: not to be judged
    confidence: float | None = None  # of the last revision's first candidate


@dataclass(slots=True)
class StreamScore:
    """A replay's score."""

    faults: list[Verdicts] = field(default_factory=list)
    false: list[str] = field(default_factory=list)  # incident ids
    aftershocks: list[str] = field(default_factory=list)
    hours: float = 0.0

    def figures(self) -> dict[str, float | None]:
        """Named figures; None where there is nothing to divide by."""
        real = [one for one in self.faults if one.fault.kind not in HARMLESS]
        hit = [one for one in real if one.incidents]
        delays = sorted(one.delay_s for one in hit if one.delay_s is not None)
        sure = [(one.confidence, one.last_rank == 1) for one in real if one.confidence is not None]
        right = [one for one in real if one.last_rank == 1 and one.instance_right is not None]
        ranked = {name: [getattr(one, f"{name}_rank") for one in real] for name in ("first", "last")}
        return {
            "faults": float(len(real)),
            "detected": float(len(hit)),
            "recall": _ratio(len(hit), len(real)),
            "median_delay_s": statistics.median(delays) if delays else None,
            "p95_delay_s": delays[min(len(delays) - 1, round(0.95 * (len(delays) - 1)))] if delays else None,
            **{f"{name}_top{k}": _top(ranks, k) for name, ranks in ranked.items() for k in (1, 3, 5)},
            "last_mrr": _ratio(sum(1 / rank for rank in ranked["last"] if rank), len(real)),
            "instance_right": _ratio(sum(1 for one in right if one.instance_right), len(right)),
            "incidents_per_fault": _ratio(sum(one.incidents for one in hit), len(hit)),
            "opened_by_harmless": float(sum(one.incidents for one in self.faults if one.fault.kind in HARMLESS)),
            "false_per_hour": self.false_per_hour(),
            "aftershocks": float(len(self.aftershocks)),
            "ece": expected_calibration_error(sure),
            "brier": _ratio(sum((p - right_) ** 2 for p, right_ in sure), len(sure)),
        }

    def false_per_hour(self) -> float | None:
        """False incidents per hour of the recording."""
        return _ratio(len(self.false), self.hours)


def load_faults(path: Path) -> list[Fault]:
    """Read labels (``faults.jsonl``). Raises ValueError naming the line that cannot be used."""
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                faults.append(_fault(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: not a label: {error!r}") from error
    return faults


def _fault(one: Mapping[str, Any]) -> Fault:
    return Fault(
        str(one["id"]),
        int(one["start_unix_ns"]),
        int(one["end_unix_ns"]),
        str(one.get("service") or ""),
        str(one["kind"]),
        str(one.get("instance") or ""),
        tuple(one.get("accept") or ()),
    )


def score_stream(events: Sequence[RootCauseEvent], faults: Sequence[Fault], hours: float) -> StreamScore:
    """Match incidents to faults and judge their rankings."""
    revisions: dict[str, list[RootCauseEvent]] = {}
    for event in events:
        revisions.setdefault(event.data.incident.id, []).append(event)
    score = StreamScore([Verdicts(fault) for fault in faults], hours=hours)
    by_id = {one.fault.id: one for one in score.faults}
    owned: dict[str, list[list[RootCauseEvent]]] = {}
    for incident, told in revisions.items():
        opened = min(epoch_ns(event.time) for event in told)
        inside = [fault for fault in faults if fault.start_ns <= opened <= fault.until_ns]
        if inside:
            owner = max(inside, key=lambda fault: fault.start_ns)
            owned.setdefault(owner.id, []).append(told)
        elif any(fault.end_ns < opened <= fault.end_ns + _AFTER_NS for fault in faults):
            score.aftershocks.append(incident)
        else:
            score.false.append(incident)
    for fault_id, mine in owned.items():
        _judge(by_id[fault_id], mine)
    return score


def _judge(verdicts: Verdicts, incidents: Sequence[Sequence[RootCauseEvent]]) -> None:
    fault = verdicts.fault
    verdicts.incidents = len(incidents)
    first = min(incidents, key=lambda told: min(epoch_ns(event.time) for event in told))
    told = sorted(first, key=lambda event: (epoch_ns(event.time), event.data.incident.revision))
    inside = [event for event in told if epoch_ns(event.time) <= fault.until_ns]
    verdicts.delay_s = (epoch_ns(inside[0].time) - fault.start_ns) / _S
    verdicts.first_rank = rank_of(_ranking(inside[0]), fault)
    verdicts.last_rank = rank_of(_ranking(inside[-1]), fault)
    best = inside[-1].data.candidates[:1]
    if best:
        verdicts.confidence = best[0].confidence
        named = best[0].entity.get("service.instance.id", "")
        if fault.instance and verdicts.last_rank == 1:
            verdicts.instance_right = named == fault.instance


def _ranking(event: RootCauseEvent) -> list[tuple[str, float]]:
    return [(one.entity.get("service.name", ""), one.score) for one in event.data.candidates]


def rank_of(candidates: Iterable[tuple[str, float]], fault: Fault) -> int | None:
    """Worst rank that ties allow of the best right service, 1 the best; None when it is not among them.

    >>> rank_of([("a", 2.0), ("b", 2.0)], Fault("f", 0, 1, "a", "x"))
    2
    """
    distinct: dict[str, float] = {}
    for service, score in candidates:
        distinct.setdefault(service, score)
    order = list(distinct.items())
    for place, (service, score) in enumerate(order):
        if fault.accepts(service):
            ties = sum(1 for other, tied in order[place + 1 :] if tied == score and not fault.accepts(other))
            return place + 1 + ties
    return None


def score_diagnoses(
    diagnoses: Sequence[Mapping[str, Any]], faults: Sequence[Fault]
) -> dict[str, dict[str, float | None]]:
    """Top-k and MRR per fault kind, over all, and over all but CPU faults; a window without an answer is a miss."""
    answers = {one["id"]: one.get("candidates", []) for one in diagnoses}
    groups: dict[str, list[int | None]] = {}
    for fault in faults:
        told = [(one["entity"].get("service.name", ""), one.get("score", 0.0)) for one in answers.get(fault.id, [])]
        rank = rank_of(told, fault)
        names = ["all", f"kind {fault.kind}", *([] if "cpu" in fault.kind.casefold() else ["without cpu"])]
        for name in names:
            groups.setdefault(name, []).append(rank)
    return {
        name: {
            "n": float(len(ranks)),
            **{f"top{k}": _top(ranks, k) for k in (1, 3, 5)},
            "mrr": _ratio(sum(1 / rank for rank in ranks if rank), len(ranks)),
            "unanswered": float(sum(rank is None for rank in ranks)),
        }
        for name, ranks in sorted(groups.items())
    }


def expected_calibration_error(sure: Sequence[tuple[float, bool]], bins: int = 10) -> float | None:
    """Mean gap between confidence and accuracy over equal-width bins (Naeini, Cooper and Hauskrecht, 2015).

    >>> expected_calibration_error([(0.9, True)] * 9 + [(0.9, False)])
    0.0
    """
    if not sure:
        return None
    gap = 0.0
    for index in range(bins):
        mine = [(p, right) for p, right in sure if min(int(p * bins), bins - 1) == index]
        if mine:
            gap += abs(sum(p for p, _ in mine) - sum(right for _, right in mine))
    return round(gap / len(sure), 12)


def _top(ranks: Sequence[int | None], k: int) -> float | None:
    return _ratio(sum(1 for rank in ranks if rank and rank <= k), len(ranks))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
