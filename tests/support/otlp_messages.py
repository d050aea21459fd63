"""OTLP/JSON messages in a line, for tests of what decoding makes of their fields."""

import orjson

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
