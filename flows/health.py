"""``/metrics``, ``/healthz`` and ``/readyz`` of one process, on a small threaded server of its own."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import make_wsgi_app

from connectors.errors import ConnectorError
from flows.observe import Tally

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: A dataflow whose source has not had a turn for so long hangs, seconds.
STALLED_S: Final = 60.0

_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
_log = structlog.get_logger(__name__)


class ListenError(ConnectorError):
    """The port of the metrics cannot be had."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes answer: (whether all is well, one line why)."""

    tally: Tally
    stalled_s: float = STALLED_S
    monotonic: Callable[[], float] = time.monotonic

    def alive(self) -> tuple[bool, str]:
        """The dataflow moves: its source was asked for more a moment ago. A process without partitions just lives."""
        turned = self.tally.turned_at
        if turned is None:
            return True, "no source partition has had a turn yet"
        # A stage that works on a heavy bucket keeps the source waiting, and that is no hang.
        silent = self.monotonic() - max(turned, self.tally.busy_at or turned)
        if silent > self.stalled_s:
            return False, f"the source has had no turn for {silent:.0f} s"
        return True, f"the last turn of the source was {silent:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Partitions are assigned and have been polled, here or, for a process without any, at its peers."""
        if self.tally.turned_at is not None:
            return True, f"{len(self.tally.lag)} partitions are read"
        if self.tally.busy_at is not None:
            return True, "no partition of its own; works on what its peers read"
        return False, "no partition has been polled yet"


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a request to arrive

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Scrapes are not worth a log line."""


class Endpoint:
    """The server as a context: listens on entry, in a thread of its own, and stops on exit."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        self._host, self._port, self._health = host, port, health
        self._metrics = make_wsgi_app(registry)
        self._server: WSGIServer | None = None

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._server.server_port if self._server else self._port

    def __enter__(self) -> Endpoint:
        try:
            self._server = make_server(self._host, self._port, self._answer, _Server, _Handler)
        except OSError as error:
            raise ListenError(
                f"observe.port: {self._host}:{self._port} cannot be listened on ({error.strerror}); choose another "
                f"port, or 0 to do without metrics and health"
            ) from error
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        _log.info("metrics and health are served", url=f"http://{self._host}:{self.port}/metrics")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        probes = {"/healthz": self._health.alive, "/readyz": self._health.ready}
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path not in probes:
            start_response("404 Not Found", list(_TEXT))
            return [b"there are /metrics, /healthz and /readyz\n"]
        well, why = probes[path]()
        start_response("200 OK" if well else "503 Service Unavailable", list(_TEXT))
        return [f"{'ok' if well else 'failing'}: {why}\n".encode()]
