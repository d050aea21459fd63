"""``mendstream backtest``: replay a labelled recording and say how good the answers were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.common import (
    ConfigOption,
    TopologyOption,
    consoles,
    fail,
    recording_span,
    remedies,
    replay_progress,
    settings_from,
)

if TYPE_CHECKING:
    from rich.table import Table

    from incidents.scoring import Fault, StreamScore


def backtest(
    recording: Annotated[Path, typer.Argument(help="Folder of a recording.")],
    *,
    labels: Annotated[Path | None, typer.Option("--labels", help="Labelled faults; faults.jsonl beside it.")] = None,
    by_window: Annotated[
        bool, typer.Option("--diagnose", help="Ask for a ranking per labelled window instead of incidents.")
    ] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    config: ConfigOption = None,
    known_topology: TopologyOption = None,
) -> None:
    """Replay a recording with known faults and score detection, root cause, delay, false alarms and calibration.

    Labels are only read after the replay; with --diagnose their windows (not their answers) are asked about.

      mendstream simulate --out shop && mendstream backtest shop
    """
    import orjson

    from flows.replay import load_windows
    from flows.replay import replay as run
    from incidents.scoring import load_faults, score_diagnoses, score_stream

    output, errors = consoles()
    file = labels or recording / "faults.jsonl"
    try:
        faults = load_faults(file)
    except (OSError, ValueError) as error:
        raise fail(f"{error}; give labelled faults with --labels") from error
    with remedies(), replay_progress(errors, f"Replaying {recording.name}", *recording_span(recording)) as seen:
        windows = load_windows(file) if by_window else ()
        settings = settings_from(config)
        result = run(recording, settings, windows=windows, known_topology=known_topology, on_batch=seen)
    speed = {
        "rows_per_second": sum(result.rows.values()) / max(result.seconds, 1e-9),
        "seconds": result.seconds,
        "peak_memory_mib": result.peak_mib,
    }
    figures: dict[str, object]
    if by_window:
        groups = score_diagnoses(result.diagnoses, faults)
        for name, told in groups.items():
            output.print(f"{name:24.24s} " + "  ".join(f"{key} {_text(value)}" for key, value in told.items()))
        figures = {"diagnose": groups, **speed}
    else:
        hours = (result.end_ns - result.start_ns) / 3.6e12
        score = score_stream(result.events, faults, hours)
        output.print(_table(score))
        told_stream = score.figures()
        for key, value in (told_stream | speed).items():
            output.print(f"{key:24s} {_text(value)}", highlight=False)
        figures = {"stream": told_stream, **speed}
    if json_out is not None:
        json_out.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))


def _table(score: StreamScore) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("fault", "kind", "service", "incidents", "delay", "first rank", "last rank", box=None)
    for one in score.faults:
        fault: Fault = one.fault
        delay = "" if one.delay_s is None else f"{one.delay_s:.1f} s"
        cells = (
            fault.id,
            fault.kind,
            fault.service,
            str(one.incidents),
            delay,
            _rank(one.first_rank),
            _rank(one.last_rank),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _rank(rank: int | None) -> str:
    return "-" if rank is None else str(rank)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if value < 1e6 else f"{value:,.0f}"
