"""Which instance stands out: the one that shows most of a deviation while its peers behave as before."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.instances import with_instances
from detectors.span_behaviour import EVIDENCE, SpanBehaviour
from signals.cells import Cell
from tests.support.cells import cell_frame, feed, operation, teach

PODS = ("pod-a", "pod-b", "pod-c")
LOG = (Cell.LOG, "template")


def calm(pods=PODS, **fields) -> list:
    return [
        row
        for pod in pods
        for row in operation("shop", 50, instance=pod, shown={LOG: 10}, times={(Cell.EXCLUSIVE, 10): 50}, **fields)
    ]


def instance_of(kind: Cell, change: list, *, pods=PODS, **fields) -> str:
    """The instance named for the strongest evidence of a kind after calm ones."""
    behaviour = SpanBehaviour()
    number = teach(behaviour, calm(pods, **fields))
    for _ in range(3):
        evidence = feed(behaviour, number, change)
        number += 1
    named = with_instances(evidence, cell_frame(*([change] * 3))).filter(pl.col("kind") == int(kind))
    assert named.height
    return str(named.sort("raw")["instance"][-1])


def test_the_instance_that_writes_something_new_while_its_peers_do_not_stands_out():
    change = [
        *calm(("pod-a", "pod-c")),
        *operation("shop", 50, instance="pod-b", shown={LOG: 10, (Cell.LOG, "new"): 50}),
    ]
    assert instance_of(Cell.LOG, change) == "pod-b"


def test_the_instance_that_became_silent_stands_out_among_those_that_still_speak():
    change = [*calm(("pod-a", "pod-c")), *operation("shop", 50, instance="pod-b", times={(Cell.EXCLUSIVE, 10): 50})]
    assert instance_of(Cell.LOG, change) == "pod-b"


def test_the_slow_instance_stands_out():
    slow = operation("shop", 50, instance="pod-c", shown={LOG: 10}, times={(Cell.EXCLUSIVE, 500): 50})
    assert instance_of(Cell.EXCLUSIVE, [*calm(("pod-a", "pod-b")), *slow]) == "pod-c"


def test_the_slow_instance_of_an_entry_point_stands_out_in_how_long_its_callers_wait_too():
    """The busiest instance is not the slow one."""

    def bucket(slow_ms: int) -> list:
        return [
            *operation("shop", 500, instance="busy", times={(Cell.DURATION, 10): 500}),
            *operation("shop", 100, instance="lame", times={(Cell.DURATION, slow_ms): 100}),
        ]

    behaviour = SpanBehaviour()
    number = teach(behaviour, bucket(10))
    evidence = feed(behaviour, number, bucket(900))
    named = with_instances(evidence, cell_frame(bucket(900)))
    assert named.select("kind", "instance").rows() == [(Cell.DURATION, "lame")]


def test_nobody_stands_out_where_all_deviate_alike():
    change = [
        row for pod in PODS for row in operation("shop", 50, instance=pod, shown={LOG: 10, (Cell.LOG, "new"): 50})
    ]
    assert instance_of(Cell.LOG, change) == ""


def test_the_only_instance_is_the_one():
    change = operation("shop", 50, instance="pod-a", shown={LOG: 45})
    assert instance_of(Cell.LOG, change, pods=("pod-a",)) == "pod-a"


def test_evidence_of_a_service_without_instances_names_none():
    change = operation("shop", 50, shown={LOG: 45})
    assert instance_of(Cell.LOG, change, pods=("",)) == ""


def test_no_evidence_stays_no_evidence():
    named = with_instances(pl.DataFrame(schema=EVIDENCE), cell_frame(calm()))
    assert named.height == 0
    assert dict(named.schema) == {**EVIDENCE, "instance": pl.String}


@settings(deadline=None, max_examples=20)
@given(st.randoms())
def test_rows_of_evidence_stay_as_they_are_and_the_order_of_cells_does_not_matter(seed):
    change = [
        *calm(("pod-a", "pod-c")),
        *operation("shop", 50, instance="pod-b", shown={(Cell.LOG, "new"): 50, (Cell.ORIGIN, ""): 40}),
        *operation("other", 90, instance="x", shown={LOG: 90}),
    ]
    behaviour = SpanBehaviour()
    number = teach(behaviour, calm(), operation("other", 90, instance="x"))
    evidence = feed(behaviour, number, change)
    shuffled = list(change)
    seed.shuffle(shuffled)
    named = with_instances(evidence, cell_frame(change))
    assert named.drop("instance").equals(evidence)
    assert named.equals(with_instances(evidence, cell_frame(shuffled)))
