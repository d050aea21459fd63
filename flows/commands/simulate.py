"""``mendstream simulate``: telemetry of a simulated system with labelled faults, as a recording or into Kafka."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from simulator import SimulationConfig, Sink, Summary
    from simulator.config import FaultPlan

_WHERE = "Where to"
_WHAT = "What to simulate"


def simulate(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a recording into this folder.", rich_help_panel=_WHERE)
    ] = None,
    to_kafka: Annotated[
        str | None,
        typer.Option(
            "--to-kafka", metavar="HOST:PORT", help="Send OTLP to these brokers instead.", rich_help_panel=_WHERE
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            help="With --to-kafka: multiple of real time; 0 sends as fast as possible.", min=0, rich_help_panel=_WHERE
        ),
    ] = 0.0,
    partitions: Annotated[
        int,
        typer.Option(help="With --to-kafka: partitions of topics that are created.", min=1, rich_help_panel=_WHERE),
    ] = 1,
    topology_file: Annotated[
        bool,
        typer.Option("--topology-file", help="With --out: also write the true call graph.", rich_help_panel=_WHERE),
    ] = False,
    minutes: Annotated[float, typer.Option(help="Simulated time.", rich_help_panel=_WHAT)] = 20.0,
    rate: Annotated[float, typer.Option(help="Mean user requests per second.", rich_help_panel=_WHAT)] = 25.0,
    services: Annotated[
        int, typer.Option(help="15 is the fixed shop; any other number is generated.", rich_help_panel=_WHAT)
    ] = 15,
    seed: Annotated[int, typer.Option(help="The same seed gives the same telemetry.", rich_help_panel=_WHAT)] = 1,
    faults: Annotated[
        str, typer.Option(metavar="demo|random|none|FILE", help="Schedule of faults.", rich_help_panel=_WHAT)
    ] = "demo",
    fault_count: Annotated[
        int, typer.Option(help="With --faults random: how many, if time allows.", rich_help_panel=_WHAT)
    ] = 6,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Simulated start, ISO 8601, UTC without a zone, or 'now'; a fixed Wednesday without.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    environment: Annotated[
        str, typer.Option(help="deployment.environment.name of all telemetry.", rich_help_panel=_WHAT)
    ] = "shop-sim",
) -> None:
    """Simulate a system of microservices that breaks, and know what was truly wrong.

    Users arrive, services call each other, queue, time out and retry; spans, logs, metrics and change events tell of
    it. Faults follow a schedule and are labelled in faults.jsonl, which nothing but scoring reads.

    Twenty minutes of a shop with four events, then what the pipeline makes of it:
      mendstream simulate --out /tmp/shop
      mendstream replay /tmp/shop --out /tmp/shop-replay
    A larger system with random faults:
      mendstream simulate --out /tmp/big --services 200 --rate 60 --minutes 60 --faults random --fault-count 8
    Live, at real time, into Kafka:
      mendstream simulate --to-kafka 127.0.0.1:9092 --speed 1 --start now

    A schedule of your own is YAML; times are seconds after the start:
      faults:
        - {kind: latency, service: pricing, start: 300, duration: 120, latency_ms: 250}
        - {kind: network_loss, caller: checkout, service: payment, start: 720, duration: 90, loss: 0.2}
    Kinds: latency, error, cpu_saturation, memory_leak, dependency_outage, bad_deploy, config_change, traffic_spike,
    harmless_deploy, network_loss, log_storm, gray_failure.
    """
    from pydantic import ValidationError

    from simulator import SimulationConfig
    from simulator.config import ScheduleError
    from simulator.writer import OutputExistsError

    if (out is None) == (to_kafka is None):
        raise typer.BadParameter("give either --out DIR or --to-kafka HOST:PORT")
    try:
        config = SimulationConfig(
            seed=seed,
            minutes=minutes,
            rate=rate,
            services=services,
            faults=_schedule(faults),
            fault_count=fault_count,
            environment=environment,
            metric_form="values" if out is not None else "otlp",
            **({"start": _moment(start)} if start else {}),  # type: ignore[arg-type]  # mypy cannot see the one key
        )
        if out is not None:
            _record(config, out, with_topology=topology_file)
        elif to_kafka is not None:
            _send(config, to_kafka, speed=speed, partitions=partitions)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(f"{_option(e['loc'])}: {e['msg']}" for e in error.errors())) from error
    except (ScheduleError, OutputExistsError) as error:
        raise typer.BadParameter(str(error)) from error


def _option(location: tuple[int | str, ...]) -> str:
    return "--" + ".".join(str(part) for part in location).replace("_", "-")


def _schedule(text: str) -> FaultPlan | Literal["none", "demo", "random"]:
    from simulator.config import load_schedule

    named: dict[str, Literal["none", "demo", "random"]] = {"none": "none", "demo": "demo", "random": "random"}
    if text in named:
        return named[text]
    path = Path(text)
    if not path.is_file():
        raise typer.BadParameter(f"--faults: {text!r} is neither demo, random, none nor a file")
    return load_schedule(path)


def _moment(text: str) -> dt.datetime:
    if text == "now":
        return dt.datetime.now(dt.UTC).replace(microsecond=0)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--start: {text!r} is no ISO 8601 time, such as 2026-03-04T10:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _run(config: SimulationConfig, sink: Sink, console: Console, *, slice_s: float) -> Summary:
    """The simulation, with a bar of simulated time on the console."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from simulator import simulate as run

    columns = (
        TextColumn("[bold]simulating"),
        BarColumn(),
        TextColumn("{task.fields[clock]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=config.minutes * 60, clock="0:00")

        def advance(seconds: float) -> None:
            clock = f"{int(seconds) // 60}:{int(seconds) % 60:02d} of {config.minutes:g} min"
            bar.update(task, completed=seconds, clock=clock)

        return run(config, sink, slice_s=slice_s, progress=advance)


def _record(config: SimulationConfig, out: Path, *, with_topology: bool) -> None:
    from simulator.writer import RecordingSink

    console = Console(stderr=True)
    summary = _run(config, RecordingSink(out, with_topology=with_topology), console, slice_s=10.0)
    typer.echo(f"Wrote {_told(summary)} to {out}")
    typer.echo(f"Next: mendstream replay {out} --out {out}-replay")


def _send(config: SimulationConfig, bootstrap: str, *, speed: float, partitions: int) -> None:
    from connectors.config import KafkaConfig
    from connectors.kafka_client import KafkaError, create_topics
    from simulator.kafka import KafkaSink

    kafka = KafkaConfig(bootstrap_servers=[part.strip() for part in bootstrap.split(",") if part.strip()])
    try:
        create_topics(kafka, {topic: partitions for _, topic, _ in kafka.topics.inputs()})
        sink = KafkaSink(kafka, speed=speed)
        summary = _run(config, sink, Console(stderr=True), slice_s=1.0 if speed else 5.0)
    except KafkaError as error:
        typer.echo(f"Error: Kafka at {bootstrap}: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error
    topics = ", ".join(topic for _, topic, _ in kafka.topics.inputs())
    typer.echo(f"Sent {_told(summary)} in {sink.messages:,} messages ({sink.bytes / 1e6:.1f} MB) to {topics}")
    for label in summary.labels:
        typer.echo(f"  {label.id}: {label.kind} at {label.service}, {label.detail}")


def _told(summary: Summary) -> str:
    return (
        f"{summary.spans:,} spans, {summary.logs:,} log lines, {summary.metrics:,} metric points, "
        f"{summary.changes} changes and {len(summary.labels)} labels"
    )
