"""Risk of changes: learnt from outcomes, told with true reasons, gated in proportion, bounded."""

from __future__ import annotations

import pickle
import random

import pytest
from pydantic import ValidationError

from delivery.change import Assessment, ChangeFacts, ChangeKind, kind_of
from delivery.config import DeliveryConfig
from delivery.risk import ChangeRisk
from delivery.watch import ChangeWatch

HOUR = 3_600 * 10**9
START = 1_790_000_000 * 10**9
RATES = {"fragile": 0.85, "average": 0.1, "solid": 0.01, "steady": 0.02}


def change(number: int, service: str = "cart", at_ns: int | None = None, **facts: int | ChangeKind) -> ChangeFacts:
    return ChangeFacts(f"c{number}", service, START + number * HOUR if at_ns is None else at_ns, **facts)  # type: ignore[arg-type]  # facts are given by name


def live(risk: ChangeRisk, changes: int, *, seed: int = 5, start: int = 0) -> list[tuple[Assessment, bool]]:
    """So many changes of the services in RATES, each with its outcome learnt before the next."""
    draw, told = random.Random(seed), []
    for number in range(start, start + changes):
        service = draw.choice(sorted(RATES))
        failed = draw.random() < RATES[service]
        told.append((risk.assess(change(number, service, callers=draw.randint(0, 4))), failed))
        risk.learn(f"c{number}", failed)
    return told


def test_services_whose_changes_fail_are_held_and_others_proceed():
    late = live(ChangeRisk(), 400)[200:]
    gates = {name: [one.gate for one, _ in late if one.service == name] for name in RATES}
    assert gates["fragile"].count("hold") > 0.9 * len(gates["fragile"])
    for name in ("solid", "steady"):
        assert gates[name].count("proceed") > 0.95 * len(gates[name])


def test_predicted_probabilities_add_up_to_the_failures_seen():
    late = live(ChangeRisk(), 1_000)[200:]
    for part in (late, [one for one in late if one[0].service == "fragile"]):
        predicted = sum(one.probability for one, _ in part) / len(part)
        assert predicted == pytest.approx(sum(failed for _, failed in part) / len(part), abs=0.06)


def test_it_learns_more_than_the_record_of_a_service():
    """Changes fail when an incident is open on the service, whichever it is: no record can tell, the model can."""
    risk, draw = ChangeRisk(), random.Random(11)
    for number in range(400):
        busy = draw.random() < 0.3
        risk.assess(change(number, f"s{draw.randint(0, 40)}", involving=int(busy), open_incidents=int(busy)))
        risk.learn(f"c{number}", failed=draw.random() < (0.9 if busy else 0.02))
    calm = risk.assess(change(500, "unseen"))
    busy_one = risk.assess(change(501, "unseen too", involving=1, open_incidents=1))
    assert busy_one.probability > 0.5
    assert calm.probability < 0.15
    assert "an incident is open on it" in busy_one.reasons
    assert "no incidents are open on it (lowers the risk)" in calm.reasons


def test_below_the_least_number_of_outcomes_the_prior_speaks_and_says_so():
    risk = ChangeRisk()
    first = risk.assess(change(0))
    assert first.probability == pytest.approx(0.1)
    assert first.gate == "proceed"
    assert first.reasons == ("rests on the prior: 0 of 20 outcomes learnt",)
    live(risk, 20, start=1)
    after = risk.assess(change(99))
    assert after.outcomes == 20
    assert not any("prior" in reason for reason in after.reasons)


def test_reasons_say_the_services_own_record():
    risk = ChangeRisk()
    for number, failed in enumerate([True, True, False, True]):
        risk.assess(change(number))
        risk.learn(f"c{number}", failed)
    told = risk.assess(change(9))
    assert told.reasons[0] == "3 of its last 4 changes led to incidents"
    assert told.gate == "hold"
    other = risk.assess(change(10, "search"))
    assert not any("of its last" in reason for reason in other.reasons)


@pytest.mark.parametrize(("hold", "canary", "gate"), [(0.5, 0.2, "proceed"), (0.5, 0.1, "canary"), (0.1, 0.05, "hold")])
def test_the_gate_follows_its_thresholds(hold, canary, gate):
    told = ChangeRisk(DeliveryConfig(hold_risk=hold, canary_risk=canary)).assess(change(0))
    assert told.probability == pytest.approx(0.1)
    assert told.gate == gate


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValidationError, match=r"canary_risk 0\.6 must not be above hold_risk 0\.5"):
        DeliveryConfig(canary_risk=0.6)


def test_a_restored_model_goes_on_as_the_one_that_was_saved():
    risk = ChangeRisk()
    live(risk, 120)
    twin = pickle.loads(pickle.dumps(risk))  # noqa: S301 - made just now
    assert live(risk, 60, seed=8, start=200) == live(twin, 60, seed=8, start=200)


def test_the_same_history_gives_the_same_answers():
    assert live(ChangeRisk(), 150) == live(ChangeRisk(), 150)


def test_what_it_remembers_is_bounded_and_what_it_forgets_is_counted():
    watch = ChangeWatch.of(DeliveryConfig(max_services=10, max_watched=15))
    for number in range(100):
        watch.assess(change(number, f"s{number}"))
    assert len(watch.risk.services) == 10
    assert len(watch.risk.watched) == len(watch.due) == 15
    assert watch.risk.dropped == 90 + 85
    assert "s99" in watch.risk.services


def test_outcomes_of_unknown_changes_are_counted_and_change_nothing():
    risk = ChangeRisk()
    before = risk.assess(change(0))
    risk.learn("never seen", failed=True)
    assert risk.unknown == 1
    assert risk.outcomes == 0
    assert risk.assess(change(0)).probability == before.probability


def test_a_change_told_twice_counts_once():
    risk = ChangeRisk()
    risk.assess(change(0))
    risk.assess(change(0))
    assert len(risk.services["cart"].changes) == 1


@pytest.mark.parametrize(("blamed_s", "failures"), [(None, 0), (899, 1), (900, 1), (901, 0)])
def test_a_change_has_failed_when_an_incident_blames_it_within_the_watch(blamed_s, failures):
    watch = ChangeWatch.of(DeliveryConfig())
    watch.assess(change(0, at_ns=START))
    if blamed_s is not None:
        watch.blame("c0", START + blamed_s * 10**9)
    watch.settle(START + 899 * 10**9)
    assert watch.risk.outcomes == 0
    watch.settle(START + 900 * 10**9)
    assert (watch.risk.outcomes, watch.risk.failures) == (1, failures)
    watch.settle(START + 2_000 * 10**9)
    assert (watch.risk.outcomes, watch.due, watch.blamed) == (1, {}, set())


def test_kinds_of_changes_are_told_by_their_cdevents_type():
    assert kind_of("dev.cdevents.service.upgraded.0.3.0") is ChangeKind.DEPLOY
    assert kind_of("dev.cdevents.service.rolledback.0.3.0") is ChangeKind.ROLLBACK
    assert kind_of("dev.cdevents.environment.modified.0.3.0") is ChangeKind.CONFIGURATION
    assert kind_of("something.else") is ChangeKind.DEPLOY
