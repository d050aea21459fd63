"""Observations as evidence: what is told of each kind, and which kind of fault it speaks of."""

from __future__ import annotations

import pytest

from incidents.describe import evidence_id, evidence_of, fault_kind_of
from incidents.model import Evidence, FaultKind
from incidents.report import Template
from signals.cells import Cell
from tests.support.deviations import deviation, gap, golden, metric, refused, slow
from tests.support.traces import SECOND, START
from topology.ranking import Channel, Credit, Deviation

TEMPLATES = {"00ff": Template("00ff", "connection to <*> refused", "connection to 10.0.0.7 refused")}
TRACES = {("cart", "op"): ("0af7651916cd43dd8448eb211c80319c",)}


def credit(one: Deviation, channel: Channel = Channel.ERROR, weight: float = 10.0) -> Credit:
    return Credit(one.service, channel, weight, one)


def told(one: Deviation, channel: Channel = Channel.ERROR) -> Evidence:
    return evidence_of(credit(one, channel), (START, START + 60 * SECOND), TEMPLATES, TRACES)


@pytest.mark.parametrize(
    ("one", "signal", "direction"),
    [
        (deviation("cart"), "span", "up"),
        (slow("cart"), "span", "up"),
        (gap("web", "cart"), "edge", "up"),
        (deviation("cart", Cell.LOG, what="00ff"), "log", "new"),
        (deviation("cart", Cell.LOG, what="00ff", before=0.9, after=0.0), "log", "gone"),
        (deviation("cart", Cell.LINE, what="00ff", before=0.2, after=0.7), "log", "up"),
        (deviation("cart", Cell.CHILD, what="db|query", before=0.7, after=0.2), "span", "down"),
        (metric("cart", "cpu"), "metric", "up"),
        (metric("cart", "cpu", observed=1.0), "metric", "down"),
        (golden("cart"), "metric", "up"),
    ],
)
def test_every_kind_of_observation_has_its_signal_and_direction(one, signal, direction):
    evidence = told(one)
    assert (evidence.signal, evidence.direction) == (signal, direction)
    assert "cart" in evidence.statement
    assert evidence.attributes["service.name"] == "cart"


@pytest.mark.parametrize(
    ("one", "parts"),
    [
        (deviation("cart"), ["errors begin in cart", "60 %", "of 100 spans"]),
        (refused("shop", "redis"), ["calls from shop to redis fail"]),
        (slow("cart"), ["cart itself takes longer", "2 s", "500 ms"]),
        (slow("cart", outgoing=True, target="db"), ["calls from cart to db take longer"]),
        (gap("web", "cart"), ["web waits for cart longer than cart works"]),
        (deviation("cart", Cell.LOG, what="00ff"), ["cart writes “connection to <*> refused”", "spans"]),
        (deviation("cart", Cell.LINE, what="00ff", before=0.9, after=0.0), ["cart no longer writes", "lines"]),
        (deviation("cart", Cell.CHILD, what="db|query"), ["cart calls db query"]),
        (
            deviation("cart", Cell.CHILD, what="db|query", before=1.0, after=0.2, outgoing=True, target="db"),
            ["calls from cart to db do not arrive"],
        ),
        (metric("cart", "process.cpu", instance="pod-1"), ["process.cpu of cart (pod-1) is 97", "20", "40"]),
        (golden("cart"), ["cart", "unusual", "half_space_trees"]),
        (slow("cart", caller="web"), ["op (called by web)"]),
    ],
)
def test_statements_are_sentences_that_name_who_what_and_how_much(one, parts):
    statement = told(one).statement
    for part in parts:
        assert part in statement


def test_evidence_points_to_traces_templates_and_an_example_line():
    assert told(deviation("cart")).refs.trace_ids == ["0af7651916cd43dd8448eb211c80319c"]
    log = told(deviation("cart", Cell.LOG, what="00ff")).refs
    assert (log.log_template, log.log_example) == ("connection to <*> refused", "connection to 10.0.0.7 refused")


def test_a_template_that_nobody_described_is_told_by_its_id():
    evidence = told(deviation("cart", Cell.LOG, what="beef"))
    assert evidence.refs.log_template is None
    assert "beef" in evidence.statement


def test_an_observation_keeps_its_id_while_its_numbers_change_and_shares_it_with_no_other():
    same = [credit(deviation("cart", raw=raw, after=raw / 100)) for raw in (10, 50)]
    assert evidence_id(same[0]) == evidence_id(same[1])
    others = [
        deviation("cart", operation="other"),
        deviation("cart", instance="i1"),
        deviation("cart", caller="web"),
        deviation("cart", Cell.LOG, what="a"),
        deviation("cart", Cell.LOG, what="b"),
        deviation("pay"),
    ]
    assert len({evidence_id(credit(one)) for one in [deviation("cart"), *others]}) == 7


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_json_cannot_hold_is_told_as_the_nearest_that_it_can(value):
    evidence = told(metric("cart", "cpu", observed=5.0, low=value, high=value))
    assert all(abs(bound) <= 1e300 for bound in evidence.expected)


def test_numbers_are_rounded_to_what_they_can_say():
    assert told(metric("cart", "cpu", observed=1 / 3)).observed == 0.333333


def test_text_of_telemetry_is_quoted_as_it_is_and_cut():
    long = Template("t", "<script>" + "x" * 1_000, "")
    evidence = evidence_of(credit(deviation("cart", Cell.LOG, what="t")), (START, START), {"t": long}, {})
    assert "<script>" in evidence.statement
    assert len(evidence.statement) < 300


# -- fault kinds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        (Channel.TIME, FaultKind.LATENCY),
        (Channel.CALL, FaultKind.LATENCY),
        (Channel.ERROR, FaultKind.ERROR),
        (Channel.LOST, FaultKind.UNAVAILABLE),
        (Channel.GAP, FaultKind.NETWORK),
        (Channel.BEHAVIOUR, FaultKind.BEHAVIOUR),
    ],
)
def test_the_strongest_channel_says_what_kind_of_fault_it_is(channel, kind):
    weaker = credit(deviation("cart"), Channel.ERROR if channel is not Channel.ERROR else Channel.GAP, 1.0)
    assert fault_kind_of([credit(deviation("cart"), channel), weaker], changed=False) == kind


def test_a_change_just_before_onset_takes_precedence():
    assert fault_kind_of([credit(deviation("cart"))], changed=True) == FaultKind.CHANGE


def test_slow_with_a_resource_far_above_what_is_expected_is_saturation():
    full = credit(metric("cart", "process.cpu.utilization"), Channel.METRIC, 2.0)
    assert fault_kind_of([credit(slow("cart"), Channel.TIME), full], changed=False) == FaultKind.SATURATION


def test_a_resource_far_below_what_is_expected_or_a_metric_of_another_sort_is_none():
    idle = credit(metric("cart", "process.cpu.utilization", observed=1.0), Channel.METRIC, 2.0)
    other = credit(metric("cart", "http.server.active_requests"), Channel.METRIC, 2.0)
    for one in (idle, other):
        assert fault_kind_of([credit(slow("cart"), Channel.TIME), one], changed=False) == FaultKind.LATENCY


def test_a_full_resource_does_not_turn_errors_into_saturation():
    full = credit(metric("cart", "process.cpu.utilization"), Channel.METRIC, 2.0)
    assert fault_kind_of([credit(deviation("cart"), Channel.ERROR), full], changed=False) == FaultKind.ERROR


def test_nothing_to_go_by_is_an_unknown_kind():
    assert fault_kind_of([], changed=False) == FaultKind.UNKNOWN
