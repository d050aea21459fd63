"""What spans do, given their operation: what is evidence, what is not, and when learning pauses."""

from __future__ import annotations

import pickle

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.span_behaviour import EVIDENCE, SpanBehaviour
from detectors.span_config import SpanBehaviourConfig
from signals.cells import Cell
from tests.support.cells import cell_frame, feed, operation, teach

LOG, CHILD, ORIGIN = (Cell.LOG, "template"), (Cell.CHILD, "db|query"), (Cell.ORIGIN, "")
OWN = Cell.EXCLUSIVE
CALM = operation(
    "shop", 100, shown={LOG: 30, CHILD: 100, ORIGIN: 2, (Cell.ERRORS, ""): 2}, times={(OWN, 10): 95, (OWN, 40): 5}
)


def detector(**config: float) -> SpanBehaviour:
    return SpanBehaviour(SpanBehaviourConfig(**config))


def raw_of(evidence: pl.DataFrame, kind: Cell, **where: str) -> float:
    rows = evidence.filter(pl.col("kind") == int(kind), *(pl.col(name) == value for name, value in where.items()))
    return float(rows["raw"].max() or 0.0)


def after(change: list, *, calm: list = CALM, buckets: int = 3, **config: float) -> pl.DataFrame:
    """Evidence of the last of some buckets of ``change`` after forty of ``calm``."""
    behaviour = detector(**config)
    number = teach(behaviour, calm)
    for _ in range(buckets):
        evidence = feed(behaviour, number, change)
        number += 1
    return evidence


def test_the_same_again_is_no_evidence():
    evidence = after(CALM)
    assert evidence.height == 0
    assert dict(evidence.schema) == dict(EVIDENCE)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([1, 2, 5, 10, 50, 200]))
def test_more_or_less_traffic_alone_is_no_evidence(hundredths):
    """The calm shares are whole numbers for any multiple of a hundred spans."""
    scaled = [(*row[:-1], row[-1] * hundredths) for row in CALM]
    assert after(scaled).height == 0


def test_no_traffic_is_no_evidence():
    assert after([]).height == 0


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (operation("shop", 100, shown={LOG: 30, CHILD: 100, ORIGIN: 2, (Cell.LOG, "never seen"): 100}), Cell.LOG),
        (operation("shop", 100, shown={CHILD: 100, ORIGIN: 2}), Cell.LOG),
        (operation("shop", 100, shown={LOG: 30, ORIGIN: 2}), Cell.CHILD),
        (operation("shop", 100, shown={LOG: 30, CHILD: 100, (Cell.CHILD, "mq|send"): 90}), Cell.CHILD),
        (operation("shop", 100, shown={LOG: 30, CHILD: 100, ORIGIN: 60}), Cell.ORIGIN),
        (operation("shop", 100, shown={LOG: 30, CHILD: 100}, times={(OWN, 400): 100}), Cell.EXCLUSIVE),
    ],
    ids=["new line", "line gone", "call gone", "new call", "errors begin", "own work slower"],
)
def test_a_changed_behaviour_is_evidence_of_its_kind(change, kind):
    assert raw_of(after(change), kind) > 5


@pytest.mark.parametrize(
    "change",
    [
        operation("shop", 100, shown={LOG: 30, CHILD: 100}, times={(OWN, 10): 95, (OWN, 40): 5}),
        operation("shop", 100, shown={LOG: 30, CHILD: 100, ORIGIN: 2}, times={(OWN, 1): 100}),
    ],
    ids=["fewer errors", "faster"],
)
def test_fewer_errors_and_faster_answers_are_no_fault(change):
    assert after(change).height == 0


def test_from_never_to_always_says_more_than_a_drift_over_very_many_spans():
    calm = [*operation("rare", 40), *operation("busy", 100_000, shown={LOG: 50_000})]
    change = [*operation("rare", 40, shown={LOG: 40}), *operation("busy", 100_000, shown={LOG: 56_000})]
    evidence = after(change, calm=calm)
    assert raw_of(evidence, Cell.LOG, service="rare") > 5 * raw_of(evidence, Cell.LOG, service="busy") > 0


