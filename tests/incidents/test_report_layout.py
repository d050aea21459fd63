"""How a service graph is laid out and thinned."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from incidents.layout import NODE_HEIGHT, GraphDrawing, draw_graph
from incidents.model import GraphEdge
from tests.support.event_builders import wide_event


def edge(caller: str, callee: str, requests: float = 10.0, errors: float = 0.0) -> GraphEdge:
    return GraphEdge(caller=caller, callee=callee, requests=requests, errors=errors)


def wide(nodes: int, max_nodes: int = 48) -> GraphDrawing:
    data = wide_event(nodes).data
    path = data.candidates[0].path
    return draw_graph(data.graph, path=path, cause=path[-1], max_nodes=max_nodes)


@pytest.mark.parametrize("nodes", [2, 5, 15, 40])
def test_services_never_overlap_and_stay_inside_the_drawing(nodes: int) -> None:
    drawing = wide(nodes)
    assert len(drawing.nodes) == nodes
    for one, other in itertools.combinations(drawing.nodes, 2):
        assert abs(one.x - other.x) >= drawing.node_width or abs(one.y - other.y) >= NODE_HEIGHT
    for one in drawing.nodes:
        assert drawing.node_width / 2 <= one.x <= drawing.width - drawing.node_width / 2
        assert NODE_HEIGHT / 2 <= one.y <= drawing.height - NODE_HEIGHT / 2


def test_callers_are_left_of_callees() -> None:
    drawing = draw_graph([edge("a", "b"), edge("b", "c"), edge("a", "c")])
    x = {node.name: node.x for node in drawing.nodes}
    assert x["a"] < x["b"] < x["c"]


def test_an_edge_over_a_layer_passes_beside_the_service_between() -> None:
    drawing = draw_graph([edge("a", "b"), edge("b", "c"), edge("a", "c")])
    between = next(node for node in drawing.nodes if node.name == "b")
    long = next(one for one in drawing.edges if (one.caller, one.callee) == ("a", "c"))
    level = re.search(r" [\d.]+,([\d.]+)H", long.curve)
    assert level, "it crosses the layer of b on a level of its own"
    assert abs(float(level.group(1)) - between.y) > NODE_HEIGHT / 2


def test_calls_in_a_circle_and_to_oneself_are_no_obstacle() -> None:
    drawing = draw_graph([edge("a", "b"), edge("b", "c"), edge("c", "a"), edge("a", "a")])
    assert {(one.caller, one.callee) for one in drawing.edges} == {("a", "b"), ("b", "c"), ("c", "a")}


def test_parts_that_are_not_connected_are_both_drawn_apart() -> None:
    drawing = draw_graph([edge("a", "b"), edge("x", "y")], cause="alone")
    assert {node.name for node in drawing.nodes} == {"a", "b", "x", "y", "alone"}
    assert len({(node.x, node.y) for node in drawing.nodes}) == 5


def test_a_large_graph_keeps_cause_and_path_and_says_what_it_left_out() -> None:
    drawing = wide(200, max_nodes=30)
    assert len(drawing.nodes) <= 30
    assert drawing.cause is not None
    assert sum(node.is_on_path for node in drawing.nodes) == len(wide_event(200).data.candidates[0].path)
    assert drawing.left_out == 200 - len(drawing.nodes)


def test_a_large_graph_keeps_the_neighbours_of_the_path_rather_than_what_is_busy_far_away() -> None:
    far = [edge(f"far-{n}", f"far-{n + 1}", requests=1e9) for n in range(20)]
    drawing = draw_graph([edge("a", "b"), edge("b", "near"), *far], path=["a", "b"], cause="b", max_nodes=5)
    assert "near" in {node.name for node in drawing.nodes}


def test_busier_edges_are_thicker_and_parallel_ones_are_summed() -> None:
    drawing = draw_graph([edge("a", "b", 5), edge("a", "b", 5, errors=2), edge("a", "c", 1000), edge("a", "d", 0)])
    width = {one.callee: one.width for one in drawing.edges}
    assert width["d"] < width["b"] < width["c"]
    summed = next(one for one in drawing.edges if one.callee == "b")
    assert (summed.requests, summed.errors, summed.is_failing) == (10.0, 2.0, True)


def test_numbers_that_are_none_are_taken_as_zero() -> None:
    drawing = draw_graph([edge("a", "b", float("nan")), edge("a", "c", float("inf"), float("-inf"))])
    assert all(one.requests == one.errors == 0.0 for one in drawing.edges)


def test_no_edges_give_an_empty_drawing() -> None:
    assert draw_graph([], cause="a").nodes == ()


def test_the_layout_does_not_depend_on_hash_seeds_or_the_order_of_edges() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from tests.support.event_builders import wide_event; from incidents.layout import draw_graph;"
        "g = wide_event(40).data.graph; print(draw_graph(g) == draw_graph(g[::-1]), draw_graph(g))"
    )
    root = str(Path(__file__).parents[2])
    told = {
        subprocess.run(
            [sys.executable, "-c", code, root],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
    assert told.pop().startswith("True")
