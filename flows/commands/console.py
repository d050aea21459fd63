"""``mendstream console``: the incident database in a browser."""

from __future__ import annotations

import ipaddress
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import ConfigOption, consoles, fail, settings_from

_SQLITE = "sqlite:///"


def console(
    *,
    config: ConfigOption = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Incident database; the settings' remediation.database by default."),
    ] = None,
    replayed: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Show a replay's results (its --out folder) instead."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Also answer requests to this name; once per name."),
    ] = None,
) -> None:
    """Browse incidents in a web browser, read-only, until Ctrl-C.

    Shows what the live job remembers, or with --from what a replay found. There is no authentication: keep it on
    localhost, or put a proxy that authenticates in front and name the proxy's host with --allow-host.

      mendstream console --from shop-replay
      mendstream console --database sqlite:///mendstream.sqlite3 --port 8080
    """
    if replayed is not None and database is not None:
        raise fail("Give --from or --database: the first shows a replay's results, the second a live job's.", code=2)
    url = database or settings_from(config).remediation.database
    import uvicorn
    from sqlalchemy.exc import SQLAlchemyError

    from console.app import build_app
    from console.load import LoadError, load_results
    from incidents.memory import Memory
    from incidents.store import StoreError

    output, errors = consoles()
    with ExitStack() as stack:
        if replayed is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mendstream-console-"))
            url = f"{_SQLITE}{folder}/console.sqlite3"
        elif url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).expanduser().is_file():
            raise fail(f"There is no database {url} yet: mendstream run fills it; --from shows a replay's results.")
        try:
            memory = Memory(url)
            stack.callback(memory.close)
            if replayed is not None:
                load_results(replayed, memory)
        except (LoadError, StoreError) as error:
            raise fail(str(error)) from error
        except SQLAlchemyError as error:
            raise fail(f"The database cannot be opened: {type(error).__name__}; check --database.") from error
        if not _is_loopback(host):
            errors.print(
                f"No authentication: everyone who reaches {host}:{port} reads every incident.",
                style="yellow",
                markup=False,
                highlight=False,
            )
        shown = f"[{host}]" if ":" in host else host  # an IPv6 address in a URL and in Host
        app = build_app(memory, allowed_hosts=sorted({"127.0.0.1", "localhost", host, shown, *(allow_host or ())}))
        output.print(f"Incidents at http://{shown}:{port}/ until Ctrl-C", markup=False, highlight=False)
        # uvicorn raises a SIGTERM again once it has stopped; as Ctrl-C it lets the temporary database be removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
