"""``mendstream remediate …`` and ``mendstream policy …``: the executor, and what people do with its intents."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from connectors.config import KafkaConfig
from flows.settings import SettingsError, load_settings
from remediation.config import RemediationConfig

if TYPE_CHECKING:
    from rich.table import Table

    from remediation.journal import Journal, Record
    from remediation.world import WorldFiles

app = typer.Typer(help="Run remediation, and look at, approve or reject what it wants to do.", no_args_is_help=True)
policy_app = typer.Typer(help="Remediation policies.", no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (YAML)")]
DatabaseOption = Annotated[str | None, typer.Option("--database", help="sqlite:///file or postgresql://host/name")]
PolicyOption = Annotated[Path | None, typer.Option("--policy", help="Policy file")]
PlaybooksOption = Annotated[Path | None, typer.Option("--playbooks", help="Folder of playbooks")]
InventoryOption = Annotated[Path | None, typer.Option("--inventory", help="Ansible inventory that playbooks act on")]
KafkaOption = Annotated[
    str | None, typer.Option("--kafka", envvar="KAFKA_BOOTSTRAP_SERVERS", help="host:port[,host:port]")
]
IntentArgument = Annotated[str, typer.Argument(help="Intent id, as `mendstream remediate list` shows it")]


@app.callback()
def remediate() -> None:
    """Run remediation, and look at, approve or reject what it wants to do."""


@app.command()
def run(
    *,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    policy: PolicyOption = None,
    playbooks: PlaybooksOption = None,
    inventory: InventoryOption = None,
    kafka: KafkaOption = None,
) -> None:
    """Consume intents, act on them as the policy allows, publish outcomes; until SIGTERM or Ctrl-C.

    mendstream remediate run --config mendstream.yaml
    """
    from flows.remediate import run as run_remediation

    stop = threading.Event()
    with _errors():
        room, brokers = _settings(
            config, kafka, database=database, policy=policy, playbooks=playbooks, inventory=inventory
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        run_remediation(room, brokers, stop=stop)


@app.command("list")
def list_intents(
    *,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    policy: PolicyOption = None,
    playbooks: PlaybooksOption = None,
    kafka: KafkaOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first")] = 50,
    state: Annotated[str | None, typer.Option(help="Only this state, e.g. pending, executed")] = None,
) -> None:
    """What waits, runs and has ended.

    mendstream remediate list --state pending
    """
    from rich.console import Console

    with (
        _errors(),
        _journal(_settings(config, kafka, database=database, policy=policy, playbooks=playbooks)[0]) as journal,
    ):
        records = journal.latest(limit) if state is None else journal.records(state, limit=limit)
        Console().print(_table(records))


@app.command()
def show(
    intent: IntentArgument,
    *,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    policy: PolicyOption = None,
    playbooks: PlaybooksOption = None,
    kafka: KafkaOption = None,
) -> None:
    """One intent: why, what it would do, who approved it, its ledger entries and its outcome.

    mendstream remediate show 4f1c
    """
    from rich.console import Console

    with (
        _errors(),
        _journal(_settings(config, kafka, database=database, policy=policy, playbooks=playbooks)[0]) as journal,
    ):
        record = journal.find(intent)
        if record is None:
            _fail(f"there is no intent {intent!r}; `mendstream remediate list` shows those there are")
        console = Console()
        for name, value in _facts(journal, record):
            console.print(f"{name:>14}  {printable(value)}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def approve(
    intent: IntentArgument,
    *,
    by: Annotated[str, typer.Option("--by", help="Your name, for the ledger")],
    role: Annotated[str | None, typer.Option("--role", help="The role you approve in")] = None,
    now: Annotated[bool, typer.Option("--now", help="Run it here, without waiting for the executor")] = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    policy: PolicyOption = None,
    playbooks: PlaybooksOption = None,
    inventory: InventoryOption = None,
    kafka: KafkaOption = None,
) -> None:
    """Approve an intent: exactly this playbook with exactly these parameters.

    mendstream remediate approve 4f1c --by alice
    """
    from remediation.journal import READY
    from remediation.people import approve as approve_intent

    with _errors():
        room, _ = _settings(config, kafka, database=database, policy=policy, playbooks=playbooks, inventory=inventory)
        with _journal(room) as journal, _world(room) as world:
            record = approve_intent(journal, world(), intent, by=by, role=role, clock=time.time_ns)
            if record.state != READY:
                typer.echo(f"{intent} is approved by {printable(by)} and needs more approvals.")
            elif not now:
                typer.echo(f"{intent} is approved; the executor runs it next.")
            else:
                _act(room, journal, world, intent)


@app.command()
def reject(
    intent: IntentArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger and the outcome")],
    by: Annotated[str, typer.Option("--by", help="Your name, for the ledger")] = "operator",
    config: ConfigOption = None,
    database: DatabaseOption = None,
    policy: PolicyOption = None,
    playbooks: PlaybooksOption = None,
    kafka: KafkaOption = None,
) -> None:
    """Reject an intent that has not begun.

    mendstream remediate reject 4f1c --by alice --reason "a test, not a fault"
    """
    from remediation.people import reject as reject_intent

    with _errors():
        room, _ = _settings(config, kafka, database=database, policy=policy, playbooks=playbooks)
        with _journal(room) as journal:
            reject_intent(journal, intent, by=by, reason=reason, source=room.source, clock=time.time_ns)
    typer.echo(f"{intent} is rejected.")


@app.command("verify-ledger")
def verify_ledger(
    *,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    policy: PolicyOption = None,
    playbooks: PlaybooksOption = None,
    kafka: KafkaOption = None,
) -> None:
    """Check that no entry of the ledger was changed, inserted or removed.

    mendstream remediate verify-ledger
    """
    with (
        _errors(),
        _journal(_settings(config, kafka, database=database, policy=policy, playbooks=playbooks)[0]) as journal,
    ):
        report = journal.ledger.verify(journal.anchors())
    if not report.intact:
        _fail("\n".join(report.problems))
    head = f"; the last is {report.head.hash}" if report.head else ""
    typer.echo(f"{report.entries} entries, unbroken{head}")


@policy_app.callback()
def policies() -> None:
    """Remediation policies."""


@policy_app.command()
def check(file: Annotated[Path, typer.Argument(help="Policy file (YAML)")]) -> None:
    """Check a policy and print every mistake with file, line, column, key and remedy.

    mendstream policy check policy.yaml
    """
    from remediation.policy import load_policy

    with _errors():
        policy = load_policy(file)
    typer.echo(f"{file}: policy {policy.name} is valid: {len(policy.spec.rules)} rules, mode {policy.spec.mode}")


def printable(text: str) -> str:
    r"""Text that cannot steer a terminal: what is not printable is shown as an escape.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _settings(config: Path | None, kafka: str | None, **given: Any) -> tuple[RemediationConfig, KafkaConfig]:  # noqa: ANN401 - fields
    """The settings file's sections, with what the command line gives above them."""
    settings = load_settings(config)
    told = {name: value for name, value in given.items() if value is not None}
    room = RemediationConfig.model_validate(settings.remediation.model_dump() | told)
    if not kafka:
        return room, settings.kafka
    return room, KafkaConfig.model_validate(settings.kafka.model_dump() | {"bootstrap_servers": kafka})