def test_a_change_smaller_than_the_least_effect_is_no_evidence_however_many_spans_show_it():
    calm = operation("busy", 1_000_000, shown={LOG: 500_000})
    change = operation("busy", 1_000_000, shown={LOG: 530_000})
    assert after(change, calm=calm, min_effect=0.05).height == 0
    assert after(change, calm=calm, min_effect=0.02).height == 1


def test_a_share_that_always_varied_must_vary_more_to_be_evidence():
    def learnt(shares: list[int]) -> float:
        behaviour = detector()
        for number in range(60):
            feed(behaviour, number, operation("shop", 100, shown={LOG: shares[number % len(shares)]}))
        for number in range(60, 63):
            evidence = feed(behaviour, number, operation("shop", 100, shown={LOG: 75}))
        return raw_of(evidence, Cell.LOG)

    assert learnt([20, 80, 50]) < 0.3 * learnt([49, 50, 51])


def test_a_service_with_too_little_history_or_too_few_spans_is_not_judged():
    behaviour = detector(min_history=500, min_window=30)
    teach(behaviour, operation("new", 10), operation("idle", 100), buckets=6)
    change = [operation("new", 10, shown={LOG: 10}), operation("idle", 5, shown={LOG: 5})]
    assert feed(behaviour, 10, *change).height == 0


def test_evidence_says_what_was_before_and_what_is_after():
    behaviour = detector(window_buckets=1)
    number = teach(behaviour, CALM)
    change = operation("shop", 200, shown={LOG: 180, CHILD: 200}, times={(OWN, 400): 200})
    rows = {row["kind"]: row for row in feed(behaviour, number, change).iter_rows(named=True)}
    log, own = rows[Cell.LOG], rows[Cell.EXCLUSIVE]
    assert (log["what"], log["n_after"]) == ("template", 200)
    assert (log["before"], log["after"]) == pytest.approx((0.3, 0.9))
    assert log["expected_s"] is None
    assert 0.010 < own["expected_s"] < 0.015
    assert own["observed_s"] == pytest.approx(0.4, rel=0.2)


def test_errors_and_durations_as_such_are_told_where_nobody_inside_calls_the_operation():
    calm = {"times": {(Cell.DURATION, 10): 100}}
    bad = {"shown": {(Cell.ERRORS, ""): 90}, "times": {(Cell.DURATION, 900): 100}}
    behaviour = detector()
    number = teach(behaviour, operation("edge", 100, **calm), operation("inner", 100, caller="edge", **calm))
    evidence = feed(behaviour, number, operation("edge", 100, **bad), operation("inner", 100, caller="edge", **bad))
    assert set(evidence.select("service", "kind").rows()) == {("edge", Cell.ERRORS), ("edge", Cell.DURATION)}


def test_environments_are_learnt_apart():
    calm = [*operation("shop", 100), *operation("shop", 100, environment="staging", shown={LOG: 100})]
    change = [*operation("shop", 100, shown={LOG: 100}), *operation("shop", 100, environment="staging")]
    evidence = after(change, calm=calm)
    assert sorted(evidence.select("environment", "before", "after").rows()) == [
        ("staging", 1.0, pytest.approx(0.0)),
        ("test", 0.0, pytest.approx(1.0)),
    ]
    assert after(calm, calm=calm).height == 0


def test_who_called_makes_a_different_operation():
    calm = [*operation("shop", 100, caller="web"), *operation("shop", 100, caller="batch", shown={LOG: 100})]
    mixed = [*operation("shop", 10, caller="web"), *operation("shop", 900, caller="batch", shown={LOG: 900})]
    assert after(mixed, calm=calm).height == 0


