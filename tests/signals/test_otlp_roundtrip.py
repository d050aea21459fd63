"""Encoding telemetry and decoding it gives the same rows, in both encodings."""

import base64

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signals.otlp import Encoding, decode
from signals.otlp_encode import encode
from signals.schema import ATTRIBUTES, LOGS, METRICS, SPANS, MetricShape, Signal

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=12)
TIMES = st.integers(1, 2**62 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), NUMBERS, TEXT)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
ATTRIBUTE_SETS = st.dictionaries(TEXT, JSON_VALUES, max_size=4).map(
    lambda value: orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() if value else None
)
RESOURCES = st.tuples(
    st.sampled_from(["prod", "default", "é"]), st.sampled_from(["", "shop"]), st.sampled_from(["cart", "ad"]), TEXT
)


@st.composite
def spans(draw):
    kind = draw(st.integers(0, 5))
    start = draw(TIMES)
    return {
        **dict(zip(("environment", "namespace", "service", "instance"), draw(RESOURCES), strict=True)),
        "version": draw(TEXT),
        "name": draw(TEXT),
        "kind": kind,
        "status": draw(st.integers(0, 2)),
        "start_ns": start,
        "end_ns": draw(st.integers(start, 2**62 - 1)),
        "trace_hi": draw(U64),
        "trace_lo": draw(U64),
        "span_id": draw(U64),
        "parent_id": draw(U64),
        "peer": draw(TEXT) if kind >= 3 else "",
    }


@st.composite
def logs(draw):
    return {
        **dict(zip(("environment", "namespace", "service", "instance"), draw(RESOURCES), strict=True)),
        "version": draw(TEXT),
        "time_ns": draw(TIMES),
        "severity": draw(st.integers(0, 24)),
        "body": draw(TEXT),
        "trace_hi": draw(U64),
        "trace_lo": draw(U64),
        "span_id": draw(U64),
    }


@st.composite
def points(draw):
    shape = draw(st.sampled_from(MetricShape))
    histogram = shape in {MetricShape.HISTOGRAM_DELTA, MetricShape.HISTOGRAM_CUMULATIVE}
    bounds = sorted(draw(st.sets(NUMBERS.map(lambda x: x + 0.0), max_size=4))) if histogram else []
    buckets = (
        draw(st.lists(st.integers(0, 2**40), min_size=len(bounds) + 1, max_size=len(bounds) + 1)) if bounds else []
    )
    attributes = draw(st.dictionaries(TEXT, JSON_VALUES, max_size=3))
    if shape is MetricShape.SUMMARY:
        attributes["quantile"] = draw(st.sampled_from(["0.5", "0.99"]))
    return {
        **dict(zip(("environment", "namespace", "service", "instance"), draw(RESOURCES), strict=True)),
        "time_ns": draw(TIMES),
        "metric": draw(TEXT),
        "attributes": orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode() if attributes else "",
        "shape": int(shape),
        "value": draw(NUMBERS),
        "start_ns": draw(st.integers(0, 2**62 - 1)),
        "count": draw(U64) if histogram else 0,
        "bounds": bounds,
        "counts": buckets,
    }


def grouped(frame, max_rows):
    """The order ``encode`` promises: inside each message, resources in order of first appearance."""
    keys = [name for name in ("environment", "namespace", "service", "instance", "version") if name in frame.columns]
    return pl.concat(
        [rows for chunk in frame.iter_slices(max_rows) for rows in chunk.partition_by(keys, maintain_order=True)]
        or [frame]
    )


def assert_round_trip(signal, frame, encoding, max_rows, **options):
    messages = encode(signal, frame, encoding=encoding, max_rows=max_rows)
    result = decode(signal, encoding, messages, **options)
    assert result.bad == []
    assert set(result.skipped) <= {"bad_id"}  # an id of zero is no id
    expected = grouped(frame, max_rows)
    assert result.frame.schema == expected.schema
    assert result.frame.rows() == expected.rows()


@pytest.mark.parametrize("encoding", Encoding)
@given(rows=st.lists(spans(), max_size=8), max_rows=st.integers(1, 10))
@settings(deadline=None, max_examples=60)
def test_spans_come_back(encoding, rows, max_rows):
    assert_round_trip(Signal.SPANS, pl.DataFrame(rows, schema=SPANS), encoding, max_rows)


