"""Which deviating services belong together: close on the graph in the same bucket.

Two suspects belong together when one calls the other, or when they share a caller or callee that also deviates. What is
far apart on the graph stays apart, however close in time: one page per cause, not per symptom.
"""

from __future__ import annotations

from collections.abc import Sequence

from topology.graph import ServiceGraph
from topology.ranking import Suspect


def clusters(suspects: Sequence[Suspect], graph: ServiceGraph, join_score: float) -> list[list[Suspect]]:
    """Connected groups of suspects with at least ``join_score`` before explaining away, strongest group first.

    Work is proportional to the suspects and their neighbours, not to the graph.
    """
    members = {one.service: one for one in suspects if one.own >= join_score}
    seen: set[str] = set()
    groups = []
    for service in members:
        if service in seen:
            continue
        group, queue = [], [service]
        seen.add(service)
        while queue:
            node = queue.pop()
            group.append(members[node])
            for other in sorted((graph.callees.get(node, set()) | graph.callers.get(node, set())) & members.keys()):
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
        group.sort(key=lambda one: (-one.score, one.service))
        groups.append(group)
    return sorted(groups, key=lambda group: (-group[0].score, group[0].service))
