"""What spans look like: name, kind, status and attributes for every operation and every outcome, made once.

Attributes follow OpenTelemetry's semantic conventions. A span is written as the number of its shape; a parameter of its
path (``/product/{id}``) is put in when columns are built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from signals.names import peer_name
from signals.schema import SpanKind, SpanStatus
from simulator.model import Operation, Service


class Outcome(IntEnum):
    """How a request or a call ended; anything from EXCEPTION on is a failure."""

    OK = 0
    NOT_FOUND = 1  # 404: the asker's fault
    CANCELLED = 2  # the user gave up
    EXCEPTION = 3  # 500, by itself
    OVERLOADED = 4  # 503, its queue is full
    BAD_GATEWAY = 5  # 502, something it needs failed
    GATEWAY_TIMEOUT = 6  # 504, something it needs did not answer
    REFUSED = 7  # callers only: nobody listens
    TIMEOUT = 8  # callers only: no answer in time
    RESET = 9  # callers only: the connection broke


OUTCOMES: Final = len(Outcome)
FAILURES_FROM: Final = int(Outcome.EXCEPTION)
_HTTP: Final = (200, 404, 499, 500, 503, 502, 504)
_GRPC: Final = (0, 5, 1, 13, 8, 14, 4)
_ERROR_TYPE: Final = {
    Outcome.REFUSED: "connection_refused",
    Outcome.TIMEOUT: "timeout",
    Outcome.RESET: "connection_reset",
}
_PARAMETER: Final = "\u0000"  # stands for the path parameter until columns are built


class ShapeTable:
    """All shapes; a shape's number is a base (one per operation and side) plus the outcome."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kinds: list[int] = []
        self.statuses: list[int] = []
        self.prefixes: list[str] = []  # attributes as JSON up to the path parameter, or all of them
        self.suffixes: list[str] = []  # the rest of the JSON; "" where there is no parameter
        self.peers: list[str] = []

    def _add(self, name: str, kind: SpanKind, status: SpanStatus, attributes: Mapping[str, object]) -> None:
        text = json.dumps(attributes, separators=(",", ":"))
        prefix, _, suffix = text.partition(json.dumps(_PARAMETER)[1:-1])
        self.names.append(name)
        self.kinds.append(int(kind))
        self.statuses.append(int(status))
        self.prefixes.append(prefix)
        self.suffixes.append(suffix)
        outward = kind in {SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER}
        self.peers.append(peer_name(attributes) if outward else "")

    def server(self, service: Service, operation: Operation) -> int:
        """Shapes of an operation as its own service reports it."""
        base = len(self.names)
        for outcome in Outcome:
            status = SpanStatus.ERROR if outcome >= FAILURES_FROM else SpanStatus.UNSET
            if service.protocol == "http":
                method, route = http_route(service, operation)
                attributes = _http(service, method, route, outcome) | {"http.route": route}
                self._add(f"{method} {route}", SpanKind.SERVER, status, attributes)
            else:
                self._add(rpc_name(service, operation), SpanKind.SERVER, status, _rpc(service, operation, outcome))
        return base

    def client(self, target: Service, operation: Operation) -> int:
        """Shapes of a call as its caller reports it."""
        base = len(self.names)
        for outcome in Outcome:
            failed = outcome >= FAILURES_FROM or outcome == Outcome.CANCELLED
            failed |= outcome == Outcome.NOT_FOUND and target.protocol == "http"
            status = SpanStatus.ERROR if failed else SpanStatus.UNSET
            error: dict[str, str | int] = {}
            if outcome in _ERROR_TYPE:
                error = {"error.type": _ERROR_TYPE[outcome]}
            if target.protocol == "http":
                method, route = http_route(target, operation)
                self._add(method, SpanKind.CLIENT, status, _http(target, method, route, outcome, client=True) | error)
            elif target.protocol == "grpc":
                name = rpc_name(target, operation)
                self._add(name, SpanKind.CLIENT, status, _rpc(target, operation, outcome) | error)
            elif target.protocol == "db":
                verb, _, table = operation.name.partition(" ")
                if outcome >= FAILURES_FROM and not error:
                    error = {"error.type": "query_error"}
                self._add(operation.name, SpanKind.CLIENT, status, _database(target, verb, table) | error)
            else:
                attributes = _messaging(target, operation.name, "send") | error
                self._add(f"send {operation.name}", SpanKind.PRODUCER, status, attributes)
        return base

    def consumer(self, broker: Service, topic: str, operation: Operation) -> int:
        """Shapes of an operation that messages of a topic start."""
        base = len(self.names)
        attributes = _messaging(broker, topic, "process") | {"messaging.consumer.group.name": operation.name}
        for outcome in Outcome:
            status = SpanStatus.ERROR if outcome >= FAILURES_FROM else SpanStatus.UNSET
            self._add(f"process {topic}", SpanKind.CONSUMER, status, attributes)
        return base

    def internal(self, name: str) -> int:
        """The shape of an internal span (one, whatever the outcome)."""
        self._add(name, SpanKind.INTERNAL, SpanStatus.UNSET, {"code.function.name": name.replace(" ", "_")})
        return len(self.names) - 1


def http_route(service: Service, operation: Operation) -> tuple[str, str]:
    """Method and route; an operation not named like a request gets a route of its own.

    >>> http_route(Service("x", "http", ()), Operation("GET /product/{id}", 1.0))
    ('GET', '/product/{id}')
    >>> http_route(Service("search", "http", ()), Operation("Query", 1.0))
    ('GET', '/search/query')
    """
    method, _, route = operation.name.partition(" ")
    return (method, route) if route.startswith("/") else ("GET", f"/{service.name}/{operation.name.lower()}")


def rpc_name(service: Service, operation: Operation) -> str:
    """Full method name, as gRPC instrumentation names spans.

    >>> rpc_name(Service("cart-api", "grpc", ()), Operation("AddItem", 1.0))
    'shop.CartApi/AddItem'
    """
    return f"shop.{service.name.title().replace('-', '')}/{operation.name}"


def _http(service: Service, method: str, route: str, outcome: Outcome, *, client: bool = False) -> dict[str, str | int]:
    path = route.replace("{id}", _PARAMETER)
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "server.address": service.name,
        "server.port": service.port,
    }
    if client:
        attributes["url.full"] = f"http://{service.name}:{service.port}{path}"
    else:
        attributes |= {"url.path": path, "url.scheme": "http"}
    if outcome < len(_HTTP) and not (client and outcome == Outcome.CANCELLED):
        attributes["http.response.status_code"] = _HTTP[outcome]
    return attributes


def _rpc(service: Service, operation: Operation, outcome: Outcome) -> dict[str, str | int]:
    package, _, method = rpc_name(service, operation).partition("/")
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc",
        "rpc.service": package,
        "rpc.method": method,
        "server.address": service.name,
        "server.port": service.port,
    }
    code = _GRPC[outcome] if outcome < len(_GRPC) else {Outcome.TIMEOUT: 4}.get(outcome, 14)
    attributes["rpc.grpc.status_code"] = code
    return attributes


def _database(store: Service, verb: str, table: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "db.system.name": store.system,
        "db.operation.name": verb,
        "server.address": store.name,
        "server.port": store.port,
    }
    if table:
        attributes["db.collection.name"] = table
        attributes["db.namespace"] = "shop"
    return attributes


def _messaging(broker: Service, topic: str, kind: str) -> dict[str, str | int]:
    return {
        "messaging.system": broker.system,
        "messaging.destination.name": topic,
        "messaging.operation.type": kind,
        "server.address": broker.name,
        "server.port": broker.port,
    }
