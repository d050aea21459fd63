"""Several processes as one job: started together, stopped together, and restarted together when one of them dies.

A Bytewax cluster cannot go on without one of its processes, so there is no point in restarting only that one. State is
in the recovery store; a restart continues from there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

GRACE_S: Final = 30.0  # from SIGTERM to SIGKILL
_POLL_S: Final = 0.1

_log = structlog.get_logger(__name__)

#: The command of one process, given its number and the addresses of all.
Command = Callable[[int, Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a job may be restarted: too often in a row means that restarting does not help."""

    at_most: int = 5
    within_s: float = 600.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0

    def pause_s(self, number: int) -> float:
        """How long to wait before the n-th restart in a row, from 1.

        >>> [Restarts().pause_s(n) for n in (1, 2, 3, 6)]
        [1.0, 2.0, 4.0, 30.0]
        """
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** (number - 1))


@dataclass(slots=True)
class Supervisor:
    """Runs ``count`` processes of a command until all end well or are asked to stop.

    Each child gets a pipe as standard input that closes when the supervisor dies, so that none is left behind.
    """

    command: Command
    count: int
    restarts: Restarts = field(default_factory=Restarts)
    may_restart: bool = True
    grace_s: float = GRACE_S
    _stop: threading.Event = field(default_factory=threading.Event)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def request_stop(self, why: str) -> None:
        """Ask every process to stop; they drain, save their state and end."""
        if not self._stop.is_set():
            _log.info("stopping all processes", reason=why, processes=self.count)
        self._stop.set()

    def run(self) -> int:
        """Until the end; the exit code for the command line."""
        recent: deque[float] = deque()
        while True:
            failed = self._once()
            if failed is None:
                return 0
            number, code = failed
            if self._stop.is_set():
                _log.error("a process failed while stopping", process=number, exit_code=code)
                return 1
            _log.error("a process died; all were stopped", process=number, exit_code=code, means=meaning(code))
            now = time.monotonic()
            recent.append(now)
            while recent and now - recent[0] > self.restarts.within_s:
                recent.popleft()
            if not self.may_restart or len(recent) > self.restarts.at_most:
                why = "there is no recovery store" if not self.may_restart else "it was restarted too often"
                _log.error("the job is given up", reason=why, restarts=len(recent) - 1)
                return 1
            pause = self.restarts.pause_s(len(recent))
            _log.warning("restarting all processes from the recovery store", after_s=pause, restart=len(recent))
            if self._stop.wait(pause):
                return 0

    def _once(self) -> tuple[int, int] | None:
        """One life of the cluster: None when all ended well, else (process, exit code) of the first that did not."""
        addresses = free_addresses(self.count)
        self._children = [
            subprocess.Popen(list(self.command(number, addresses)), stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own command
            for number in range(self.count)
        ]
        _log.info("processes started", pids=[child.pid for child in self._children])
        try:
            return self._watch()
        finally:
            self._end()

    def _watch(self) -> tuple[int, int] | None:
        deadline: float | None = None
        while True:
            codes = [child.poll() for child in self._children]
            for number, code in enumerate(codes):
                if code not in (None, 0):
                    return number, int(code or 0)
            if all(code == 0 for code in codes):
                return None
            if self._stop.is_set():
                if deadline is None:
                    deadline = time.monotonic() + self.grace_s
                    self._signal(signal.SIGTERM)
                elif time.monotonic() > deadline:
                    late = codes.index(None)
                    _log.error("a process did not stop in time", process=late, after_s=self.grace_s)
                    return late, -signal.SIGKILL
            time.sleep(_POLL_S)

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(number)

    def _end(self) -> None:
        """Nothing is left running: a peer of a dead process cannot drain, so it is not given long."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + min(5.0, self.grace_s)
        while time.monotonic() < deadline and any(child.poll() is None for child in self._children):
            time.sleep(_POLL_S)
        self._signal(signal.SIGKILL)
        for child in self._children:
            child.wait()
            if child.stdin is not None:
                child.stdin.close()


def free_addresses(count: int) -> tuple[str, ...]:
    """Addresses on this machine that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    finally:
        for one in sockets:
            one.close()


def meaning(code: int) -> str:
    """What an exit code says, for the log.

    >>> meaning(-9), meaning(1)
    ('killed by SIGKILL', 'ended with an error; its own log lines say which')
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "ended with an error; its own log lines say which"


def when_orphaned(act: Callable[[str], None], descriptor: int = 0) -> None:
    """In a child: call ``act`` when the supervisor is gone, which closes the pipe that is the child's standard input.

    The descriptor is read, not ``sys.stdin``: its lock, held by a waiting thread, would abort the interpreter's end.
    """

    def watch() -> None:
        while os.read(descriptor, 1_024):
            continue
        act("the supervisor is gone")

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
