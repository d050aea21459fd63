"""The Kafka source against a real broker: dead letters, clocks, idleness, resuming, stopping, limits."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import Future

import kafka as kafka_python
import polars as pl
import pytest
from kafka.structs import TopicPartition as KafkaTopicPartition

from connectors.errors import OffsetOutOfRangeError, TopicError
from connectors.iterate import iterate
from connectors.kafka_partition import KafkaPosition
from connectors.kafka_source import KafkaSource
from signals.batch import END_OF_STREAM, NO_WATERMARK, Batch, DeadLetters
from signals.otlp import Encoding
from signals.otlp_encode import encode
from signals.schema import Signal
from tests.support.telemetry import SECOND, START_NS, logs, produce, spans

pytestmark = pytest.mark.kafka

SPANS = frozenset({Signal.SPANS})


def read(config, **settings):
    """All items until the ends the topics have now."""
    return list(iterate(KafkaSource(config, environment="test", stop_at_end=True, **settings)))


def only_spans(config, state=None, **settings):
    source = KafkaSource(config, environment="test", signals=SPANS, **settings)
    (name,) = source.partition_names()
    return source.build_part("test", name, state)


def turn(partition, *, until=bool, timeout_s=10.0):
    """Turns until one gives what is waited for; the items of that turn."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        items = list(partition.next_batch())
        if until(items):
            return items
        time.sleep(0.005)
    pytest.fail("the partition gave nothing")


def messages(frame: pl.DataFrame, rows: int = 20) -> list[bytes]:
    return encode(Signal.SPANS, frame, max_rows=rows)


# -- what comes in -----------------------------------------------------------------------------------------------------


def test_bad_messages_become_dead_letters_with_reason_and_offset_and_the_rest_flows(kafka_config):
    config = kafka_config()
    good = messages(spans(40))
    bad = [b"\xff\xff\xff not protobuf", good[0][:-7], b'{"resourceSpans":[]}', None, b"\x1f\x8b\x08gzip"]
    produce(config, config.topics.spans.name, [good[0], *bad, good[1]], key=b"k")
    items = read(config, signals=SPANS)
    letters = [letter for item in items if isinstance(item, DeadLetters) for letter in item.letters]
    assert [letter.offset for letter in letters] == [1, 2, 3, 4, 5]
    assert [letter.value for letter in letters] == [value or b"" for value in bad]
    assert all(letter.key == b"k" and letter.topic == config.topics.spans.name for letter in letters)
    assert "otlp_json" in letters[2].reason
    assert "tombstone" in letters[3].reason
    assert "gzip" in letters[4].reason
    assert sum(item.frame.height for item in items if isinstance(item, Batch)) == 40


@pytest.mark.parametrize("key", [None, b"0af7651916cd43dd8448eb211c80319c", bytes(range(240, 256))])
def test_keys_of_any_kind_are_ignored(kafka_config, key):
    config = kafka_config()
    produce(config, config.topics.spans.name, messages(spans(20)), key=key)
    assert sum(item.frame.height for item in read(config, signals=SPANS)) == 20


def test_json_topics_are_read_as_json(kafka_config):
    config = kafka_config(encoding=Encoding.OTLP_JSON)
    produce(config, config.topics.spans.name, encode(Signal.SPANS, spans(30), encoding=Encoding.OTLP_JSON))
    assert sum(item.frame.height for item in read(config, signals=SPANS)) == 30


def test_change_events_come_structured_and_binary_and_bad_ones_are_dead_letters(kafka_config):
    config = kafka_config()
    event = {"specversion": "1.0", "id": "1", "source": "/ci", "type": "t", "subject": "cart"}
    event["time"] = "2023-11-14T22:13:20Z"
    produce(config, config.topics.changes, [json.dumps(event).encode(), b"{}"])
    headers = [(f"ce_{name}", value.encode()) for name, value in (event | {"id": "2"}).items()]
    produce(config, config.topics.changes, [b'{"service": "basket"}'], headers=headers)
    items = read(config, signals=frozenset({Signal.CHANGES}))
    frame = pl.concat([item.frame for item in items if isinstance(item, Batch)])
    assert frame.select("id", "service", "time_ns").rows() == [("1", "cart", START_NS), ("2", "basket", START_NS)]
    (letters,) = [item for item in items if isinstance(item, DeadLetters)]
    assert "'id' is missing" in letters.letters[0].reason


