"""The HTML report: one file, no network, readable, and telemetry stays text."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from incidents.model import RootCauseEvent
from incidents.report_html import RunSummary, render_report, write_report
from tests.support.chromium import Chromium, find_chromium
from tests.support.event_builders import intent, wide_event
from tests.support.hostile_events import HOSTILE, hostile_events, hostile_intent
from tests.support.sample_events import (
    cache_incident,
    deploy_incident,
    sample_events,
    sample_intents,
    sample_summary,
    unknown_incident,
)

#: Everything the page itself is made of; an element of another name came out of telemetry.
_TEXT = (
    "html head meta title style body header main footer nav section article div p h1 h2 h3 dl dt dd ol ul li a b i u"
)
_TABLES = "small span code time table caption thead tbody tr th td details summary figure figcaption output"
_DRAWN = "svg g defs marker path rect line text script"
OWN_ELEMENTS = {*_TEXT.split(), *_TABLES.split(), *_DRAWN.split()}


class Page(HTMLParser):
    """Elements with attributes, and visible text, of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._silent = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.extend(data.split())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.elements if name == tag]
        return [one for one in found if not kind or kind in (one.get("class") or "").split()]


def page_of(
    events: Sequence[RootCauseEvent], intents: Sequence[Mapping[str, Any]] = (), summary: RunSummary | None = None
) -> Page:
    return Page(render_report(events, intents, summary or sample_summary()))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Chromium:
    return find_chromium(tmp_path_factory.mktemp("chromium"))


def test_the_head_says_what_was_watched() -> None:
    text = page_of(sample_events()).text
    assert "3 incidents, 2 still open; cause identified for 1" in text
    assert "1 September 2026, 10:00:00 to 10:45:00 UTC 45 min" in text
    assert "881,204" in text
    assert "172k rows/s" in text
    assert "3 late, 0 not decodable" in text


def test_a_card_tells_cause_reason_and_worth_of_the_confidence() -> None:
    text = page_of(deploy_incident()).text
    assert "Cause identified payment changed 19 s before onset: version 2.4.1 82 % sure" in text
    assert "measured on 412 incidents, off by 4 points on average" in text
    assert "Because 31 % of payment's own requests fail; the errors begin there" in text
    assert "What speaks against payment's CPU is as busy as always" in text
    assert "1,841 requests" in text
    assert "Felt at POST /cart/checkout POST /api/v2/orders" in text


def test_evidence_says_where_to_look() -> None:
    text = page_of(deploy_incident()).text
    assert "trace 5b8efff798038103d269b633813fc60c" in text
    assert "charge failed: card token expired for merchant 7741" in text
    assert "template charge failed: <*> token expired for merchant <*>" in text
    assert "otlp_spans/4, offsets 88120 to 88164" in text


def test_revisions_show_how_the_answer_evolved() -> None:
    text = page_of(deploy_incident()).text
    first = text.index("10:12:06 revision 1 open ambiguous checkout error, 48 % payment error, 41 %")
    assert first < text.index("10:16:00 revision 3 updated identified payment change, 82 %")


def test_plans_show_decision_rule_reasons_parameters_and_risk() -> None:
    text = page_of(deploy_incident(), sample_intents()).text
    assert "rollback-deploy 1.3.0 on payment waits for approval" in text
    assert "rule tier1-rollback of prod-default" in text
    assert "to_version=2.4.0" in text
    assert "medium risk, undo by roll-forward, touches 100 % of its instances" in text
    assert "error_ratio < 0.01 within 10m" in text


def test_a_revocation_replaces_the_intent_it_revokes() -> None:
    plans = [
        intent(intent_id="int-1"),
        intent(intent_id="int-1", state="revoked", revocation={"reason": "the incident was resolved"}),
    ]
    page = page_of(deploy_incident(), plans)
    assert len(page.all("div", "plan")) == 1
    assert "No longer: the incident was resolved" in page.text


def test_the_graph_highlights_the_cause_its_path_and_failing_calls() -> None:
    page = page_of(deploy_incident())
    assert len(page.all("g", "node")) == 19
    assert len(page.all("g", "cause")) == 1
    assert len(page.all("g", "edge")) == 24
    assert len([one for one in page.all("g", "path") if "edge" in (one["class"] or "")]) == 3
    assert len(page.all("g", "failing")) == 3


def test_services_that_send_no_spans_are_dashed() -> None:
    page = page_of(cache_incident())
    assert len(page.all("g", "dark")) == 1
    assert "redis (sends no spans of its own)" in page.text


def test_signals_are_drawn_with_window_onset_detection_and_usual_range() -> None:
    page = page_of(deploy_incident())
    for kind in ("window", "band"):
        assert len(page.all("rect", kind)) == 5
    for kind in ("onset", "detected"):
        assert len(page.all("line", kind)) == 5


def test_an_unknown_cause_is_not_made_up() -> None:
    page = page_of(unknown_incident())
    assert "Cause not known No cause stands out no service explains what is seen" in page.text
    assert "What is seen calls to ListPreferencesForCustomer have dropped to a tenth" in page.text
    assert not page.all("g", "cause")


