"""Operation names and peers of bounded cardinality, made the same way from OTLP and from recordings.

A span called only ``GET`` says nothing of what was asked for: the route does. Where instrumentation gives no route, the
path is used with its parameters masked. Both sources of spans call the functions here, so replay and live agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: Attributes these functions read; a decoder needs to keep no others.
NAME_KEYS: Final = ("http.route", "url.path", "http.target", "url.full", "http.url")
PEER_KEYS: Final = (
    "service.peer.name",  # stable spelling
    "peer.service",  # its deprecated spelling
    "db.system.name",
    "db.system",
    "messaging.system",
    "messaging.destination.name",
    "messaging.destination",
    "rpc.service",
    "server.address",
    "server.port",
    "net.peer.name",
    "net.peer.port",
    "network.peer.address",
)

_METHODS: Final = frozenset(
    {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY", "HTTP"}
)
_PARAMETER = re.compile(r"^(?:.*\d.*|.{33,}|.*[^A-Za-z0-9._~-].*)$")
_LOCAL = re.compile(r"^(?:localhost|127\.[\d.]+|::1|0\.0\.0\.0|\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]*)$")
_MAX_SEGMENTS: Final = 6


def is_bare_method(name: str) -> bool:
    """Whether a span name is an HTTP method and nothing more, so that its path must be looked up.

    >>> is_bare_method("GET"), is_bare_method("HTTP GET"), is_bare_method("GET /cart")
    (True, True, False)
    """
    return name.removeprefix("HTTP ").upper() in _METHODS


def path_template(path: str) -> str:
    """A path with its parameters masked: segments with digits, odd characters or great length.

    >>> path_template("/product/66VCHSJNUP?currency=EUR")
    '/product/{}'
    >>> path_template("http://shop.example/cart/checkout")
    '/cart/checkout'
    """
    if "://" in path:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    path = path.split("?", 1)[0].split("#", 1)[0]
    segments = [segment for segment in path.split("/") if segment][:_MAX_SEGMENTS]
    return "/" + "/".join("{}" if _PARAMETER.match(segment) else segment for segment in segments)


def operation_name(name: str, attributes: Mapping[str, object]) -> str:
    """The span's operation: its name, with route or masked path where the name is a bare HTTP method.

    >>> operation_name("GET", {"url.path": "/product/1YMWWN1N4O"})
    'GET /product/{}'
    >>> operation_name("GET", {"http.route": "/product/:id"})
    'GET /product/:id'
    >>> operation_name("Checkout/PlaceOrder", {})
    'Checkout/PlaceOrder'
    """
    if not is_bare_method(name):
        return name
    route = attributes.get("http.route")
    if route:
        return f"{name} {route}"
    for key in NAME_KEYS[1:]:
        value = attributes.get(key)
        if value:
            return f"{name} {path_template(str(value))}"
    return name


def peer_name(attributes: Mapping[str, object]) -> str:
    """What a client or producer span called, as far as its own attributes say; "" where they do not.

    A database or broker behind a bare address is named by its system, others by ``address:port``; an address of this
    host or a bare IP says something only together with its port.

    >>> peer_name({"peer.service": "ledger", "server.address": "10.0.0.7"})
    'ledger'
    >>> peer_name({"service.peer.name": "ledger", "peer.service": "old-ledger"})
    'ledger'
    >>> peer_name({"db.system": "redis", "net.peer.name": "127.0.0.1", "net.peer.port": 6379})
    'redis'
    >>> peer_name({"server.address": "127.0.0.1", "server.port": 9555})
    '127.0.0.1:9555'
    >>> peer_name({"net.peer.name": "10.1.2.3"})
    ''
    """

    def first(*keys: str) -> str:
        return next((str(value) for key in keys if (value := attributes.get(key))), "")

    service = first("service.peer.name", "peer.service")
    if service:
        return service
    address = first("server.address", "net.peer.name", "network.peer.address")
    port = first("server.port", "net.peer.port")
    system = first("db.system.name", "db.system")
    if system:
        return system if not address or _LOCAL.match(address) else f"{system}:{address}"
    broker = first("messaging.system")
    if broker:
        destination = first("messaging.destination.name", "messaging.destination")
        return f"{broker}:{destination}" if destination else broker
    if not address:
        return ""
    if not _LOCAL.match(address):
        return address
    return f"{address}:{port}" if port else ""
