"""What the charts of the report show."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from incidents.model import RootCauseEvent, Timeline, TimelinePoint
from incidents.report_charts import HEIGHT, MAX_POINTS, Chart, charts, strip
from incidents.report_view import group_incidents
from tests.support.event_builders import MINUTE, START, at, entity
from tests.support.sample_events import deploy_incident, sample_events, sample_summary


def chart_of(values: list[tuple[float, float]], name: str = "own signal") -> Chart:
    """The chart of one timeline of payment in the deploy incident; ``values`` are (minute, value)."""
    event = deploy_incident()[-1]
    timeline = Timeline(
        name=name,
        entity=entity("payment"),
        points=[TimelinePoint(at=at(minute), value=value) for minute, value in values],
    )
    (view,) = group_incidents([with_timelines(event, [timeline])])
    (chart,) = charts(view, 9)
    return chart


def with_timelines(event: RootCauseEvent, timelines: list[Timeline]) -> RootCauseEvent:
    return event.model_copy(update={"data": event.data.model_copy(update={"timelines": timelines})})


def test_the_causes_signals_come_first() -> None:
    (view,) = group_incidents(deploy_incident())
    assert [one.service for one in charts(view, 9)] == ["payment", "payment", "payment", "checkout", "frontend"]
    assert [one.is_cause for one in charts(view, 9)] == [True, True, True, False, False]


def test_onset_detection_and_window_are_where_they_were() -> None:
    chart = chart_of([(minute, 0.1) for minute in range(6, 17)])  # 10:06 to 10:16; onset 10:11, detected 10:12:06
    assert chart.onset == pytest.approx(50.0)
    assert chart.detected == pytest.approx(61.0)
    assert list(chart.window) == pytest.approx([50.0, 48.0])


def test_an_onset_before_the_chart_is_not_drawn_but_its_window_is() -> None:
    chart = chart_of([(minute, 0.1) for minute in range(12, 17)])
    assert chart.onset is None
    assert chart.window[0] == 0.0


def test_the_usual_range_is_what_evidence_expected() -> None:
    assert chart_of([(minute, 0.3) for minute in range(6, 17)], "error ratio").expected == "up to 0.4 %"


def test_without_such_evidence_the_usual_range_is_where_values_were_before_onset() -> None:
    quiet = [(minute / 10, 2.0 + minute % 3) for minute in range(110)]
    chart = chart_of([*quiet, (11.5, 90.0), (12.0, 95.0)])
    assert chart.expected == "2\u20134"
    assert chart.band is not None


def test_too_little_history_gives_no_usual_range() -> None:
    assert chart_of([(10.0, 1.0), (10.5, 2.0), (12.0, 3.0)]).band is None


def test_missing_points_are_a_gap_in_the_line() -> None:
    chart = chart_of([(minute, 1.0) for minute in (1, 2, 3, 4, 12, 13, 14)])
    assert chart.line.count("M") == 2


def test_a_long_series_is_thinned_and_keeps_its_peak() -> None:
    values = [(index / 1000, 0.5) for index in range(9000)]
    values[4321] = (4.321, 77.0)
    chart = chart_of(values)
    points = json.loads(chart.data)
    assert len(points) <= MAX_POINTS
    assert "77" in {value for *_, value in points}


def test_a_constant_series_has_a_line_inside_the_box() -> None:
    points = json.loads(chart_of([(minute, 0.0) for minute in range(6, 17)]).data)
    assert all(0 < y < HEIGHT for _, y, _, _ in points)


def test_single_points_and_values_that_are_not_numbers_give_no_chart() -> None:
    nan = Timeline(
        name="x", entity={}, points=[TimelinePoint(at=at(minute), value=float("nan")) for minute in range(5)]
    )
    lone = Timeline(name="y", entity={}, points=[TimelinePoint(at=at(1), value=1.0)])
    (view,) = group_incidents([with_timelines(deploy_incident()[-1], [nan, lone])])
    assert charts(view, 9) == ()


def test_bars_span_their_incident_and_overlapping_ones_get_lanes() -> None:
    views = group_incidents(sample_events())
    drawn = strip(views, sample_summary())
    bars = {bar.view.id: bar for bar in drawn.bars}
    assert bars["inc-7f3a"].x == pytest.approx(100 * 11 / 45)
    assert bars["inc-7f3a"].width == pytest.approx(100 * 4.8 / 45)
    assert bars["inc-7f3a"].lane != bars["inc-7f3b"].lane
    assert bars["inc-91c2"].lane == bars["inc-7f3a"].lane
    assert drawn.lanes == 2


@pytest.mark.parametrize("minutes", [0, 1, 45, 60 * 7, 60 * 24 * 3, 60 * 24 * 90])
def test_the_time_axis_has_a_handful_of_ticks_however_long_the_run(minutes: int) -> None:
    ticks = strip([], sample_summary(end_ns=START + minutes * MINUTE)).ticks
    assert 1 <= len(ticks) <= 7
    assert all(0 <= tick.x <= 100 for tick in ticks)
    assert all(one.label != other.label for one, other in pairwise(ticks))