@pytest.mark.parametrize("encoding", Encoding)
@given(rows=st.lists(st.tuples(logs(), ATTRIBUTE_SETS), max_size=8), max_rows=st.integers(1, 10))
@settings(deadline=None, max_examples=60)
def test_logs_come_back_with_their_attributes(encoding, rows, max_rows):
    schema = {**LOGS, ATTRIBUTES: pl.String}
    frame = pl.DataFrame([{**row, ATTRIBUTES: text} for row, text in rows], schema=schema)
    assert_round_trip(Signal.LOGS, frame, encoding, max_rows, keep_attributes=True)


@pytest.mark.parametrize("encoding", Encoding)
@given(rows=st.lists(points(), max_size=8), max_rows=st.integers(1, 10))
@settings(deadline=None, max_examples=60)
def test_metrics_of_every_shape_come_back(encoding, rows, max_rows):
    assert_round_trip(Signal.METRICS, pl.DataFrame(rows, schema=METRICS), encoding, max_rows)


@pytest.mark.parametrize("encoding", Encoding)
@given(rows=st.lists(st.tuples(spans(), ATTRIBUTE_SETS), max_size=6))
@settings(deadline=None, max_examples=40)
def test_span_attributes_come_back_with_the_peer_among_them(encoding, rows):
    schema = {**SPANS, ATTRIBUTES: pl.String}
    frame = pl.DataFrame([{**row, ATTRIBUTES: text} for row, text in rows], schema=schema)
    back = decode(Signal.SPANS, encoding, encode(Signal.SPANS, frame, encoding=encoding), keep_attributes=True).frame
    expected = grouped(frame, 500)
    assert back.drop(ATTRIBUTES).rows() == expected.drop(ATTRIBUTES).rows()
    for text, before, peer in zip(back[ATTRIBUTES], expected[ATTRIBUTES], expected["peer"], strict=True):
        after = orjson.loads(text or "{}")
        if peer:
            assert after.pop("service.peer.name") == peer
        assert after == orjson.loads(before or "{}")


def test_messages_hold_at_most_max_rows_and_rows_of_one_resource_stand_together():
    row = {name: 1 if dtype.is_numeric() else "x" for name, dtype in LOGS.items()}
    frame = pl.DataFrame([{**row, "service": "ab"[i % 2], "time_ns": i + 1} for i in range(10)], schema=LOGS)
    messages = encode(Signal.LOGS, frame, encoding=Encoding.OTLP_JSON, max_rows=4)
    shapes = [
        [len(group["scopeLogs"][0]["logRecords"]) for group in orjson.loads(message)["resourceLogs"]]
        for message in messages
    ]
    assert shapes == [[2, 2], [2, 2], [1, 1]]


def test_json_ids_are_hexadecimal_and_long_integers_are_strings():
    row = {name: 1 if dtype.is_numeric() else "x" for name, dtype in SPANS.items()}
    (message,) = encode(Signal.SPANS, pl.DataFrame([row], schema=SPANS), encoding=Encoding.OTLP_JSON)
    span = orjson.loads(message)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["traceId"] == "00000000000000010000000000000001"
    assert span["parentSpanId"] == "0000000000000001"
    assert span["startTimeUnixNano"] == "1"
    assert span["kind"] == 1


def test_an_empty_frame_is_no_message():
    assert encode(Signal.SPANS, pl.DataFrame(schema=SPANS)) == []


def test_what_cannot_be_encoded_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="changes do not travel as OTLP"):
        encode(Signal.CHANGES, pl.DataFrame())
    with pytest.raises(ValueError, match="max_rows must be at least 1"):
        encode(Signal.SPANS, pl.DataFrame(schema=SPANS), max_rows=0)
    with pytest.raises(ValueError, match=r"needs the columns trace_hi"):
        encode(Signal.SPANS, pl.DataFrame(schema=SPANS).drop("trace_hi"))
    row = {name: 1 if dtype.is_numeric() else "" for name, dtype in METRICS.items() if not dtype.is_nested()}
    summary = pl.DataFrame([{**row, "shape": 5, "bounds": [], "counts": []}], schema=METRICS)
    with pytest.raises(ValueError, match="quantile"):
        encode(Signal.METRICS, summary)


def test_bytes_attributes_are_base64_text():
    message = orjson.dumps(
        {
            "resourceLogs": [
                {
                    "scopeLogs": [
                        {
                            "logRecords": [
                                {"timeUnixNano": "1", "body": {"bytesValue": base64.b64encode(b"\0x").decode()}}
                            ]
                        }
                    ]
                }
            ]
        }
    )
    assert decode(Signal.LOGS, Encoding.OTLP_JSON, [message]).frame["body"].to_list() == ["AHg="]
