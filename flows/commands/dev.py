"""``mendstream dev``: what a person needs beside the pipeline while working on it."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from connectors.broker import KAFKA_VERSION, BrokerError, cache_dir, start_broker

app = typer.Typer(help="Helpers for development on one machine.", no_args_is_help=True)


@app.callback()
def dev() -> None:
    """Helpers for development on one machine."""


@app.command()
def kafka(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on at 127.0.0.1")] = 9092,
    data: Annotated[
        Path | None, typer.Option(help="Folder that keeps the topics; thrown away at the end when not given")
    ] = None,
) -> None:
    """Run a single-node Apache Kafka in the foreground until Ctrl-C; needs Java, and Maven the first time.

    mendstream dev kafka --port 9092 --data ./kafka
    """
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mendstream-kafka-")))
        if not (cache_dir() / f"kafka-{KAFKA_VERSION}").exists():
            typer.echo(f"Fetching Apache Kafka {KAFKA_VERSION} (54 MB, once) ...")
        try:
            broker = start_broker(folder.resolve(), port=port)
        except BrokerError as error:
            typer.secho(str(error), fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from error
        stack.callback(broker.stop)
        kept = f"topics are kept in {data}" if data else "topics are thrown away at the end (keep them with --data)"
        typer.echo(f"Kafka {KAFKA_VERSION} is up at {broker.bootstrap_servers}; {kept}.")
        typer.echo(f"In another shell: export KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap_servers}")
        typer.echo("Ctrl-C stops it.")
        # A plain SIGTERM must not leave the broker behind: it ends the wait as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            code = broker.process.wait()
        except KeyboardInterrupt:
            typer.echo("Stopping Kafka.")
            return
        typer.secho(f"Kafka ended by itself (exit code {code}); see {broker.log_file}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1)
