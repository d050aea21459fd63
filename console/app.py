"""A small read-only console over the incident database: a list, a page per incident, and the same as JSON.

It has **no authentication**: everyone who can reach its port reads every incident. It is therefore for localhost, or
for a place behind an authenticating proxy. Requests must name an allowed host, so that a foreign web page cannot read
it through a browser on this machine by pointing a domain of its own at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from console.headers import SecurityHeaders, secure
from incidents.memory import Memory, StoredIncident
from incidents.model import RootCauseEvent, State, epoch_ns
from incidents.report_html import render_report, template_environment
from incidents.report_view import IncidentView, RunSummary

_HERE: Final = Path(__file__).parent
_BATCH_TYPE: Final = "application/cloudevents-batch+json"
_META_POLICY: Final = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">')
#: What a reader asks for, and the stored states that it means: an updated incident is still open.
STATES: Final[Mapping[str, frozenset[str]]] = {
    "open": frozenset({State.OPEN.value, State.UPDATED.value}),
    "resolved": frozenset({State.RESOLVED.value}),
    "merged": frozenset({State.MERGED.value}),
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the filtered list."""

    incidents: Sequence[StoredIncident]
    number: int  # from 1
    pages: int  # at least 1
    total: int  # incidents that pass the filter
    services: Sequence[str]  # that a filter can name
    state: str  # "" for all
    service: str  # "" for all

    def query(self, **changes: str | int) -> str:
        """The query string of this page with changes; empty values are left out."""
        values: dict[str, str | int] = {"state": self.state, "service": self.service, "page": self.number, **changes}
        kept = {name: value for name, value in values.items() if value and (name, value) != ("page", 1)}
        return f"?{urlencode(kept)}" if kept else ""


