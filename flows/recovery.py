"""The recovery store of a live run: where it is, what it was made for, and who uses it.

Bytewax keeps snapshots in a folder of databases. Beside them a small file says which settings the state was learnt
with: state learnt with other buckets or detectors would be misread in silence, so that is refused, with the remedy.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from bytewax.recovery import RecoveryConfig, init_db_dir

from connectors.errors import ConnectorError
from flows.settings import Settings

#: Databases in a store, fixed for good when it is made; more of them than processes write nothing faster.
STORE_PARTITIONS: Final = 4
_ABOUT: Final = "job.json"
_LOCK: Final = "lock"
#: Settings that state is learnt with; ranking and correlation may change, and are adopted on resume.
_SECTIONS: Final = ("environment", "stream", "assembly", "detectors", "behaviour")


class RecoveryError(ConnectorError):
    """The recovery store cannot be used; the message says what to do."""


def prepare_store(path: Path, settings: Settings, *, finish: bool) -> None:
    """Make the store, or check that it fits these settings.

    Args:
        path: The store's folder.
        settings: Of the run that is about to start.
        finish: Whether the run flushes at the end of its input. A store may be finished once, and not gone on with.

    Raises:
        RecoveryError: It was made with other settings, was finished, or is no recovery store.
    """
    about: dict[str, Any] = {"sections": _digests(settings), "finished": finish}
    if not (path / _ABOUT).exists():
        if path.exists() and any(one.name != _LOCK for one in path.iterdir()):
            raise RecoveryError(
                f"{path} is no recovery store, and not empty; name another folder in stream.recovery_dir"
            )
        path.mkdir(parents=True, exist_ok=True)
        make: Callable[[Path, int], None] = init_db_dir  # untyped in Bytewax
        make(path, STORE_PARTITIONS)
        _write(path, about)
        return
    known = _read(path)
    if known["finished"] and not finish:
        raise RecoveryError(
            f"{path} belongs to a run with --stop-at-end, which closed every open bucket at the end of its input; "
            f"begin anew with --fresh, or name another folder in stream.recovery_dir"
        )
    changed = [name for name in _SECTIONS if known["sections"].get(name) != about["sections"][name]]
    if changed:
        raise RecoveryError(
            f"{path} holds what was learnt with other settings of {', '.join(changed)}; put them back, or begin anew "
            f"with --fresh (what was learnt is lost, and the warm-up begins again)"
        )
    if known != about:
        _write(path, about)


def recovery_config(path: Path) -> RecoveryConfig:
    """For Bytewax."""
    make: Callable[[Path], RecoveryConfig] = RecoveryConfig  # untyped in Bytewax
    return make(path)


def delete_store(path: Path) -> bool:
    """Delete a store's files, and nothing else. Whether there was one.

    Raises:
        RecoveryError: The folder is no recovery store.
    """
    if not path.exists():
        return False
    if not (path / _ABOUT).exists():
        if any(one.name != _LOCK for one in path.iterdir()):
            raise RecoveryError(f"{path} is no recovery store; nothing was deleted")
        return False
    for part in path.glob("part-*.sqlite3*"):
        part.unlink()
    (path / _ABOUT).unlink()
    return True


@contextmanager
def sole_user(path: Path) -> Iterator[None]:
    """Hold the store for the length of a ``with`` block; released by the system when the process dies.

    Raises:
        RecoveryError: Another run holds it.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecoveryError(
                f"{path} is in use by another `mendstream run`; stop it, or give this one a "
                f"stream.recovery_dir of its own"
            ) from error
        yield


def _digests(settings: Settings) -> dict[str, str]:
    told = settings.model_dump(mode="json", include=set(_SECTIONS))
    for name in ("recovery_dir", "snapshot_s"):
        told["stream"].pop(name)
    return {
        name: hashlib.sha256(orjson.dumps(told[name], option=orjson.OPT_SORT_KEYS)).hexdigest() for name in _SECTIONS
    }


def _write(path: Path, about: dict[str, Any]) -> None:
    draft = path / f"{_ABOUT}.draft"
    draft.write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))
    draft.replace(path / _ABOUT)


def _read(path: Path) -> dict[str, Any]:
    try:
        known = orjson.loads((path / _ABOUT).read_bytes())
        return {"sections": dict(known["sections"]), "finished": bool(known["finished"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecoveryError(f"{path / _ABOUT} cannot be read ({error!r}); begin anew with --fresh") from error
