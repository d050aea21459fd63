"""Ids are the same numbers whatever wrote them, and what is no id still joins."""

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.ids import (
    format_span_id,
    format_trace_id,
    hash_id,
    span_id_column,
    span_ids_from_bytes,
    trace_id_columns,
    trace_ids_from_bytes,
)

U64 = st.integers(0, 2**64 - 1)


def trace_ids(*texts: str | None) -> list[tuple[int, int]]:
    high, low = trace_id_columns(pl.Series(texts, dtype=pl.String))
    return list(zip(high.to_list(), low.to_list(), strict=True))


def span_ids(*texts: str | None) -> list[int]:
    return span_id_column(pl.Series(texts, dtype=pl.String)).to_list()


@given(st.lists(st.tuples(U64, U64)))
@settings(deadline=None)
def test_formatting_a_trace_id_and_reading_it_gives_it_back(pairs):
    assert trace_ids(*(format_trace_id(high, low) for high, low in pairs)) == pairs


@given(st.lists(U64))
@settings(deadline=None)
def test_formatting_a_span_id_and_reading_it_gives_it_back(numbers):
    assert span_ids(*map(format_span_id, numbers)) == numbers


def test_upper_case_is_the_same_id():
    assert trace_ids("ABCDEF" + 26 * "0") == trace_ids("abcdef" + 26 * "0")


def test_null_and_empty_are_no_id():
    assert trace_ids(None, "") == [(0, 0), (0, 0)]
    assert span_ids(None, "") == [0, 0]


def test_a_column_of_nulls_only_has_no_ids():
    assert span_id_column(pl.Series([None, None])).to_list() == [0, 0]


@pytest.mark.parametrize("length", [0, 1, 3])
def test_columns_keep_their_length_and_type(length):
    high, low = trace_id_columns(pl.Series(["0" * 32] * length, dtype=pl.String))
    assert [high.dtype, low.dtype, len(high), len(low)] == [pl.UInt64, pl.UInt64, length, length]


@given(st.lists(st.one_of(st.none(), st.text()), max_size=20))
@settings(deadline=None)
def test_any_text_becomes_an_id_and_equal_texts_equal_ids(texts):
    numbers = trace_ids(*texts)
    assert numbers == [trace_ids(text)[0] for text in texts]
    assert all(
        (number == (0, 0)) == (not text or re.fullmatch("0{32}", text) is not None)
        for number, text in zip(numbers, texts, strict=True)
    )


@pytest.mark.parametrize(
    "text", ["+" + 15 * "1", "-" + 15 * "0", " " + 15 * "1", 15 * "1" + "_", 8 * "é", 15 * "1", 17 * "1"]
)
def test_what_only_resembles_hexadecimal_is_hashed(text):
    (number,) = span_ids(text)
    assert number == int.from_bytes(hash_id(text.encode(), 8), "big")
    assert number != 0


def test_hashes_are_the_same_in_every_process():
    assert span_ids("trace-1") == [0x80E964517B494F49]
    assert trace_ids("trace-1") == [(0xC7646E949F684BDD, 0xA126AEBA0C79A27F)]


def test_one_odd_id_does_not_cost_the_others():
    good = format_span_id(7)
    assert span_ids(good, "odd", good)[::2] == [7, 7]


def test_raw_bytes_and_their_hexadecimal_text_are_the_same_id():
    raw = bytes(range(16))
    high, low, odd = trace_ids_from_bytes([raw])
    assert [(int(high[0]), int(low[0]))] == trace_ids(raw.hex())
    assert odd == 0


def test_raw_ids_of_the_wrong_length_are_hashed_and_counted_and_absent_ones_are_not():
    numbers, odd = span_ids_from_bytes([b"12345678", b"", b"123", b"123456789"])
    assert numbers.tolist()[:2] == [int.from_bytes(b"12345678", "big"), 0]
    assert all(numbers[2:] != 0)
    assert odd == 2


def test_lengths_that_cancel_out_are_noticed():
    numbers, odd = span_ids_from_bytes([b"1234567", b"123456789"])
    assert odd == 2
    assert numbers.tolist() == [int.from_bytes(hash_id(value, 8), "big") for value in (b"1234567", b"123456789")]
