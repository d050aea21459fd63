"""One line on the terminal about a live run: rows per second, lag, how far behind, open incidents.

Figures are read from the process's own metrics every few seconds. Not for logs: without a terminal there is no line.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from flows.observe import SOURCE, Tally
from signals.schema import Signal


@dataclass(slots=True)
class StatusLine:
    """Turns a tally into a line; rates are over the time since the last line."""

    tally: Tally
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _rows: Counter[Signal] = field(default_factory=Counter)
    _at: float | None = None

    def text(self) -> Text:
        """The line, as of now."""
        now = self.monotonic()
        seconds = now - self._at if self._at is not None else 0.0
        rates = [
            f"{compact((count - self._rows[signal]) / seconds)} {signal.value}/s"
            for signal, count in sorted(self.tally.rows.items())
            if seconds > 0 and signal is not Signal.CHANGES
        ]
        self._at, self._rows = now, Counter(self.tally.rows)
        behind = self.tally.behind_s(SOURCE, self.wall())
        opened = sum(self.tally.incidents.values())
        parts = [
            (", ".join(rates) or "waiting for telemetry", ""),
            (f"lag {compact(sum(self.tally.lag.values()))} messages", ""),
            ("event time at the end" if not behind else f"event time {duration(behind)} behind", ""),
            (f"{opened} open incident{'' if opened == 1 else 's'}", "bold red" if opened else "green"),
        ]
        if self.tally.letters:
            parts.append((f"{compact(self.tally.letters)} dead letters", "yellow"))
        return Text("  ·  ", style="dim").join(Text(text, style) for text, style in parts)


def compact(number: float) -> str:
    """A number in few characters.

    >>> compact(0), compact(950), compact(12_345), compact(2_500_000)
    ('0', '950', '12.3k', '2.5M')
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A duration in its largest fitting unit.

    >>> duration(4.2), duration(90), duration(7_300), duration(200_000)
    ('4 s', '1.5 min', '2.0 h', '2.3 d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def status_line(tally: Tally, console: Console, every_s: float = 2.0) -> Iterator[None]:
    """Keep the line up to date during a ``with`` block; log lines go above it. Nothing without a terminal."""
    if not console.is_terminal:
        yield
        return
    line, done = StatusLine(tally), threading.Event()
    with Live(line.text(), console=console, transient=True, auto_refresh=False) as live:

        def keep() -> None:
            while not done.wait(every_s):
                live.update(line.text(), refresh=True)

        thread = threading.Thread(target=keep, name="status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
