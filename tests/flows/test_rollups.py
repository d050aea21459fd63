"""Which rows become which cells, and golden signals as the world outside a service sees them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.rollups import LOG_OPERATION, golden_signals, line_cells
from signals.buckets import merge_cells
from signals.cells import CELLS, KEYS, Cell
from tests.support.cells import cell_frame, operation
from tests.support.traces import counted, of_kind

ENTITY = ("environment", "namespace", "service", "instance")


def lines(*rows: tuple[str, int, str]) -> pl.DataFrame:
    """(service, severity, template) of log lines outside spans."""
    schema = {**dict.fromkeys(ENTITY, pl.String), "severity": pl.Int8, "template": pl.String}
    return pl.DataFrame(
        [("test", "", service, "i1", severity, what) for service, severity, what in rows], schema, orient="row"
    )


def test_lines_outside_spans_are_counted_by_service_severity_and_template():
    cells = line_cells(lines(("shop", 9, "a"), ("shop", 17, "a"), ("shop", 21, "b"), ("cart", 16, "a")))
    assert set(cells["operation"]) == {LOG_OPERATION}
    assert dict(of_kind(cells, Cell.SPANS).select("service", "n").iter_rows()) == {"shop": 3, "cart": 1}
    assert dict(of_kind(cells, Cell.SEVERE).select("service", "n").iter_rows()) == {"shop": 2}
    found = {row[:2]: row[2] for row in of_kind(cells, Cell.LINE).select("service", "what", "n").iter_rows()}
    assert found == {("shop", "a"): 2, ("shop", "b"): 1, ("cart", "a"): 1}
    assert dict(cells.schema) == dict(CELLS)


def test_no_lines_give_no_cells():
    assert dict(line_cells(lines()).schema) == dict(CELLS)
    assert line_cells(lines()).height == 0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0, 9, 17]), st.sampled_from(["t", "u"])), max_size=30
    ),
    st.integers(0, 30),
)
def test_cells_of_lines_add_up_however_they_were_split(rows, cut):
    whole = line_cells(lines(*rows))
    parts = [line_cells(lines(*rows[:cut])), line_cells(lines(*rows[cut:]))]
    assert counted(merge_cells(parts, KEYS, ["n"])) == counted(whole)


def golden(*parts: list) -> dict[str, dict]:
    return {row["service"]: row for row in golden_signals(cell_frame(*parts)).iter_rows(named=True)}


def test_golden_signals_count_what_others_ask_of_a_service_and_not_what_it_asks_of_itself():
    found = golden(
        operation("shop", 50, shown={(Cell.ERRORS, ""): 5}, times={(Cell.DURATION, 10): 50}),
        operation("shop", 30, caller="web", times={(Cell.DURATION, 10): 30}),
        operation(
            "shop", 900, name="inner", caller="shop", shown={(Cell.ERRORS, ""): 900}, times={(Cell.DURATION, 1): 900}
        ),
        operation("shop", 70, name=LOG_OPERATION),
    )
    assert (found["shop"]["requests"], found["shop"]["errors"]) == (80, 5)


@pytest.mark.parametrize("shares", [(90, 10), (50, 50), (96, 4)])
def test_quantiles_are_the_upper_edge_of_the_bin_they_lie_in(shares):
    fast, slow = shares
    row = golden(operation("shop", 100, times={(Cell.DURATION, 10): fast, (Cell.DURATION, 1_000): slow}))["shop"]
    for name, share in (("p50_s", 0.5), ("p95_s", 0.95)):
        exact = 0.01 if fast >= share * 100 else 1.0
        assert exact <= row[name] <= exact * 2**0.25 * 1.01


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=60))
def test_quantiles_agree_with_numpy_to_the_width_of_a_bin(durations_ms):
    times: dict = {}
    for lasts in durations_ms:
        times[Cell.DURATION, lasts] = times.get((Cell.DURATION, lasts), 0) + 1
    row = golden(operation("shop", len(durations_ms), times=times))["shop"]
    for name, share in (("p50_s", 0.5), ("p95_s", 0.95)):
        exact = np.quantile(durations_ms, share, method="inverted_cdf") / 1_000
        assert exact * 0.99 <= row[name] <= exact * 2**0.25 * 1.01


def test_instances_and_operations_of_a_service_are_one_and_environments_are_not():
    found = golden_signals(
        cell_frame(
            operation("shop", 5, instance="i1", times={(Cell.DURATION, 1): 5}),
            operation("shop", 6, instance="i2", name="other", times={(Cell.DURATION, 1): 6}),
            operation("shop", 7, environment="staging", times={(Cell.DURATION, 1): 7}),
        )
    )
    assert found.select("environment", "requests").rows() == [("staging", 7), ("test", 11)]


def test_a_service_nobody_asked_has_no_golden_signals():
    assert golden(operation("shop", 9, caller="shop", times={(Cell.DURATION, 1): 9})) == {}
    assert golden_signals(cell_frame()).height == 0
