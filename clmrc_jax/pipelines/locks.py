"""One run at a time in a folder: a second one is told who is there.

On a disk this is the system's advisory file lock. An object store has none. There the holder
writes its lock again every few seconds, and who finds a lock waits to see whether it changes: if
not, its holder was killed, and the lock is taken over. No clocks are compared.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator

from etils import epath

from clmrc_jax import hosts
from clmrc_jax.exit_status import BAD_INPUT
from clmrc_jax.files import InputError

NAME = "lock"
BEAT_SECONDS = 20.0  # an object store's lock is written again so often
SILENT_SECONDS = 90.0  # whose holder has written nothing for so long is dead


@contextlib.contextmanager
def workdir_lock(workdir: str | os.PathLike) -> Iterator[None]:
    """Holds the workdir of a run, see `folder_lock`; process 0 holds it for all processes."""
    with folder_lock(workdir) if hosts.is_first() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def folder_lock(path: str | os.PathLike) -> Iterator[None]:
    """Holds a folder: a second holder is refused with an InputError. Starts no JAX backend.

    A holder in an object store that another one took the folder from (after it had been silent,
    as a sleeping machine is) ends at once with status 2, and writes nothing more.
    """
    folder = epath.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with (_lease if "://" in os.fspath(folder) else _file_lock)(folder, holder):
        yield


@contextlib.contextmanager
def _file_lock(folder: epath.Path, holder: str) -> Iterator[None]:
    import fcntl

    with open(folder / NAME, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _in_use(folder, file.read().strip() or "another process") from error
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


@contextlib.contextmanager
def _lease(folder: epath.Path, holder: str) -> Iterator[None]:
    mine = {"holder": holder, "token": uuid.uuid4().hex, "beat": 0}
    _wait_until_silent(folder)
    (folder / NAME).write_text(json.dumps(mine))
    _require_own(folder, mine)  # of two that start at once one is first
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, mine, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        # What is left behind, in an outage too, the next start waits for and takes over.
        with contextlib.suppress(Exception):
            _require_own(folder, mine)
            (folder / NAME).unlink(missing_ok=True)


def _wait_until_silent(folder: epath.Path) -> None:
    """Returns when nobody holds the folder. Raises InputError when somebody shows that he does."""
    found = _read(folder)
    if found is None:
        return
    text = f"{folder}: {found['holder']} left its lock; waiting {SILENT_SECONDS:.0f} s for a sign"
    print(f"{text} of its life", file=sys.stderr, flush=True)
    end = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, BEAT_SECONDS))
        now = _read(folder)
        if now is None:
            return
        if now != found:
            raise _in_use(folder, now["holder"])


def _beat(folder: epath.Path, mine: dict, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        try:
            _require_own(folder, mine)
            mine["beat"] += 1
            (folder / NAME).write_text(json.dumps(mine))
        except InputError as error:
            print(f"error: {error}; this run ends", file=sys.stderr, flush=True)
            _end(BAD_INPUT)
        except Exception as error:  # an outage of the store: its clients raise many kinds
            print(f"{folder / NAME}: {error}; trying again", file=sys.stderr, flush=True)


_end = os._exit  # from a thread, and without another word to the workdir


def _require_own(folder: epath.Path, mine: dict) -> None:
    found = _read(folder)
    if found is not None and found["token"] != mine["token"]:
        raise _in_use(folder, found["holder"])


def _read(folder: epath.Path) -> dict | None:
    """The lock, None without one."""
    try:
        text = (folder / NAME).read_text()
    except FileNotFoundError:
        return None
    try:
        return json.loads(text)
    except ValueError:  # of an older version
        return {"holder": text.strip() or "another process", "token": ""}


def _in_use(folder: epath.Path, holder: str) -> InputError:
    return InputError(
        f"{folder}: {holder} is running in this workdir; wait for it, stop it, or give another "
        "--workdir"
    )
