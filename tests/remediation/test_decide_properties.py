"""What holds for any text and any sequence of revisions."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediation.params import SAFE_NAME, Parameter, ParameterError, validate

RULES = "rules: [{name: sure, match: 'true', require: {minConfidence: 0.6}, decision: auto}]"
REVISION = st.tuples(
    st.sampled_from(["inc-1", "inc-2"]),
    st.sampled_from(["open", "updated", "resolved"]),
    st.sampled_from(["payment", "ledger"]),
    st.sampled_from(["latency", "error", "network"]),
    st.sampled_from([0.5, 0.9]),
    st.integers(0, 900),
)


@given(st.text(max_size=40))
def test_no_text_but_a_safe_name_gets_through_the_default_pattern(text):
    message = ""
    try:
        validate({"service": Parameter(type="string")}, {"service": text})
    except ParameterError as refused:
        message = str(refused)
    else:
        assert re.fullmatch(SAFE_NAME, text)
        assert not set(text) & set("{}$`;|&<>()'\"\\\n\r\t /%")
    assert message.isprintable()


@given(st.text(alphabet="ab\n\r\u2028\u202e\x00\u200b", max_size=6))
def test_even_a_pattern_that_matches_anything_lets_no_control_or_invisible_character_through(text):
    anything = Parameter(type="string", pattern="^(?s:.*)$")
    try:
        validate({"x": anything}, {"x": text})
    except ParameterError:
        assert set(text) - set("ab")
    else:
        assert not set(text) - set("ab")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(REVISION, max_size=12))
def test_every_key_is_used_once_and_what_is_revoked_was_issued(make_policy, make_playbook, make_event, revisions):
    from remediation.decide import Decider

    books = {book.name: book for book in (make_playbook("a-restart"), make_playbook("b-restart", kinds="[error]"))}
    decider = Decider(make_policy(RULES), books, source="/test")
    numbers: dict[str, int] = {}
    issued, live, at_s = set(), {}, 0
    for incident, state, service, kind, confidence, step_s in revisions:
        numbers[incident] = numbers.get(incident, 0) + 1
        at_s += step_s
        event = make_event(
            incident=incident,
            revision=numbers[incident],
            state=state,
            service=service,
            fault_kind=kind,
            confidence=confidence,
            at_s=at_s,
        )
        for intent in decider.process(event):
            data = intent.data
            assert data.incident.id == incident
            if data.state == "revoked":
                assert live.pop(data.intent_id).data.playbook == data.playbook
                continue
            assert data.idempotency_key not in issued
            issued.add(data.idempotency_key)
            live[data.intent_id] = intent
            assert data.mode != "auto" or (data.decision.confidence >= 0.6 and data.decision.rule == "sure")
            assert state != "resolved"
        acting = {
            (intent.data.incident.id, intent.data.playbook.id)
            for intent in live.values()
            if intent.data.mode == "auto" and intent.data.incident.id == incident and intent.expirytime > event.time
        }
        assert len(acting) <= 1  # never two playbooks by themselves for one incident