@contextmanager
def _journal(room: RemediationConfig) -> Iterator[Journal]:
    from remediation.journal import Journal

    journal = Journal(room.database)
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def _world(room: RemediationConfig) -> Iterator[WorldFiles]:
    from incidents.memory import Memory
    from remediation.runners import default_registry
    from remediation.world import WorldFiles

    memory = Memory(room.database)
    try:
        yield WorldFiles(room, default_registry(), memory)
    finally:
        memory.close()


def _act(room: RemediationConfig, journal: Journal, world: WorldFiles, intent: str) -> None:
    from remediation.executor import Executor

    # A name of its own: its lease, and not the executor's restart, says when it is dead.
    own = room.model_copy(update={"executor_id": f"{room.executor}/approve/{time.time_ns()}"})
    outcomes = Executor(journal, world, clock=time.time_ns, settings=own).act(intent)
    if not outcomes:
        record = journal.find(intent)
        typer.echo(f"{intent} {record.reason if record else 'is gone'}; the executor tries again until it expires.")
    for outcome in outcomes:
        typer.echo(f"{intent} {outcome.data.status}: {printable(outcome.data.reason)}")
        for step in outcome.data.steps:
            typer.echo(f"  {step.id}: {step.status}: {printable(step.message)}")


def _table(records: list[Record]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("intent", "state", "mode", "playbook", "target", "incident", "why", box=None, header_style="bold")
    for record in records:
        data = record.intent.data
        cells = (
            record.id,
            record.state,
            data.mode,
            data.playbook.id,
            record.intent.subject,
            data.incident.id,
            record.reason,
        )
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))
    return table


def _facts(journal: Journal, record: Record) -> Iterator[tuple[str, str]]:
    from incidents.model import rfc3339
    from remediation.people import requested

    data = record.intent.data
    yield "intent", f"{record.id}, {record.state}: {record.reason}"
    yield "incident", f"{data.incident.id}, revision {data.incident.revision}"
    yield "target", ", ".join(f"{key}={value}" for key, value in data.target.items())
    yield "playbook", f"{data.playbook.id} {data.playbook.version}, {data.playbook.digest}"
    yield "parameters", ", ".join(f"{key}={value!r}" for key, value in data.params.items()) or "none"
    blast = data.risk.blast_radius
    yield "risk", f"{data.risk.tier}, {blast.dependents} services depend on it, undo: {data.risk.undo or 'none'}"
    decision = data.decision
    yield (
        "decided",
        f"{data.mode} by {decision.policy}, confidence {decision.confidence:.2f}, margin {decision.margin:.2f}",
    )
    yield from (("because", reason) for reason in decision.reasons)
    asked = requested(record)
    yield "approval", f"{asked.required} of {', '.join(asked.roles) or 'anyone'}, until {rfc3339(record.deadline_ns)}"
    yield from (
        ("approved by", f"{given.by} ({given.role or 'no role'}), {given.at}") for given in journal.approvals(record.id)
    )
    yield from (
        ("ledger", f"{entry.seq} {rfc3339(entry.at_ns)} {entry.kind}") for entry in journal.ledger.entries(record.id)
    )
    outcome = journal.outcome(record.id)
    if outcome is not None:
        yield "outcome", f"{outcome.data.status}: {outcome.data.reason}"
        yield from (("step", f"{step.id}: {step.status}: {step.message}") for step in outcome.data.steps)


@contextmanager
def _errors() -> Iterator[None]:
    """What an operator can put right, as text and exit code 1 instead of a traceback."""
    from connectors.errors import ConnectorError
    from connectors.kafka_client import KafkaError
    from incidents.store import StoreError

    try:
        yield
    except (ConnectorError, KafkaError, StoreError, SettingsError, ValueError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(1)
