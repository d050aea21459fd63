"""Whose fault it is. What is fixed here is who is blamed before whom, not by how much."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.cells import Cell
from tests.support.deviations import deviation, gap, golden, graph_of, metric, refused, slow
from topology.graph import ServiceGraph
from topology.ranking import Channel, Deviation, Suspect, rank, rank_from_symptom

SHOP = ("ab", "ac", "bd", "cd")  # a calls b and c, both call d

deviations = st.lists(
    st.builds(
        deviation,
        st.sampled_from("abcdx"),
        st.sampled_from([*Cell, -1, -2]),
        st.floats(0.1, 60.0),
        caller=st.sampled_from(["", "a", "b"]),
        operation=st.sampled_from(["op", "other"]),
        what=st.sampled_from(["", "d|op", "cpu"]),
        outgoing=st.booleans(),
        target=st.sampled_from(["", "d", "db"]),
        instance=st.sampled_from(["", "i1", "i2"]),
    ),
    max_size=12,
)


def names(suspects: list[Suspect]) -> list[str]:
    return [one.service for one in suspects]


def first(*found: Deviation, graph: ServiceGraph | None = None) -> Suspect:
    return rank(found, graph or graph_of(*SHOP))[0]


def test_nobody_is_blamed_for_nothing():
    assert rank([], graph_of(*SHOP)) == []


def test_a_service_that_became_slow_by_itself_is_blamed():
    best = first(slow("b"))
    assert (best.service, best.credits[0].channel) == ("b", Channel.TIME)


def test_a_caller_that_slowed_down_with_its_callee_comes_after_it():
    assert names(rank([slow("b", 40), slow("d", 40)], graph_of(*SHOP))) == ["d", "b"]


def test_the_callee_is_named_as_what_explains_its_caller():
    ranked = {one.service: one for one in rank([slow("a"), slow("b")], graph_of(*SHOP))}
    assert ranked["a"].explained_by == "b"
    assert ranked["b"].explained_by == ""
    assert ranked["a"].own >= ranked["a"].score


def test_a_weakly_deviating_callee_does_not_explain_a_strongly_deviating_caller():
    assert names(rank([slow("b", 50), slow("d", 3)], graph_of(*SHOP))) == ["b", "d"]


def test_a_service_that_nobody_calls_explains_nothing():
    ranked = rank([slow("b"), slow("stranger")], graph_of(*SHOP))
    assert all(one.explained_by == "" for one in ranked)


def test_a_refused_call_blames_the_callee_even_one_that_sends_no_spans():
    graph = graph_of(*SHOP)
    best = first(refused("b", "redis"), graph=graph)
    assert (best.service, best.credits[0].channel) == ("redis", Channel.LOST)
    assert "b" not in names(rank([refused("b", "redis")], graph))


def test_calls_that_no_longer_arrive_blame_the_callee():
    silent = deviation("b", Cell.CHILD, what="d|op", before=1.0, after=0.1, outgoing=True, target="d", operation="call")
    best = first(silent)
    assert (best.service, best.credits[0].channel) == ("d", Channel.LOST)


def test_more_calls_to_a_callee_are_its_callers_behaviour():
    busy = deviation("b", Cell.CHILD, what="d|op", before=0.1, after=1.0, outgoing=True, target="d", operation="call")
    best = first(busy)
    assert (best.service, best.credits[0].channel) == ("b", Channel.BEHAVIOUR)


def test_a_slow_call_to_what_sends_no_spans_blames_what_was_called():
    best = first(slow("b", outgoing=True, target="redis", operation="GET"))
    assert (best.service, best.credits[0].channel) == ("redis", Channel.CALL)


def test_an_outgoing_operation_whose_callee_is_not_known_speaks_of_the_caller():
    assert first(deviation("b", outgoing=True, target="")).service == "b"


@pytest.mark.parametrize("kind", [Cell.LOG, Cell.LINE])
def test_new_log_lines_are_behaviour_of_the_service_that_writes_them(kind):
    best = first(deviation("c", kind, what="00ff"))
    assert (best.service, best.credits[0].channel) == ("c", Channel.BEHAVIOUR)


@pytest.mark.parametrize("kind", [Cell.ERRORS, Cell.DURATION])
def test_errors_and_durations_as_such_credit_nobody(kind):
    assert rank([deviation("a", kind)], graph_of(*SHOP)) == []


def test_a_widened_edge_blames_the_end_that_its_edges_have_in_common():
    assert first(gap("a", "b"), gap("a", "c")).service == "a"
    assert first(gap("b", "d"), gap("c", "d")).service == "d"


def test_a_service_with_one_widened_edge_of_many_is_less_to_blame_than_the_end_it_leads_to():
    star = graph_of(("hub", "x"), *(("hub", f"leaf{number}") for number in range(6)))
    assert names(rank([gap("hub", "x")], star)) == ["x", "hub"]


def test_unusual_golden_signals_alone_never_outweigh_a_cause():
    assert first(golden("a", 6.0), golden("b", 6.0), slow("d", 3.0)).service == "d"


def test_many_signs_beat_one_of_the_same_strength():
    ranked = rank([slow("b", 20), deviation("c", raw=20), deviation("c", raw=20, operation="other")], graph_of())
    assert names(ranked) == ["c", "b"]


def test_ties_go_by_name():
    assert names(rank([slow("c"), slow("b")], graph_of())) == ["b", "c"]


def test_the_instance_is_the_one_most_of_the_evidence_names():
    agreeing = [slow("b", 30, instance="i1"), deviation("b", raw=20, instance="i1"), deviation("b", Cell.LOG, 9)]
    assert first(*agreeing).instance == "i1"
    assert first(slow("b", 30, instance="i1"), deviation("b", raw=28, instance="i2")).instance == ""
    assert first(slow("b")).instance == ""


def test_the_instance_of_a_caller_is_never_told_as_the_callees():
    assert first(refused("b", "redis", instance="b-pod")).instance == ""


def test_what_is_far_above_in_a_metric_blames_the_service_that_reports_it():
    best = first(metric("c", "process.cpu.utilization"))
    assert (best.service, best.credits[0].channel) == ("c", Channel.METRIC)


def test_a_symptom_is_explained_by_what_its_service_calls_before_all_else():
    graph = graph_of("ab", "bc", "xy")
    ranked = rank_from_symptom([slow("y", 60), slow("c", 10)], graph, "a", "latency")
    assert names(ranked)[0] == "c"
    assert set(names(ranked)) == {"c", "y"}


def test_metrics_that_share_a_word_with_the_symptom_count_more():
    graph = graph_of("ab", "ac")
    found = [metric("b", "queue.size", 5.0), metric("c", "request_latency", 5.0)]
    assert names(rank_from_symptom(found, graph, "a", "latency.p99"))[0] == "c"


@settings(deadline=None, max_examples=80)
@given(deviations, st.randoms())
def test_the_ranking_depends_on_what_was_seen_and_not_on_the_order_it_was_told_in(found, seed):
    shuffled = list(found)
    seed.shuffle(shuffled)
    one, other = (rank(order, graph_of(*SHOP)) for order in (found, shuffled))
    assert names(one) == names(other)
    assert [suspect.score for suspect in one] == pytest.approx([suspect.score for suspect in other])


@settings(deadline=None, max_examples=80)
@given(deviations)
def test_the_ranking_is_best_first_names_each_service_once_and_changes_no_graph(found):
    graph = graph_of(*SHOP)
    ranked = rank(found, graph)
    assert graph == graph_of(*SHOP)
    assert ranked == sorted(ranked, key=lambda one: (-one.score, one.service))
    assert len(set(names(ranked))) == len(ranked)
    for one in ranked:
        assert one.credits
        assert [credit.weight for credit in one.credits] == sorted((c.weight for c in one.credits), reverse=True)
        assert {credit.service for credit in one.credits} == {one.service}
