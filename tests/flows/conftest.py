"""A simulated recording and its undisturbed replay, made once; and the live job over it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.commands.publish import publish_recording
from flows.replay import replay
from flows.settings import Settings, load_settings
from tests.support.live import LiveJob, live_job, make_inputs, settings_file, simulated, told


@dataclass(frozen=True)
class Undisturbed:
    """What a replay in this process says: canonical JSON by event id, and the documents in order."""

    causes: dict[str, bytes]
    intents: dict[str, bytes]
    events: list[dict[str, Any]]
    rows: int


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six simulated minutes of a shop with two faults."""
    return simulated(tmp_path_factory.mktemp("shop") / "recording")


@pytest.fixture(scope="session")
def shop_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings that every run over the shop uses."""
    return load_settings(settings_file(tmp_path_factory.mktemp("settings"), {}))


@pytest.fixture(scope="session")
def undisturbed(shop: Path, shop_settings: Settings) -> Undisturbed:
    """The replay that every other run must agree with; it tells of both faults and decides something."""
    result = replay(shop, shop_settings)
    events = [event.to_json() for event in result.events]
    assert {event["data"]["incident"]["state"] for event in events} >= {"open", "resolved"}
    assert len({event["data"]["incident"]["id"] for event in events}) >= 2
    assert result.intents
    return Undisturbed(told(events), told(result.intents), events, sum(result.rows.values()))


@pytest.fixture(scope="session")
def published(kafka: str, shop: Path) -> dict[str, str]:
    """Input topics of three partitions each that hold the shop's telemetry."""
    config, names = make_inputs(kafka, partitions=3)
    publish_recording(shop, config, partitions=3)
    return names


@pytest.fixture
def job(kafka: str, published: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., LiveJob]]:
    """``job()`` is a live job over the shop's telemetry, with outputs and a recovery store of its own."""
    with ExitStack() as stack:

        def make(inputs: dict[str, str] | None = None, **settings: Any) -> LiveJob:
            folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(live_job(folder, kafka, inputs or published, free_ports(3), **settings))

        yield make


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for _ in range(50):
        with ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for number in range(1, count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            except OSError:
                continue
            return port
    raise RuntimeError("no free ports in a row")
