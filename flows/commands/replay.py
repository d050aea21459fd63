"""``mendstream replay`` and ``mendstream diagnose``: the live pipeline over recorded telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import (
    ConfigOption,
    TopologyOption,
    consoles,
    recording_span,
    remedies,
    replay_progress,
    settings_from,
)


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder of a recording, or an OTLP file.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for results and report.html.")] = None,
    config: ConfigOption = None,
    known_topology: TopologyOption = None,
    batch_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows read at once; changes nothing in the results.")
    ] = None,
    to_kafka: Annotated[
        str | None,
        typer.Option("--to-kafka", metavar="HOST:PORT", help="Send the recording to Kafka as OTLP instead."),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="With --to-kafka: multiple of real time; 0 is as fast as possible.")
    ] = 0.0,
    partitions: Annotated[int, typer.Option(min=1, help="With --to-kafka: partitions of new topics.")] = 4,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
) -> None:
    """Replay a recording through the same stages as the live job, and tell what happened.

    Writes into --out: incidents.jsonl (every revision as it would have been emitted), intents.jsonl, changes.jsonl
    (each change with its risk), anomalies.parquet and report.html. Labels beside the recording are never read.

      mendstream replay shop --out shop-replay
      mendstream replay shop --to-kafka localhost:9092 --speed 10
    """
    if to_kafka is not None:
        from flows.commands.publish import publish

        publish(recording, bootstrap_servers=to_kafka, config=config, speed=speed, partitions=partitions)
        return
    from flows.replay import replay as run
    from flows.replay import write_results
    from incidents.report_html import write_report
    from incidents.terminal import render_incidents, render_summary

    output, errors = consoles()
    with remedies(), replay_progress(errors, f"Replaying {recording.name}", *recording_span(recording)) as seen:
        settings = settings_from(config)
        result = run(recording, settings, known_topology=known_topology, batch_rows=batch_rows, on_batch=seen)
    if not quiet:
        render_incidents(output, result.events, result.intents)
    render_summary(output, result.summary())
    output.print(f"  peak memory {result.peak_mib:,.0f} MiB", highlight=False)
    if out is not None:
        write_results(result, out)
        write_report(out / "report.html", result.events, result.intents, result.summary())
        output.print(
            f"  written to {out}: report.html, incidents.jsonl, intents.jsonl, changes.jsonl, anomalies.parquet",
            highlight=False,
        )


def diagnose(
    recording: Annotated[Path, typer.Argument(help="Folder of a recording, or an OTLP file.")],
    *,
    windows: Annotated[Path, typer.Option("--windows", help="JSON lines: id, start_unix_ns, end_unix_ns, symptom?")],
    out: Annotated[Path | None, typer.Option("--out", help="Rankings as JSON lines; printed without it.")] = None,
    config: ConfigOption = None,
    known_topology: TopologyOption = None,
) -> None:
    """Ask what was wrong in given windows of a recording, whether or not an incident opened.

    The recording is replayed; at the end of each window its spans, logs and metrics are compared with everything that
    was learnt before the window began. A window may carry the symptom that was noticed
    ({"service": ..., "metric": ...}): the ranking then explains that symptom.

      mendstream diagnose shop --windows windows.jsonl --out diagnoses.jsonl
    """
    import orjson

    from flows.replay import load_windows
    from flows.replay import replay as run

    output, errors = consoles()
    with remedies(), replay_progress(errors, f"Replaying {recording.name}", *recording_span(recording)) as seen:
        asked = load_windows(windows)
        settings = settings_from(config)
        result = run(recording, settings, windows=asked, known_topology=known_topology, on_batch=seen)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in result.diagnoses))
        output.print(f"{len(result.diagnoses)} rankings written to {out}", highlight=False, markup=False)
        return
    for one in result.diagnoses:
        best = ", ".join(
            f"{c['entity']['service.name']} ({c['fault_kind']}, {c['score']:.1f})" for c in one["candidates"][:3]
        )
        output.print(f"{one['id']}: {best or 'nothing deviates'}", highlight=False, markup=False)
