"""The source and the sink inside Bytewax: several workers, graceful stops, exact resumes."""

from __future__ import annotations

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, cluster_main, run_main

from connectors.kafka_sink import KafkaSink, OutRecord
from connectors.kafka_source import KafkaSource
from signals.batch import END_OF_STREAM, Batch
from signals.otlp_encode import encode
from signals.schema import Signal
from tests.support.telemetry import produce, spans

pytestmark = pytest.mark.kafka

SPANS = frozenset({Signal.SPANS})


@pytest.fixture(params=["one worker", "two workers"])
def entry_point(request):
    if request.param == "one worker":
        return run_main
    return lambda flow, **settings: cluster_main(flow, [], 0, worker_count_per_proc=2, **settings)


def flow_of(source, taken, sink=None, each=lambda batch: batch) -> Dataflow:
    flow = Dataflow("test")
    batches = op.map("look", op.input("in", flow, source), each)
    op.output("out", batches, TestingSink(taken))
    if sink is not None:
        op.output("kafka", op.map("record", batches, lambda batch: OutRecord(None, batch.partition.encode())), sink)
    return flow


def fill(config, messages: int, partitions: int) -> None:
    for partition in range(partitions):
        values = encode(Signal.SPANS, spans(messages * 10, seed=partition), max_rows=10)
        produce(config, config.topics.spans.name, values, partition=partition)


def offsets(items) -> list[tuple[str, int]]:
    found = [
        (batch.partition, offset)
        for batch in items
        if batch.first_offset >= 0
        for offset in range(batch.first_offset, batch.last_offset + 1)
    ]
    return sorted(found)


def test_every_message_arrives_once_and_every_partition_ends(kafka_config, entry_point):
    config = kafka_config(partitions=3, max_poll_records=3)
    fill(config, messages=10, partitions=3)
    source = KafkaSource(config, environment="test", stop_at_end=True, signals=SPANS)
    taken: list[Batch] = []
    entry_point(flow_of(source, taken, KafkaSink(config, config.topics.changes)))
    assert offsets(taken) == [(name, offset) for name in source.partition_names() for offset in range(10)]
    assert {item.partition for item in taken if item.watermark_ns == END_OF_STREAM} == set(source.partition_names())


def test_a_stopped_job_resumes_with_the_message_after_the_last(kafka_config, entry_point, tmp_path):
    config = kafka_config(partitions=2, max_poll_records=2)
    fill(config, messages=20, partitions=2)
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    first = KafkaSource(config, environment="test", signals=SPANS)
    before: list[Batch] = []

    def stop_soon(batch):
        if batch.last_offset >= 6:
            first.request_stop()
        return batch

    entry_point(flow_of(first, before, each=stop_soon), recovery_config=recovery)
    assert 0 < len(offsets(before)) < 40
    assert all(item.watermark_ns != END_OF_STREAM for item in before)
    after: list[Batch] = []
    second = KafkaSource(config, environment="test", stop_at_end=True, signals=SPANS)
    entry_point(flow_of(second, after), recovery_config=recovery)
    everything = [(name, offset) for name in second.partition_names() for offset in range(20)]
    assert sorted(offsets(before) + offsets(after)) == everything
