"""Files of the Collector's exporter: framings, compressions, damage."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import zstandard

from connectors.errors import OtlpFileError
from connectors.iterate import iterate
from connectors.otlp_files import OtlpFileSource
from signals.batch import Batch, DeadLetters
from signals.otlp import Encoding
from signals.otlp_encode import encode
from signals.schema import Signal
from tests.support.telemetry import FRAMES, spans

PROTO = encode(Signal.SPANS, spans(60), max_rows=20)
JSON = encode(Signal.SPANS, spans(60), encoding=Encoding.OTLP_JSON, max_rows=20)


def framed(messages) -> bytes:
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def read(path: Path, **settings):
    found = list(iterate(OtlpFileSource([path], environment="test", **settings)))
    rows = sum(item.frame.height for item in found if isinstance(item, Batch))
    return rows, [letter for item in found if isinstance(item, DeadLetters) for letter in item.letters]


@pytest.mark.parametrize(
    "content",
    [
        framed(PROTO),
        framed(JSON),
        framed([zstandard.compress(message) for message in PROTO]),
        zstandard.compress(framed(PROTO)),
        zstandard.compress(framed(PROTO[:1])) + zstandard.compress(framed(PROTO[1:])),
        b"\n".join(JSON),
        b"\r\n".join(JSON) + b"\r\n\r\n",
        zstandard.compress(b"\n".join(JSON)),
    ],
    ids=["proto", "framed json", "zstd messages", "zstd", "zstd frames", "json lines", "crlf", "zstd json lines"],
)
def test_every_framing_and_compression_is_told_from_the_bytes(tmp_path, content):
    (tmp_path / "traces.otlp").write_bytes(content)
    assert read(tmp_path / "traces.otlp") == (60, [])


def test_the_signal_of_json_is_in_its_first_key_and_of_protobuf_in_the_name(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\n".join(encode(Signal.LOGS, FRAMES[Signal.LOGS], encoding=Encoding.OTLP_JSON)))
    (tmp_path / "my-metrics.bin").write_bytes(framed(encode(Signal.METRICS, FRAMES[Signal.METRICS])))
    source = OtlpFileSource(sorted(tmp_path.iterdir()), environment="test")
    assert source.partitions_by_signal() == {Signal.LOGS: ("otlp:a.json",), Signal.METRICS: ("otlp:my-metrics.bin",)}


def test_protobuf_of_an_unknown_signal_is_refused_unless_it_is_said(tmp_path):
    path = tmp_path / "export.bin"
    path.write_bytes(framed(PROTO))
    with pytest.raises(OtlpFileError, match="spans, logs or metrics"):
        OtlpFileSource([path], environment="test")
    assert read(path, signals={path: Signal.SPANS})[0] == 60


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_message_cut_off_at_the_end_is_a_dead_letter_and_the_rest_is_read(tmp_path, cut):
    whole = framed(PROTO)
    path = tmp_path / "traces.bin"
    path.write_bytes(whole[:-cut])
    rows, (letter,) = read(path)
    assert rows == 40
    assert letter.offset == 2
    assert "the file ends inside this message" in letter.reason


def test_a_broken_message_among_sound_ones_is_a_dead_letter(tmp_path):
    path = tmp_path / "traces.bin"
    path.write_bytes(framed([PROTO[0], b"\xff\xff nonsense", PROTO[1]]))
    rows, (letter,) = read(path)
    assert (rows, letter.offset, letter.value) == (40, 1, b"\xff\xff nonsense")


def test_bytes_that_are_no_framing_are_refused(tmp_path):
    (tmp_path / "traces.bin").write_bytes(b"\xfe\xfe\xfe\xfe whatever")
    with pytest.raises(OtlpFileError, match="claims"):
        OtlpFileSource([tmp_path / "traces.bin"], environment="test")


def test_broken_compression_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "traces.zst"
    path.write_bytes(zstandard.compress(framed(PROTO) * 50)[:200])
    with pytest.raises(OtlpFileError, match=r"traces\.zst"):
        read(path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OtlpFileError, match=r"traces\.bin"):
        OtlpFileSource([tmp_path / "traces.bin"], environment="test")


@pytest.mark.recordings
@pytest.mark.slow
def test_a_recorded_systems_traces_are_read_whole(recordings):
    path = recordings.parent / "otlp" / "boutique-dev-traces.otlp.zst"
    if not path.exists():
        pytest.skip("no otlp/ beside the recordings")
    rows, letters = read(path)
    assert rows > 800_000
    assert letters == []
