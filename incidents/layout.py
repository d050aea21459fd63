"""A service graph laid out in layers from left (callers) to right (callees), ready to be drawn.

The layered layout (Sugiyama, Tagawa & Toda 1981, with Brandes & Köpf 2001 coordinates) is fast-sugiyama's; this module
chooses what is drawn of a large graph, turns the layout on its side and routes edges around the services between.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from fast_sugiyama import from_edges

from incidents.model import GraphEdge

MAX_NAME: Final = 26  # characters of a name that are shown
_CHARACTER: Final = 7.3  # pixels a character takes at most, on average, in the page's font size
_MIN_WIDTH: Final = 110.0  # of a service's box, pixels at natural size
NODE_HEIGHT: Final = 30.0
LAYER_GAP: Final = 48.0
ROW_HEIGHT: Final = 42.0
MARGIN: Final = 14.0
MAX_NODES: Final = 48
_PASSAGE: Final = 0.5  # a passing edge takes half the room of a service

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A service and where its box is centred."""

    name: str
    x: float
    y: float
    is_cause: bool = False
    is_on_path: bool = False
    is_affected: bool = False
    is_instrumented: bool = True


@dataclass(frozen=True, slots=True)
class PlacedEdge:
    """A call edge and the SVG path that draws it."""

    caller: str
    callee: str
    requests: float
    errors: float
    is_on_path: bool
    width: float  # stroke width, pixels: grows with the logarithm of requests
    curve: str  # the ``d`` of an SVG path

    @property
    def error_ratio(self) -> float:
        """Share of calls that failed, 0 without calls."""
        return self.errors / self.requests if self.requests > 0 else 0.0

    @property
    def is_failing(self) -> bool:
        """Whether failures are more than noise: above one in a hundred calls."""
        return self.error_ratio > 0.01


@dataclass(frozen=True, slots=True)
class GraphDrawing:
    """Everything placed; pixels at natural size."""

    width: float
    height: float
    nodes: tuple[PlacedNode, ...]
    edges: tuple[PlacedEdge, ...]
    node_width: float
    left_out: int  # services that were not drawn

    @property
    def cause(self) -> PlacedNode | None:
        """The highlighted service, if it is on the graph."""
        return next((node for node in self.nodes if node.is_cause), None)


def draw_graph(
    edges: Sequence[GraphEdge],
    *,
    path: Sequence[str] = (),
    cause: str = "",
    affected: Collection[str] = (),
    uninstrumented: Collection[str] = (),
    max_nodes: int = MAX_NODES,
) -> GraphDrawing:
    """Place at most ``max_nodes`` services and the edges between them.

    ``path`` leads from an entry point to ``cause``. A larger graph loses the services that matter least: path and cause
    stay, then affected services, then those fewest calls away, and of these those with most traffic. Parallel edges are
    summed. Deterministic.
    """
    calls = _merge(edges, path)
    wanted = {name for name in (*path, cause) if name} if calls else set()
    names = _choose(calls, wanted, affected, max_nodes)
    kept = {pair: edge for pair, edge in calls.items() if pair[0] in names and pair[1] in names}
    names = {name for pair in kept for name in pair} | (wanted & names)  # who lost all neighbours says nothing
    longest = max((len(name) for name in names), default=0)
    room = max(_MIN_WIDTH, 16 + _CHARACTER * min(longest, MAX_NAME))
    places, routes, width, height = _place(sorted(names), sorted(kept), room)
    most = max((edge.requests for edge in kept.values()), default=0.0)
    nodes = tuple(
        PlacedNode(
            name,
            *places[name],
            is_cause=name == cause,
            is_on_path=name in path,
            is_affected=name in affected,
            is_instrumented=name not in uninstrumented,
        )
        for name in sorted(names)
    )
    drawn = tuple(
        PlacedEdge(
            caller,
            callee,
            edge.requests,
            edge.errors,
            edge.on_path,
            width=_stroke(edge.requests, most),
            curve=_curve(routes[caller, callee], room),
        )
        for (caller, callee), edge in sorted(kept.items(), key=lambda one: (one[1].on_path, one[0]))
    )
    everything = {name for pair in calls for name in pair}
    return GraphDrawing(width, height, nodes, drawn, room, len(everything - names))


def _merge(edges: Sequence[GraphEdge], path: Sequence[str]) -> dict[tuple[str, str], GraphEdge]:
    """Edges by caller and callee; those along ``path`` count as on it, and calls to oneself are not drawn."""
    along = set(pairwise(path))
    calls: dict[tuple[str, str], GraphEdge] = {}
    for edge in edges:
        pair = (edge.caller, edge.callee)
        if edge.caller == edge.callee:
            continue
        before = calls.get(pair)
        calls[pair] = GraphEdge(
            caller=edge.caller,
            callee=edge.callee,
            requests=_finite(edge.requests) + (before.requests if before else 0.0),
            errors=_finite(edge.errors) + (before.errors if before else 0.0),
            on_path=edge.on_path or pair in along or bool(before and before.on_path),
        )
    return calls


def _finite(value: float) -> float:
    return max(0.0, value) if math.isfinite(value) else 0.0


