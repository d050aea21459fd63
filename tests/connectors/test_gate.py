"""The event-time gate: who may read on, and that somebody always may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.gate import EventTimeGate
from signals.batch import END_OF_STREAM, NO_WATERMARK

SECOND = 1_000_000_000


def gate_at(**marks: int) -> EventTimeGate:
    gate = EventTimeGate(max_ahead_s=60)
    for name, seconds in marks.items():
        gate.join(name)
        gate.advance(name, seconds * SECOND)
    return gate


def test_a_partition_may_run_ahead_just_so_far():
    gate = gate_at(slow=100, near=160, far=161)
    assert [gate.may_poll(name) for name in ("slow", "near", "far")] == [True, True, False]


def test_a_partition_that_has_not_spoken_holds_the_others():
    gate = gate_at(a=100)
    gate.join("silent")
    assert (gate.may_poll("a"), gate.may_poll("silent")) == (False, True)


def test_idle_and_ended_partitions_hold_nobody():
    gate = gate_at(a=1_000, idle=0, ended=0)
    gate.advance("idle", 0, idle=True)
    assert not gate.may_poll("a")
    gate.leave("ended")
    assert gate.may_poll("a")
    assert gate.may_poll("idle")
    gate.advance("idle", 0)
    assert not gate.may_poll("a")


def test_a_partition_at_the_end_of_stream_holds_nobody():
    gate = gate_at(a=1_000)
    gate.join("b")
    gate.advance("b", END_OF_STREAM)
    assert gate.may_poll("a")


def test_a_resumed_partition_takes_part_at_its_watermark():
    gate = gate_at(a=100)
    gate.join("b", 90 * SECOND)
    assert gate.may_poll("a")


STEP = st.tuples(st.sampled_from("abcd"), st.integers(0, 10_000), st.sampled_from(["advance", "idle", "leave", "join"]))


@given(st.lists(STEP, max_size=40))
def test_somebody_may_always_read_on(steps):
    gate = EventTimeGate(max_ahead_s=60)
    there = set()
    for name, seconds, what in steps:
        if what == "join":
            gate.join(name, NO_WATERMARK)
            there.add(name)
        elif name in there and what == "leave":
            gate.leave(name)
            there.discard(name)
        elif name in there:
            gate.advance(name, seconds * SECOND, idle=what == "idle")
        assert not there or any(gate.may_poll(each) for each in there)


def test_progress_is_exact_in_nanoseconds():
    gate = EventTimeGate(max_ahead_s=1)
    for name, mark in (("a", 1_700_000_000_000_000_001), ("b", 1_700_000_001_000_000_001)):
        gate.join(name)
        gate.advance(name, mark)
    assert gate.may_poll("b")
    gate.advance("b", 1_700_000_001_000_000_002)
    assert not gate.may_poll("b")