class _Console:
    """The endpoints; plain functions, so that Starlette runs them in threads beside the event loop."""

    def __init__(self, memory: Memory, *, page_size: int, max_incidents: int, max_revisions: int) -> None:
        self._memory = memory
        self._page_size = page_size
        self._max_incidents = max_incidents
        self._max_revisions = max_revisions
        self._style = (_HERE / "static" / "console.css").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self'; "
            "frame-ancestors 'none'"
        )
        self._templates = _templates()

    def page(self, request: Request) -> Page:
        """What the query asks for. Raises HTTPException 400 where it asks for nothing there is."""
        state, service = request.query_params.get("state", ""), request.query_params.get("service", "")
        if state and state not in STATES:
            raise HTTPException(400, f"There is no state of that name; ask for one of {', '.join(STATES)}.")
        asked = request.query_params.get("page", "1")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", asked):
            raise HTTPException(400, "A page is a whole number from 1.")
        known = self._memory.incidents(limit=self._max_incidents)
        found = [one for one in known if (not state or one.state in STATES[state]) and service in {"", one.service}]
        found.sort(key=lambda one: (-one.started_ns, one.id))
        pages = max(1, -(-len(found) // self._page_size))
        if int(asked) > pages:
            raise HTTPException(404, f"There is no page {asked}; the last one is {pages}.")
        start = (int(asked) - 1) * self._page_size
        services = sorted({one.service for one in known if one.service})
        return Page(found[start : start + self._page_size], int(asked), pages, len(found), services, state, service)

    def listing(self, request: Request) -> Response:
        """``GET /``."""
        page = self.page(request)
        rows = [IncidentView((event,)) for one in page.incidents if (event := self._memory.event(one.id))]
        return self._html(request, "list.html.j2", page=page, rows=rows, limit=self._max_incidents)

    def detail(self, request: Request) -> Response:
        """``GET /incidents/{id}``."""
        events = self.revisions(request)
        view = IncidentView(tuple(events))
        data = view.data
        places = {one.entity.get("deployment.environment.name", "") for one in data.candidates} - {""}
        summary = RunSummary(
            name=", ".join(sorted(places)) or events[-1].source,
            mode=data.provenance.mode,
            start_ns=view.onset_ns,
            end_ns=max(view.end_ns, *(epoch_ns(one.time) for one in events)),
            late=data.data_quality.late_dropped,
        )
        text = render_report(events, [], summary)
        allowed = _META_POLICY.search(text)
        # The header must allow what the page's own policy allows, and only that.
        own = html.unescape(allowed.group(1)) if allowed else "default-src 'none'"
        policy = f"{own}; frame-ancestors 'none'"
        back = Markup('<body>\n<nav><a href="{}/">All incidents</a></nav>').format(_root(request))
        return HTMLResponse(text.replace("<body>", back, 1), headers={"Content-Security-Policy": policy})

    def api_listing(self, request: Request) -> Response:
        """``GET /api/incidents``: the newest revisions of a page, in the CloudEvents JSON batch format."""
        page = self.page(request)
        events = [event for one in page.incidents if (event := self._memory.event(one.id))]
        headers = {"X-Total-Count": str(page.total)}
        if page.number < page.pages:
            target = f"{_root(request)}/api/incidents{page.query(page=page.number + 1)}"
            headers["Link"] = f'<{target}>; rel="next"'
        return _batch(events, headers)

    def api_detail(self, request: Request) -> Response:
        """``GET /api/incidents/{id}``: an incident's revisions, oldest first, in the CloudEvents JSON batch format."""
        return _batch(self.revisions(request))

    def health(self, _request: Request) -> Response:
        """``GET /healthz``: 200 while the database answers, 503 otherwise."""
        try:
            self._memory.incidents(limit=1)
        except SQLAlchemyError:
            return JSONResponse({"status": "the database does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    def revisions(self, request: Request) -> list[RootCauseEvent]:
        """The newest stored revisions of an incident, ascending. Raises HTTPException 404 where there is none."""
        incident = request.path_params["incident"]
        header = self._memory.incident(incident)
        last = 0 if header is None else header.revision
        numbers = range(max(1, last - self._max_revisions + 1), last + 1)
        found = [event for one in numbers if (event := self._memory.event(incident, one))]
        if not found:
            raise HTTPException(404, "No incident of that id is remembered.")
        return found

    def failed(self, request: Request, error: Exception) -> Response:
        """An error as JSON under ``/api/`` and as a page elsewhere; details of unforeseen ones are in the log only."""
        status, reason, headers = 500, "The console could not answer; its log says why.", None
        if isinstance(error, HTTPException):
            status, headers = error.status_code, error.headers
            reason = {"Not Found": "There is nothing here.", "Method Not Allowed": "The console only reads."}.get(
                error.detail, error.detail
            )
        if request.scope["path"].startswith("/api/"):
            return secure(JSONResponse({"status": status, "error": reason}, status, headers))
        page = self._html(request, "error.html.j2", status, reason=reason, status=status)
        page.headers.update(headers or {})
        return secure(page)

    def _html(self, request: Request, name: str, code: int = 200, **values: object) -> Response:
        style = Markup(self._style)  # noqa: S704 - our own file, no input in it
        text = self._templates.get_template(name).render(style=style, root=_root(request), states=STATES, **values)
        return HTMLResponse(text, code, {"Content-Security-Policy": self._policy})


def build_app(
    memory: Memory,
    *,
    page_size: int = 50,
    max_incidents: int = 5_000,
    max_revisions: int = 500,
    allowed_hosts: Sequence[str] = ("127.0.0.1", "localhost"),
) -> Starlette:
    """The console over a memory; it has no authentication, see above. The caller closes the memory.

    Args:
        memory: what is shown; only read from.
        page_size: incidents on a page.
        max_incidents: the most recently changed incidents that lists and filters look at.
        max_revisions: the newest revisions of an incident that its page and its JSON show.
        allowed_hosts: names that a request's ``Host`` may have, without port; ``*`` allows all.
    """
    console = _Console(memory, page_size=page_size, max_incidents=max_incidents, max_revisions=max_revisions)
    routes = [
        Route("/", console.listing, methods=["GET"]),
        Route("/incidents/{incident:path}", console.detail, methods=["GET"]),
        Route("/api/incidents", console.api_listing, methods=["GET"]),
        Route("/api/incidents/{incident:path}", console.api_detail, methods=["GET"]),
        Route("/healthz", console.health, methods=["GET"]),
    ]
    middleware = [
        Middleware(SecurityHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False),
    ]
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: console.failed, Exception: console.failed},
    )
    app.router.redirect_slashes = False  # a redirect would be built from the request's own Host
    return app


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _batch(events: Sequence[RootCauseEvent], headers: Mapping[str, str] | None = None) -> Response:
    body = "[" + ",".join(one.model_dump_json() for one in events) + "]"
    return Response(body, headers=headers, media_type=_BATCH_TYPE)


def _only_text(function: Callable[[str], _T]) -> Callable[[object], _T]:
    return lambda value: function(str(value))


def _templates() -> jinja2.Environment:
    environment = template_environment(_HERE / "templates")
    environment.filters.update(part=_only_text(lambda text: quote(text, safe="")))
    return environment
