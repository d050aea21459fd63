"""The table of deviations that a replay writes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.anomalies import ANOMALIES, anomaly_frame, anomaly_rows
from flows.findings import Findings
from flows.messages import CELLS, FINDINGS, Addressed, Mark, Rollup
from signals.cells import Cell
from tests.support.cells import cell_frame
from tests.support.deviations import BUCKET, deviation, gap, golden, metric, slow
from tests.support.traces import START


def rows_of(*found):
    message = Rollup(FINDINGS, START, Findings("prod", tuple(found)))
    return list(anomaly_rows(Addressed("incidents-0", message), BUCKET))


@pytest.mark.parametrize(
    ("one", "signal", "name", "direction"),
    [
        (deviation("cart"), "span", "origin", 1),
        (slow("cart"), "span", "exclusive", 1),
        (gap("web", "cart"), "edge", "gap", 1),
        (
            deviation("cart", Cell.LOG, what="00ff", before=0.9, after=0.0, observed=0.0, high=0.9),
            "log",
            "log 00ff",
            -1,
        ),
        (deviation("cart", Cell.CHILD, what="db|query"), "span", "child db|query", 1),
        (metric("cart", "cpu"), "metric", "cpu", 1),
        (metric("cart", "cpu", observed=3.0), "metric", "cpu", -1),
        (golden("cart"), "golden", "latency_p95", 1),
    ],
)
def test_every_deviation_is_a_row_with_its_signal_name_and_direction(one, signal, name, direction):
    row = anomaly_frame(rows_of(one)).row(0, named=True)
    assert (row["environment"], row["service"], row["signal"], row["name"]) == ("prod", "cart", signal, name)
    assert row["direction"] == direction
    assert (row["start_unix_ns"], row["end_unix_ns"]) == (START, START + BUCKET)
    assert (row["observed"], row["expected_high"], row["raw"]) == (one.observed, one.high, one.raw)


def test_messages_that_are_no_findings_have_no_rows():
    for message in (Rollup(CELLS, START, cell_frame()), Mark("detect-0", START)):
        assert list(anomaly_rows(Addressed("incidents-0", message), BUCKET)) == []


def test_a_table_without_rows_has_its_columns():
    assert dict(anomaly_frame([]).schema) == dict(ANOMALIES)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["cart", "shop", "pay"]), unique=True), st.randoms())
def test_the_order_of_the_table_does_not_depend_on_the_order_of_messages(services, seed):
    rows = rows_of(*(deviation(service, kind) for service in services for kind in (Cell.ORIGIN, Cell.EXCLUSIVE)))
    shuffled = list(rows)
    seed.shuffle(shuffled)
    assert anomaly_frame(shuffled).equals(anomaly_frame(rows))
