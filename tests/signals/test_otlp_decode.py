"""What decoded fields mean, what is dropped, what is repaired, and what is refused with which reason."""

import gzip

import orjson
import polars as pl
import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from signals.ids import span_id_column, trace_id_columns
from signals.otlp import Encoding, decode
from signals.otlp_encode import encode, key_values
from signals.schema import LOGS, METRICS, SPANS, MetricShape, Signal, empty

PROTO, JSON = Encoding.OTLP_PROTO, Encoding.OTLP_JSON
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def json_spans(*spans, resource=None):
    group = {"resource": {"attributes": pairs(resource or {})}, "scopeSpans": [{"spans": list(spans)}]}
    return orjson.dumps({"resourceSpans": [group]})


def json_logs(*records):
    return orjson.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]})


def json_metrics(*metrics):
    return orjson.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": list(metrics)}]}]})


def pairs(attributes):
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]


def span(**fields):
    return {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "op",
        "startTimeUnixNano": "10",
        "endTimeUnixNano": "30",
        **fields,
    }


def number(**fields):
    return {"timeUnixNano": "10", "asDouble": 1.5, **fields}


def rows_of(signal, *values, encoding=JSON, **options):
    result = decode(signal, encoding, values, **options)
    assert result.bad == []
    return result.frame.rows(named=True)


def reason_of(signal, encoding, value):
    ((index, reason),) = decode(signal, encoding, [value]).bad
    assert index == 0
    return reason


# Identity


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ("default", "", "unknown_service", "", "")),
        (
            {
                "deployment.environment.name": "prod",
                "service.namespace": "shop",
                "service.name": "cart",
                "service.instance.id": "i-1",
                "service.version": "1.2",
                "deployment.environment": "old",
                "k8s.pod.name": "pod",
                "host.name": "vm",
            },
            ("prod", "shop", "cart", "i-1", "1.2"),
        ),
        (
            {"deployment.environment": "old", "k8s.pod.name": "pod", "host.name": "vm"},
            ("old", "", "unknown_service", "pod", ""),
        ),
        (
            {"k8s.namespace.name": "ns", "host.name": "vm", "service.name": ""},
            ("default", "ns", "unknown_service", "vm", ""),
        ),
    ],
)
def test_stable_names_count_before_deprecated_ones_and_empty_ones_not_at_all(attributes, expected):
    (row,) = rows_of(Signal.SPANS, json_spans(span(), resource=attributes))
    assert tuple(row[name] for name in ("environment", "namespace", "service", "instance", "version")) == expected


def test_the_default_environment_is_the_callers():
    (row,) = rows_of(Signal.SPANS, json_spans(span()), default_environment="staging")
    assert row["environment"] == "staging"


# Spans


def test_bare_methods_get_their_route_and_calls_their_peer_in_both_encodings():
    text = json_spans(
        span(name="GET", kind=2, attributes=pairs({"url.path": "/product/66VCHSJNUP", "peer.service": "ignored"})),
        span(name="GET", kind="SPAN_KIND_CLIENT", attributes=pairs({"http.route": "/cart", "server.address": "cart"})),
        span(name="send", kind=4, attributes=pairs({"messaging.system": "kafka", "messaging.destination": "orders"})),
    )
    rows = rows_of(Signal.SPANS, text)
    assert [(row["name"], row["kind"], row["peer"]) for row in rows] == [
        ("GET /product/{}", 2, ""),
        ("GET /cart", 3, "cart"),
        ("send", 4, "kafka:orders"),
    ]
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for row, attributes in zip(
        rows,
        ({"url.path": "/product/1"}, {"http.route": "/cart", "server.address": "cart"}, {"messaging.system": "kafka"}),
        strict=True,
    ):
        name = "GET" if row["name"].startswith("GET") else row["name"]
        spans.add(name=name, kind=row["kind"], end_time_unix_nano=1, attributes=key_values(attributes))
    frame = decode(Signal.SPANS, PROTO, [request.SerializeToString()]).frame
    assert frame["name"].to_list() == ["GET /product/{}", "GET /cart", "send"]
    assert frame["peer"].to_list() == ["", "cart", "kafka"]


def test_an_end_before_the_start_is_moved_to_it_and_counted():
    result = decode(Signal.SPANS, JSON, [json_spans(span(endTimeUnixNano="5"), span())])
    assert result.frame["end_ns"].to_list() == [10, 30]
    assert result.skipped == {"negative_duration": 1}


