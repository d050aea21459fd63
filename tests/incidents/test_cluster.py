"""Which suspects belong together: neighbours on the graph; whatever is far apart stays apart."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.cluster import clusters
from tests.support.deviations import graph_of
from topology.ranking import Suspect

names = st.sampled_from("abcdefgh")


def suspects(**scores: float) -> list[Suspect]:
    return [Suspect(service, score, score) for service, score in scores.items()]


def groups(found: list[Suspect], *edges: str, join: float = 3.0) -> list[list[str]]:
    return [[one.service for one in group] for group in clusters(found, graph_of(*edges), join)]


def test_a_caller_and_its_callee_belong_together():
    assert groups(suspects(a=5, b=9), "ab") == [["b", "a"]]


def test_what_is_far_apart_on_the_graph_stays_apart_however_close_in_time():
    assert groups(suspects(a=5, b=9, x=8, y=4), "ab", "bc", "cx", "xy") == [["b", "a"], ["x", "y"]]


def test_two_callers_of_a_calm_service_stay_apart():
    assert groups(suspects(a=5, b=9), "ac", "bc") == [["b"], ["a"]]


def test_two_callers_of_a_suspect_belong_together_through_it():
    assert groups(suspects(a=5, b=6, c=9), "ac", "bc") == [["c", "b", "a"]]


def test_a_suspect_too_weak_joins_nobody_and_joins_nobody_together():
    assert groups(suspects(a=5, b=1, c=9), "ab", "bc") == [["c"], ["a"]]


def test_what_counts_is_the_evidence_before_it_was_explained_away():
    explained = Suspect("a", 0.5, 9.0, explained_by="b")
    assert groups([explained, *suspects(b=8)], "ab") == [["b", "a"]]


def test_the_strongest_group_comes_first_and_ties_go_by_name():
    assert groups(suspects(d=5, b=5, a=7, x=9)) == [["x"], ["a"], ["b"], ["d"]]


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(names, st.floats(0, 20)), st.sets(st.tuples(names, names)))
def test_groups_are_the_connected_parts_of_the_graph_between_suspects(scores, edges):
    found = groups(suspects(**scores), *edges)
    members = {name for name, score in scores.items() if score >= 3.0}
    links = {name: {name} for name in members}
    for _ in members:  # transitive closure, slowly
        for one, other in edges:
            if one in members and other in members:
                joined = links[one] | links[other]
                for name in joined:
                    links[name] = links[name] | joined
    assert {frozenset(group) for group in found} == {frozenset(link) for link in links.values()}
    assert sorted(name for group in found for name in group) == sorted(members)
