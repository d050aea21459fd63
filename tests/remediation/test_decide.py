"""Deciding: which intents an incident gives rise to, and when they are taken back."""

from __future__ import annotations

import pickle

import pytest

from remediation.decide import Decider

RULE_AUTO = "rules: [{name: all, match: 'true', decision: auto}]"
RULE_PROPOSE = "rules: [{name: all, match: 'true', decision: propose}]"


@pytest.fixture
def decider(make_policy, make_playbook):
    playbook = make_playbook()

    def build(*lines, playbooks=None, mode="enforce", **options):
        books = {book.name: book for book in (playbooks or [playbook])}
        return Decider(make_policy(*(lines or (RULE_AUTO,)), mode=mode), books, source="/mendstream/test", **options)

    return build


def test_an_open_incident_becomes_an_intent_with_rule_reasons_risk_and_expiry(decider, make_event):
    (intent,) = decider().process(make_event(revision=3, at_s=60))
    data = intent.data
    assert (data.mode, data.decision.rule, data.state) == ("auto", "all", "active")
    assert data.idempotency_key == "inc-1:restart-instance:prod/shop/payment:1"
    assert data.params == {"service": "payment"}
    assert data.risk.blast_radius.dependents == 3  # checkout, frontend and mobile call payment
    assert data.incident.revision == 3
    assert intent.causationid == "inc-1/r3"
    assert (intent.time, intent.expirytime) == ("2026-09-21T14:14:20.000000000Z", "2026-09-21T14:24:20.000000000Z")
    assert any("rule all decides auto" in reason for reason in data.decision.reasons)


def test_a_repeated_revision_and_a_revision_with_the_same_cause_say_nothing_new(decider, make_event):
    subject = decider()
    assert len(subject.process(make_event(revision=1))) == 1
    assert subject.process(make_event(revision=1)) == []
    assert subject.process(make_event(revision=2, state="updated", at_s=10, confidence=0.95)) == []


def test_a_revised_cause_revokes_what_is_pending_and_answers_the_new_cause(decider, make_event):
    subject = decider()
    (first,) = subject.process(make_event(revision=1))
    revoked, second = subject.process(make_event(revision=2, state="updated", at_s=10, service="ledger"))
    assert (revoked.data.intent_id, revoked.data.state, revoked.id) == (first.id, "revoked", f"{first.id}/revoked")
    assert "ledger" in revoked.data.revocation.reason
    assert revoked.partitionkey == first.partitionkey
    assert second.data.target["service.name"] == "ledger"


def test_a_resolved_incident_revokes_what_is_pending(decider, make_event):
    subject = decider()
    (first,) = subject.process(make_event(revision=1))
    (revoked,) = subject.process(make_event(revision=2, state="resolved", at_s=30))
    assert (revoked.data.intent_id, revoked.data.revocation.revision) == (first.id, 2)
    assert subject.process(make_event(revision=3, state="resolved", at_s=40)) == []


def test_a_cause_that_is_no_longer_identified_revokes(decider, make_event):
    subject = decider()
    subject.process(make_event(revision=1))
    (revoked,) = subject.process(make_event(revision=2, state="updated", verdict="unknown", at_s=10))
    assert revoked.data.state == "revoked"


def test_an_expired_intent_needs_no_revocation(decider, make_event):
    subject = decider()
    subject.process(make_event(revision=1))
    assert subject.process(make_event(revision=2, state="resolved", at_s=3600)) == []


def test_a_cause_that_comes_back_is_another_attempt_and_attempts_are_bounded(decider, make_event):
    subject = decider(RULE_PROPOSE, max_attempts=2)
    keys = []
    for revision, service in enumerate(("payment", "ledger", "payment", "ledger", "payment"), start=1):
        issued = subject.process(make_event(revision=revision, state="updated", at_s=revision, service=service))
        keys += [intent.data.idempotency_key for intent in issued if intent.data.state == "active"]
    assert [key.rsplit("/", 1)[1] for key in keys] == ["payment:1", "ledger:1", "payment:2", "ledger:2"]
    assert subject.counters["refused_attempts_used"] == 1


def test_a_shadow_record_is_followed_by_an_intent_once_the_evidence_suffices(decider, make_event):
    subject = decider("rules: [{name: sure, match: 'true', require: {minConfidence: 0.8}, decision: auto}]")
    (weak,) = subject.process(make_event(revision=1, confidence=0.5))
    assert weak.data.mode == "shadow"
    assert any("confidence 0.50 is below 0.80" in reason for reason in weak.data.decision.reasons)
    assert subject.process(make_event(revision=2, state="updated", confidence=0.6, at_s=1)) == []
    (strong,) = subject.process(make_event(revision=3, state="updated", confidence=0.9, at_s=2))
    assert (strong.data.mode, strong.data.attempt) == ("auto", 2)


def test_only_one_of_several_applicable_playbooks_may_act_and_it_is_the_least_risky(decider, make_event, make_playbook):
    books = [make_playbook("a-risky", risk="{tier: high, reversible: false}"), make_playbook("z-safe")]
    first, second = decider(playbooks=books).process(make_event())
    assert (first.data.playbook.id, first.data.mode) == ("z-safe", "auto")
    assert (second.data.playbook.id, second.data.mode) == ("a-risky", "propose")
    assert any("an alternative to z-safe" in reason for reason in second.data.decision.reasons)


def test_a_playbook_for_another_kind_of_fault_is_left_alone(decider, make_event):
    assert decider().process(make_event(fault_kind="network")) == []