def test_spans_that_have_no_place_in_time_are_dropped_and_counted():
    timeless = span(startTimeUnixNano=None, endTimeUnixNano=None)
    result = decode(Signal.SPANS, JSON, [json_spans(span(), timeless, span(endTimeUnixNano=str(2**62)))])
    assert result.frame.height == 1
    assert result.skipped == {"no_time": 1, "bad_time": 1}


def test_ids_of_other_lengths_are_hashed_as_recordings_hash_them_and_counted():
    result = decode(Signal.SPANS, JSON, [json_spans(span(traceId="trace-1", spanId="a"), span(parentSpanId=SPAN))])
    high, low = trace_id_columns(pl.Series(["trace-1", TRACE]))
    assert result.frame["trace_hi"].equals(high)
    assert result.frame["trace_lo"].equals(low)
    assert result.frame["span_id"].to_list() == span_id_column(pl.Series(["a", SPAN])).to_list()
    assert result.frame["parent_id"].to_list() == [0, int(SPAN, 16)]
    assert result.skipped == {"bad_id": 2}


def test_unknown_kinds_and_statuses_are_unspecified():
    text = json_spans(span(kind=77, status={"code": 9}), span(kind="NEW_KIND", status={"code": "STATUS_CODE_ERROR"}))
    assert [(row["kind"], row["status"]) for row in rows_of(Signal.SPANS, text)] == [(0, 0), (0, 2)]


def test_snake_case_numbers_for_strings_and_unknown_fields_are_accepted():
    text = orjson.dumps(
        {
            "resource_spans": [
                {
                    "new_field": [1],
                    "scope_spans": [
                        {
                            "spans": [
                                {
                                    "trace_id": TRACE.upper(),
                                    "span_id": SPAN,
                                    "name": "op",
                                    "start_time_unix_nano": 10,
                                    "end_time_unix_nano": 30,
                                    "links": [{"anything": {}}],
                                }
                            ]
                        }
                    ],
                }
            ]
        }
    )
    assert rows_of(Signal.SPANS, text) == rows_of(Signal.SPANS, json_spans(span()))


# Logs


def test_logs_fall_back_to_the_observed_time_and_to_the_severity_text():
    text = json_logs(
        {"observedTimeUnixNano": "7", "severityText": "Warning", "body": {"stringValue": "a"}},
        {
            "timeUnixNano": "5",
            "observedTimeUnixNano": "7",
            "severityNumber": "SEVERITY_NUMBER_ERROR2",
            "severityText": "x",
        },
        {"timeUnixNano": "5", "severityNumber": 99},
        {"timeUnixNano": "5", "severityNumber": -4},
    )
    rows = rows_of(Signal.LOGS, text)
    assert [row["time_ns"] for row in rows] == [7, 5, 5, 5]
    assert [row["severity"] for row in rows] == [13, 18, 24, 0]
    assert rows[0]["trace_hi"] == rows[0]["span_id"] == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, ""),
        ({"stringValue": 'say "hi"\n'}, 'say "hi"\n'),
        ({"intValue": "42"}, "42"),
        ({"boolValue": True}, "true"),
        ({"doubleValue": 0.5}, "0.5"),
        ({"doubleValue": "NaN"}, "nan"),
        ({"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "b"}, {}]}}, '[1,"b",null]'),
        (
            {
                "kvlistValue": {
                    "values": [{"key": "b", "value": {"intValue": 1}}, {"key": "a", "value": {"boolValue": False}}]
                }
            },
            '{"a":false,"b":1}',
        ),
    ],
)
def test_bodies_that_are_no_text_become_json(body, expected):
    (row,) = rows_of(Signal.LOGS, json_logs({"timeUnixNano": "5", "body": body}))
    assert row["body"] == expected


@pytest.mark.parametrize("encoding", Encoding)
def test_deep_and_long_bodies_are_cut(encoding):
    deep = AnyValue(string_value="bottom")
    for _ in range(30):
        deep = AnyValue(array_value=ArrayValue(values=[deep]))
    wide = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="x" * 1000)] * 100))
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(time_unix_nano=1, body=deep)
    records.add(time_unix_nano=1, body=wide)
    value = request.SerializeToString()
    if encoding is JSON:
        from signals.otlp_json_encode import to_json

        value = to_json(request)
    rows = rows_of(Signal.LOGS, value, encoding=encoding)
    assert rows[0]["body"] == "[" * 8 + '"…"' + "]" * 8
    assert len(rows[1]["body"]) == 65_537


# Metrics