def test_a_widened_edge_is_evidence_of_the_edge():
    calm = operation("cart", 100, caller="web", times={(Cell.GAP, 1): 100})
    change = operation("cart", 100, caller="web", times={(Cell.GAP, 80): 100})
    evidence = after(change, calm=calm).filter(pl.col("kind") == int(Cell.GAP))
    assert evidence.select("service", "caller", "operation").rows() == [("cart", "web", "")]


# -- calls to others ----------------------------------------------------------------------------------------------


def client(n: int, **fields) -> list:
    shown = {(Cell.CLIENT, ""): n, (Cell.PEER, "redis:cache"): n} | fields.pop("shown", {})
    return operation("cart", n, name="HGET", shown=shown, **fields)


def test_a_call_to_what_sends_no_spans_names_it_by_what_the_client_says():
    evidence = after(client(100, shown={ORIGIN: 80}), calm=client(100))
    row = evidence.filter(pl.col("kind") == int(Cell.ORIGIN)).row(0, named=True)
    assert (row["outgoing"], row["target"], row["remote"]) == (True, "redis:cache", False)


def test_a_call_whose_callee_has_answered_names_the_callee():
    calm = client(100, shown={(Cell.CHILD, "cache|HGET"): 100})
    row = (
        after(client(100, shown={ORIGIN: 80}), calm=calm).filter(pl.col("kind") == int(Cell.ORIGIN)).row(0, named=True)
    )
    assert (row["outgoing"], row["target"], row["remote"]) == (True, "cache", True)


def test_an_operation_that_serves_is_no_call():
    row = (
        after(operation("shop", 100, shown={ORIGIN: 90})).filter(pl.col("kind") == int(Cell.ORIGIN)).row(0, named=True)
    )
    assert (row["outgoing"], row["target"]) == (False, "")


def test_edges_to_what_sends_no_spans_are_known_from_its_callers_as_long_as_it_does_not_answer():
    silent, answering = detector(), detector()
    teach(silent, client(100))
    teach(answering, client(100, shown={(Cell.CHILD, "redis|HGET"): 90}))
    cells = cell_frame(client(50, shown={(Cell.ERRORS, ""): 7}), operation("cart", 10, name="serves"))
    assert silent.peer_edges(cells) == [("test", ("cart", "redis:cache", 50, 7, False))]
    assert answering.peer_edges(cells) == []


# -- learning -----------------------------------------------------------------------------------------------------

BAD = operation("shop", 100, shown={LOG: 30, CHILD: 100, ORIGIN: 90}, times={(OWN, 10): 95, (OWN, 40): 5})


def test_learning_pauses_while_a_service_deviates():
    behaviour = detector()
    number = teach(behaviour, CALM)
    strengths = []
    for _ in range(100):
        strengths.append(raw_of(feed(behaviour, number, BAD), Cell.ORIGIN))
        number += 1
    assert strengths[-1] == pytest.approx(strengths[5])
    for _ in range(5):
        evidence = feed(behaviour, number, CALM)
        number += 1
    assert evidence.height == 0  # the fault has not become normal


def test_a_new_normal_is_learnt_once_learning_has_been_held_for_long_enough():
    behaviour = detector(max_hold_buckets=20, half_life_hours=0.05)
    number = teach(behaviour, CALM)
    for _ in range(600):
        evidence = feed(behaviour, number, BAD)
        number += 1
    assert evidence.height == 0


def test_one_deviating_service_does_not_keep_others_from_learning():
    behaviour = detector()
    number = teach(behaviour, CALM, operation("other", 100, shown={LOG: 10}))
    for _ in range(50):
        feed(behaviour, number, BAD, operation("other", 100, shown={LOG: 10, (Cell.CHILD, "new|call"): 3}))
        number += 1
    change = operation("other", 100, shown={LOG: 10, (Cell.CHILD, "new|call"): 60})
    evidence = feed(behaviour, number, BAD, change)
    assert evidence.filter(pl.col("service") == "other")["before"].to_list()[0] == pytest.approx(0.016, abs=0.01)


