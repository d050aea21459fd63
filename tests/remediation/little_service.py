"""A real process for playbooks to act on, with its state in a folder: version, replicas, and who runs.

python little_service.py serve FOLDER     runs until it is killed
python little_service.py restart FOLDER   ends the one that runs and starts another
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def serve(folder: Path) -> None:
    """Say who runs and with which version and replicas, then sleep."""
    running = {
        "pid": os.getpid(),
        "version": (folder / "version").read_text().strip(),
        "replicas": int((folder / "replicas").read_text()),
    }
    temporary = folder / "running.tmp"
    temporary.write_text(json.dumps(running))
    temporary.replace(folder / "running")
    signal.pause()


def running(folder: Path) -> dict[str, object]:
    """What the process that runs said of itself."""
    found: dict[str, object] = json.loads((folder / "running").read_text())
    return found


def start(folder: Path) -> int:
    """Start the service. Its process id, once it has said that it runs."""
    (folder / "running").unlink(missing_ok=True)
    command = [sys.executable, __file__, "serve", str(folder)]
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
    for _ in range(200):
        if (folder / "running").exists():
            return int(str(running(folder)["pid"]))
        time.sleep(0.05)
    raise RuntimeError("the little service did not start")


def stop(folder: Path) -> None:
    """End the process that runs, if any."""
    if (folder / "running").exists():
        pid = int(str(running(folder)["pid"]))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    verb, where = sys.argv[1], Path(sys.argv[2])
    if verb == "serve":
        serve(where)
    else:
        stop(where)
        start(where)