def test_each_shape_gives_its_rows():
    histogram = {"timeUnixNano": "9", "startTimeUnixNano": "3", "count": "4", "sum": 2.5}
    text = json_metrics(
        {"name": "g", "gauge": {"dataPoints": [number(asDouble=None, asInt="-3")]}},
        {"name": "d", "sum": {"aggregationTemporality": 1, "dataPoints": [number(startTimeUnixNano="4")]}},
        {
            "name": "c",
            "sum": {
                "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
                "isMonotonic": True,
                "dataPoints": [number()],
            },
        },
        {"name": "updown", "sum": {"aggregationTemporality": 2, "dataPoints": [number()]}},
        {
            "name": "h",
            "histogram": {
                "aggregationTemporality": 1,
                "dataPoints": [{**histogram, "explicitBounds": [1, 2.5], "bucketCounts": ["1", 2, "1"]}],
            },
        },
        {
            "name": "e",
            "exponentialHistogram": {
                "aggregationTemporality": 2,
                "dataPoints": [
                    {**histogram, "scale": 0, "zeroCount": "1", "positive": {"offset": 1, "bucketCounts": ["3"]}}
                ],
            },
        },
        {
            "name": "s",
            "summary": {
                "dataPoints": [
                    {
                        "timeUnixNano": "9",
                        "count": "5",
                        "quantileValues": [{"quantile": 0.5, "value": 7}, {"quantile": 0.99, "value": 8}],
                    }
                ]
            },
        },
    )
    rows = rows_of(Signal.METRICS, text)
    assert [(row["metric"], MetricShape(row["shape"]), row["value"]) for row in rows] == [
        ("g", MetricShape.GAUGE, -3.0),
        ("d", MetricShape.SUM_DELTA, 1.5),
        ("c", MetricShape.SUM_CUMULATIVE, 1.5),
        ("updown", MetricShape.GAUGE, 1.5),
        ("h", MetricShape.HISTOGRAM_DELTA, 2.5),
        ("e", MetricShape.HISTOGRAM_CUMULATIVE, 2.5),
        ("s.count", MetricShape.SUM_CUMULATIVE, 5.0),
        ("s", MetricShape.SUMMARY, 7.0),
        ("s", MetricShape.SUMMARY, 8.0),
    ]
    assert (rows[4]["bounds"], rows[4]["counts"], rows[4]["count"]) == ([1.0, 2.5], [1, 2, 1], 4)
    assert (rows[5]["bounds"], rows[5]["counts"]) == ([0.0, 2.0, 4.0], [1, 0, 3, 0])
    assert [row["attributes"] for row in rows[6:]] == ["", '{"quantile":"0.5"}', '{"quantile":"0.99"}']
    assert rows[1]["start_ns"] == 4


def test_attributes_are_canonical_whatever_their_order():
    point = number(attributes=[{"key": "b", "value": {"intValue": "1"}}, {"key": "a", "value": {"stringValue": "x"}}])
    (row,) = rows_of(Signal.METRICS, json_metrics({"name": "g", "gauge": {"dataPoints": [point]}}))
    assert row["attributes"] == '{"a":"x","b":1}'


def test_points_that_say_nothing_are_dropped_by_reason():
    cumulative = {"aggregationTemporality": 2, "isMonotonic": True}
    text = json_metrics(
        {"name": "g", "gauge": {"dataPoints": [number(asDouble="NaN"), number(asDouble="-Infinity"), number(flags=1)]}},
        {"name": "g", "gauge": {"dataPoints": [number(asDouble=None), number(timeUnixNano="0"), number()]}},
        {"name": "no data"},
        {"name": "c", "sum": {"isMonotonic": True, "dataPoints": [number()]}},
        {
            "name": "h",
            "histogram": {
                **cumulative,
                "dataPoints": [{"timeUnixNano": 1, "explicitBounds": [1], "bucketCounts": [1]}],
            },
        },
        {
            "name": "h",
            "histogram": {
                **cumulative,
                "dataPoints": [{"timeUnixNano": 1, "explicitBounds": [2, 1], "bucketCounts": [1, 1, 1]}],
            },
        },
    )
    result = decode(Signal.METRICS, JSON, [text])
    assert result.frame["metric"].to_list() == ["g"]
    assert result.skipped == {
        "bad_histogram": 2,
        "no_recorded_value": 1,
        "no_temporality": 1,
        "no_time": 1,
        "no_value": 2,
        "not_finite": 2,
    }


# Dead letters


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
