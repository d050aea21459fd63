"""The service graph: learnt from calls, fading, bounded, with a known topology beside it."""

from __future__ import annotations

import pickle
from collections import deque
from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.cells import Cell
from tests.support.traces import SECOND, START, US, log_frame, span, span_frame
from topology.assembly import AssemblyConfig, TraceAssembler
from topology.graph import EDGES, ServiceGraph, edges_of

HOUR = 3_600 * SECOND
exhaustive = settings(deadline=None, max_examples=100)
names = st.sampled_from("abcdefg")


def graph_of(*pairs: str, at_ns: int = START, **config: int) -> ServiceGraph:
    """``graph_of("ab", "bc")``: a calls b, b calls c, a hundred times each."""
    graph = ServiceGraph(**config)
    graph.update(at_ns, [(caller, callee, 100, 0, True) for caller, callee in pairs])
    return graph


def hops_by_brute_force(edges: set[tuple[str, str]], start: str) -> dict[str, int]:
    hops, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for caller, callee in edges:
            if caller == node and callee not in hops:
                hops[callee] = hops[node] + 1
                queue.append(callee)
    return hops


@exhaustive
@given(edges=st.sets(st.tuples(names, names)), start=names, end=names)
def test_paths_are_shortest_chains_of_calls(edges, start, end):
    graph = graph_of(*edges)
    hops = hops_by_brute_force(edges, start)
    path = graph.path(start, end)
    if end not in hops:
        assert path == []
        return
    assert (path[0], path[-1], len(path)) == (start, end, hops[end] + 1)
    assert all(pair in edges for pair in pairwise(path))


@exhaustive
@given(edges=st.sets(st.tuples(names, names)), start=names, within=st.frozensets(names))
def test_what_a_service_reaches_and_what_reaches_it_are_mirror_images(edges, start, within):
    graph, mirror = graph_of(*edges), graph_of(*((callee, caller) for caller, callee in edges))
    assert graph.downstream(start) == mirror.upstream(start) == hops_by_brute_force(edges, start)
    inside = {pair for pair in edges if set(pair) <= within | {start}}
    assert graph.downstream(start, within) == hops_by_brute_force(inside, start)


def test_neighbours_come_sorted_and_strangers_have_none():
    graph = graph_of("ac", "ab", "db")
    assert graph.callees_of("a") == ["b", "c"]
    assert graph.callers_of("b") == ["a", "d"]
    assert graph.callees_of("stranger") == graph.callers_of("stranger") == graph.path("stranger", "a") == []
    assert graph.requests("stranger", "a", START) == 0.0


def test_counts_fade_by_half_in_a_half_life():
    graph = graph_of("ab")
    assert graph.requests("a", "b", START) == 100
    assert graph.requests("a", "b", START + HOUR) == 50
    graph.update(START + HOUR, [("a", "b", 10, 4, True)])
    assert graph.requests("a", "b", START + HOUR) == 60
    assert graph.edges["a", "b"].errors == 4


def test_a_dead_edge_is_forgotten_without_anybody_asking_while_others_live_on():
    graph = graph_of("ab", "ac")
    for hour in range(1, 25):
        graph.update(START + hour * HOUR, [("a", "b", 100, 0, True)])
    assert graph.callees_of("a") == ["b"]
    assert graph.callers_of("c") == []
    assert set(graph.edges) == {("a", "b")}


def test_a_known_edge_stays_whether_or_not_traces_show_it():
    graph = graph_of("ab")
    graph.add_known([("a", "db"), ("a", "b")])
    graph.update(START + 1_000 * HOUR, [])
    assert graph.callees_of("a") == ["b", "db"]


def test_nothing_is_left_of_a_service_that_no_edge_is_left_of():
    """Peers named by addresses come and go for ever."""
    graph = ServiceGraph()
    for day in range(200):
        graph.update(START + day * 24 * HOUR, [("shop", f"10.0.0.{day}:80", 1, 0, False)])
    held = graph.callees.keys() | graph.callers.keys() | graph.uninstrumented | graph.answered
    assert held == {"shop", "10.0.0.199:80"}


