"""Incidents for a person on call, in a terminal: what broke, since when, how sure, why, what it hurts, what to do.

Every text is given to Rich as plain text, never as markup, after ``wording.plain`` has made control characters visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from incidents.intent_view import IntentView
from incidents.model import Evidence, RootCauseEvent, Verdict
from incidents.report_view import IncidentView, RunSummary, group_incidents, headline, measured, service_name
from incidents.wording import (
    FAULT_WORDS,
    clock,
    day,
    duration,
    number,
    percent,
    plain,
    plural,
    quantity,
)

__all__ = ["render_incidents", "render_summary"]

_REASONS: Final = 5
_OBJECTIONS: Final = 3
_NAMES: Final = 6
_LABELS: Final = 12  # columns that labels and indents take
_STATEMENT: Final = 240  # characters; the event has the rest
_SEVERITY_STYLE: Final = {"critical": "bold red", "major": "bold yellow", "minor": "bold blue", "info": "bold"}
_ARROWS: Final = {"up": "▲", "down": "▼", "new": "●", "gone": "○"}


def render_summary(console: Console, summary: RunSummary) -> None:
    """Print what a run watched, in two or three lines."""
    first = Text.assemble(
        (plain(summary.name), "bold"),
        f"  {summary.mode}, {day(summary.start_ns)} {clock(summary.start_ns)} to {clock(summary.end_ns)} UTC",
        f" ({duration(summary.end_ns - summary.start_ns)})",
    )
    rows = ", ".join(f"{count:,} {plain(signal)}" for signal, count in summary.signals)
    second = f"{rows or 'no telemetry'}; {plural(summary.services, 'service')}, {plural(summary.edges, 'call edge')}"
    if summary.duration_s > 0:
        second += f"; {quantity(summary.duration_s, 's')}, {number(summary.rows_per_second)} rows/s"
    console.print(first)
    console.print(Text(second, style="dim"))
    lost = [
        f"{plural(summary.late, 'row')} came too late" if summary.late else "",
        f"{plural(summary.dead_lettered, 'message')} could not be decoded" if summary.dead_lettered else "",
    ]
    if any(lost):
        console.print(Text("Left out: " + ", ".join(one for one in lost if one), style="yellow"))


def render_incidents(
    console: Console, events: Sequence[RootCauseEvent], intents: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Print the newest revision of each incident, open and severe ones first, merged ones in a line each."""
    views = group_incidents(events, intents)
    console.print(Text(headline(views), style="bold"))
    for view in views:
        console.print()
        console.print(_incident(view, console.width))


def _incident(view: IncidentView, width: int) -> Group | Text:
    header = view.data.incident
    if header.merged_into:
        return Text(f"○ {plain(view.id)} is part of {plain(header.merged_into)}", style="dim")
    style = _SEVERITY_STYLE[view.data.severity]
    title = Text.assemble((f"{view.data.severity.upper()} ", style), (plain(view.data.title, _STATEMENT), "bold"))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, lines in _sections(view, width - _LABELS):
        shown = list(lines)
        if shown:
            facts.add_row(label, Group(*shown))
    return Group(Rule(style="dim"), title, _times(view), Text(), Padding(facts, (0, 0, 0, 2)))


def _times(view: IncidentView) -> Text:
    lasted = duration(view.end_ns - view.onset_ns)
    going = f"{view.state_word}, since {clock(view.onset_ns)} UTC for {lasted}" + (" so far" if view.is_open else "")
    seen = f"seen after {duration(view.detected_ns - view.onset_ns)}"
    return Text(f"{going}, {seen}; {plain(view.id, 80)}, revision {view.data.incident.revision}", style="dim")


def _sections(view: IncidentView, room: int) -> list[tuple[str, Iterable[RenderableType]]]:
    return [
        ("Cause", _cause(view)),
        ("Why" if view.cause else "Seen", _evidence(view.reasons, _REASONS, room)),
        ("Against", _evidence(view.objections, _OBJECTIONS, room)),
        ("Hurts", _impact(view)),
        ("Path", _path(view)),
        ("Or else" if view.cause else "Closest", _rivals(view)),
        ("Before", _before(view)),
        ("Missing", [Text(_names(one)) for one in [view.data.data_quality.missing_signals] if one]),
        ("Would do", (line for intent in view.intents for line in _intent(intent))),
    ]


