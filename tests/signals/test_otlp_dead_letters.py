"""What is no OTLP of its topic's signal comes back with a reason that says where and what to do."""

import gzip

import polars as pl
import pytest
import zstandard

from signals.otlp import Encoding, decode
from signals.otlp_encode import encode
from signals.schema import LOGS, METRICS, SPANS, Signal, empty
from tests.support.otlp_messages import json_logs, json_metrics, json_spans, number, span

PROTO, JSON = Encoding.OTLP_PROTO, Encoding.OTLP_JSON


def reason_of(signal, encoding, value):
    ((index, reason),) = decode(signal, encoding, [value]).bad
    assert index == 0
    return reason


def test_good_messages_of_a_call_survive_the_bad_ones():
    result = decode(Signal.SPANS, JSON, [None, json_spans(span()), b"{", b"", json_spans(span(name="b"))])
    assert result.frame["name"].to_list() == ["op", "b"]
    assert [index for index, _ in result.bad] == [0, 2]


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("signal", [Signal.SPANS, Signal.LOGS, Signal.METRICS])
def test_an_empty_message_holds_no_rows(signal, encoding):
    result = decode(signal, encoding, [b"", b"{}"] if encoding is JSON else [b""])
    assert result.bad == []
    assert result.frame.equals(empty(signal))
    assert result.frame.schema == empty(signal).schema


@pytest.mark.parametrize("encoding", Encoding)
def test_a_tombstone_is_a_dead_letter(encoding):
    assert "null value" in reason_of(Signal.LOGS, encoding, None)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(("compress", "codec"), [(gzip.compress, "gzip"), (zstandard.compress, "zstd")])
def test_compressed_values_are_refused_with_the_remedy(encoding, compress, codec):
    reason = reason_of(Signal.SPANS, encoding, compress(json_spans(span())))
    assert f"compressed with {codec}" in reason
    assert "leave compression to Kafka" in reason


def test_the_other_encoding_is_recognised():
    frame = pl.DataFrame([{name: 1 if kind.is_numeric() else "x" for name, kind in SPANS.items()}], schema=SPANS)
    (proto,) = encode(Signal.SPANS, frame)
    assert "is the topic's encoding otlp_json?" in reason_of(Signal.SPANS, PROTO, json_spans(span()))
    assert "is the topic's encoding otlp_proto?" in reason_of(Signal.SPANS, JSON, proto)


FRAMES = {
    Signal.SPANS: pl.DataFrame([{name: 1 if kind.is_numeric() else "x" for name, kind in SPANS.items()}], schema=SPANS),
    Signal.LOGS: pl.DataFrame([{name: 1 if kind.is_numeric() else "x" for name, kind in LOGS.items()}], schema=LOGS),
    Signal.METRICS: pl.DataFrame(
        [
            {
                **{name: 1 if kind.is_numeric() else "" for name, kind in METRICS.items()},
                "bounds": [],
                "counts": [],
                "shape": 0,
            }
        ],
        schema=METRICS,
    ),
}


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("sent", FRAMES)
@pytest.mark.parametrize("expected", FRAMES)
def test_another_signals_message_is_a_dead_letter(sent, expected, encoding):
    result = decode(expected, encoding, encode(sent, FRAMES[sent], encoding=encoding))
    assert (result.bad == []) == (sent is expected)
    assert result.frame.height == (sent is expected)
    if sent is not expected and encoding is JSON:
        assert (
            result.bad[0][1] == f"JSON: expected resource{expected.value.title()}, found resource{sent.value.title()}"
        )


@pytest.mark.parametrize(
    ("signal", "value", "reason"),
    [
        (Signal.SPANS, b"[]", "JSON: expected an object with resourceSpans, found list"),
        (Signal.SPANS, b'{"a":1}', "JSON: expected resourceSpans, found no OTLP field"),
        (Signal.SPANS, b'{"resourceSpans":{}}', "resourceSpans: expected a list, found {}"),
        (Signal.SPANS, b'{"resourceSpans":[7]}', "resourceSpans[0]: expected an object, found 7"),
        (
            Signal.SPANS,
            json_spans(span(), span(startTimeUnixNano="soon")),
            "resourceSpans[0].scopeSpans[0].spans[1].startTimeUnixNano: expected a 64-bit integer, found 'soon'",
        ),
        (
            Signal.SPANS,
            json_spans(span(startTimeUnixNano="-1")),
            "resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano: expected an unsigned 64-bit integer, found -1",
        ),
        (
            Signal.SPANS,
            json_spans(span(name=[])),
            "resourceSpans[0].scopeSpans[0].spans[0].name: expected a string, found []",
        ),
        (
            Signal.SPANS,
            json_spans(span(kind=3, attributes=[{"key": "peer.service", "value": {"stringValue": 5}}])),
            "resourceSpans[0].scopeSpans[0].spans[0].attributes[0].value.stringValue: expected a string, found 5",
        ),
        (
            Signal.LOGS,
            json_logs({"timeUnixNano": 1, "body": {"intValue": "1.5"}}),
            "resourceLogs[0].scopeLogs[0].logRecords[0].body.intValue: expected a 64-bit integer, found '1.5'",
        ),
        (
            Signal.METRICS,
            json_metrics({"name": "g", "gauge": {"dataPoints": [number(asDouble="many")]}}),
            "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0].asDouble: "
            "expected a number, found 'many'",
        ),
        (
            Signal.METRICS,
            json_metrics({"name": "g", "sum": {"isMonotonic": "yes"}}),
            "resourceMetrics[0].scopeMetrics[0].metrics[0].sum.isMonotonic: expected true or false, found 'yes'",
        ),
    ],
)
def test_wrong_types_are_refused_with_their_json_path(signal, value, reason):
    assert reason_of(signal, JSON, value) == reason


def test_changes_do_not_travel_as_otlp():
    with pytest.raises(ValueError, match="decode takes spans, logs and metrics"):
        decode(Signal.CHANGES, PROTO, [])
