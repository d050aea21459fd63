"""Whatever is reported: events fit their schema, lives are lived in order, and asking more often changes nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from incidents.build import Context
from incidents.config import IncidentConfig
from incidents.correlate import Correlator
from incidents.model import RootCauseEvent, epoch_ns
from incidents.report import BucketReport, Change, Entry, Example, Golden, Template
from signals.cells import Cell
from tests.support.deviations import BUCKET, deviation, graph_of, report
from tests.support.traces import START
from topology.ranking import GOLDEN, METRIC

SERVICES = ["web", "shop", "cart", "db", "batch", "store"]
EDGES = [("web", "shop"), ("shop", "cart"), ("cart", "db"), ("batch", "store")]
some = settings(deadline=None, max_examples=40)

services = st.sampled_from(SERVICES)
hostile = st.sampled_from(
    ["", "GET /", "<script>alert(1)</script>", "\x1b[31m", "a|b|c", "{{7*7}}", "\u202eevil", "x" * 500]
)
shares = st.sampled_from([0.0, 0.004, 0.3, 1.0])
common = {
    "raw": st.sampled_from([0.5, 5.0, 30.0, 60.0]),
    "operation": hostile,
    "caller": st.sampled_from(["", "web", "shop"]),
    "instance": st.sampled_from(["", "i1"]),
    "score": st.sampled_from([0.0, 0.5, 0.999999999999, 1.0]),
}
behaviours = st.builds(
    deviation,
    services,
    st.sampled_from([Cell.ORIGIN, Cell.CHILD, Cell.LOG, Cell.LINE, Cell.ERRORS]),
    what=hostile | st.sampled_from(["db|query", "t1"]),
    before=shares,
    after=shares,
    observed=shares,
    outgoing=st.booleans(),
    target=st.sampled_from(["", "db", "redis"]),
    **common,
)
times = st.builds(
    deviation,
    services,
    st.sampled_from([Cell.EXCLUSIVE, Cell.GAP, Cell.DURATION]),
    observed=st.sampled_from([1e-6, 0.02, 4.0]),
    high=st.sampled_from([1e-6, 0.01, 0.5]),
    unit=st.just("s"),
    **common,
)
numbers = st.sampled_from([float("nan"), float("inf"), float("-inf"), -3.5, 0.0, 1e-310, 0.7, 41.0, 1e308])
metrics = st.builds(
    deviation,
    services,
    st.sampled_from([METRIC, GOLDEN]),
    what=hostile | st.sampled_from(["process.cpu.utilization", "latency.p99"]),
    observed=numbers,
    low=numbers,
    high=numbers,
    unit=st.sampled_from(["1", "s", "", "By", "{request}/s"]),
    **common,
)
deviations = behaviours | times | metrics


@st.composite
def reports(draw) -> list[BucketReport]:
    """Buckets in order with gaps; deviations come in runs, as faults do."""
    found, number, current = [], 0, []
    for _ in range(draw(st.integers(1, 16))):
        number += draw(st.sampled_from([1, 1, 1, 1, 2, 5, 8, 80]))
        action = draw(st.sampled_from(["keep", "keep", "keep", "new", "calm", "more"]))
        if action == "new":
            current = draw(st.lists(deviations, min_size=1, max_size=3))
        elif action == "more":
            current = [*current, draw(deviations)]
        elif action == "calm":
            current = []
        found.append(report(number, current, **draw(surroundings(number))))
    return found


@st.composite
def surroundings(draw, number: int) -> dict:
    if not draw(st.booleans()):
        return {}
    at = START + number * BUCKET
    return {
        "edges": draw(
            st.lists(st.tuples(services, services, st.integers(0, 50), st.integers(0, 5), st.booleans()), max_size=2)
        ),
        "golden": [Golden(draw(services), draw(st.integers(0, 90)), 2, 0.1, 0.5)],
        "entries": [Entry(draw(services), draw(hostile), 50, draw(st.integers(0, 5)), draw(st.integers(0, 5)))],
        "changes": [Change("c", "deploy", draw(services), "1", at - draw(st.integers(0, 2_000)) * 10**9)],
        "examples": [Example(draw(services), draw(hostile), "0af7651916cd43dd8448eb211c80319c", True)],
        "templates": [Template("t1", draw(hostile), draw(hostile))],
        "late": number // 7,
        "offsets": {"otlp_spans/0": number},
    }


def correlator() -> Correlator:
    config = IncidentConfig(warmup_s=20, open_score=4, close_score=2, join_score=1, reopen_s=300, max_open=3)
    return Correlator(Context("test", "/mendstream/test", graph_of(*EDGES)), config)


@cache
def validator() -> Draft202012Validator:
    schema = RootCauseEvent.model_json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def end_of(found: list[BucketReport]) -> int:
    return found[-1].end_ns + 100 * BUCKET


def told(found: list[BucketReport]) -> list[RootCauseEvent]:
    one = correlator()
    return [event for each in found for event in one.process(each)] + one.tick(end_of(found), BUCKET)


@some
@given(reports())
def test_every_event_fits_the_schema_after_a_round_trip_through_json(found):
    for event in told(found):
        sent = orjson.loads(orjson.dumps(event.to_json()))
        assert list(validator().iter_errors(sent)) == []
        assert RootCauseEvent.model_validate(sent).to_json() == event.to_json()


@some
@given(reports(), st.data())
def test_the_same_is_told_however_often_time_is_asked_after(found, data):
    one, events, now = correlator(), [], found[0].start_ns
    for each in found:
        while now <= each.start_ns:
            if data.draw(st.booleans()):
                events += one.tick(now, BUCKET)
            now += BUCKET
        events += one.process(each)
    for at in range(found[-1].end_ns, end_of(found) + BUCKET, BUCKET * 7):
        events += one.tick(at, BUCKET)
    events += one.tick(end_of(found), BUCKET)
    assert [event.to_json() for event in events] == [event.to_json() for event in told(found)]


@some
@given(reports())
def test_an_incident_opens_once_lives_in_numbered_revisions_and_is_over_when_it_is_merged(found):
    lives = defaultdict(list)
    for event in told(found):
        lives[event.data.incident.id].append(event)
    for identity, life in lives.items():
        assert re.fullmatch(r"inc-[0-9a-f]{12}", identity)
        states = [str(event.data.incident.state) for event in life]
        assert states[0] == "open"
        assert states.count("open") == 1
        assert "merged" not in states[:-1]
        assert [event.data.incident.revision for event in life] == list(range(1, len(life) + 1))
        times = [epoch_ns(event.time) for event in life]
        assert times == sorted(times)
        for event in life:
            header = event.data.incident
            assert epoch_ns(header.started_at) < epoch_ns(header.detected_at) <= epoch_ns(event.time)
            assert (header.ended_at is not None) == (header.state in ("resolved", "merged"))
            assert header.merged_into is None or header.merged_into in lives.keys() - {identity}


@some
@given(reports())
def test_candidates_are_ranked_and_point_at_evidence_that_is_told(found):
    for event in told(found):
        data = event.data
        evidence = [one.id for one in data.evidence]
        assert len(set(evidence)) == len(evidence)
        assert [one.rank for one in data.candidates] == list(range(1, len(data.candidates) + 1))
        assert [one.score for one in data.candidates] == sorted((one.score for one in data.candidates), reverse=True)
        for one in data.candidates:
            assert set(one.evidence) | set(one.counter_evidence) <= set(evidence)
            assert not set(one.evidence) & set(one.counter_evidence)
            assert one.path[-1] == one.entity["service.name"]
        assert sum(one.confidence for one in data.candidates) <= 1.0 + 1e-9


@some
@given(reports())
def test_what_is_remembered_stays_within_its_limits(found):
    one = correlator()
    for each in found:
        one.process(each)
        assert len(one.open) <= 3
        assert all(len(incident.buckets) <= one.config.memory_buckets for incident in one.open)