def _cause(view: IncidentView) -> Iterable[Text]:
    if view.cause is None:
        yield Text.assemble(("not known", "bold"), f": {view.cause_words}")
        return
    style = "bold red" if view.data.verdict == Verdict.IDENTIFIED else "bold yellow"
    ambiguous = view.data.verdict == Verdict.AMBIGUOUS
    first = f"{plain(service_name(view.cause.entity))}: " if ambiguous else ""
    aside = "  several causes fit" if ambiguous else f"  {plain(view.cause_instance, 80)}"
    yield Text.assemble((plain(view.cause_name, 160), style), (aside.rstrip(), "dim"))
    yield Text(first + plain(view.cause_words, _STATEMENT))
    yield Text.assemble((f"{percent(view.cause.confidence)} sure", "bold"), (f", {view.calibration_words}", "dim"))


def _evidence(found: Sequence[Evidence], most: int, room: int) -> Iterable[RenderableType]:
    """Statements with a hanging indent; the measurement behind each, or below it where the line is full."""
    if not found:
        return
    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column(overflow="fold")
    for one in found[:most]:
        statement, numbers = plain(one.statement, _STATEMENT), measured(one)
        gap = "" if not numbers else "  " if len(statement) + len(numbers) + 4 <= room else "\n"
        lines.add_row(_ARROWS[one.direction], Text.assemble(statement, gap, (numbers, "dim")))
    yield lines
    if len(found) > most:
        yield Text(f"and {len(found) - most} more", style="dim")


def _impact(view: IncidentView) -> Iterable[Text]:
    impact = view.data.impact
    counts = [
        f"{plural(impact.error_requests, 'request')} failed" if impact.error_requests else "",
        f"{plural(impact.slow_requests, 'request')} slow" if impact.slow_requests else "",
        *(
            f"{plain(slo.name, 60)} burns its error budget {number(slo.burn_rate)} times too fast"
            for slo in impact.slo[:2]
        ),
    ]
    if any(counts):
        yield Text(", ".join(one for one in counts if one))
    if impact.entry_points:
        yield Text(f"at {_names(impact.entry_points)}")
    if impact.services:
        yield Text(f"in {_names(impact.services)}")


def _path(view: IncidentView) -> Iterable[Text]:
    if view.cause and len(view.cause.path) > 1:
        yield Text(" → ".join(plain(name, 80) for name in view.cause.path))


def _rivals(view: IncidentView) -> Iterable[Text]:
    for rival in view.rivals[:3]:
        yield Text.assemble(
            plain(service_name(rival.entity), 80),
            f" {percent(rival.confidence)}",
            (f", {FAULT_WORDS[rival.fault_kind]}", "dim"),
        )


def _before(view: IncidentView) -> Iterable[Text]:
    for one in view.data.novelty.similar[:2]:
        helped = f"; helped then: {plain(one.resolution, 80)}" if one.resolution else ""
        yield Text(f"{plain(one.incident, 80)}, {percent(one.similarity)} alike{helped}")


def _intent(intent: IntentView) -> Iterable[Text]:
    name = f"{intent.playbook} {intent.version}".rstrip()
    yield Text.assemble((name, "bold"), " on ", (intent.target, "bold"), (f"  {intent.mode_words}", "yellow"))
    why = "; ".join(intent.reasons)
    rule = f" (rule {intent.rule})" if intent.rule else ""
    if intent.revoked:
        yield Text(f"no longer: {intent.revocation or 'a later revision changed the picture'}")
        return
    if why or rule:
        yield Text(f"because {why or 'the rule says so'}{rule}")
    detail = [f"{key}={value}" for key, value in intent.params[:4]] + list(intent.risk)
    if detail:
        yield Text(", ".join(detail), style="dim")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(plain(name, 80) for name in names[:_NAMES])
    return f"{shown} and {len(names) - _NAMES} more" if len(names) > _NAMES else shown
