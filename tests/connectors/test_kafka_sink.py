"""Writing to a real Kafka: everything arrives or something is raised."""

from __future__ import annotations

import time

import pytest

from connectors.config import KafkaConfig
from connectors.errors import DeliveryError
from connectors.kafka_client import KafkaTimeoutError, make_consumer, topic_partition
from connectors.kafka_sink import DeadLetterKafkaSink, KafkaSink, KafkaWriter, OutRecord
from signals.batch import DeadLetter, DeadLetters

pytestmark = pytest.mark.kafka


def contents(config: KafkaConfig, topic: str, count: int):
    """The first records of partition 0."""
    consumer = make_consumer(config)
    where = topic_partition(topic, 0)
    consumer.assign([where])
    consumer.seek(where, 0)
    found = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(200).values():
            found.extend(records)
    consumer.close(autocommit=False)
    return found


def build(sink):
    return sink.build("step", 0, 1)


def test_records_arrive_in_order_with_keys_and_headers(kafka_config):
    config = kafka_config()
    topic = config.topics.changes
    partition = build(KafkaSink(config, topic))
    partition.write_batch([OutRecord(b"a", b"1", (("h", b"x"),)), OutRecord(None, b"2")])
    partition.write_batch([OutRecord(b"\xff\x00", None)])
    partition.close()
    seen = [(record.key, record.value, list(record.headers)) for record in contents(config, topic, 3)]
    assert seen == [(b"a", b"1", [("h", b"x")]), (None, b"2", []), (b"\xff\x00", None, [])]


def test_a_record_that_is_too_large_for_the_client_raises_with_size_and_remedy_and_the_others_are_there(kafka_config):
    config = kafka_config(max_message_bytes=10_000)
    writer = KafkaWriter(config, config.topics.changes)
    with pytest.raises(DeliveryError, match=r"record of 20001 bytes.*max_message_bytes"):
        writer.write([OutRecord(b"k", b"before"), OutRecord(b"k", b"x" * 20_000), OutRecord(b"k", b"after")])
    writer.close()
    assert [record.value for record in contents(config, config.topics.changes, 1)] == [b"before"]


def test_a_record_that_the_broker_refuses_raises_too(kafka_config, topics):
    config = kafka_config(compression="none")
    topic = topics("small", **{"max.message.bytes": "5000"})
    writer = KafkaWriter(config, topic)
    with pytest.raises(DeliveryError, match=r"record of 9001 bytes.*max\.message\.bytes"):
        writer.write([OutRecord(b"k", b"x" * 9_000)])
    writer.close()


def test_what_the_topic_does_not_accept_raises_and_what_it_accepts_is_there(kafka_config, topics):
    config = kafka_config()
    topic = topics("compacted", **{"cleanup.policy": "compact"})  # takes records with a key only
    writer = KafkaWriter(config, topic)
    writer.write([OutRecord(b"k", b"kept")])
    with pytest.raises(DeliveryError, match=topic):
        writer.write([OutRecord(None, b"refused")])
    writer.close()
    assert [record.value for record in contents(config, topic, 1)] == [b"kept"]


def test_brokers_that_are_gone_raise_when_the_time_is_up():
    class Deaf:
        def send(self, *_, **__):
            return self

        def flush(self, timeout=None):
            raise KafkaTimeoutError(f"not within {timeout}")

    writer = KafkaWriter(KafkaConfig(delivery_timeout_s=3), "results", producer=Deaf())
    with pytest.raises(DeliveryError, match=r"'results'.*not delivered within 3 s.*127\.0\.0\.1:9092 are up"):
        writer.write([OutRecord(b"k", b"v")])


def test_dead_letters_keep_their_bytes_and_say_where_they_came_from(kafka_config):
    config = kafka_config()
    partition = build(DeadLetterKafkaSink(config))
    letter = DeadLetter("otlp_spans", 3, 42, "protobuf: truncated … twice", b"\xff\x00raw", b"\xfe")
    partition.write_batch([DeadLetters("otlp_spans/3", (letter,))])
    partition.close()
    (record,) = contents(config, config.topics.dead_letters, 1)
    assert (record.key, record.value) == (b"\xfe", b"\xff\x00raw")
    assert dict(record.headers) == {
        "mendstream.reason": "protobuf: truncated … twice".encode(),
        "mendstream.topic": b"otlp_spans",
        "mendstream.partition": b"3",
        "mendstream.offset": b"42",
    }


def test_a_dead_letter_too_large_to_write_is_cut_and_says_so_instead_of_stopping_the_job(kafka_config):
    config = kafka_config(max_message_bytes=20_000)
    partition = build(DeadLetterKafkaSink(config))
    partition.write_batch([DeadLetters("t/0", (DeadLetter("t", 0, 1, "bad", b"y" * 50_000),))])
    partition.close()
    (record,) = contents(config, config.topics.dead_letters, 1)
    assert record.value == b"y" * len(record.value)
    assert dict(record.headers)["mendstream.cut_from_bytes"] == b"50000"