def test_rows_from_the_future_of_their_message_are_counted_and_do_not_move_the_watermark(kafka_config):
    config = kafka_config(allowed_lateness_s=0)
    sound, late_clock = spans(10), spans(3, start_ns=START_NS + 3_600 * SECOND)
    mixed = pl.concat([sound, late_clock])
    written_ms = (START_NS + 70 * SECOND) // 1_000_000
    produce(config, config.topics.spans.name, messages(mixed, rows=4), timestamp_ms=written_ms)
    batches = read(config, signals=SPANS)
    assert sum(batch.frame.height for batch in batches) == 10
    assert sum(batch.skipped.get("future", 0) for batch in batches) == 3
    assert max(batch.watermark_ns for batch in batches if batch.frame.height) == sound["end_ns"].max()


def test_old_telemetry_written_again_today_is_no_row_from_the_future(kafka_config):
    config = kafka_config()
    produce(config, config.topics.spans.name, messages(spans(10, start_ns=SECOND)))
    assert sum(batch.frame.height for batch in read(config, signals=SPANS)) == 10


def test_a_batch_names_the_offsets_it_came_from(kafka_config):
    config = kafka_config(max_poll_records=2)
    produce(config, config.topics.spans.name, messages(spans(50), rows=10))
    ranges = [(batch.first_offset, batch.last_offset) for batch in read(config, signals=SPANS) if batch.frame.height]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 4
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(ranges))


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_poll_is_bounded_in_records_and_in_bytes(kafka_config):
    config = kafka_config(max_poll_records=50, max_poll_bytes=20_000)
    values = messages(spans(4_000, spread_s=5), rows=50)
    produce(config, config.topics.spans.name, values)
    sizes = [len(value) for value in values]
    batches = [batch for batch in read(config, signals=SPANS) if batch.frame.height]
    polled = [sum(sizes[batch.first_offset : batch.last_offset + 1]) for batch in batches]
    # The first poll does not know yet how large messages are.
    assert all(size <= 2 * 20_000 for size in polled[2:])
    assert len(batches) > 10


def test_a_partition_that_is_far_ahead_waits_for_the_slowest(kafka_config):
    config = kafka_config(max_ahead_s=30, max_poll_records=1, allowed_lateness_s=0)
    produce(config, config.topics.spans.name, messages(spans(400, spread_s=600), rows=10))
    produce(config, config.topics.logs.name, encode(Signal.LOGS, logs(400, spread_s=600), max_rows=10))
    source = KafkaSource(config, environment="test", stop_at_end=True, signals=frozenset({Signal.SPANS, Signal.LOGS}))
    parts = {name: source.build_part("test", name, None) for name in source.partition_names()}
    marks: dict[str, int] = {}
    while parts:
        for name, part in list(parts.items()):
            try:
                items = part.next_batch()
            except StopIteration:
                del parts[name], marks[name]
                continue
            for batch in items:
                others = [mark for other, mark in marks.items() if other != name and mark != END_OF_STREAM]
                before = marks.get(name, START_NS)
                assert all(before <= mark + 30 * SECOND for mark in others), "it was too far ahead to poll"
                marks[name] = batch.watermark_ns


def test_a_gap_of_hours_stalls_nobody(kafka_config):
    config = kafka_config(max_ahead_s=30)
    for hours in (0, 5, 11):
        start = START_NS + hours * 3_600 * SECOND
        produce(config, config.topics.spans.name, messages(spans(20, start_ns=start)))
        produce(config, config.topics.logs.name, encode(Signal.LOGS, logs(20, start_ns=start)))
    both = read(config, signals=frozenset({Signal.SPANS, Signal.LOGS}))
    assert sum(batch.frame.height for batch in both) == 120


