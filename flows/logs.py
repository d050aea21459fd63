"""Logging of every command: structlog, as JSON lines or for a terminal, on standard error.

What comes from telemetry is passed as a field, never as the message or a format string; on a terminal, characters that
could steer it are shown as escapes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import orjson
import structlog

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NOISY: Final = ("kafka", "sqlalchemy", "urllib3", "docker")


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to whatever standard error is at the moment, so that a status line on the terminal stays below."""

    @property
    def stream(self) -> Any:  # noqa: ANN401 - any text stream
        """Standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        """The base class sets one; it is not kept."""


def set_up_logs(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "json", "console"] = "auto",
    **context: object,
) -> None:
    """Configure structlog and the standard library's logging alike; ``context`` goes into every line."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        if as_json
        else [printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[level])
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))
    # It warns when its thread waits for the interpreter's lock, which a busy dataflow makes it do all the time.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**context)


def printable(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    r"""Show control characters of every text field as escapes.

    >>> printable(None, "info", {"event": "a\x1b[31mb", "n": 1})
    {'event': 'a\\x1b[31mb', 'n': 1}
    """
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key not in {"exception", "stack"}:
            event[key] = "".join(
                char if char.isprintable() else char.encode("unicode_escape").decode() for char in value
            )
    return event


def _json(value: object, **_: object) -> str:
    return orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
