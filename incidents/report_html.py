"""``report.html``: a run's incidents as one file that needs no network, for people and for the archive.

Everything inside is drawn here, on the server's side, and escaped; the page's only script shows values under the
pointer. Its content-security policy allows that script and the one style sheet, by hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from incidents import wording
from incidents.layout import MAX_NAME, GraphDrawing, draw_graph
from incidents.model import RootCauseEvent, epoch_ns
from incidents.report_charts import Chart, Geometry, charts, meter, strip
from incidents.report_view import IncidentView, RunSummary, group_incidents, headline, measured, service_name

__all__ = ["RunSummary", "render_report", "write_report"]

_HERE: Final = Path(__file__).parent
_MAX_CHARTS: Final = 12
_SHORT_REASONS: Final = 4
_MAX_EVIDENCE: Final = 60
_MAX_REVISIONS: Final = 30


@dataclass(frozen=True, slots=True)
class Card:
    """An incident with everything drawn."""

    number: int
    view: IncidentView
    graph: GraphDrawing
    charts: tuple[Chart, ...]


def write_report(
    path: Path,
    events: Sequence[RootCauseEvent],
    intents: Sequence[Mapping[str, Any]],
    summary: RunSummary,
    *,
    max_cards: int = 100,
) -> None:
    """Write the report of a run; see ``render_report``. The folder must exist.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(render_report(events, intents, summary, max_cards=max_cards), encoding="utf-8")


def render_report(
    events: Sequence[RootCauseEvent], intents: Sequence[Mapping[str, Any]], summary: RunSummary, *, max_cards: int = 100
) -> str:
    """The report as HTML text; the same for the same input.

    ``events`` are ``RootCauseEvent`` revisions as emitted, ``intents`` remediation intents as plain CloudEvents. Only
    the first ``max_cards`` incidents in reading order get a card; all are on the strip.
    """
    views = group_incidents(events, intents)
    style, script = _asset("report.css"), _asset("report.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            headline=headline(views),
            summary=summary,
            strip=strip(views, summary),
            cards=[_card(number, view) for number, view in enumerate(views[:max_cards], 1)],
            left_out=max(0, len(views) - max_cards),
            numbers={view.id: number for number, view in enumerate(views[:max_cards], 1)},
            style=Markup(style),  # noqa: S704 - our own file, no input in it
            script=Markup(script),  # noqa: S704 - our own file, no input in it
            style_hash=_csp_hash(style),
            script_hash=_csp_hash(script),
            short_reasons=_SHORT_REASONS,
            max_evidence=_MAX_EVIDENCE,
            max_revisions=_MAX_REVISIONS,
        )
    )


def _card(number: int, view: IncidentView) -> Card:
    path = view.cause.path if view.cause else []
    cause = path[-1] if path else service_name(view.cause.entity) if view.cause else ""
    graph = draw_graph(
        view.data.graph,
        path=path,
        cause=cause,
        affected=view.data.impact.services,
        uninstrumented=view.uninstrumented,
    )
    return Card(number, view, graph, charts(view, _MAX_CHARTS))


def _asset(name: str) -> str:
    return (_HERE / "static" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _harmless(value: object) -> object:
    """Applied to whatever a template prints: control characters of texts are made visible, markup stays as it is."""
    return wording.plain(value) if isinstance(value, str) and not isinstance(value, (Markup, Geometry)) else value


def template_environment(folder: Path) -> jinja2.Environment:
    """Templates of a folder as all our pages want them: escaped, strict, with the words for values and times."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=wording.clock,
        day=wording.day,
        duration=wording.duration,
    )
    environment.globals.update(plural=wording.plural, verdict_words=wording.VERDICT_WORDS)
    return environment


def _environment() -> jinja2.Environment:
    environment = template_environment(_HERE / "templates")
    environment.filters.update(
        ns=epoch_ns,
        number=wording.number,
        percent=wording.percent,
        meter=meter,
        shorten=lambda text, limit: wording.shorten(wording.plain(text), limit),
        service=service_name,
        at=lambda text: wording.clock(epoch_ns(text)),
    )
    environment.globals.update(
        max_name=MAX_NAME,
        measured_words=measured,
        quantity=wording.quantity,
        interval=wording.interval,
        fault_words=wording.FAULT_WORDS,
    )
    return environment
