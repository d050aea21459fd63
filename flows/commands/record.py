"""``mendstream record``: telemetry from Kafka into a recording, for replay, backtests and bug reports."""

from __future__ import annotations

import signal as os_signals
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.common import ConfigOption, consoles, fail, remedies, settings_from

if TYPE_CHECKING:
    from collections import Counter

    from signals.schema import Signal


def record(
    out: Annotated[Path, typer.Argument(help="Folder to write; must not hold a recording yet.")],
    *,
    config: ConfigOption = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="host:port[,host:port], above the settings.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(help="Environment of telemetry that names none, above the settings.")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.0, help="Seconds to record; until Ctrl-C without it.")] = None,
    stop_at_end: Annotated[bool, typer.Option("--stop-at-end", help="Record what the topics hold, then end.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin at the oldest messages; --stop-at-end always does.")
    ] = False,
) -> None:
    """Record telemetry from Kafka into a folder that replay and backtest can read.

    mendstream record monday --duration 600
    mendstream record monday --stop-at-end --bootstrap-servers localhost:9092
    """
    from rich.live import Live

    from connectors.kafka_client import KafkaError
    from connectors.kafka_source import KafkaSource
    from flows.recorder import record_stream

    settings = settings_from(config)
    told: dict[str, object] = {"bootstrap_servers": bootstrap_servers} if bootstrap_servers else {}
    if stop_at_end or from_beginning:
        told["auto_offset_reset"] = "earliest"
    where = environment or settings.environment
    printed, progress = consoles()
    with remedies():
        try:
            source = KafkaSource(
                settings.kafka.changed(**told), environment=where, stop_at_end=stop_at_end, keep_attributes=True
            )
            source.partition_names()
            for number in (os_signals.SIGINT, os_signals.SIGTERM):
                os_signals.signal(number, lambda *_: source.request_stop())
            waiting = "Waiting for telemetry; Ctrl-C ends the recording."
            with Live(waiting, console=progress, transient=True) as live:
                done = record_stream(
                    source,
                    out,
                    environment=where,
                    duration_s=duration,
                    on_progress=lambda so_far: live.update(_described(so_far.rows)),
                )
        except (KafkaError, ValueError) as error:
            raise fail(f"Kafka at {', '.join(settings.kafka.changed(**told).bootstrap_servers)}: {error}") from error
    printed.print(f"Recorded {_described(done.rows)} in {out}.", markup=False, highlight=False)
    for what, counts in (("unreadable messages", done.dead_letters), ("rows left out", done.skipped)):
        for reason, count in counts.most_common(5):
            printed.print(f"  {what}: {count} x {reason}", markup=False, highlight=False)


def _described(rows: Counter[Signal]) -> str:
    return ", ".join(f"{count:,} {signal}" for signal, count in rows.items()) or "nothing"
