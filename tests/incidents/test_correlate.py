"""The life of an incident: when it opens, what belongs to it, when it ends, and what is told."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from itertools import pairwise

import pytest

from incidents.build import Context
from incidents.config import IncidentConfig
from incidents.correlate import Correlator
from incidents.model import RootCauseEvent, epoch_ns
from incidents.report import Change, Entry
from tests.support.deviations import BUCKET, deviation, golden, graph_of, report, slow
from tests.support.traces import SECOND, START
from topology.ranking import Deviation

#: web calls shop, shop calls cart and pay, cart calls db; far away, batch calls store.
EDGES = (("web", "shop"), ("shop", "cart"), ("shop", "pay"), ("cart", "db"), ("batch", "store"))
CALM_BUCKETS = 6
CALM_NS = CALM_BUCKETS * BUCKET


def correlator(edges: Iterable[tuple[str, str]] = EDGES, **config: float) -> Correlator:
    values = {"warmup_s": 0, "open_score": 8, "open_buckets": 2, "close_buckets": CALM_BUCKETS, "reopen_s": 600}
    context = Context("test", "/mendstream/test", graph_of(*edges))
    return Correlator(context, IncidentConfig(**(values | config)))


def run(
    one: Correlator, found: Mapping[int, Iterable[Deviation]], *, buckets: int, first: int = 0
) -> list[RootCauseEvent]:
    """A report in every bucket, with the deviations given for some."""
    return [event for number in range(first, buckets) for event in one.process(report(number, found.get(number, ())))]


def lasting(first: int, last: int, *found: Deviation) -> dict[int, list[Deviation]]:
    return {number: list(found) for number in range(first, last + 1)}


def story(events: Iterable[RootCauseEvent]) -> list[tuple[str, str, int]]:
    """(state, first candidate, bucket that decided it) of each revision."""
    return [
        (
            event.data.incident.state,
            event.data.candidates[0].entity["service.name"],
            (epoch_ns(event.time) - START) // BUCKET,
        )
        for event in events
    ]


# -- opening ------------------------------------------------------------------------------------------------------


def test_an_incident_opens_when_a_cause_has_lasted():
    events = run(correlator(), lasting(10, 12, deviation("cart")), buckets=13)
    assert story(events) == [("open", "cart", 12)]  # decided at the close of the second bucket
    header = events[0].data.incident
    assert epoch_ns(header.started_at) == START + 10 * BUCKET
    assert epoch_ns(header.detected_at) == epoch_ns(header.last_seen_at) == START + 12 * BUCKET
    assert (header.revision, header.ended_at, header.merged_into) == (1, None, None)


@pytest.mark.parametrize("needed", [1, 3, 5])
def test_how_long_it_must_last_is_configured(needed):
    events = run(correlator(open_buckets=needed), lasting(10, 20, deviation("cart")), buckets=21)
    assert story(events)[0] == ("open", "cart", 10 + needed)


def test_a_spike_opens_nothing_and_two_spikes_with_a_pause_neither():
    assert run(correlator(), {10: [deviation("cart")], 12: [deviation("cart")]}, buckets=20) == []


def test_different_causes_one_after_the_other_are_not_one_that_lasts():
    assert run(correlator(), {10: [deviation("pay")], 11: [deviation("store")]}, buckets=20) == []


def test_weak_noise_opens_nothing_however_long_it_lasts():
    noise = [slow(name, 1.5) for name in ("web", "shop", "cart", "store")]
    assert run(correlator(), lasting(0, 99, *noise), buckets=100) == []


def test_unusual_golden_signals_alone_open_nothing():
    assert run(correlator(), lasting(0, 30, *(golden(name) for name in ("web", "shop", "cart"))), buckets=31) == []


def test_nothing_opens_while_an_environment_is_warming_up_and_what_lasts_opens_after_it():
    one = correlator(warmup_s=200)
    events = run(one, lasting(5, 25, deviation("cart")), buckets=26)
    assert story(events)[0] == ("open", "cart", 22)
    assert run(correlator(warmup_s=200), lasting(5, 18, deviation("cart")), buckets=26) == []


def test_beyond_the_limit_of_open_incidents_none_opens_and_they_are_counted():
    one = correlator(max_open=1)
    events = run(one, lasting(0, 2, deviation("cart"), deviation("store", raw=30)), buckets=3)
    assert [state for state, _, _ in story(events)] == ["open"]
    assert one.refused >= 1


# -- what belongs together ----------------------------------------------------------------------------------------


def test_a_cause_and_its_symptoms_are_one_incident():
    found = [deviation("db", raw=60), slow("cart", 30), slow("shop", 20), slow("web", 15)]
    events = run(correlator(), lasting(0, 20, *found), buckets=21)
    assert {event.data.incident.id for event in events} == {events[0].data.incident.id}
    assert events[0].data.candidates[0].entity["service.name"] == "db"
    assert events[-1].data.impact.services == ["cart", "db", "shop", "web"]


def test_unrelated_causes_at_the_same_time_are_incidents_of_their_own():
    events = run(correlator(), lasting(0, 2, deviation("cart"), deviation("store", raw=30)), buckets=3)
    assert story(events) == [("open", "cart", 2), ("open", "store", 2)]
    assert len({event.data.incident.id for event in events}) == 2


def test_what_deviates_next_to_an_open_incident_belongs_to_it():
    found = lasting(0, 10, deviation("db", raw=60)) | {}
    for number in range(5, 11):
        found[number].append(slow("cart", 30))
    events = run(correlator(), found, buckets=11)
    assert len({event.data.incident.id for event in events}) == 1


def test_incidents_that_turn_out_to_be_one_are_merged_into_the_older():
    found = lasting(0, 12, deviation("pay", raw=60))
    for number in range(3, 13):
        found[number] = [*found[number], deviation("cart", raw=50)]
    for number in range(8, 13):  # what lies between them deviates too
        found[number] = [*found[number], slow("shop", 30)]
    events = run(correlator(), found, buckets=30)
    older, younger = dict.fromkeys(event.data.incident.id for event in events)
    merged = [event for event in events if event.data.incident.state == "merged"]
    assert [event.data.incident.id for event in merged] == [younger]
    assert merged[0].data.incident.merged_into == older
    assert epoch_ns(merged[0].data.incident.ended_at or "") == START + 9 * BUCKET
    later = [event for event in events if epoch_ns(event.time) > epoch_ns(merged[0].time)]
    assert {event.data.incident.id for event in later} == {older}
    assert {"pay", "cart", "shop"} <= set(later[-1].data.impact.services)
    assert later[-1].data.incident.state == "resolved"


def test_three_that_turn_out_to_be_one_are_all_merged_into_one_that_lives_on():
    """Two clusters touch three incidents in one bucket, one of them both."""
    edges = [("a", "m"), ("m", "b"), ("b", "n"), ("n", "c")]
    found = lasting(0, 20, deviation("a", raw=60))
    for number in range(2, 21):
        found[number] = [*found[number], deviation("b", raw=50)]
    for number in range(4, 21):
        found[number] = [*found[number], deviation("c", raw=40)]
    for number in range(8, 21):
        found[number] = [*found[number], slow("m", 30), slow("n", 30)]
    one = correlator(edges)
    events = run(one, found, buckets=21)
    oldest = events[0].data.incident.id
    merged = {
        event.data.incident.id: event.data.incident.merged_into
        for event in events
        if event.data.incident.state == "merged"
    }
    assert list(merged.values()) == [oldest, oldest]
    assert [incident.id for incident in one.open] == [oldest]


# -- what is told -------------------------------------------------------------------------------------------------


def test_a_revision_is_told_only_when_the_first_candidate_or_the_verdict_changes():
    found = lasting(0, 30, deviation("cart", raw=50))
    events = run(correlator(), found, buckets=31)
    assert len(events) == 1
    for number in range(10, 31):
        found[number] = [slow("cart", 10), deviation("db", raw=60)]
    events = run(correlator(), found, buckets=31)
    assert events[-1].data.candidates[0].entity["service.name"] == "db"
    for before, now in pairwise(events):
        said = [(one.data.verdict, one.data.candidates[0].entity["service.name"]) for one in (before, now)]
        assert said[0] != said[1]
    assert [event.data.incident.revision for event in events] == list(range(1, len(events) + 1))
    assert [event.data.incident.state for event in events[1:]] == ["updated"] * (len(events) - 1)


def test_the_envelope_follows_from_incident_and_revision():
    event = run(correlator(), lasting(0, 2, deviation("cart")), buckets=3)[0]
    incident = event.data.incident.id
    assert event.id == f"{incident}/r1"
    assert (event.partitionkey, event.correlationid, event.subject) == (incident, incident, f"incident/{incident}")
    assert event.source == "/mendstream/test"


def test_the_same_input_gives_the_same_events():
    def events() -> list[dict]:
        found = lasting(3, 9, deviation("cart"), slow("shop")) | lasting(30, 35, slow("store"))
        return [event.to_json() for event in run(correlator(), found, buckets=60)]

    assert events() == events()
    assert len(events()) >= 4


def test_the_same_fault_in_another_environment_or_at_another_time_is_another_incident():
    one = run(correlator(), lasting(0, 2, deviation("cart")), buckets=3)[0]
    later = run(correlator(), lasting(7, 9, deviation("cart")), buckets=10)[0]
    other = correlator()
    other.context.environment = "staging"
    elsewhere = run(other, lasting(0, 2, deviation("cart")), buckets=3)[0]
    assert len({event.data.incident.id for event in (one, later, elsewhere)}) == 3
    assert len({event.data.incident.fingerprint for event in (one, later, elsewhere)}) == 1


def test_failing_and_slow_requests_are_counted_from_onset_to_the_end():
    one, events = correlator(), []
    for number in range(30):
        suffering = 10 <= number < 15
        entries = [Entry("web", "GET /", 100, 7, 3), Entry("batch", "run", 10, 1, 1)] if suffering else []
        events += one.process(report(number, [deviation("cart")] if suffering else [], entries=entries))
    impact = events[-1].data.impact
    assert (impact.error_requests, impact.slow_requests) == (5 * 7, 5 * 3)
    assert impact.entry_points == ["web GET /"]  # batch cannot have been reached
    assert events[-1].data.severity == "critical"


def test_late_rows_are_told_once_however_many_buckets_hear_of_them():
    one = correlator()
    events = [
        e for number in range(20) for e in one.process(report(number, [deviation("cart")], late=4 + (number > 1)))
    ]
    assert events[0].data.data_quality.late_dropped == 4
    assert one.late == 5


@pytest.mark.parametrize(("before_s", "blamed"), [(60, True), (800, True), (5_000, False)])
def test_a_change_of_the_cause_shortly_before_onset_is_told_with_it(before_s, blamed):
    one = correlator(change_window_s=900)
    change = Change(
        "c1", "dev.cdevents.service.upgraded.0.3.0", "cart", "2.0", START + 600 * BUCKET - before_s * SECOND
    )
    one.process(report(0, changes=[change, Change("c2", "deploy", "pay", "1", change.at_ns)]))
    events = run(one, lasting(600, 602, deviation("cart")), buckets=603, first=600)
    first = events[0].data.candidates[0]
    assert (first.change is not None) == blamed
    assert (first.fault_kind == "change") == blamed
    assert first.change is None or (first.change.id, first.change.version) == ("c1", "2.0")


# -- the end ------------------------------------------------------------------------------------------------------


def test_an_incident_is_resolved_after_enough_calm_buckets():
    events = run(correlator(), lasting(0, 9, deviation("cart")), buckets=40)
    assert story(events) == [("open", "cart", 2), ("resolved", "cart", 10 + CALM_BUCKETS)]
    header = events[-1].data.incident
    assert header.ended_at == events[-1].time
    assert epoch_ns(header.last_seen_at) == START + 10 * BUCKET
    assert events[-1].severitytext == "INFO"


def test_a_pause_shorter_than_that_does_not_resolve_it():
    found = lasting(0, 9, deviation("cart")) | lasting(9 + CALM_BUCKETS, 20, deviation("cart"))
    assert story(run(correlator(), found, buckets=21)) == [("open", "cart", 2)]


def test_what_is_weaker_than_the_closing_score_does_not_keep_it_open():
    found = lasting(0, 9, deviation("cart")) | lasting(10, 39, deviation("cart", raw=3.5))
    events = run(correlator(close_score=4), found, buckets=40)
    assert story(events)[-1][0] == "resolved"


def test_an_incident_is_resolved_when_event_time_passes_without_any_report():
    one = correlator()
    run(one, lasting(0, 9, deviation("cart")), buckets=10)
    assert one.tick(START + 10 * BUCKET + CALM_NS - BUCKET, BUCKET) == []
    (event,) = one.tick(START + 1_000 * BUCKET, BUCKET)
    assert event.data.incident.state == "resolved"
    assert epoch_ns(event.time) == START + 10 * BUCKET + CALM_NS  # when it was due, not when somebody asked
    assert one.tick(START + 2_000 * BUCKET, BUCKET) == []


def test_a_recurrence_soon_after_reopens_the_incident():
    found = lasting(0, 4, deviation("cart")) | lasting(40, 44, deviation("cart"))
    events = run(correlator(reopen_s=600), found, buckets=80)
    assert len({event.data.incident.id for event in events}) == 1
    assert [state for state, _, _ in story(events)] == ["open", "resolved", "updated", "resolved"]
    assert [event.data.incident.revision for event in events] == [1, 2, 3, 4]
    assert events[2].data.incident.ended_at is None


def test_a_recurrence_long_after_is_a_new_incident_that_resembles_the_old_one():
    found = lasting(0, 4, deviation("cart")) | lasting(400, 404, deviation("cart"))
    events = run(correlator(reopen_s=600), found, buckets=440)
    first, second = dict.fromkeys(event.data.incident.id for event in events)
    assert events[0].data.novelty.label == "novel"
    assert events[-1].data.novelty.label == "rare"
    assert [one.incident for one in events[-1].data.novelty.similar] == [first]
    assert second != first


def test_an_incident_that_flaps_is_not_several_known_ones():
    found: dict[int, list[Deviation]] = {}
    for start in (0, 30, 60, 90):
        found |= lasting(start, start + 3, deviation("cart"))
    found |= lasting(1_000, 1_003, deviation("cart"))
    events = run(correlator(reopen_s=600), found, buckets=1_010)
    assert len({event.data.incident.id for event in events}) == 2
    assert events[-1].data.novelty.label == "rare"


def test_another_cause_after_the_first_was_resolved_is_another_incident():
    found = lasting(0, 4, deviation("cart")) | lasting(30, 34, deviation("store"))
    events = run(correlator(), found, buckets=35)
    assert len({event.data.incident.id for event in events}) == 2


def test_a_correlator_that_was_pickled_goes_on_as_if_it_had_not_been():
    one = correlator()
    run(one, lasting(0, 9, deviation("cart")), buckets=10)
    twin = pickle.loads(pickle.dumps(one))  # noqa: S301 - made a line above
    found = lasting(10, 14, deviation("db", raw=60)) | lasting(40, 44, deviation("cart"))
    events = [[e.to_json() for e in run(each, found, buckets=80, first=10)] for each in (one, twin)]
    assert events[0] == events[1]
    assert len(events[0]) >= 3