def test_a_merged_incident_points_to_the_one_it_belongs_to() -> None:
    page = page_of(sample_events())
    targets = {one.get("id") for one in page.all("article")}
    links = [one["href"] for one in page.all("a") if one.get("href")]
    assert "Part of inc-7f3a , merged at 10:12:54" in page.text
    assert {link.removeprefix("#") for link in links if link} <= targets


def test_a_quiet_run_says_what_was_watched_and_that_nothing_opened() -> None:
    text = page_of([], summary=sample_summary(anomalies=2, series=410)).text
    assert "No incident opened" in text
    assert "1,274,247 rows over 45 min were watched on 18 services and 24 call edges." in text
    assert "2 anomalies were seen; none of them, alone or together, were enough for an incident." in text


def test_a_run_without_telemetry_is_not_called_healthy() -> None:
    text = page_of([], summary=sample_summary(rows={}, services=0, edges=0)).text
    assert "No telemetry arrived at all, so this says nothing about the services" in text


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, sample_events(), sample_intents(), sample_summary())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_incidents_beyond_the_limit_stay_on_the_strip() -> None:
    html = render_report(sample_events(), [], sample_summary(), max_cards=1)
    page = Page(html)
    assert len(page.all("article")) == 1
    assert len(page.all("g", "bar")) == 4
    assert "3 further incidents on the strip only" in page.text


def test_the_page_needs_nothing_from_outside() -> None:
    page = page_of([*sample_events(), *hostile_events()], [*sample_intents(), hostile_intent()])
    for tag, attributes in page.elements:
        assert tag in OWN_ELEMENTS
        assert not {"src", "srcset", "srcdoc", "action", "style", "background"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")


def test_the_security_policy_admits_only_the_pages_own_style_and_script() -> None:
    html = render_report(hostile_events(), [], sample_summary())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    allowed = policy.group(1).replace("&#39;", "'")
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in allowed
    assert "default-src 'none'" in allowed
    assert "unsafe" not in allowed


def test_values_that_are_not_numbers_do_not_break_the_page() -> None:
    event = deploy_incident()[-1]
    bad = [
        one.model_copy(update={"observed": float("nan"), "expected": (float("-inf"), float("inf"))})
        for one in event.data.evidence
    ]
    lines = [
        one.model_copy(
            update={
                "points": [point.model_copy(update={"value": float("nan")}) for point in one.points[:9]]
                + one.points[9:]
            }
        )
        for one in event.data.timelines
    ]
    data = event.data.model_copy(update={"evidence": bad, "timelines": lines})
    html = render_report([event.model_copy(update={"data": data})], [], sample_summary())
    assert not re.search(r'(?:d|x|y|width|height)="[^"]*(?:nan|inf)', html)
    assert "no value" in html


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    sets: dict[str, tuple[list[RootCauseEvent], list[dict[str, Any]]]] = {
        "sample": (sample_events(), sample_intents()),
        "wide": ([wide_event(40)], []),
        "hostile": (hostile_events(), [hostile_intent()]),
        "quiet": ([], []),
    }
    for name, (events, intents) in sets.items():
        write_report(folder / f"{name}.html", events, intents, sample_summary(name=HOSTILE[0]))
    return {name: folder / f"{name}.html" for name in sets}


def test_hostile_text_creates_no_element_in_a_browser(chromium: Chromium, pages: dict[str, Path]) -> None:
    page = Page(chromium.dom(pages["hostile"]))
    assert {tag for tag, _ in page.elements} <= OWN_ELEMENTS
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert "<img src=x" in page.text


def test_hostile_text_runs_nothing_in_a_browser(chromium: Chromium, pages: dict[str, Path]) -> None:
    title = re.search("<title>(.*?)</title>", chromium.dom(pages["hostile"]), re.DOTALL)
    assert title
    assert title.group(1).startswith("&lt;script&gt;"), "the title is the run's name, not what a script made of it"


@pytest.mark.parametrize("name", ["sample", "wide", "hostile", "quiet"])
def test_the_pages_own_script_runs_and_its_policy_refuses_nothing(
    chromium: Chromium, pages: dict[str, Path], name: str
) -> None:
    assert Page(chromium.dom(pages[name])).all("html")[0].get("data-ready") == "yes"
    assert chromium.console(pages[name]) == ""


def test_a_chart_shows_the_value_under_the_pointer(chromium: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    html = pages["sample"].read_text()
    point = """<script>{ const plot = document.querySelector(".plot"), box = plot.getBoundingClientRect();
      const middle = {clientX: box.left + box.width / 2, clientY: box.top};
      plot.dispatchEvent(new PointerEvent("pointermove", middle)); }</script>"""
    probe = tmp_path / "probe.html"
    probe.write_text(re.sub("<meta http-equiv.*?>", "", html).replace("</body>", point + "</body>"))
    shown = re.search("<output[^>]*>(.*?)</output>", chromium.dom(probe))
    assert shown
    assert re.fullmatch(r"10:1[34]:\d\d\s+3\d(\.\d)? %", shown.group(1))


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 1800, False), (1280, 1800, True), (500, 1800, False)])
def test_the_report_can_be_looked_at(
    chromium: Chromium, pages: dict[str, Path], width: int, height: int, dark: bool
) -> None:
    png = chromium.screenshot(pages["sample"], width, height, dark=dark)
    assert struct.unpack(">II", png[16:24]) == (width, height)
    assert len(png) > 50_000, "a blank page compresses to far less"