# -- ends and idleness -------------------------------------------------------------------------------------------------


def test_an_empty_partition_ends_at_once_and_messages_written_meanwhile_are_left(kafka_config):
    config = kafka_config()
    partition = only_spans(config, stop_at_end=True)
    produce(config, config.topics.spans.name, messages(spans(5)))
    (batch,) = partition.next_batch()
    assert (batch.watermark_ns, batch.frame.height) == (END_OF_STREAM, 0)
    with pytest.raises(StopIteration):
        partition.next_batch()
    assert partition.snapshot() == KafkaPosition(0)
    partition.close()


def test_a_topic_that_ends_in_transaction_markers_ends(kafka_config, kafka):
    config = kafka_config()
    producer = kafka_python.KafkaProducer(bootstrap_servers=kafka, transactional_id=config.topics.spans.name)
    producer.init_transactions()
    for value in messages(spans(40)):
        producer.begin_transaction()
        producer.send(config.topics.spans.name, value)
        producer.commit_transaction()
    producer.close()
    assert sum(batch.frame.height for batch in read(config, signals=SPANS)) == 40


def test_silence_at_the_end_makes_a_partition_idle_and_data_wakes_it(kafka_config):
    now = [0.0]
    config = kafka_config(idle_timeout_s=15, allowed_lateness_s=0)
    values = messages(spans(40))
    produce(config, config.topics.spans.name, values[:1])
    partition = only_spans(config, monotonic=lambda: now[0])
    (first,) = turn(partition)
    assert not first.idle
    for _ in range(100):
        assert partition.next_batch() == []
    now[0] = 14.9
    assert partition.next_batch() == []
    now[0] = 15.1
    (idle,) = turn(partition)
    assert (idle.idle, idle.watermark_ns, idle.frame.height) == (True, first.watermark_ns, 0)
    now[0] = 60.0
    assert partition.next_batch() == []
    produce(config, config.topics.spans.name, values[1:])
    (awake,) = turn(partition)
    assert (awake.idle, awake.frame.height) == (False, 20)
    partition.close()


def test_a_partition_whose_broker_is_lost_is_not_idle(kafka_config):
    now = [0.0]
    partition = only_spans(kafka_config(idle_timeout_s=1), monotonic=lambda: now[0])
    for _ in range(200):
        assert partition.next_batch() == []
        time.sleep(0.005)
    lost: Future[int] = Future()
    lost.set_exception(OSError("nobody answers"))
    partition._ends.ask = lambda _: lost
    for _ in range(50):
        now[0] += 0.5
        assert partition.next_batch() == []
    partition.close()


def test_a_quiet_partition_speaks_once_so_that_everybody_knows_it(kafka_config):
    partition = only_spans(kafka_config(), KafkaPosition(0, 123))
    (hello,) = turn(partition)
    assert (hello.frame.height, hello.watermark_ns, hello.idle) == (0, 123, False)
    assert partition.next_batch() == []
    assert partition.next_awake() is not None
    partition.close()


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_a_first_start_begins_where_it_is_told_and_a_resume_where_it_stopped(kafka_config):
    config = kafka_config(auto_offset_reset="latest")
    topic = config.topics.spans.name
    produce(config, topic, messages(spans(20)))
    partition = only_spans(config)
    assert partition.snapshot() == KafkaPosition(1)
    produce(config, topic, messages(spans(20, seed=2)))
    (batch,) = turn(partition, until=lambda items: items and items[0].frame.height)
    assert (batch.first_offset, partition.snapshot().offset) == (1, 2)
    partition.close()
    assert only_spans(config, partition.snapshot()).snapshot() == partition.snapshot()


def expire(kafka: str, topic: str, before: int) -> None:
    admin = kafka_python.KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_records({KafkaTopicPartition(topic, 0): before})
    admin.close()