@pytest.mark.parametrize(
    "name", ["$(touch x)", "{{ 7*7 }}", "a; rm -rf /", "-rf", "../etc", "pay\nment", "x" * 300, "é"]
)
def test_hostile_text_in_a_service_name_makes_no_intent(decider, make_event, name):
    subject = decider()
    assert subject.process(make_event(service=name)) == []
    assert subject.counters["refused_not_applicable"] == 1
    assert "service" in subject.refusals[0].reason
    assert "\n" not in subject.refusals[0].reason


def test_the_kill_switch_and_shadow_mode_leave_only_a_record(decider, make_event):
    killed = decider("killSwitch: true", RULE_AUTO).process(make_event())
    shadowed = decider(mode="shadow").process(make_event())
    assert [intent.data.mode for intent in (*killed, *shadowed)] == ["shadow", "shadow"]
    assert killed[0].data.decision.decision == "auto"  # what the rule said is kept beside what was left of it


def test_a_freeze_holds_in_event_time(decider, make_event):
    freeze = "freezes: [{name: sale, start: 2026-09-21T14:13:30Z, end: 2026-09-21T14:14:00Z}]"
    modes = []
    for number, at_s in enumerate((0, 15, 45)):  # events are at 14:13:20 + at_s
        intents = decider(freeze, RULE_AUTO).process(make_event(incident=f"inc-{number}", at_s=at_s))
        modes += [intent.data.mode for intent in intents]
    assert modes == ["auto", "shadow", "auto"]


@pytest.mark.parametrize(
    ("limit", "services"),
    [
        ("{perTarget: {max: 1, per: 10m}}", ["payment", "payment"]),
        ("{perPlaybook: {max: 1, per: 10m}}", ["payment", "ledger"]),
        ("{global: {max: 1, per: 10m}}", ["payment", "ledger"]),
    ],
)
def test_a_used_up_limit_turns_action_into_a_proposal_until_its_window_has_passed(decider, make_event, limit, services):
    subject = decider(f"limits: {limit}", RULE_AUTO)
    modes = []
    for number, (service, at_s) in enumerate([(services[0], 0), (services[1], 599), (services[1], 600)]):
        intents = subject.process(make_event(incident=f"inc-{number}", service=service, at_s=at_s))
        modes += [intent.data.mode for intent in intents]
    assert modes == ["auto", "propose", "auto"]


def test_instances_of_one_service_share_its_limit(decider, make_event):
    subject = decider("limits: {perTarget: {max: 1, per: 10m}}", RULE_AUTO)
    modes = [
        subject.process(make_event(incident=f"inc-{name}", instance=name, at_s=1))[0].data.mode
        for name in ("p-1", "p-2")
    ]
    assert modes == ["auto", "propose"]


def test_a_target_that_was_healthy_for_too_short_a_time_is_only_proposed(decider, make_event):
    subject = decider("limits: {minHealthyPeriod: 1h}", RULE_AUTO)
    subject.process(make_event(incident="inc-1", revision=1))
    subject.process(make_event(incident="inc-1", revision=2, state="resolved", at_s=100))
    (soon,) = subject.process(make_event(incident="inc-2", at_s=3000))
    (later,) = subject.process(make_event(incident="inc-3", at_s=3700))
    assert (soon.data.mode, later.data.mode) == ("propose", "auto")


@pytest.mark.parametrize(("instances", "mode"), [(None, "approve"), (1, "approve"), (4, "auto")])
def test_too_great_or_unknown_a_share_of_the_instances_needs_a_person(decider, make_event, instances, mode):
    facts = "" if instances is None else f"targets: [{{match: {{service.name: payment}}, instances: {instances}}}]"
    (intent,) = decider("limits: {maxFraction: 0.5}", facts, RULE_AUTO).process(make_event(instance="payment-1"))
    assert intent.data.mode == mode


def test_a_rule_that_cannot_be_read_restricts_and_never_allows(decider, make_event):
    guard = '{name: guard, match: \'target["service.criticality"] == "critical"\', decision: never}'
    allow = "{name: all, match: 'true', decision: auto}"
    subject = decider(f"rules: [{guard}, {allow}]")
    assert subject.process(make_event()) == []
    assert "rule guard could not be read" in subject.refusals[0].reason
    known = "targets: [{match: {service.name: payment}, attributes: {service.criticality: low}}]"
    (intent,) = decider(known, f"rules: [{guard}, {allow}]").process(make_event())
    assert intent.data.mode == "auto"


def test_telemetry_cannot_override_what_operators_say_of_a_target(decider, make_event):
    known = "targets: [{match: {service.name: payment}, attributes: {deployment.environment.name: production}}]"
    rule = 'rules: [{name: test, match: \'target["deployment.environment.name"] == "prod"\', decision: auto}]'
    (intent,) = decider(known, rule).process(make_event())
    assert intent.data.mode == "shadow"


def test_deciding_is_a_pure_function_of_state_and_event(decider, make_event):
    events = [
        make_event(incident=f"inc-{number % 3}", revision=1 + number // 3, at_s=number * 60, service=service)
        for number, service in enumerate(["payment", "ledger", "cart", "payment", "cart", "cart", "ledger"])
    ]
    whole, split = decider(), decider()
    expected = [intent.model_dump_json() for event in events for intent in whole.process(event)]
    got = []
    for event in events:
        got += [intent.model_dump_json() for intent in split.process(event)]
        split = pickle.loads(pickle.dumps(split))  # noqa: S301 - pickled one line above
    assert got == expected
    assert any('"revoked"' in text for text in got)


def test_memory_of_incidents_is_bounded_and_what_is_dropped_is_counted(decider, make_event):
    subject = decider(max_incidents=10)
    for number in range(25):
        subject.process(make_event(incident=f"inc-{number}", at_s=number))
    assert subject.counters["incidents_forgotten"] == 15