def _choose(
    calls: Mapping[tuple[str, str], GraphEdge], wanted: Collection[str], affected: Collection[str], limit: int
) -> set[str]:
    traffic: Counter[str] = Counter(dict.fromkeys(wanted, 0))
    first = set(wanted)
    for (caller, callee), edge in calls.items():
        traffic[caller] += math.ceil(edge.requests)
        traffic[callee] += math.ceil(edge.requests)
        if edge.on_path:
            first |= {caller, callee}
    hops = _hops(calls, first)
    far = len(traffic)
    ranked = sorted(
        traffic, key=lambda name: (name not in first, name not in affected, hops.get(name, far), -traffic[name], name)
    )
    return set(ranked[:limit])


def _hops(calls: Collection[tuple[str, str]], start: Collection[str]) -> dict[str, int]:
    """Calls between each service and the nearest of ``start``, whichever way they go."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for caller, callee in calls:
        neighbours[caller].add(callee)
        neighbours[callee].add(caller)
    hops = dict.fromkeys(start, 0)
    edge = set(start)
    while edge:
        edge = {other for name in edge for other in neighbours[name]} - hops.keys()
        distance = max(hops.values()) + 1
        hops.update(dict.fromkeys(edge, distance))
    return hops


def _place(
    names: Sequence[str], pairs: Sequence[tuple[str, str]], room: float
) -> tuple[dict[str, Point], dict[tuple[str, str], list[Point]], float, float]:
    """Centres of services, points of edges, and the size of the drawing; ``room`` is a box's width."""
    number = {name: index for index, name in enumerate(names)}
    numbered = [(number[caller], number[callee]) for caller, callee in pairs]
    if not numbered:
        return {}, {}, 0.0, 0.0
    layouts = from_edges(
        numbered,
        vertex_spacing=1.0,
        dummy_vertices=True,
        dummy_size=_PASSAGE,
        ranking_type="up",
        crossing_minimization="barycenter",
        check_layout=False,
    )
    at: dict[int, Point] = {}
    links: dict[int, set[int]] = defaultdict(set)
    offset = 0.0
    for positions, _, _, drawn in layouts:  # one per connected part: stacked, largest first
        lowest = min(x for _, (x, _) in positions)
        first = max(y for _, (_, y) in positions)
        for node, (x, y) in positions:
            at[int(node)] = ((first - y), offset + x - lowest)
        offset += max(x for _, (x, _) in positions) - lowest + 1.4
        for one, other in drawn or ():
            links[int(one)].add(int(other))
            links[int(other)].add(int(one))
    for name in names:  # without calls: below everything, on the left
        if number[name] not in at:
            at[number[name]] = (min(layer for layer, _ in at.values()), offset)
            offset += 1.0
    layers = {layer: index for index, layer in enumerate(sorted({layer for layer, _ in at.values()}))}

    def pixel(node: int) -> Point:
        layer, row = at[node]
        return (
            MARGIN + room / 2 + layers[layer] * (room + LAYER_GAP),
            MARGIN + NODE_HEIGHT / 2 + row * ROW_HEIGHT,
        )

    places = {name: pixel(number[name]) for name in names}
    routes = {
        (names[caller], names[callee]): [pixel(node) for node in _route(caller, callee, links, len(names))]
        for caller, callee in numbered
    }
    width = 2 * MARGIN + len(layers) * room + (len(layers) - 1) * LAYER_GAP
    height = 2 * MARGIN + NODE_HEIGHT + max(row for _, row in at.values()) * ROW_HEIGHT
    return places, routes, width, height


def _route(caller: int, callee: int, links: Mapping[int, set[int]], first_passage: int) -> list[int]:
    """The places an edge passes through: each passage (numbers from ``first_passage``) belongs to one edge only."""
    for start in sorted(links[caller]):
        trail, here = [caller], start
        while here >= first_passage:
            onward = [one for one in links[here] if one != trail[-1]]
            trail.append(here)
            if len(onward) != 1:
                break
            here = onward[0]
        if here == callee:
            return [*trail, callee]
    return [caller, callee]


def _stroke(requests: float, most: float) -> float:
    share = math.log1p(requests) / math.log1p(most) if most > 0 else 0.0
    return round(0.8 + 1.9 * share, 2)


def _curve(points: Sequence[Point], room: float) -> str:
    """A smooth path from the caller's right side to the callee's left (or the other way, for calls backwards)."""
    forward = points[-1][0] >= points[0][0]
    half = room / 2 if forward else -room / 2
    (x, y), (end_x, end_y) = points[0], points[-1]
    gap = 7 if forward else -7  # leaves room for the arrow head
    text = f"M{x + half:.1f},{y:.1f}"
    here: Point = (x + half, y)
    for x, y in points[1:-1]:  # passages are crossed level, over the width of a service
        text += _bend(here, (x - half, y)) + f"H{x + half:.1f}"
        here = (x + half, y)
    if points[-1][0] == points[0][0]:  # same layer: cannot be, but must not break the drawing
        return text + f"L{end_x:.1f},{end_y:.1f}"
    return text + _bend(here, (end_x - half - gap, end_y))


def _bend(start: Point, end: Point) -> str:
    middle = (start[0] + end[0]) / 2
    return f"C{middle:.1f},{start[1]:.1f} {middle:.1f},{end[1]:.1f} {end[0]:.1f},{end[1]:.1f}"
