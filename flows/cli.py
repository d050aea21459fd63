"""The command line: one command per file of ``flows.commands``, put together here."""

from __future__ import annotations

import platform

import typer

from flows.commands import backtest, config_cmd, console, dev, record, remediate, replay, run, simulate

app = typer.Typer(
    name="mendstream",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Streaming AIOps: OpenTelemetry in, ranked root causes and guarded remediation out.

    Start without any infrastructure: [bold]mendstream simulate --out shop[/bold], then
    [bold]mendstream replay shop --out result[/bold] and open result/report.html.
    """,
)

_WATCH, _LOOK, _ACT, _SETUP = "Watch live telemetry", "Look at recorded telemetry", "Repair", "Set up"

app.command(rich_help_panel=_WATCH)(run.run)
app.command(rich_help_panel=_WATCH)(record.record)
app.command(rich_help_panel=_LOOK)(replay.replay)
app.command(rich_help_panel=_LOOK)(replay.diagnose)
app.command(rich_help_panel=_LOOK)(backtest.backtest)
app.command(rich_help_panel=_LOOK)(simulate.simulate)
app.command(rich_help_panel=_LOOK)(console.console)
app.add_typer(remediate.app, name="remediate", rich_help_panel=_ACT)
app.add_typer(remediate.policy_app, name="policy", rich_help_panel=_ACT)
app.add_typer(config_cmd.app, name="config", rich_help_panel=_SETUP)
app.add_typer(dev.app, name="dev", rich_help_panel=_SETUP)


@app.command(rich_help_panel=_SETUP)
def version() -> None:
    """Print the version, and those of the engine and libraries that decide results.

    mendstream version
    """
    from importlib.metadata import version as installed

    from flows.version import VERSION

    parts = ", ".join(f"{name} {installed(name)}" for name in ("bytewax", "polars", "river", "numpy"))
    typer.echo(f"mendstream {VERSION} (Python {platform.python_version()}, {parts})")


def main() -> None:
    """Entry point of the ``mendstream`` command."""
    app()


if __name__ == "__main__":
    main()
