"""What a real Collector wrote to a real Kafka decodes to the last field, the same from protobuf and JSON."""

import json
import os
from pathlib import Path

import polars as pl
import pytest
import zstandard

from signals.otlp import Encoding, decode
from signals.schema import SCHEMAS, MetricShape, Signal

CAPTURES = Path(__file__).parent.parent / "fixtures" / "otlp"
INDEX = [json.loads(line) for line in (CAPTURES / "index.jsonl").read_text().splitlines()]
TOPICS = sorted({entry["topic"] for entry in INDEX})
TRACE_HI, TRACE_LO = 0x8164_25DA_4D09_B64F, 0x6D38_DA70_CCB7_9C0A
COLLECTOR = "26345f54-129a-4c5b-abf8-a638e14013e9"


def values(topic):
    return [(CAPTURES / entry["file"]).read_bytes() for entry in INDEX if entry["topic"] == topic]


def decoded(topic, **options):
    signal = Signal(topic.split("_")[1])
    encoding = Encoding.OTLP_JSON if topic.endswith("_json") else Encoding.OTLP_PROTO
    return decode(signal, encoding, values(topic), **options)


def tally(topic, *keys):
    rows = decoded(topic).frame.group_by(keys).len().rows()
    return {row[:-1] if len(keys) > 1 else row[0]: row[-1] for row in rows}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_captured_message_decodes_without_a_loss(topic):
    result = decoded(topic)
    assert result.bad == []
    assert result.skipped == {}
    assert result.frame.schema == SCHEMAS[Signal(topic.split("_")[1])]
    assert result.frame["environment"].unique().to_list() == ["lab"]


@pytest.mark.parametrize("topic", ["otlp_spans", "otlp_spans_json"])
def test_spans_are_counted_by_service_operation_kind_and_status(topic):
    assert tally(topic, "service", "name", "kind", "status") == {
        ("gen-a", "lets-go", 3, 2): 200,
        ("gen-a", "okey-dokey-0", 2, 2): 200,
        ("gen-a", "okey-dokey-1", 2, 2): 200,
        ("gen-a", "okey-dokey-2", 2, 2): 200,
        ("gen-b", "lets-go", 3, 0): 200,
        ("gen-b", "okey-dokey-0", 2, 0): 200,
        ("gen-b", "okey-dokey-1", 2, 0): 200,
    }
    assert decoded(topic).frame.select("trace_hi", "trace_lo").n_unique() == 400


def test_spans_keyed_by_trace_hold_one_trace_a_message():
    for value in values("otlp_spans_keyed"):
        frame = decode(Signal.SPANS, Encoding.OTLP_PROTO, [value]).frame
        assert frame.select("trace_hi", "trace_lo").n_unique() == 1
        assert frame["service"].to_list() == ["gen-a"] * 4


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if "logs" in topic])
def test_logs_are_counted_by_service_severity_and_body(topic):
    assert tally(topic, "service", "severity", "body") == {
        ("gen-a", 17, "connection to 10.0.0.7 timed out after 30ms"): 200,
        ("gen-b", 9, "the message"): 50,
    }


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if "metrics" in topic])
def test_points_are_counted_by_service_metric_and_shape(topic):
    assert tally(topic, "service", "metric", "shape") == {
        ("gen-a", "m_Gauge", MetricShape.GAUGE): 20,
        ("gen-a", "m_Sum", MetricShape.SUM_CUMULATIVE): 20,
        ("gen-a", "m_Histogram", MetricShape.HISTOGRAM_CUMULATIVE): 20,
        ("gen-a", "m_ExponentialHistogram", MetricShape.HISTOGRAM_CUMULATIVE): 20,
        ("gen-a", "traces.span.metrics.calls", MetricShape.SUM_CUMULATIVE): 24,
        ("gen-a", "traces.span.metrics.duration", MetricShape.HISTOGRAM_CUMULATIVE): 24,
        ("gen-b", "m_delta", MetricShape.SUM_DELTA): 20,
        ("gen-b", "traces.span.metrics.calls", MetricShape.SUM_CUMULATIVE): 12,
        ("gen-b", "traces.span.metrics.duration", MetricShape.HISTOGRAM_CUMULATIVE): 12,
    }


@pytest.mark.parametrize("signal", ["spans", "logs", "metrics"])
def test_protobuf_and_json_of_the_same_telemetry_are_the_same_rows(signal):
    proto, text = decoded(f"otlp_{signal}").frame, decoded(f"otlp_{signal}_json").frame
    order = [name for name in proto.columns if proto.schema[name] not in {pl.List(pl.Float64), pl.List(pl.UInt64)}]
    assert proto.sort(order).equals(text.sort(order))


