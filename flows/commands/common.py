"""What the commands share: consoles, progress over event time, and errors told with their remedy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.settings import Settings
    from signals.batch import Batch

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="MENDSTREAM_CONFIG", help="Settings file (YAML); defaults without one."),
]
TopologyOption = Annotated[
    Path | None, typer.Option("--known-topology", help='A known call graph: {"edges": [{"caller", "callee"}]}.')
]


def consoles() -> tuple[Console, Console]:
    """Standard output for results, standard error for progress and errors."""
    return Console(), Console(stderr=True)


def settings_from(path: Path | None) -> Settings:
    """The settings, or an error that names the key and exit code 2."""
    from flows.logs import set_up_logs
    from flows.settings import SettingsError, load_settings

    try:
        settings = load_settings(path)
    except SettingsError as error:
        raise fail(str(error), code=2) from error
    # Commands that end by themselves show progress; only the live job also logs what goes well.
    level = settings.observe.log_level
    set_up_logs("warning" if level == "info" else level, settings.observe.log_format)
    return settings


def fail(message: str, *, code: int = 1) -> typer.Exit:
    """Print an error to standard error; returns the exit to raise."""
    Console(stderr=True).print(message, style="red", markup=False, highlight=False)
    return typer.Exit(code)


@contextmanager
def remedies() -> Iterator[None]:
    """Errors that carry their own remedy end the command with one line instead of a traceback."""
    from connectors.errors import ConnectorError
    from detectors.config import ConfigError
    from remediation.documents import DocumentError

    try:
        yield
    except (ConnectorError, ConfigError, DocumentError) as error:
        raise fail(str(error)) from error


@contextmanager
def replay_progress(console: Console, title: str, start_ns: int, end_ns: int) -> Iterator[Callable[[Batch], None]]:
    """A bar over event time; yields what to call with every batch."""
    from signals.batch import END_OF_STREAM

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[at]}"),
        TextColumn("{task.fields[rows]:>12,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        span = max(1, end_ns - start_ns)
        task = bar.add_task(title, total=span, at="", rows=0)
        rows = 0

        def seen(batch: Batch) -> None:
            nonlocal rows
            rows += batch.frame.height
            if 0 < batch.watermark_ns < END_OF_STREAM:
                at = dt.datetime.fromtimestamp(batch.watermark_ns // 1_000_000_000, tz=dt.UTC)
                bar.update(task, completed=min(span, batch.watermark_ns - start_ns), at=f"{at:%H:%M:%S}", rows=rows)
            else:
                bar.update(task, rows=rows)

        yield seen


def recording_span(path: Path) -> tuple[int, int]:
    """Start and end of a recording by its own ``recording.json``; zeros where it does not say."""
    import json

    try:
        about = json.loads((path / "recording.json").read_text(encoding="utf-8"))
        return int(about["start_unix_ns"]), int(about["end_unix_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
