"""An incident as an event: path, impact, graph, timelines, novelty and fingerprint."""

from __future__ import annotations

from collections import deque

import pytest

from incidents.build import Context, build_event, fingerprint
from incidents.config import IncidentConfig
from incidents.incident import Incident, incident_id, verdict_of
from incidents.model import RootCauseEvent, State, Verdict, epoch_ns, rfc3339
from incidents.report import Golden
from tests.support.deviations import BUCKET, deviation, graph_of, slow
from tests.support.traces import SECOND, START
from topology.ranking import Channel, Credit, Deviation, Suspect

EDGES = (("web", "shop"), ("shop", "cart"), ("cart", "db"), ("batch", "store"))
CONFIG = IncidentConfig()


def context_of(**fields) -> Context:
    return Context("test", "/mendstream/test", graph_of(*EDGES), **fields)


def suspect(service: str, score: float, *found: Deviation, explained_by: str = "") -> Suspect:
    credits = [Credit(service, Channel.ERROR, one.raw, one) for one in found or (deviation(service),)]
    return Suspect(service, score, score, explained_by, credits)


def incident_of(*group: Suspect, **fields) -> Incident:
    one = Incident("inc-1", "test", START, START + 2 * BUCKET, START + 3 * BUCKET, revision=1, **fields)
    if group:
        one.add(group, 12)
    return one


def event_of(*group: Suspect, context: Context | None = None, **fields) -> RootCauseEvent:
    return build_event(incident_of(*group, **fields), START + 3 * BUCKET, context or context_of(), CONFIG)


def test_an_incident_without_a_suspect_says_that_the_cause_is_not_known():
    data = event_of().data
    assert (data.verdict, data.candidates, data.incident.fingerprint) == ("unknown", [], "unknown")
    assert "not known" in data.title


def test_a_clear_lead_identifies_one_cause_and_a_close_race_names_two():
    assert event_of(suspect("db", 30), suspect("cart", 5)).data.verdict == "identified"
    close = event_of(suspect("db", 30), suspect("cart", 29)).data
    assert close.verdict == "ambiguous"
    assert "db" in close.title
    assert "cart" in close.title


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [([], Verdict.UNKNOWN), ([0.0], Verdict.UNKNOWN), ([5.0], Verdict.IDENTIFIED), ([8.0, 6.0], Verdict.IDENTIFIED)],
)
def test_the_verdict_depends_on_the_lead_alone(scores, verdict):
    assert verdict_of([Suspect(f"s{number}", score, score) for number, score in enumerate(scores)], 0.25) == verdict


def test_only_so_many_candidates_are_told_and_none_that_hardly_counts():
    group = [suspect(f"s{number}", 30 - number) for number in range(9)]
    assert len(event_of(*group).data.candidates) == CONFIG.max_candidates
    assert len(event_of(suspect("db", 30), suspect("cart", 1.0), suspect("web", 0.0)).data.candidates) == 1


def test_more_certain_is_who_leads_and_who_has_strong_evidence():
    strong, weak = (event_of(suspect("db", score), suspect("cart", score / 3)).data for score in (60, 6))
    assert strong.candidates[0].confidence > weak.candidates[0].confidence > weak.candidates[1].confidence
    assert strong.candidates[0].calibration.n == 0  # a prior, and says so


def test_the_path_leads_from_an_entry_point_that_suffers_to_the_cause():
    context = context_of(entries={"web GET /": "web", "batch run": "batch"})
    data = event_of(suspect("db", 30), context=context, failed={"web GET /": 5}).data
    assert data.candidates[0].path == ["web", "shop", "cart", "db"]
    assert {(one.caller, one.callee) for one in data.graph if one.on_path} == {
        ("web", "shop"),
        ("shop", "cart"),
        ("cart", "db"),
    }


def test_without_an_entry_point_the_path_begins_at_the_farthest_service_that_deviates():
    assert event_of(suspect("db", 30), suspect("cart", 9)).data.candidates[0].path == ["cart", "db"]
    assert event_of(suspect("stranger", 30)).data.candidates[0].path == ["stranger"]


def test_the_graph_around_an_incident_shows_its_neighbours_and_no_dead_edge():
    context = context_of()
    now = START + 3 * BUCKET
    context.graph.edges["shop", "cart"].at_ns -= 1_000 * 3_600 * SECOND
    edges = {
        (one.caller, one.callee)
        for one in build_event(incident_of(suspect("cart", 30)), now, context, CONFIG).data.graph
    }
    assert edges == {("cart", "db")}