def test_a_span_is_right_to_the_last_field():
    assert decoded("otlp_spans", keep_attributes=True).frame.row(0, named=True) == {
        "environment": "lab",
        "namespace": "",
        "service": "gen-a",
        "instance": "",
        "version": "",
        "name": "okey-dokey-0",
        "kind": 2,
        "status": 2,
        "start_ns": 1795407639746302795,
        "end_ns": 1795407639746425795,
        "trace_hi": TRACE_HI,
        "trace_lo": TRACE_LO,
        "span_id": 0xCD32_560E_E6C1_58F1,
        "parent_id": 0x40B4_3008_03F9_C4AD,
        "peer": "",
        "attributes": (
            '{"http.response.status_code":500,"network.peer.address":"1.2.3.4","service.peer.name":"telemetrygen-client"}'
        ),
    }


def test_a_client_span_names_its_peer_and_a_root_has_no_parent():
    root = decoded("otlp_spans_json").frame.filter(pl.col("name") == "lets-go").row(0, named=True)
    assert (root["kind"], root["peer"], root["parent_id"]) == (3, "telemetrygen-server", 0)


def test_a_log_record_is_right_to_the_last_field():
    assert decoded("otlp_logs_json", keep_attributes=True).frame.row(0, named=True) == {
        "environment": "lab",
        "namespace": "",
        "service": "gen-a",
        "instance": "",
        "version": "",
        "time_ns": 1795407658567461489,
        "severity": 17,
        "body": "connection to 10.0.0.7 timed out after 30ms",
        "trace_hi": 0xAE87_DADD_90E9_935A,
        "trace_lo": 0x4BC9_6606_28EF_D569,
        "span_id": 0x5828_FA49_6014_0870,
        "attributes": '{"app":"server"}',
    }


def test_a_cumulative_histogram_is_right_to_the_last_field():
    frame = decoded("otlp_metrics").frame.filter(pl.col("metric") == "traces.span.metrics.duration")
    assert frame.row(0, named=True) == {
        "environment": "lab",
        "namespace": "",
        "service": "gen-a",
        "instance": "",
        "time_ns": 1795407650774531129,
        "metric": "traces.span.metrics.duration",
        "attributes": (
            f'{{"collector.instance.id":"{COLLECTOR}","service.name":"gen-a","span.kind":"SPAN_KIND_SERVER",'
            '"span.name":"okey-dokey-1","status.code":"STATUS_CODE_ERROR"}'
        ),
        "shape": 4,
        "value": 24.600000000000044,
        "start_ns": 1795407639806999484,
        "count": 200,
        "bounds": [5.0, 20.0, 100.0, 500.0, 2000.0],
        "counts": [200, 0, 0, 0, 0, 0],
    }


def test_an_exponential_histogram_becomes_powers_of_its_base():
    row = decoded("otlp_metrics").frame.filter(pl.col("metric") == "m_ExponentialHistogram").row(3, named=True)
    assert row["bounds"] == [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]
    assert row["counts"] == [0, 2, 1, 4, 7, 6, 0]
    assert (row["count"], row["value"]) == (20, 8939.0)


def test_keys_of_every_kind_were_captured_and_none_is_needed():
    kinds = {entry["topic"]: entry["key"] is not None for entry in INDEX}
    assert kinds == {topic: topic.endswith("_keyed") for topic in TOPICS}
    ascii_keys = [bytes.fromhex(entry["key"]) for entry in INDEX if entry["topic"] == "otlp_spans_keyed"]
    assert all(len(key) == 32 and key.isascii() for key in ascii_keys)
    raw_keys = [bytes.fromhex(entry["key"]) for entry in INDEX if entry["topic"] == "otlp_logs_keyed"]
    assert all(len(key) == 16 and not key.isascii() for key in raw_keys)
    # decode is given values only: the keyed topics hold the same log records as the others.
    order = ["time_ns", "service", "trace_hi"]
    assert decoded("otlp_logs_keyed").frame.sort(order).equals(decoded("otlp_logs").frame.sort(order))


@pytest.mark.recordings
def test_the_fast_reader_agrees_with_the_complete_one_on_a_recorded_application():
    data = os.environ.get("MENDSTREAM_DATA")
    path = Path(data or ".") / "otlp" / "boutique-dev-traces.otlp.zst"
    if not data or not path.is_file():
        pytest.skip("set MENDSTREAM_DATA to a folder that holds otlp/boutique-dev-traces.otlp.zst")
    messages = []
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        while len(messages) < 100 and (header := stream.read(4)):
            messages.append(stream.read(int.from_bytes(header, "big")))
    fast = decode(Signal.SPANS, Encoding.OTLP_PROTO, messages)
    complete = decode(Signal.SPANS, Encoding.OTLP_PROTO, messages, keep_attributes=True)
    assert fast.frame.height > 10_000
    assert fast.frame.equals(complete.frame.drop("attributes"))
    assert fast.frame.filter(pl.col("name") == "GET").is_empty()  # the route is in url.path
    assert "redis" in fast.frame["peer"].unique()
