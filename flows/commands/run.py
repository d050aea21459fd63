"""``mendstream run``: the live job over Kafka, as one process or several under a supervisor."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flows.commands.common import ConfigOption, TopologyOption, consoles, fail, remedies, settings_from

if TYPE_CHECKING:
    from flows.settings import Settings

KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka", envvar="KAFKA_BOOTSTRAP_SERVERS", help="Brokers, host:port[,host:port]; over the settings."
    ),
]
#: How children of the supervisor are started; a module of its own, so that it does not matter how we were.
_MODULE: Final = "flows.commands.run"


def run(
    *,
    config: ConfigOption = None,
    kafka: KafkaOption = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes on this machine.")] = 1,
    stop_at_end: Annotated[
        bool, typer.Option("--stop-at-end", help="Read up to the current end of the topics, flush, and exit.")
    ] = False,
    no_recovery: Annotated[
        bool, typer.Option("--no-recovery", help="Keep no snapshots: a restart begins where the topics begin or end.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the recovery store first: what was learnt is lost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting the recovery store.")] = False,
    known_topology: TopologyOption = None,
    process_id: Annotated[int | None, typer.Option(hidden=True)] = None,
    addresses: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Watch live telemetry in Kafka: incidents and remediation intents go out as they are found.

    State is saved every few seconds; after a stop, a crash or a kill the job goes on where it was, and what is written
    twice has the same id. SIGTERM and Ctrl-C drain, save and end. Metrics and health: see the observe settings.

      mendstream run --kafka localhost:9092
      mendstream run --config mendstream.yaml --processes 2
    """
    settings = _with_brokers(settings_from(config), kafka)
    from flows.logs import set_up_logs

    context: dict[str, object] = {} if process_id is None else {"process": process_id}
    set_up_logs(settings.observe.log_level, settings.observe.log_format, **context)
    store = None if no_recovery else settings.stream.recovery_dir
    with _errors(), ExitStack() as stack:
        if process_id is not None:
            where = (process_id, tuple((addresses or "").split(";")))
            _run_process(settings, store, where, stop_at_end=stop_at_end, known=known_topology)
            return
        if store is not None:
            from flows.recovery import prepare_store, sole_user

            stack.enter_context(sole_user(store))
            if fresh:
                _begin_anew(store, sure=yes)
            prepare_store(store, settings, finish=stop_at_end)
        from flows.live import ensure_outputs

        ensure_outputs(settings.kafka)
        if processes == 1:
            _run_process(settings, store, None, stop_at_end=stop_at_end, known=known_topology)
            return
        arguments = _arguments(config, kafka, known_topology, stop_at_end=stop_at_end, no_recovery=store is None)
        code = _supervise(settings, arguments, processes, may_restart=store is not None)
    if code:
        raise typer.Exit(code)


def _run_process(
    settings: Settings,
    store: Path | None,
    where: tuple[int, tuple[str, ...]] | None,
    *,
    stop_at_end: bool,
    known: Path | None,
) -> None:
    """This process's part of the job, until it ends."""
    import structlog

    from flows.health import Endpoint, Health
    from flows.live import Place, known_edges, live_flow, live_source, run_flow, stopper, telemetry_for
    from flows.process import cpu_s, peak_mib
    from flows.status import status_line
    from flows.supervise import when_orphaned

    log = structlog.get_logger("mendstream.run")
    place = Place(*where) if where is not None else Place()
    telemetry = telemetry_for(settings.kafka)
    source = live_source(settings, telemetry, stop_at_end=stop_at_end)
    flow = live_flow(settings, source, telemetry, known_edges(known))
    stop = stopper(source)
    observe = settings.observe
    endpoint = Endpoint(observe.listen, observe.port + place.process, telemetry.registry, Health(telemetry.tally))
    _, errors = consoles()
    with endpoint if observe.port else nullcontext(), _stopped_by_signals(stop):
        if where is not None:
            when_orphaned(stop)
        log.info(
            "started",
            partitions=len(source.partition_names()),
            shards=settings.stream.shards,
            recovery=str(store) if store is not None else None,
            until="the current end" if stop_at_end else "stopped",
        )
        began, used = time.perf_counter(), cpu_s()
        with status_line(telemetry.tally, errors) if where is None else nullcontext():
            run_flow(flow, settings, place, store)
        seconds = time.perf_counter() - began
    log.info(
        "ended",
        rows={one.value: count for one, count in sorted(telemetry.tally.rows.items())},
        dead_letters=telemetry.tally.letters,
        seconds=round(seconds, 3),
        cpu_s=round(cpu_s() - used, 3),
        peak_mib=peak_mib(),
    )


def _supervise(settings: Settings, arguments: list[str], processes: int, *, may_restart: bool) -> int:
    import structlog

    from flows.supervise import Supervisor

    if settings.stream.shards < processes:
        structlog.get_logger("mendstream.run").warning(
            "fewer shards than processes: some processes only read", shards=settings.stream.shards, processes=processes
        )

    def command(number: int, addresses: object) -> list[str]:
        joined = ";".join(addresses) if isinstance(addresses, tuple) else str(addresses)
        return [sys.executable, "-m", _MODULE, *arguments, "--process-id", str(number), "--addresses", joined]

    supervisor = Supervisor(command, processes, may_restart=may_restart)
    with _stopped_by_signals(supervisor.request_stop):
        return supervisor.run()


def _arguments(
    config: Path | None, kafka: str | None, known: Path | None, *, stop_at_end: bool, no_recovery: bool
) -> list[str]:
    """What a child must be told to do the same."""
    given = {"--config": config, "--kafka": kafka, "--known-topology": known}
    flags = {"--stop-at-end": stop_at_end, "--no-recovery": no_recovery}
    named = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    return [*named, *(name for name, wanted in flags.items() if wanted)]


def _begin_anew(store: Path, *, sure: bool) -> None:
    from flows.recovery import delete_store

    if not sure:
        typer.confirm(f"Delete the recovery store {store}, and with it what was learnt?", abort=True)
    if delete_store(store):
        typer.echo(f"{store} was deleted; learning begins anew.", err=True)


def _with_brokers(settings: Settings, kafka: str | None) -> Settings:
    if not kafka:
        return settings
    servers = [part.strip() for part in kafka.split(",") if part.strip()]
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"bootstrap_servers": servers})})


@contextmanager
def _stopped_by_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a graceful stop; a second one ends at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop(signal.Signals(number).name)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors with a remedy as one line; the engine wraps what a source or sink raises, so causes are looked at too."""
    from connectors.errors import ConnectorError
    from connectors.kafka_client import KafkaError
    from incidents.store import StoreError

    with remedies():
        try:
            yield
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, (ConnectorError, StoreError)):
                    raise fail(str(cause)) from error
                if isinstance(cause, KafkaError):
                    raise fail(f"Kafka: {type(cause).__name__}: {cause}; check kafka.bootstrap_servers") from error
                cause = cause.__cause__
            raise


if __name__ == "__main__":
    typer.run(run)