def test_a_young_service_learns_whatever_it_does():
    behaviour = detector(warmup_buckets=30)
    teach(behaviour, CALM, buckets=5)
    for number in range(5, 40):
        evidence = feed(behaviour, number, BAD)
    assert raw_of(evidence, Cell.ORIGIN) < raw_of(after(BAD), Cell.ORIGIN)


def test_history_fades():
    def before_after_ten_hours(half_life_hours: float) -> float:
        behaviour = detector(half_life_hours=half_life_hours, warmup_buckets=10**6)
        teach(behaviour, operation("shop", 100), buckets=50)
        for number in range(3_600, 3_620):
            feed(behaviour, number, operation("shop", 100, shown={LOG: 80}))
        return float(feed(behaviour, 3_620, operation("shop", 100, shown={LOG: 20}))["before"][0])

    assert before_after_ten_hours(1.0) > 0.6
    assert before_after_ten_hours(1_000.0) < 0.3


# -- purity and continuity ----------------------------------------------------------------------------------------


def strange_buckets(count: int) -> list[list]:
    """Different cells in every bucket, the same in every run."""
    return [
        [
            *operation(
                f"s{number % 3}",
                20 + number * 7 % 50,
                caller="web" if number % 2 else "",
                shown={LOG: number * 5 % 20, ORIGIN: number % 4, (Cell.CHILD, f"c{number % 5}|op"): number % 17},
                times={(OWN, 1 + number % 90): 20, (Cell.GAP, 1 + number % 30): 9},
            ),
            *operation("steady", 100, shown={LOG: 90 if number % 40 < 30 else 5}),
        ]
        for number in range(count)
    ]


def test_results_do_not_depend_on_the_order_of_cells_or_on_how_they_were_split_over_shards_and_instances():
    plain, shuffled = detector(), detector()
    for number, rows in enumerate(strange_buckets(80)):
        one = feed(plain, number, rows)
        halves = [(*row[:-1], part) for row in rows for part in (row[-1] // 2, row[-1] - row[-1] // 2) if part]
        spread = [(*row[:3], f"i{index % 2}", *row[4:]) for index, row in enumerate(reversed(halves))]
        other = feed(shuffled, number, spread)
        assert one.equals(other)


def test_a_detector_that_was_pickled_goes_on_as_if_it_had_not_been():
    behaviour, twin = detector(), None
    for number, rows in enumerate(strange_buckets(80)):
        one = feed(behaviour, number, rows)
        if twin is not None:
            assert feed(twin, number, rows).equals(one)
        if number == 50:
            twin = pickle.loads(pickle.dumps(behaviour))  # noqa: S301 - made here


def test_a_twin_and_what_it_judges_leave_the_original_as_it_was():
    behaviour, undisturbed = detector(), detector()
    for number, rows in enumerate(strange_buckets(80)):
        if number % 7 == 0:
            twin = behaviour.twin()
            twin.judge_cells(cell_frame(BAD, operation("stranger", 50)))
            feed(twin, number, BAD)
        assert feed(behaviour, number, rows).equals(feed(undisturbed, number, rows))


def test_a_twin_has_also_learnt_the_buckets_that_still_waited():
    behaviour = detector(window_buckets=6)
    for number in range(6):
        feed(behaviour, number, CALM)
    assert behaviour.judge_cells(cell_frame(BAD)).height == 0  # nothing is learnt yet
    assert raw_of(behaviour.twin().judge_cells(cell_frame(BAD)), Cell.ORIGIN) > 5


def test_a_window_of_any_length_is_judged_by_what_was_learnt_before_it():
    behaviour = detector()
    number = teach(behaviour, CALM)
    twin = behaviour.twin()
    for _ in range(30):
        feed(behaviour, number, BAD)
        number += 1
    window = cell_frame(*([BAD] * 30))
    assert raw_of(twin.judge_cells(window), Cell.ORIGIN) >= raw_of(after(BAD), Cell.ORIGIN)
    assert twin.judge_cells(window).equals(twin.judge_cells(window))
