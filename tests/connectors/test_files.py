"""Lines in files: fresh starts, resumes, and what is no line."""

from __future__ import annotations

import base64
import json

import pytest

from connectors.errors import ConnectorError
from connectors.files import DeadLetterFileSink, JsonLinesSink
from signals.batch import DeadLetter, DeadLetters


def opened(sink, state=None):
    (part,) = sink.list_parts()
    return sink.build_part("step", part, state)


def test_lines_are_there_as_soon_as_a_batch_is_written(tmp_path):
    part = opened(JsonLinesSink(tmp_path / "out" / "lines.jsonl"))
    part.write_batch([b'{"a":1}', '{"b":2}', {"c": [3]}])
    assert (tmp_path / "out" / "lines.jsonl").read_text() == '{"a":1}\n{"b":2}\n{"c":[3]}\n'
    part.close()


def test_a_fresh_start_begins_an_empty_file(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("of yesterday\n")
    opened(JsonLinesSink(path)).close()
    assert path.read_text() == ""


def test_a_resume_drops_what_no_snapshot_covers_and_goes_on_there(tmp_path):
    path = tmp_path / "lines.jsonl"
    part = opened(JsonLinesSink(path))
    part.write_batch([{"n": 1}])
    state = part.snapshot()
    part.write_batch([{"n": 2}])  # written, but the job dies before its epoch ends
    part.close()
    part = opened(JsonLinesSink(path), state)
    part.write_batch([{"n": 2}, {"n": 3}])
    part.close()
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_file_that_was_cut_behind_our_back_is_an_error_on_resume(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ConnectorError, match="fresh recovery store"):
        opened(JsonLinesSink(path), 100)


def test_a_line_break_inside_a_line_is_refused(tmp_path):
    part = opened(JsonLinesSink(tmp_path / "lines.jsonl"))
    with pytest.raises(ConnectorError, match="line break"):
        part.write_batch(['{\n"a": 1}'])
    part.close()


def test_dead_letters_keep_their_bytes(tmp_path):
    part = opened(DeadLetterFileSink(tmp_path / "dead.jsonl"))
    part.write_batch(
        [DeadLetters("t/0", (DeadLetter("t", 0, 9, "why", b"\xff", None), DeadLetter("t", 0, 10, "w", b"")))]
    )
    part.close()
    first, second = map(json.loads, (tmp_path / "dead.jsonl").read_text().splitlines())
    assert (first["offset"], first["reason"], first["key"]) == (9, "why", None)
    assert base64.b64decode(first["value"]) == b"\xff"
    assert second["value"] == ""
