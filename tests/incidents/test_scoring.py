"""The figures of a backtest, against a second, independent computation of the same rules."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.model import (
    Calibration,
    Candidate,
    Impact,
    IncidentHeader,
    Novelty,
    Provenance,
    RootCauseData,
    RootCauseEvent,
    epoch_ns,
    rfc3339,
)
from incidents.scoring import (
    Fault,
    expected_calibration_error,
    load_faults,
    rank_of,
    score_diagnoses,
    score_stream,
)
from tests.support.traces import START

MINUTE = 60_000_000_000


def fault(identity: str, start: float, end: float, service: str = "a", kind: str = "crash", **fields) -> Fault:
    return Fault(identity, START + int(start * MINUTE), START + int(end * MINUTE), service, kind, **fields)


def revision(
    incident: str, at: float, *ranked: tuple[str, float], number: int = 1, confidence: float = 0.9, instance: str = ""
) -> RootCauseEvent:
    """An event that says as little as the contract allows beside its ranking; ``at`` in minutes after START."""
    when = rfc3339(START + int(at * MINUTE))
    header = IncidentHeader(
        id=incident,
        revision=number,
        state="open" if number == 1 else "updated",
        fingerprint="f",
        started_at=when,
        detected_at=when,
        last_seen_at=when,
    )
    candidates = [
        Candidate(
            rank=place,
            entity={"service.name": service} | ({"service.instance.id": instance} if instance else {}),
            fault_kind="error",
            score=score,
            confidence=confidence if place == 1 else 0.0,
            calibration=Calibration(method="prior", n=0),
            path=[service],
            evidence=[],
        )
        for place, (service, score) in enumerate(ranked, start=1)
    ]
    data = RootCauseData(
        incident=header,
        title="t",
        severity="minor",
        verdict="identified",
        candidates=candidates,
        evidence=[],
        impact=Impact(services=[]),
        novelty=Novelty(label="novel"),
        provenance=Provenance(mode="replay", pipeline="0", config_hash=""),
    )
    return RootCauseEvent(
        source="/t",
        id=f"{incident}/r{number}",
        subject=incident,
        time=when,
        partitionkey=incident,
        correlationid=incident,
        sequence=str(number),
        data=data,
    )


# -- a second opinion ---------------------------------------------------------------------------------------------


def worst_rank(ranked: list[tuple[str, float]], right: set[str], parts: set[str]) -> int:
    """The place of the best right service if all who tie with it and are wrong came first; 0 where there is none."""
    best: dict[str, float] = {}
    for service, score in ranked:
        best.setdefault(service, score)
    good = [name for name in best if name in right or any(part in name for part in parts)]
    if not good:
        return 0
    top = max(best[name] for name in good)
    return 1 + sum(1 for name, score in best.items() if name not in good and score >= top)


def second_opinion(events: list[RootCauseEvent], faults: list[Fault]) -> dict[str, float]:
    """Counts by the rules of the docstring of ``incidents.scoring``, written another way round: fault by fault."""
    opened: dict[str, float] = {}
    for event in events:
        at = minutes(event)
        opened[event.data.incident.id] = min(at, opened.get(event.data.incident.id, math.inf))
    found = {"detected": 0, "false": 0, "after": 0, "top1": 0, "top3": 0, "mrr": 0.0, "delay": []}
    of_fault: dict[str, list[str]] = {one.id: [] for one in faults}
    for incident, at in opened.items():
        holding = [one for one in faults if start(one) <= at <= max(end(one), start(one) + 5)]
        if holding:
            of_fault[sorted(holding, key=start)[-1].id].append(incident)
        elif [one for one in faults if 0 < at - end(one) <= 10]:
            found["after"] += 1
        else:
            found["false"] += 1
    for one in faults:
        if not of_fault[one.id]:
            continue
        first = sorted(of_fault[one.id], key=lambda incident: opened[incident])[0]
        inside = [
            event
            for event in events
            if event.data.incident.id == first and minutes(event) <= max(end(one), start(one) + 5)
        ]
        last = sorted(inside, key=lambda event: (minutes(event), event.data.incident.revision))[-1]
        names = set(one.accept or [one.service])
        parts = {name[1:] for name in names if name.startswith("~")}
        ranked = [(candidate.entity["service.name"], candidate.score) for candidate in last.data.candidates]
        rank = worst_rank(ranked, names, parts)
        found["detected"] += 1
        found["delay"].append((opened[first] - start(one)) * 60)
        found["top1"] += rank == 1
        found["top3"] += 1 <= rank <= 3
        found["mrr"] += 1 / rank if rank else 0
    return found


def minutes(event: RootCauseEvent) -> float:
    return (epoch_ns(event.time) - START) / MINUTE


def start(one: Fault) -> float:
    return (one.start_ns - START) / MINUTE


def end(one: Fault) -> float:
    return (one.end_ns - START) / MINUTE


names = st.sampled_from(["a", "b", "c", "a-proxy"])


@st.composite
def backtests(draw):
    faults, at = [], 0
    for number in range(draw(st.integers(1, 5))):
        at += draw(st.integers(1, 15))
        lasts = draw(st.integers(0, 12))
        accept = draw(st.sampled_from([(), ("a", "b"), ("~prox",)]))
        faults.append(fault(f"f{number}", at, at + lasts, draw(names), accept=accept))
    events = []
    for number in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, 90))
        for turn in range(draw(st.integers(1, 3))):
            scores = sorted((draw(st.integers(1, 4)) for _ in range(draw(st.integers(0, 4)))), reverse=True)
            ranked = [(draw(names), float(score)) for score in scores]
            events.append(revision(f"i{number}", at + turn * draw(st.integers(0, 6)), *ranked, number=turn + 1))
    return draw(st.permutations(events)), faults


@settings(deadline=None, max_examples=150)
@given(backtests())
def test_figures_agree_with_a_second_computation(backtest):
    events, faults = backtest
    score = score_stream(events, faults, hours=2.0)
    figures, expected = score.figures(), second_opinion(events, faults)
    assert figures["detected"] == expected["detected"]
    assert figures["recall"] == pytest.approx(expected["detected"] / len(faults))
    assert figures["last_top1"] == pytest.approx(expected["top1"] / len(faults))
    assert figures["last_top3"] == pytest.approx(expected["top3"] / len(faults))
    assert figures["last_mrr"] == pytest.approx(expected["mrr"] / len(faults))
    assert (len(score.false), len(score.aftershocks)) == (expected["false"], expected["after"])
    assert figures["false_per_hour"] == pytest.approx(expected["false"] / 2.0)
    assert sorted(one.delay_s for one in score.faults if one.incidents) == pytest.approx(sorted(expected["delay"]))


# -- the rules one by one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "counts_as"),
    [
        (9.9, "false"),
        (10, "detected"),
        (12, "detected"),
        (15, "detected"),
        (15.1, "aftershock"),
        (21, "aftershock"),
        (21.1, "false"),
    ],
)
def test_an_incident_counts_by_when_it_opened(at, counts_as):
    """The fault lasts from minute 10 to minute 11, so it may be detected until minute 15."""
    score = score_stream([revision("i", at, ("a", 5.0))], [fault("f", 10, 11)], hours=1.0)
    assert {
        "detected": score.figures()["detected"] == 1,
        "aftershock": score.aftershocks == ["i"],
        "false": score.false == ["i"],
    } == {name: name == counts_as for name in ("detected", "aftershock", "false")}


def test_an_undetected_fault_is_a_miss_in_every_figure():
    faults = [fault("f", 10, 20), fault("g", 60, 70)]
    figures = score_stream([revision("i", 11, ("a", 5.0))], faults, hours=2.0).figures()
    assert (figures["recall"], figures["last_top1"], figures["last_top5"], figures["last_mrr"]) == (0.5,) * 4


def test_a_tie_counts_as_the_worst_rank_it_allows():
    tied = revision("i", 11, ("a", 5.0), ("b", 5.0), ("c", 5.0))
    score = score_stream([tied], [fault("f", 10, 20)], hours=1.0)
    assert score.faults[0].last_rank == 3


def test_a_tie_with_another_right_answer_is_no_harm():
    assert rank_of([("a", 5.0), ("b", 5.0)], fault("f", 0, 1, accept=("a", "b"))) == 1


def test_an_accept_with_a_tilde_takes_any_name_that_holds_it():
    proxied = fault("f", 0, 1, "db", accept=("db", "~db-proxy"))
    assert rank_of([("x", 9.0), ("eu-db-proxy-2", 5.0)], proxied) == 2
    assert rank_of([("x", 9.0), ("other-db", 5.0)], proxied) is None
    assert [proxied.accepts(name) for name in ("db", "a-db-proxy", "db2")] == [True, True, False]


def test_a_service_named_twice_counts_at_its_first_place():
    assert rank_of([("b", 9.0), ("b", 8.0), ("a", 7.0)], fault("f", 0, 1)) == 2


def test_the_first_and_the_last_revision_inside_the_fault_are_judged():
    events = [
        revision("i", 11, ("b", 5.0), ("a", 4.0)),
        revision("i", 14, ("a", 5.0), ("b", 1.0), number=2),
        revision("i", 30, ("c", 5.0), number=3),  # after the fault
    ]
    score = score_stream(events, [fault("f", 10, 20)], hours=1.0)
    assert (score.faults[0].first_rank, score.faults[0].last_rank) == (2, 1)
    assert score.faults[0].delay_s == 60.0


def test_overlapping_faults_share_no_incident_and_the_latest_one_gets_it():
    score = score_stream([revision("i", 18, ("a", 5.0))], [fault("f", 10, 30), fault("g", 15, 20)], hours=1.0)
    assert [one.incidents for one in score.faults] == [0, 1]


def test_several_incidents_of_one_fault_are_counted_and_the_first_is_judged():
    events = [revision("late", 14, ("a", 5.0)), revision("early", 11, ("b", 5.0))]
    score = score_stream(events, [fault("f", 10, 20)], hours=1.0)
    assert score.figures()["incidents_per_fault"] == 2.0
    assert score.faults[0].last_rank is None


@pytest.mark.parametrize("kind", ["benign", "load"])
def test_labels_without_a_broken_service_are_no_faults_and_what_they_open_is_told_apart(kind):
    figures = score_stream([revision("i", 11, ("a", 5.0))], [fault("f", 10, 20, kind=kind)], hours=1.0).figures()
    assert (figures["faults"], figures["opened_by_harmless"], figures["recall"]) == (0.0, 1.0, None)


def test_the_instance_is_judged_only_where_the_label_names_one_and_the_service_is_right():
    right = revision("i", 11, ("a", 5.0), instance="a-1")
    for label, expected in (("a-1", True), ("a-2", False), ("", None)):
        score = score_stream([right], [fault("f", 10, 20, instance=label)], hours=1.0)
        assert score.faults[0].instance_right is expected
    wrong = score_stream([revision("i", 11, ("b", 5.0))], [fault("f", 10, 20, instance="a-1")], hours=1.0)
    assert wrong.faults[0].instance_right is None


def test_confidence_is_scored_by_how_often_it_was_right():
    events = [revision("i", 11, ("a", 5.0), confidence=0.8), revision("j", 61, ("b", 5.0), confidence=0.6)]
    figures = score_stream(events, [fault("f", 10, 20), fault("g", 60, 70)], hours=2.0).figures()
    assert figures["brier"] == pytest.approx(((0.8 - 1) ** 2 + 0.6**2) / 2)
    assert figures["ece"] == pytest.approx((0.2 + 0.6) / 2)


def test_a_perfectly_calibrated_confidence_has_no_error_and_none_has_none():
    assert expected_calibration_error([(0.25, True), (0.25, False), (0.25, False), (0.25, False)]) == 0.0
    assert expected_calibration_error([]) is None
    assert expected_calibration_error([(1.0, False)]) == 1.0


def test_nothing_to_score_gives_no_figures_instead_of_zeros():
    figures = score_stream([], [], hours=0.0).figures()
    assert (figures["recall"], figures["median_delay_s"], figures["false_per_hour"], figures["ece"]) == (None,) * 4


def test_diagnoses_are_scored_per_kind_and_without_cpu():
    faults = [fault("f", 0, 1, "a", "cpu_contention"), fault("g", 2, 3, "b", "return"), fault("h", 4, 5, "c", "return")]
    answers = [
        {"id": "f", "candidates": [{"entity": {"service.name": "a"}, "score": 3.0}]},
        {"id": "g", "candidates": [{"entity": {"service.name": name}, "score": 3.0} for name in ("a", "b")]},
        {"id": "nobody asked", "candidates": []},
    ]
    figures = score_diagnoses(answers, faults)
    assert set(figures) == {"all", "kind cpu_contention", "kind return", "without cpu"}
    assert figures["all"]["top1"] == pytest.approx(1 / 3)
    assert figures["without cpu"] == figures["kind return"]
    assert (figures["without cpu"]["top3"], figures["without cpu"]["mrr"], figures["without cpu"]["n"]) == (
        0.5,
        0.25,
        2,
    )


def test_labels_are_read_and_what_is_not_needed_is_passed_over(tmp_path):
    label = {
        "id": 1,
        "start_unix_ns": 5,
        "end_unix_ns": 9,
        "service": None,
        "kind": "benign",
        "detail": "x",
        "accept": None,
    }
    path = tmp_path / "faults.jsonl"
    path.write_text(f"\n{json.dumps(label)}\n\n", encoding="utf-8")
    assert load_faults(path) == [Fault("1", 5, 9, "", "benign")]


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"id": 1}', '{"id":1,"start_unix_ns":"x","end_unix_ns":1,"kind":"k"}']
)
def test_a_label_that_cannot_be_used_is_named_by_file_and_line(tmp_path, line):
    path = tmp_path / "faults.jsonl"
    path.write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"faults\.jsonl:2: not a label"):
        load_faults(path)
