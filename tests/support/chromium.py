"""A headless Chromium for tests of pages: what the page becomes once its script has run, and how it looks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=3000",
)


class Chromium:
    """Runs a browser once per question; each run has a profile of its own under ``scratch``."""

    def __init__(self, binary: str, scratch: Path) -> None:
        self._binary = binary
        self._scratch = scratch
        self._runs = 0

    def _run(self, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        self._runs += 1
        profile = self._scratch / f"profile-{self._runs}"
        command = [self._binary, *_FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)

    def dom(self, page: Path) -> str:
        """The document as HTML after scripts have run."""
        return self._run(page, "--dump-dom").stdout

    def console(self, page: Path) -> str:
        """What the page says on the console, errors and refusals of its security policy included."""
        logged = self._run(page, "--dump-dom", "--enable-logging=stderr", "--v=0").stderr
        return "\n".join(line for line in logged.splitlines() if "CONSOLE" in line)

    def screenshot(self, page: Path, width: int, height: int, *, dark: bool = False) -> bytes:
        """A PNG of the window."""
        picture = self._scratch / f"shot-{self._runs}.png"
        theme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
        self._run(page, f"--screenshot={picture}", f"--window-size={width},{height}", *theme)
        return picture.read_bytes()


def find_chromium(scratch: Path) -> Chromium:
    """The installed browser; skips the test where there is none, but for CI, which must have one."""
    binary = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if binary is None:
        reason = f"no browser found ({', '.join(_NAMES)}): install the package 'chromium'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Chromium(binary, scratch)
