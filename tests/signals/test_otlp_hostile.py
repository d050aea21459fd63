"""Whatever bytes come in, they come out as rows or as dead letters; nothing is raised and nothing is lost."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from signals.otlp import Encoding, decode
from signals.otlp_wire import MAX_FIELDS, walk
from signals.schema import SCHEMAS, Signal

CAPTURES = Path(__file__).parent.parent / "fixtures" / "otlp"
INDEX = [json.loads(line) for line in (CAPTURES / "index.jsonl").read_text().splitlines()]
SIGNALS = (Signal.SPANS, Signal.LOGS, Signal.METRICS)


def first_capture(topic):
    return (CAPTURES / next(entry["file"] for entry in INDEX if entry["topic"] == topic)).read_bytes()


def assert_rows_or_bad(signal, encoding, values, **options):
    result = decode(signal, encoding, values, **options)
    extra = ["attributes"] if options.get("keep_attributes") and signal is not Signal.METRICS else []
    assert result.frame.columns == [*SCHEMAS[signal].names(), *extra]
    assert result.frame.select(SCHEMAS[signal].names()).schema == SCHEMAS[signal]
    bad = [index for index, _ in result.bad]
    assert bad == sorted(set(bad))
    assert all(reason and "\n" not in reason for _, reason in result.bad)
    alone = [decode(signal, encoding, [value], **options) for value in values]
    assert bad == [index for index, one in enumerate(alone) if one.bad]
    assert result.frame.rows() == [row for one in alone for row in one.frame.rows()]
    return result


@pytest.mark.parametrize("keep_attributes", [False, True])
@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("signal", SIGNALS)
@given(values=st.lists(st.one_of(st.none(), st.binary(max_size=200)), max_size=5))
@settings(deadline=None, max_examples=30)
def test_random_bytes_become_rows_or_dead_letters(signal, encoding, keep_attributes, values):
    assert_rows_or_bad(signal, encoding, values, keep_attributes=keep_attributes)


@pytest.mark.parametrize("topic", ["otlp_spans", "otlp_logs", "otlp_metrics"])
def test_truncated_messages_become_rows_or_dead_letters(topic):
    signal = Signal(topic.split("_")[1])
    for name, encoding in ((topic, Encoding.OTLP_PROTO), (f"{topic}_json", Encoding.OTLP_JSON)):
        value = first_capture(name)
        cuts = range(1, len(value) - 1, 50)
        result = decode(signal, encoding, [value[:cut] for cut in cuts])
        assert len(result.bad) == len(cuts)  # the length of the outermost object no longer fits
        assert result.frame.is_empty()


@pytest.mark.parametrize("seed", range(20))
def test_corrupted_spans_never_cost_their_neighbours(seed):
    rng = random.Random(seed)
    value = first_capture("otlp_spans_keyed")
    mutant = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        mutant[rng.randrange(len(mutant))] = rng.randrange(256)
    result = assert_rows_or_bad(Signal.SPANS, Encoding.OTLP_PROTO, [value, bytes(mutant), value])
    assert result.frame["service"].to_list().count("gen-a") >= 8


@pytest.mark.parametrize("seed", range(200))
def test_the_fast_reader_agrees_with_the_complete_one_on_corrupted_spans(seed):
    """But for content that no column needs, which only the complete reader validates."""
    rng = random.Random(seed)
    mutant = bytearray(first_capture("otlp_spans_keyed"))
    for _ in range(rng.randint(1, 3)):
        mutant[rng.randrange(len(mutant))] = rng.randrange(256)
    complete = decode(Signal.SPANS, Encoding.OTLP_PROTO, [bytes(mutant)], keep_attributes=True)
    fast = decode(Signal.SPANS, Encoding.OTLP_PROTO, [bytes(mutant)])
    if fast.bad or not complete.bad:
        assert [index for index, _ in fast.bad] == [index for index, _ in complete.bad]
        assert fast.frame.rows() == complete.frame.drop("attributes").rows()
        assert fast.skipped == complete.skipped


SPAN = ExportTraceServiceRequest.FromString(first_capture("otlp_spans_keyed")).resource_spans[0].scope_spans[0].spans[0]


def request_of(*spans: bytes) -> bytes:
    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    return field(1, field(2, b"".join(field(2, span) for span in spans)))


def both(*spans: bytes):
    values = [request_of(*spans)]
    fast = decode(Signal.SPANS, Encoding.OTLP_PROTO, values)
    complete = decode(Signal.SPANS, Encoding.OTLP_PROTO, values, keep_attributes=True)
    assert fast.frame.rows() == complete.frame.drop("attributes").rows()
    assert [index for index, _ in fast.bad] == [index for index, _ in complete.bad]
    assert fast.skipped == complete.skipped
    return fast


@pytest.mark.parametrize(
    "extra",
    [
        b"\x30\x83\x00",  # kind as a varint that is longer than it needs to be
        b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # kind -1
        b"\x2a\x03GET",  # a second name
        b"\x2a\x00",  # a second, empty name
        b"\x7a\x02\x18\x01",  # a second status
        b"\x7a\x04\x12\x02no",  # a status message without code: merged into the first
        b"\x7a\x03\x18\x82\x00",  # a status code as an overlong varint
        b"\x0a\x03abc",  # a trace id of three bytes
        b"\x12\x00",  # an empty span id
        b"\x0d1234",  # the trace id's field with another wire type
        b"\xf8\x07\x05",  # an unknown field
        b"\xfa\x07\x02hi",
        b"\xf9\x0712345678",
        b"\x4a\x00",  # an empty attribute
        b"\x4a\x10\x12\x0e\x0a\x0cpeer.service",  # an attribute without key
        b"\x4a\x12\x0a\x0cpeer.service\x12\x02\x0a\x00",
        b"\x4a\x15\x12\x05\x0a\x03pay\x0a\x0cpeer.service",  # the value before the key, as the Collector writes
        b"\x4a\x15\x0a\x0cpeer.service\x12\x05\x0a\x03pay",
        b"\x4a\x98\x02" + b"\x12\x87\x02\x0a\x84\x02" + 260 * b"p" + b"\x0a\x0cpeer.service",  # a long value first
        b"\x4a\x15\x0a\x0cpeer.service\x12\x05\x0a\x03pay" * (MAX_FIELDS + 1),
        b"\x83\x01\x84\x01",  # a group
        b"\x4a\x95\x10\x0a\x0cpeer.service\x12\x84\x10\x0a\x81\x10" + 2049 * b"p",  # too long to be remembered
        b"\x7a\x88\x10\x12\x83\x10" + 2051 * b"m" + b"\x18\x02",
        b"\x41" + b"\xff" * 8,  # an end far beyond any clock
        b"\x2a\x02\xff\xfe",  # a name that is no UTF-8
        b"\x2a\x03\xef\xbf\xbd",  # a name that is the replacement character itself
        b"\x02\x00",  # field number zero
        b"\x2a\x7f",  # a name longer than what is left
        b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x30",  # a field without value
        b"\x07",  # a wire type that does not exist
    ],
)
@pytest.mark.parametrize("kind", [2, 3])
def test_odd_encodings_are_read_as_protobuf_reads_them(extra, kind):
    span = type(SPAN)()
    span.CopyFrom(SPAN)
    span.kind = kind
    encoded = span.SerializeToString()
    both(encoded, encoded + extra, encoded)


@pytest.mark.parametrize("kind", [2, 3])
def test_fields_in_reverse_order_are_read_the_same(kind):
    span = type(SPAN)()
    span.CopyFrom(SPAN)
    span.kind = kind
    fields = [type(SPAN)() for _ in span.ListFields()]
    for one, (descriptor, value) in zip(fields, span.ListFields(), strict=True):
        if descriptor.name == "attributes":
            one.attributes.extend(value)
        elif descriptor.name == "status":
            one.status.CopyFrom(value)
        else:
            setattr(one, descriptor.name, value)
    backwards = b"".join(one.SerializeToString() for one in reversed(fields))
    rows = both(span.SerializeToString(), backwards).frame.rows()
    assert rows[0] == rows[1]


def test_a_walk_finds_every_field_of_every_message():
    fields = walk([b"\x08\x05\x12\x02hi", b"", b"\x0d1234\x1112345678"])
    assert fields.odd.tolist() == [False, False, False]
    found = sorted(zip(fields.row.tolist(), fields.tag.tolist(), fields.end.tolist(), strict=True))
    assert found == [(0, 0x08, 2), (0, 0x12, 6), (2, 0x0D, 11), (2, 0x11, 20)]


def test_a_walk_leaves_broken_messages_to_others_and_keeps_the_rest():
    fields = walk([b"\x08\x05", b"\x12\x7f", b"\x08\x06"])
    assert fields.odd.tolist() == [False, True, False]
    assert fields.row.tolist() == [0, 2]