def test_timelines_are_told_of_the_cause_and_its_path_as_far_as_they_are_known():
    golden = deque((START + number * BUCKET, Golden("db", 100, number % 2, 0.01, 0.05)) for number in range(5))
    calm = deque([(START, Golden("cart", 0, 0, 0.01, 0.05))])
    data = event_of(suspect("db", 30), context=context_of(golden={"db": golden, "cart": calm, "store": golden})).data
    told = {(line.entity["service.name"], line.name): [point.value for point in line.points] for line in data.timelines}
    assert told["db", "error ratio"] == [0.0, 0.01, 0.0, 0.01, 0.0]
    assert told["db", "requests"] == [100.0] * 5
    assert ("cart", "error ratio") not in told
    assert not any(service == "store" for service, _ in told)


@pytest.mark.parametrize(
    ("fields", "severity"),
    [({"failed": {"web GET /": 1}}, "critical"), ({"slow": {"web GET /": 9}}, "major"), ({}, "minor")],
)
def test_severity_is_what_users_feel(fields, severity):
    assert event_of(suspect("db", 30), **fields).data.severity == severity


def test_evidence_for_the_callee_that_explains_a_candidate_speaks_against_it():
    data = event_of(suspect("db", 30), suspect("cart", 20, slow("cart"), explained_by="db")).data
    cart = data.candidates[1]
    assert cart.counter_evidence == data.candidates[0].evidence
    assert set(cart.evidence).isdisjoint(cart.counter_evidence)


def test_candidates_carry_namespace_and_instance_where_known():
    found = deviation("db", instance="db-0")
    context = context_of(namespaces={"db": "data"})
    entity = event_of(suspect("db", 30, found), context=context).data.candidates[0].entity
    assert entity == {
        "deployment.environment.name": "test",
        "service.namespace": "data",
        "service.name": "db",
        "service.instance.id": "db-0",
    }


def test_a_service_without_a_name_is_a_candidate_like_any_other():
    data = event_of(suspect("", 30)).data
    assert data.candidates[0].entity["service.name"] == ""


def test_novelty_counts_other_incidents_of_the_same_fingerprint():
    print_ = event_of(suspect("db", 30)).data.incident.fingerprint
    for past, label in ((["inc-1"], "novel"), (["a"], "rare"), (["a", "b", "c", "inc-1"], "known")):
        novelty = event_of(suspect("db", 30), context=context_of(past={print_: past})).data.novelty
        assert novelty.label == label
        assert "inc-1" not in [one.incident for one in novelty.similar]


def test_the_fingerprint_is_stable_over_recurrences_and_differs_between_faults():
    one = event_of(suspect("db", 30), suspect("cart", 5)).data
    again = event_of(suspect("db", 55, deviation("db", raw=55, after=0.9)), suspect("shop", 7)).data
    other = event_of(suspect("cart", 30)).data
    assert one.incident.fingerprint == again.incident.fingerprint != other.incident.fingerprint
    assert fingerprint(one.candidates, one.evidence) == one.incident.fingerprint


def test_an_incident_that_is_over_is_no_error_any_more():
    assert event_of(suspect("db", 30)).severitytext == "ERROR"
    over = event_of(suspect("db", 30), state=State.RESOLVED, ended_ns=START + 9 * BUCKET)
    assert over.severitytext == "INFO"
    assert over.data.incident.ended_at == rfc3339(START + 9 * BUCKET)


def test_an_incident_remembers_only_its_last_buckets_and_ranks_by_their_mean():
    one = incident_of()
    for score in (90, 90, 10, 20):
        one.add([suspect("db", score)], memory_buckets=2)
    assert [(each.service, each.score) for each in one.ranking()] == [("db", 15.0)]
    one.add([suspect("cart", 40)], memory_buckets=2)
    assert [(each.service, each.score) for each in one.ranking()] == [("cart", 20.0), ("db", 10.0)]
    assert one.services == {"db", "cart"}


def test_each_observation_is_kept_once_at_its_strongest():
    one = incident_of()
    for raw in (5, 30, 10):
        one.add([suspect("db", raw, deviation("db", raw=raw))], memory_buckets=12)
    assert [credit.weight for credit in one.ranking()[0].credits] == [30]


def test_ids_follow_from_environment_onset_and_first_suspect():
    ids = {incident_id("prod", START, "db"), incident_id("prod", START, "db"), incident_id("prod", START + 1, "db")}
    assert len(ids | {incident_id("staging", START, "db"), incident_id("prod", START, "cart")}) == 4


@pytest.mark.parametrize("ns", [0, 1, START, START + 999_999_999, 4_102_444_800_000_000_000])
def test_times_survive_being_written_and_read(ns):
    assert epoch_ns(rfc3339(ns)) == ns