def test_at_the_limit_the_weakest_edges_give_way_and_are_counted():
    graph = ServiceGraph(max_edges=20)
    graph.update(START, [(f"s{number:02}", "db", number + 1, 0, True) for number in range(20)])
    graph.update(START, [("new", "db", 1_000, 0, True)])
    assert len(graph.edges) == 19
    assert graph.dropped == 2
    assert not {"s00", "s01"} & set(graph.callers_of("db"))
    assert {"new", "s02", "s19"} <= set(graph.callers_of("db"))


def test_known_edges_never_give_way():
    graph = ServiceGraph(max_edges=2)
    graph.add_known([("a", "b"), ("b", "c"), ("c", "d")])
    assert graph.dropped == 1
    graph.update(START, [("x", "y", 10, 0, True)])
    assert set(graph.edges) == {("a", "b"), ("b", "c")}
    assert graph.dropped == 2


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 9)), max_size=80), st.integers(1, 10))
def test_the_number_of_edges_never_exceeds_the_limit_and_the_indexes_agree(calls, limit):
    graph = ServiceGraph(max_edges=limit)
    for number, (caller, callee, requests) in enumerate(calls):
        graph.update(START + number * SECOND, [(f"s{caller}", f"s{callee}", requests, 0, True)])
        assert len(graph.edges) <= limit
    assert {(a, b) for a, others in graph.callees.items() for b in others} == set(graph.edges)
    assert {(a, b) for b, others in graph.callers.items() for a in others} == set(graph.edges)


def test_who_has_answered_once_counts_as_instrumented_even_when_a_call_to_it_is_refused_later():
    graph = ServiceGraph()
    graph.update(START, [("a", "redis", 5, 0, False), ("a", "cart", 5, 0, False)])
    assert graph.uninstrumented == {"redis", "cart"}
    graph.update(START + SECOND, [("a", "cart", 5, 0, True)])
    graph.update(START + 2 * SECOND, [("b", "cart", 5, 5, False)])
    assert graph.uninstrumented == {"redis"}
    graph.update(START + 3 * SECOND, [("redis", "disk", 5, 0, False)])
    assert graph.uninstrumented == {"disk"}


def test_a_graph_that_was_pickled_is_the_same_graph():
    graph = graph_of("ab", "bc")
    assert pickle.loads(pickle.dumps(graph)) == graph  # noqa: S301 - made a line above


def test_edges_are_seen_from_the_callees_own_spans_with_their_failures():
    rows = [
        span("shop", end=100 * US, trace_lo=1),
        span("cart", end=50 * US, trace_lo=1, span_id=2, parent_id=1, status=2),
        span("cart", "inner", end=20 * US, trace_lo=1, span_id=3, parent_id=2, status=2),
        span("shop", end=100 * US, trace_lo=2),
        span("cart", "other", end=50 * US, trace_lo=2, span_id=2, parent_id=1),
        span("cart", end=50 * US, trace_lo=3, span_id=2, parent_id=1, environment="staging"),
        span("shop", end=90 * US, trace_lo=3, environment="staging"),
    ]
    cells = TraceAssembler(AssemblyConfig()).process(START + 10 * SECOND, span_frame(rows), log_frame()).cells
    edges = edges_of(cells)
    assert dict(edges.schema) == dict(EDGES)
    assert edges.rows() == [("staging", "shop", "cart", 1, 0, True), ("test", "shop", "cart", 2, 1, True)]


def test_cells_without_calls_give_no_edges():
    cells = TraceAssembler(AssemblyConfig()).process(START + 10 * SECOND, span_frame([span("a")]), log_frame()).cells
    assert cells.filter(pl.col("kind") == int(Cell.SPANS)).height == 1
    assert edges_of(cells).rows() == []
