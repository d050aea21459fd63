"""Credits as evidence: what was expected, what was seen, and a sentence that says so.

Sentences quote telemetry and stay plain text: whoever shows them escapes them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final, Literal

from incidents.model import DetectorRef, Evidence, EvidenceRefs, FaultKind, rfc3339
from incidents.report import Template
from incidents.wording import interval, quantity
from signals.cells import Cell
from topology.ranking import GOLDEN, METRIC, Channel, Credit, Deviation

_CUT: Final = 160
_LARGEST: Final = 1e300  # stands for infinity

#: How strong a telling credit must be, beside the strongest, to be named first and to name the kind.
_SPECIFIC_SHARE: Final = 0.4
_SPECIFIC: Final = frozenset({Channel.ERROR, Channel.LOST, Channel.TIME, Channel.CALL})

#: Parts of a metric's name that say it measures how full or busy something is.
_SATURATION: Final = (
    "cpu",
    "memory",
    "mem_",
    "heap",
    "disk",
    "utilization",
    "usage",
    "saturation",
    "queue",
    "pool",
    "gc",
)


def evidence_id(credit: Credit) -> str:
    """Stable over revisions: the same observation keeps its id."""
    one = credit.deviation
    parts = (credit.channel, one.service, one.instance, one.operation, one.caller, str(one.kind), one.what)
    return "ev-" + hashlib.blake2b("\x1f".join(parts).encode(), digest_size=5).hexdigest()


def evidence_of(
    credit: Credit,
    window_ns: tuple[int, int],
    templates: Mapping[str, Template],
    traces: Mapping[tuple[str, str], tuple[str, ...]],
) -> Evidence:
    """One observation for the event. ``traces`` maps (service, operation) to example trace ids."""
    one = credit.deviation
    template = templates.get(one.what) if one.kind in (Cell.LOG, Cell.LINE) else None
    return Evidence(
        id=evidence_id(credit),
        signal=_signal(one),
        name=_name(one, template),
        attributes=_attributes(one),
        window=(rfc3339(window_ns[0]), rfc3339(window_ns[1])),
        observed=_rounded(one.observed),
        expected=(_rounded(one.low), _rounded(one.high)),
        unit=one.unit,
        direction=_direction(one),
        anomaly_score=round(min(max(one.score, 0.0), 1.0), 9),
        detector=DetectorRef(name=one.detector, version=one.version),
        refs=EvidenceRefs(
            trace_ids=list(traces.get((one.service, one.operation), ())),
            log_template=template.text if template else None,
            log_example=template.example if template else None,
        ),
        statement=_statement(one, template),
    )


def fault_kind_of(credits: list[Credit], *, changed: bool) -> FaultKind:
    """The kind of fault the strongest credits speak of; a change just before onset takes precedence."""
    if changed:
        return FaultKind.CHANGE
    by_channel: dict[Channel, float] = {}
    for credit in credits[:8]:
        by_channel[credit.channel] = max(by_channel.get(credit.channel, 0.0), credit.weight)
    if not by_channel:
        return FaultKind.UNKNOWN
    strongest = max(by_channel, key=lambda channel: (by_channel[channel], channel))
    if strongest is Channel.BEHAVIOUR:
        # Other calls and other lines follow from failing or being slow: where it does either, that is the kind.
        specific = {one: weight for one, weight in by_channel.items() if one in _SPECIFIC}
        closest = max(specific, key=lambda channel: (specific[channel], channel), default=strongest)
        if specific and specific[closest] >= _SPECIFIC_SHARE * by_channel[strongest]:
            strongest = closest
    saturated = any(
        credit.channel is Channel.METRIC
        and credit.deviation.observed > credit.deviation.high
        and _is_saturation(credit.deviation.what)
        for credit in credits[:8]
    )
    if strongest in (Channel.TIME, Channel.CALL, Channel.METRIC) and saturated:
        return FaultKind.SATURATION
    kinds = {
        Channel.TIME: FaultKind.LATENCY,
        Channel.CALL: FaultKind.LATENCY,
        Channel.ERROR: FaultKind.ERROR,
        Channel.LOST: FaultKind.UNAVAILABLE,
        Channel.GAP: FaultKind.NETWORK,
        Channel.BEHAVIOUR: FaultKind.BEHAVIOUR,
        Channel.METRIC: FaultKind.UNKNOWN,
        Channel.SYMPTOM: FaultKind.UNKNOWN,
    }
    return kinds[strongest]


def telling_first(credits: list[Credit]) -> list[Credit]:
    """Credits in the order a person would want them: up to two that say what kind of fault it is, then by strength."""
    floor = _SPECIFIC_SHARE * credits[0].weight if credits else 0.0
    first = [one for one in credits if one.channel in _SPECIFIC and one.weight >= floor][:2]
    return [*first, *(one for one in credits if not any(one is other for other in first))]


def _is_saturation(metric: str) -> bool:
    name = metric.casefold()
    return any(part in name for part in _SATURATION)


def _signal(one: Deviation) -> Literal["span", "log", "metric", "edge"]:
    if one.kind in (METRIC, GOLDEN):
        return "metric"
    if one.kind in (Cell.LOG, Cell.LINE):
        return "log"
    return "edge" if one.kind == Cell.GAP else "span"


def _name(one: Deviation, template: Template | None) -> str:
    if one.kind in (METRIC, GOLDEN):
        return one.what
    if template is not None:
        return template.text
    return {
        Cell.ORIGIN: "errors that begin here",
        Cell.EXCLUSIVE: "own time",
        Cell.GAP: "time between caller and callee",
        Cell.CHILD: f"calls {one.what.replace('|', ' ')}",
    }.get(Cell(one.kind), one.what)


def _attributes(one: Deviation) -> dict[str, str]:
    pairs = {
        "service.name": one.service,
        "service.namespace": one.namespace,
        "service.instance.id": one.instance,
        "mendstream.operation": one.operation,
        "mendstream.caller": one.caller,
    }
    return {key: value for key, value in pairs.items() if value}


def _rounded(value: float) -> float:
    """Six significant digits: what is told does not pretend to more; always finite, since JSON has no infinity."""
    if math.isnan(value):
        return 0.0
    return float(f"{min(max(value, -_LARGEST), _LARGEST):.6g}")


def _direction(one: Deviation) -> Literal["up", "down", "new", "gone"]:
    if one.kind in (Cell.CHILD, Cell.LOG, Cell.LINE):
        if one.before < 0.01:
            return "new"
        if one.after < 0.01:
            return "gone"
    if one.kind in (METRIC, GOLDEN):
        return "up" if one.observed > one.high else "down"
    return "up" if one.after > one.before else "down"


def _statement(one: Deviation, template: Template | None) -> str:
    """A sentence; the forms follow the kinds of observation."""
    if one.kind in (METRIC, GOLDEN):
        return _metric_statement(one)
    if one.kind in (Cell.GAP, Cell.EXCLUSIVE):
        return _time_statement(one)
    change = f"{_share(one.before)} → {_share(one.after)} of {one.n}"
    if one.kind == Cell.ORIGIN:
        calls = one.outgoing and one.target
        what = f"calls from {one.service} to {one.target} fail" if calls else f"errors begin in {one.service}"
        return f"{what}, {_operation(one)}: {change} spans"
    if one.kind == Cell.CHILD:
        return _call_statement(one, change)
    text = (template.text if template else one.what)[:_CUT]
    verb = "writes" if one.after > one.before else "writes less often" if one.after > 0.01 else "no longer writes"
    return f"{one.service} {verb} “{text}”: {change} {'lines' if one.kind == Cell.LINE else 'spans'}"


def _metric_statement(one: Deviation) -> str:
    if one.kind == GOLDEN:
        return f"{one.what} of {one.service} as its callers see it is unusual ({one.detector})"
    who = f"{one.service} ({one.instance})" if one.instance else one.service
    seen, expected = quantity(one.observed, one.unit), interval(one.low, one.high, one.unit)
    return f"{one.what} of {who} is {seen}, expected {expected}"


def _call_statement(one: Deviation, change: str) -> str:
    callee, _, operation = one.what.partition("|")
    if one.outgoing and callee == one.target and one.after < one.before:
        return f"calls from {one.service} to {callee} do not arrive, {operation}: {change} answered"
    if callee == one.service:
        how = "more often" if one.after > one.before else "less often" if one.after > 0.01 else "no longer"
        return f"{one.service} runs its own {operation} {how} in {_operation(one)}: {change} spans"
    verb = "calls" if one.after > one.before else "calls less" if one.after > 0.01 else "no longer calls"
    return f"{one.service} {verb} {callee} {operation} in {_operation(one)}: {change} spans"


def _time_statement(one: Deviation) -> str:
    told = f"95th percentile {quantity(one.observed, 's')}, expected below {quantity(one.high, 's')}"
    if one.kind == Cell.GAP:
        return f"{one.caller} waits for {one.service} longer than {one.service} works: {told}"
    if one.outgoing and one.target:
        return f"calls from {one.service} to {one.target} take longer, {_operation(one)}: {told}"
    return f"{one.service} itself takes longer in {_operation(one)}: {told}"


def _operation(one: Deviation) -> str:
    return f"{one.operation} (called by {one.caller})" if one.caller and one.caller != one.service else one.operation


def _share(value: float) -> str:
    return quantity(min(max(value, 0.0), 1.0))
