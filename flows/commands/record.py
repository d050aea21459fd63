"""``mendstream record``: telemetry from Kafka into a recording, for replay, backtests and bug reports."""

from __future__ import annotations

import signal as os_signals
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import polars as pl
import typer

from connectors.config import KafkaConfig, load_kafka_config
from connectors.errors import ConnectorError
from connectors.iterate import iterate
from connectors.kafka_client import KafkaError
from connectors.kafka_source import KafkaSource
from connectors.recording_writer import RecordingWriter
from signals.batch import NO_WATERMARK, Batch, DeadLetters
from signals.metrics import MetricNormaliser
from signals.schema import Signal, empty

_SERIES_ORDER: Final = ("time_ns", "environment", "namespace", "service", "instance", "metric", "attributes")


@dataclass
class MetricsInOrder:
    """Holds metric rows until every metric partition has passed them, then normalises them in order of time.

    Counters become rates, which needs each series' points in order, and partitions are read at different speeds. How
    much is held is bounded by the source's event-time gate.
    """

    partitions: tuple[str, ...]
    normaliser: MetricNormaliser = field(default_factory=MetricNormaliser)

    def __post_init__(self) -> None:
        self._held = empty(Signal.METRICS)
        self._marks = dict.fromkeys(self.partitions, NO_WATERMARK)
        self._idle: set[str] = set()

    def add(self, batch: Batch) -> pl.DataFrame:
        """Take a batch in and give the series rows that nothing can come before any more, schema ``SERIES``."""
        self._marks[batch.partition] = batch.watermark_ns
        (self._idle.add if batch.idle else self._idle.discard)(batch.partition)
        self._held = pl.concat([self._held, batch.frame])
        active = [mark for name, mark in self._marks.items() if name not in self._idle]
        return self._release(min(active) if active else None)

    def flush(self) -> pl.DataFrame:
        """The series rows of everything that is still held."""
        return self._release(None)

    def _release(self, before_ns: int | None) -> pl.DataFrame:
        ready = pl.lit(value=True) if before_ns is None else pl.col("time_ns") < before_ns
        rows = self._held.filter(ready).sort(_SERIES_ORDER, maintain_order=True)
        self._held = self._held.filter(~ready)
        return self.normaliser.process(rows)


@dataclass
class Recorded:
    """What a recording got, and what it did not."""

    rows: Counter[Signal] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)  # messages that could not be read, by reason
    skipped: Counter[str] = field(default_factory=Counter)  # rows left out, by reason


def record_stream(
    source: KafkaSource,
    out: Path,
    *,
    environment: str,
    duration_s: float | None = None,
    on_progress: Callable[[Recorded], None] = lambda _: None,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Recorded:
    """Write what a source gives to a new recording until the source ends, is asked to stop, or time is up.

    Args:
        source: Where to read; made with ``keep_attributes`` so that names and peers can be worked out again.
        out: Folder to write, without a recording in it yet.
        environment: Environment of ``recording.json``.
        duration_s: Seconds to record, without limit when None.
        on_progress: Is told after every batch.
        monotonic: Clock of the duration, seconds.
        sleep: Waits while there is nothing to read.

    Raises:
        RecordingError: The folder already holds a recording.
    """
    done = Recorded()
    deadline = None if duration_s is None else monotonic() + duration_s

    def stop_when_due() -> None:
        if deadline is not None and monotonic() >= deadline:
            source.request_stop()

    def wait(seconds: float) -> None:
        stop_when_due()
        sleep(seconds)

    metrics = MetricsInOrder(source.partitions_by_signal().get(Signal.METRICS, ()))
    with RecordingWriter(out, environment=environment) as writer:
        for item in iterate(source, sleep=wait):
            stop_when_due()
            if isinstance(item, DeadLetters):
                done.dead_letters.update(letter.reason for letter in item.letters)
                continue
            done.skipped.update(item.skipped)
            frame = metrics.add(item) if item.signal is Signal.METRICS else item.frame
            writer.add_frame(item.signal, frame)
            done.rows = writer.rows
            on_progress(done)
        writer.add_frame(Signal.METRICS, metrics.flush())
    done.skipped.update(metrics.normaliser.ignored)
    return done


def record(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not hold a recording yet")],
    *,
    bootstrap_servers: Annotated[
        str | None, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="host:port[,host:port]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML settings; their kafka section is used")] = None,
    environment: Annotated[str, typer.Option(help="Environment of telemetry that names none")] = "default",
    duration: Annotated[float | None, typer.Option(min=0.0, help="Seconds to record; until Ctrl-C without it")] = None,
    stop_at_end: Annotated[bool, typer.Option("--stop-at-end", help="Record what the topics hold, then end")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin at the oldest messages; --stop-at-end always does")
    ] = False,
) -> None:
    """Record telemetry from Kafka into a folder that replay and backtest can read."""
    from rich.live import Live

    try:
        settings = load_kafka_config(config, bootstrap_servers)
        source = _source(settings, environment, stop_at_end=stop_at_end, from_beginning=from_beginning or stop_at_end)
        for number in (os_signals.SIGINT, os_signals.SIGTERM):
            os_signals.signal(number, lambda *_: source.request_stop())
        with Live("Waiting for telemetry; Ctrl-C ends the recording.", transient=True) as live:
            done = record_stream(
                source,
                out,
                environment=environment,
                duration_s=duration,
                on_progress=lambda so_far: live.update(_described(so_far.rows)),
            )
    except (ConnectorError, KafkaError, ValueError) as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Recorded {_described(done.rows)} in {out}.")
    for what, counts in (("unreadable messages", done.dead_letters), ("rows left out", done.skipped)):
        for reason, count in counts.most_common(5):
            typer.echo(f"  {what}: {count} x {reason}")


def _source(config: KafkaConfig, environment: str, *, stop_at_end: bool, from_beginning: bool) -> KafkaSource:
    reset: Literal["earliest", "latest"] = "earliest" if from_beginning else config.auto_offset_reset
    begun = config.model_copy(update={"auto_offset_reset": reset})
    return KafkaSource(begun, environment=environment, stop_at_end=stop_at_end, keep_attributes=True)


def _described(rows: Counter[Signal]) -> str:
    return ", ".join(f"{count:,} {signal}" for signal, count in rows.items()) or "nothing"
