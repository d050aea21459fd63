"""Small made-up telemetry for connector tests: frames, recordings with awkward rows, and Kafka helpers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from connectors.config import KafkaConfig
from connectors.kafka_client import make_producer
from signals.schema import CHANGES, LOGS, METRICS, SPANS, Signal

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def spans(count: int, *, seed: int = 1, start_ns: int = START_NS, spread_s: float = 60.0) -> pl.DataFrame:
    """``count`` spans in order of their end, each of up to two seconds."""
    random = np.random.default_rng(seed)
    start = start_ns + np.sort(random.integers(0, int(spread_s * SECOND), count))
    frame = pl.DataFrame(
        {
            "environment": "test",
            "namespace": "",
            "service": [f"service-{number % 5}" for number in range(count)],
            "instance": [f"pod-{number % 3}" for number in range(count)],
            "version": "1.0",
            "name": [f"op-{number % 7}" for number in range(count)],
            "kind": [(2, 3)[number % 2] for number in range(count)],
            "status": [(0, 0, 2)[number % 3] for number in range(count)],
            "start_ns": start,
            "end_ns": start + random.integers(0, 2 * SECOND, count),
            "trace_hi": random.integers(1, 2**63, count, dtype=np.uint64),
            "trace_lo": random.integers(1, 2**63, count, dtype=np.uint64),
            "span_id": random.integers(1, 2**63, count, dtype=np.uint64),
            "parent_id": np.where(np.arange(count) % 4, random.integers(1, 2**63, count, dtype=np.uint64), 0),
            "peer": ["" if number % 2 == 0 else f"peer-{number % 4}" for number in range(count)],
        },
        schema=SPANS,
    )
    return frame.sort("end_ns", maintain_order=True)


def logs(count: int, *, start_ns: int = START_NS, spread_s: float = 60.0) -> pl.DataFrame:
    """``count`` log lines at even distances."""
    return pl.DataFrame(
        {
            "environment": "test",
            "namespace": "",
            "service": [f"service-{number % 5}" for number in range(count)],
            "instance": "",
            "version": "",
            "time_ns": [start_ns + int(number * spread_s * SECOND / count) for number in range(count)],
            "severity": [(9, 17)[number % 2] for number in range(count)],
            "body": [f"line {number}" for number in range(count)],
            "trace_hi": 0,
            "trace_lo": 0,
            "span_id": 0,
        },
        schema=LOGS,
    )


def gauges(count: int, *, start_ns: int = START_NS, spread_s: float = 60.0) -> pl.DataFrame:
    """``count`` gauge points at even distances."""
    return pl.DataFrame(
        {
            "environment": "test",
            "namespace": "",
            "service": [f"service-{number % 5}" for number in range(count)],
            "instance": "",
            "time_ns": [start_ns + int(number * spread_s * SECOND / count) for number in range(count)],
            "metric": "cpu",
            "attributes": [("", '{"core":0}')[number % 2] for number in range(count)],
            "shape": 0,
            "value": [float(number) for number in range(count)],
            "start_ns": 0,
            "count": 0,
            "bounds": [[]] * count,
            "counts": [[]] * count,
        },
        schema=METRICS,
    )


def changes(count: int, *, start_ns: int = START_NS) -> pl.DataFrame:
    """``count`` deployments, ten seconds apart."""
    return pl.DataFrame(
        {
            "environment": "test",
            "namespace": "shop",
            "service": [f"service-{number % 5}" for number in range(count)],
            "instance": "",
            "time_ns": [start_ns + number * 10 * SECOND + 5 for number in range(count)],
            "id": [f"change-{number}" for number in range(count)],
            "type": "dev.cdevents.service.upgraded.0.3.0",
            "version": [f"1.{number}" for number in range(count)],
            "detail": "deploy",
        },
        schema=CHANGES,
    )


FRAMES = {
    Signal.SPANS: spans(600),
    Signal.LOGS: logs(400),
    Signal.METRICS: gauges(300),
    Signal.CHANGES: changes(5),
}


def raw_span(start_ns: int, duration_ns: int, **fields: Any) -> dict[str, Any]:
    """A row of ``spans/*.parquet``."""
    row = {
        "trace_id": f"{start_ns:032x}",
        "span_id": f"{start_ns:016x}",
        "parent_span_id": None,
        "service": "cart",
        "instance": "cart-1",
        "name": "op",
        "kind": 2,
        "start_unix_ns": start_ns,
        "duration_ns": duration_ns,
        "status_code": 0,
        "attributes": None,
    }
    return row | fields


RAW_SPANS = pl.Schema(
    {
        "trace_id": pl.String,
        "span_id": pl.String,
        "parent_span_id": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "name": pl.String,
        "kind": pl.Int8,
        "start_unix_ns": pl.Int64,
        "duration_ns": pl.Int64,
        "status_code": pl.Int8,
        "attributes": pl.String,
    }
)


def write_spans(folder: Path, files: Sequence[Iterable[dict[str, Any]]], *, row_group_size: int = 1_000) -> Path:
    """A recording of the given span rows, one Parquet file per sequence of rows."""
    (folder / "spans").mkdir(parents=True)
    for number, rows in enumerate(files):
        frame = pl.DataFrame(list(rows), schema=RAW_SPANS, orient="row")
        frame.write_parquet(folder / "spans" / f"part-{number}.parquet", row_group_size=row_group_size)
    about = {"name": folder.name, "environment": "test"}
    (folder / "recording.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def produce(config: KafkaConfig, topic: str, values: Iterable[bytes | None], **options: Any) -> None:
    """Write values to partition 0 of a topic and wait until they are there."""
    producer = make_producer(config)
    for value in values:
        producer.send(topic, value, **({"partition": 0} | options)).get(timeout=10)
    producer.close()
