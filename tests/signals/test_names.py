"""Operation names and peers: of bounded cardinality, whatever the telemetry holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.names import is_bare_method, operation_name, path_template, peer_name

exhaustive = settings(deadline=None, max_examples=200)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("", "/"),
        ("/cart", "/cart"),
        ("/orders/42", "/orders/{}"),
        ("/orders/9f3c6a5e-1f7d-4d0a-8f0e-2b8f6e0a7c11/items", "/orders/{}/items"),
        ("/api/v2/users", "/api/{}/users"),
        ("/search?q=shoes#top", "/search"),
        ("/caf%C3%A9/menu", "/{}/menu"),
        ("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f"),
        ("https://shop.example:8443/cart/checkout?x=1", "/cart/checkout"),
        ("https://shop.example", "/"),
        ("/" + "x" * 40, "/{}"),
        ("//double//slashes/", "/double/slashes"),
    ],
)
def test_a_path_keeps_its_shape_and_loses_its_parameters(path, template):
    assert path_template(path) == template


@exhaustive
@given(st.integers(0, 10**12), st.text(st.characters(categories=["Nd", "Po", "Sc"]), min_size=1, max_size=20))
def test_paths_that_differ_in_numbers_only_are_one_operation(number, odd):
    one, other = (operation_name("GET", {"url.path": f"/orders/{value}/items"}) for value in (number, number + 1))
    assert one == other == "GET /orders/{}/items"


@exhaustive
@given(st.text(max_size=300))
def test_a_masked_path_is_short_and_masking_it_again_changes_nothing_more(path):
    once = path_template(path)
    assert len(once) <= 6 * 33
    assert once.startswith("/")
    assert "?" not in once
    assert path_template(once) == once


@pytest.mark.parametrize(
    ("name", "attributes", "operation"),
    [
        ("GET", {}, "GET"),
        ("GET", {"http.route": "/cart/{id}", "url.path": "/cart/9"}, "GET /cart/{id}"),
        ("HTTP GET", {"http.target": "/cart/9?full=1"}, "HTTP GET /cart/{}"),
        ("POST", {"http.url": "http://shop/cart"}, "POST /cart"),
        ("GET /cart", {"http.route": "/other"}, "GET /cart"),
        ("query", {"url.path": "/x"}, "query /x"),
        ("oteldemo.Cart/Get", {"url.path": "/x"}, "oteldemo.Cart/Get"),
    ],
)
def test_only_a_bare_method_is_completed_by_its_route_or_path(name, attributes, operation):
    assert operation_name(name, attributes) == operation


def test_a_method_is_told_from_a_name():
    assert [is_bare_method(name) for name in ("get", "HTTP POST", "HTTP", "getUser", "GET x", "")] == [
        *(True, True, True),
        *(False, False, False),
    ]


@pytest.mark.parametrize(
    ("attributes", "peer"),
    [
        ({}, ""),
        ({"peer.service": "ledger", "db.system": "redis"}, "ledger"),
        ({"db.system.name": "postgresql", "db.system": "old"}, "postgresql"),
        ({"db.system": "mysql", "server.address": "orders-db"}, "mysql:orders-db"),
        ({"db.system": "redis", "server.address": "10.1.2.3", "server.port": 6379}, "redis"),
        ({"messaging.system": "kafka"}, "kafka"),
        ({"messaging.system": "kafka", "messaging.destination.name": "orders"}, "kafka:orders"),
        ({"messaging.system": "kafka", "messaging.destination": "orders"}, "kafka:orders"),
        ({"server.address": "api.example", "server.port": 443}, "api.example"),
        ({"net.peer.name": "localhost", "net.peer.port": 8080}, "localhost:8080"),
        ({"network.peer.address": "::1", "server.port": 50051}, "::1:50051"),
        ({"server.port": 80}, ""),
    ],
)
def test_a_peer_is_named_by_what_says_most_of_it(attributes, peer):
    assert peer_name(attributes) == peer
