"""What decoded fields mean, what is dropped and what is repaired."""

import orjson
import polars as pl
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from signals.ids import span_id_column, trace_id_columns
from signals.otlp import Encoding, decode
from signals.otlp_encode import key_values
from signals.otlp_json_encode import to_json
from signals.schema import MetricShape, Signal
from tests.support.otlp_messages import SPAN, TRACE, json_logs, json_metrics, json_spans, number, pairs, span

PROTO, JSON = Encoding.OTLP_PROTO, Encoding.OTLP_JSON


def rows_of(signal, *values, encoding=JSON, **options):
    result = decode(signal, encoding, values, **options)
    assert result.bad == []
    return result.frame.rows(named=True)


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
    value = to_json(request) if encoding is JSON else request.SerializeToString()
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
