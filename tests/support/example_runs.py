"""Runs the scripts of ``examples/`` as a user would, in processes of their own, and feeds them topics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from incidents.model import RootCauseEvent

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(script: str, *arguments: str) -> list[str]:
    """How to start an example with this interpreter."""
    return [sys.executable, str(EXAMPLES / script), *arguments]


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(
        command(script, *arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def fresh_topic(bootstrap: str, partitions: int = 1) -> str:
    """A new topic of its own for a test."""
    name = f"root_causes_{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(name=name, num_partitions=partitions, replication_factor=1)])
    finally:
        admin.close()
    return name


def produce(bootstrap: str, topic: str, messages: Iterable[RootCauseEvent | bytes | None]) -> None:
    """Write events as the pipeline does: structured CloudEvents, keyed by incident."""
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    try:
        for message in messages:
            key, value = (b"", message)
            if isinstance(message, RootCauseEvent):
                key, value = message.partitionkey.encode(), body_of(message)
            producer.send(topic, key=key, value=value).get(timeout=30)
    finally:
        producer.close()


def body_of(event: RootCauseEvent) -> bytes:
    """The event's bytes on the topic."""
    content: dict[str, Any] = event.to_json()
    return json.dumps(content).encode()