def test_an_offset_that_has_expired_is_an_error_that_says_what_to_do(kafka_config, kafka):
    config = kafka_config()
    produce(config, config.topics.spans.name, messages(spans(100)))
    expire(kafka, config.topics.spans.name, 3)
    with pytest.raises(OffsetOutOfRangeError, match="on_offset_out_of_range") as caught:
        only_spans(config, KafkaPosition(1))
    assert "holds 3 to 5" in str(caught.value)


def test_an_offset_that_expires_while_running_is_the_same_error(kafka_config, kafka):
    config = kafka_config()
    partition = only_spans(config)
    produce(config, config.topics.spans.name, messages(spans(100)))
    expire(kafka, config.topics.spans.name, 3)
    with pytest.raises(OffsetOutOfRangeError, match="holds 3 to 5"):
        turn(partition, until=lambda items: any(item.frame.height for item in items))
    partition.close()


def test_going_on_at_the_earliest_after_a_gap_must_be_allowed(kafka_config, kafka):
    config = kafka_config(on_offset_out_of_range="earliest")
    produce(config, config.topics.spans.name, messages(spans(100)))
    expire(kafka, config.topics.spans.name, 3)
    assert only_spans(config, KafkaPosition(1, 77)).snapshot() == KafkaPosition(3, 77)


# -- around it ---------------------------------------------------------------------------------------------------------


def test_a_missing_topic_is_named_with_what_to_do(kafka_config):
    config = kafka_config()
    absent = config.model_copy(update={"topics": config.topics.model_copy(update={"changes": "never-made"})})
    with pytest.raises(TopicError, match=r"'never-made' does not exist.*missing_topics"):
        KafkaSource(absent, environment="test").partition_names()
    ignoring = absent.model_copy(update={"missing_topics": "ignore"})
    assert len(KafkaSource(ignoring, environment="test").partition_names()) == 3


def test_missing_topics_can_be_created(kafka_config, topics):
    config = kafka_config()
    name = f"{config.topics.changes}-new"
    settings = {"topics": config.topics.model_copy(update={"changes": name}), "missing_topics": "create"}
    creating = config.model_copy(update={**settings, "new_topic_partitions": 2})
    assert f"{name}/1" in KafkaSource(creating, environment="test").partition_names()
    assert (
        sum(name in part for part in KafkaSource(config.model_copy(update=settings), environment="x").list_parts()) == 2
    )


def test_inputs_that_are_turned_off_are_not_read(kafka_config):
    config = kafka_config(partitions=2)
    off = config.model_copy(update={"topics": config.topics.model_copy(update={"logs": None, "changes": None})})
    source = KafkaSource(off, environment="test")
    assert set(source.partitions_by_signal()) == {Signal.SPANS, Signal.METRICS}
    assert len(source.partition_names()) == 4


class Watching:
    def __init__(self):
        self.seen = []

    def on_poll(self, partition, **values):
        self.seen.append({"partition": partition, **values})


def test_an_observer_sees_records_bytes_and_lag(kafka_config):
    config = kafka_config(max_poll_records=1)
    values = messages(spans(40))
    produce(config, config.topics.spans.name, values)
    watching = Watching()
    partition = only_spans(config, observer=watching)
    turn(partition)
    first = watching.seen[-1]
    assert (first["records"], first["size_bytes"], first["position"], first["end_offset"]) == (1, len(values[0]), 1, 2)
    turn(partition)
    assert watching.seen[-1]["position"] == watching.seen[-1]["end_offset"] == 2
    partition.close()


def test_telemetry_without_an_environment_gets_the_configured_one(kafka_config):
    config = kafka_config()
    nameless = spans(5).with_columns(environment=pl.lit(""))
    produce(config, config.topics.spans.name, messages(nameless))
    (batch,) = [batch for batch in read(config, signals=SPANS) if batch.frame.height]
    assert batch.frame["environment"].unique().to_list() == ["test"]


def test_before_the_first_word_the_watermark_holds_everybody(kafka_config):
    assert only_spans(kafka_config()).snapshot().watermark_ns == NO_WATERMARK
