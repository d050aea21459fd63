"""What a person on call reads in the terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console

from incidents.model import RootCauseEvent
from incidents.terminal import render_incidents, render_summary
from incidents.wording import plain
from tests.support.event_builders import intent
from tests.support.hostile_events import HOSTILE, hostile_events, hostile_intent
from tests.support.sample_events import cache_incident, deploy_incident, sample_events, sample_intents, sample_summary


def shown(
    events: Sequence[RootCauseEvent], intents: Sequence[Mapping[str, Any]] = (), width: int = 100, *, tty: bool = False
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=tty, no_color=not tty, legacy_windows=False)
    render_incidents(console, events, intents)
    return out.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_says_what_broke_since_when_how_sure_and_what_that_is_worth() -> None:
    text = words(shown(deploy_incident()))
    assert "CRITICAL Checkout fails for 3 in 10 buyers since payment 2.4.1" in text
    assert "open, since 10:11:00 UTC for 4 min 48 s so far, seen after 1 min 6 s" in text
    assert "Cause payment changed 19 s before onset: version 2.4.1" in text
    assert "82 % sure, measured on 412 incidents, off by 4 points on average" in text


def test_gives_reasons_with_observed_and_expected_and_what_speaks_against() -> None:
    text = words(shown(deploy_incident()))
    assert "31 % of payment's own requests fail; the errors begin there 31 %, expected up to 0.4 %" in text
    assert "an error line that was never seen before 41 lines/min, never before" in text
    assert "Against ▲ payment's CPU is as busy as always" in text


def test_numbers_that_a_statement_already_gives_are_not_repeated() -> None:
    event = deploy_incident()[-1]
    said = event.data.evidence[0].model_copy(
        update={
            "statement": "own time 156 ms, expected below 215 µs",
            "observed": 0.156,
            "expected": (0.0, 0.000215),
            "unit": "s",
        }
    )
    half = said.model_copy(update={"id": "ev-2", "statement": "own time 1156 ms, expected below 215 µs"})
    best = event.data.candidates[0].model_copy(update={"evidence": ["ev-1", "ev-2"], "counter_evidence": []})
    data = event.data.model_copy(update={"evidence": [said, half], "candidates": [best]})
    text = words(shown([event.model_copy(update={"data": data})]))
    assert text.count("156 ms, expected up to 215 µs") == 1, "1156 ms is another number"


def test_says_whom_it_hurts_how_it_spread_and_who_else_it_may_be() -> None:
    text = words(shown(deploy_incident()))
    assert "1,841 requests failed, 402 requests slow" in text
    assert "at POST /cart/checkout, POST /api/v2/orders" in text
    assert "Path load-balancer → frontend → checkout → payment" in text
    assert "Or else checkout 11 %, it fails by itself" in text


def test_only_the_newest_revision_of_an_incident_is_told_whatever_the_order_and_repeats() -> None:
    events = deploy_incident()
    text = shown([*reversed(events), events[0]])
    assert text == shown(events)
    assert "revision 3" in text
    assert "revision 1" not in text
    assert text.count("CRITICAL") == 1


def test_an_uncalibrated_confidence_is_called_a_prior() -> None:
    assert "46 % sure, a prior: not yet measured on any incident" in words(shown(cache_incident()))


def test_where_several_causes_fit_all_of_them_are_in_the_headline() -> None:
    assert "redis or cart several causes fit" in words(shown(cache_incident()))


def test_an_unknown_cause_is_said_to_be_unknown_even_if_a_candidate_is_ranked() -> None:
    event = deploy_incident()[-1]
    unsure = event.model_copy(update={"data": event.data.model_copy(update={"verdict": "unknown"})})
    text = words(shown([unsure]))
    assert "Cause not known: no service explains what is seen" in text
    assert "Closest payment 82 %" in text
    assert "sure" not in text


def test_what_would_be_done_comes_with_mode_rule_and_reasons() -> None:
    text = words(shown(deploy_incident(), sample_intents()))
    assert "Would do rollback-deploy 1.3.0 on payment waits for approval" in text
    assert "because payment is critical, so a person must agree" in text
    assert "(rule tier1-rollback)" in text


def test_a_revoked_intent_is_shown_as_revoked_once() -> None:
    first = intent(intent_id="int-1")
    second = intent(intent_id="int-1", state="revoked", revocation={"reason": "the cause was revised"}) | {
        "id": "int-1/revoked"
    }
    text = words(shown(deploy_incident(), [first, second]))
    assert text.count("rollback-deploy") == 1
    assert "no longer: the cause was revised" in text


def test_intents_of_an_unexpected_shape_do_no_harm() -> None:
    odd: list[dict[str, Any]] = [{}, {"data": None}, {"data": {"incident": [], "decision": 3, "params": ["x"]}}]
    assert shown(deploy_incident(), odd) == shown(deploy_incident())


def test_merged_incidents_take_one_line() -> None:
    lines = [line for line in shown(sample_events()).splitlines() if "inc-7f3b" in line]
    assert lines == ["○ inc-7f3b is part of inc-7f3a"]


def test_a_quiet_run_says_so() -> None:
    assert shown([]) == "No incident opened\n"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(sample_events(), sample_intents(), width).splitlines()
    assert max(len(line) for line in lines) <= width


def test_an_incident_fits_on_one_screen() -> None:
    assert len(shown(deploy_incident(), sample_intents(), 80).splitlines()) <= 40


def test_many_long_statements_do_not_become_a_wall_of_text() -> None:
    event = deploy_incident()[-1]
    first = event.data.evidence[0]
    many = [first.model_copy(update={"id": f"ev-{n}", "statement": "x " * 5000}) for n in range(50)]
    best = event.data.candidates[0].model_copy(update={"evidence": [one.id for one in many]})
    data = event.data.model_copy(update={"evidence": many, "candidates": [best]})
    text = shown([event.model_copy(update={"data": data})])
    assert "and 45 more" in text
    assert len(text.splitlines()) < 50


def test_telemetry_reaches_the_terminal_without_control_characters() -> None:
    text = shown(hostile_events(), [hostile_intent()])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert "␛[31mred" in text


def test_telemetry_is_not_rich_markup() -> None:
    text = shown(hostile_events(), tty=True)
    styled = re.findall("\x1b\\[[0-9;]*m|\x1b\\]8;[^\x1b]*", text)
    assert not [code for code in styled if code.startswith("\x1b]8")], "a link came out of telemetry"
    assert "[bold red]markup[/bold red]" in re.sub("\x1b\\[[0-9;]*m", "", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_plain_text_holds_nothing_to_act_on_and_stays_recognisable(text: str) -> None:
    safe = plain(text)
    assert safe.isprintable()
    assert plain(safe) == safe
    assert [char for char in text if char.isalnum() and char.isascii()] == [
        char for char in re.sub(r"<U\+[0-9A-F]{4}>", "", safe) if char.isalnum() and char.isascii()
    ]


def test_the_summary_names_the_run_and_what_was_left_out() -> None:
    out = io.StringIO()
    render_summary(Console(file=out, width=140), sample_summary(dead_lettered=2))
    text = words(out.getvalue())
    assert "shop-nightly replay, 1 September 2026 10:00:00 to 10:45:00 UTC (45 min)" in text
    assert "881,204 spans, 352,118 logs, 40,922 metrics, 3 changes; 18 services, 24 call edges" in text
    assert "Left out: 3 rows came too late, 2 messages could not be decoded" in text


def test_the_summary_of_a_run_without_telemetry_says_so() -> None:
    out = io.StringIO()
    render_summary(Console(file=out, width=100), sample_summary(rows={}, duration_s=0.0, late=0))
    assert "no telemetry" in out.getvalue()
    assert "Left out" not in out.getvalue()
