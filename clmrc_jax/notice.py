"""The notice to leave, SIGTERM: a program ends where it is, but a training saves first.

What lies on disk may be left at any moment: the same command does an unfinished stage again, or
goes on after its last whole file. So the signal ends the program at once, with the status that
says so. Only a training has something to lose; inside `saves_first` the signal is but a flag.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from clmrc_jax.exit_status import PREEMPTED

LEAVE_SECONDS = 20.0  # a machine that is taken away goes some 30 s after the notice
_LOOK_SECONDS = 0.5

_told, _raised, _swallowed = threading.Event(), threading.Event(), threading.Event()
_heeding = _saving = _shared = 0  # how many blocks of each kind the main thread is in


class Preempted(SystemExit):
    """The process was told to stop (SIGTERM), and nothing is lost; exits with status 75."""

    def __init__(self):
        super().__init__(PREEMPTED)


@contextlib.contextmanager
def heeded(*, to_the_end: bool = False) -> Iterator[None]:
    """Inside the block SIGTERM raises Preempted in the main thread, once.

    A main thread that does not come to it, in a long call or in its cleaning up, is given
    LEAVE_SECONDS. Blocks may lie in each other. Outside of the main thread nothing changes.
    to_the_end: the program ends with the block, on Preempted without Python's own cleaning up:
    there JAX's threads may crash, and a second signal would change the status. Else all is as
    before after the block.
    """
    global _heeding
    if _heeding or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reader, over), daemon=True)
    watcher.start()
    # Python's own handler waits for the main thread; the bytes of the socket do not.
    former_file = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    former = signal.signal(signal.SIGTERM, _receive)
    former_hook, sys.unraisablehook = sys.unraisablehook, _again(sys.unraisablehook)
    _heeding = 1
    try:
        yield
    except Preempted:
        if not to_the_end:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        leave(PREEMPTED)
    finally:
        _heeding = 0
        sys.unraisablehook = former_hook
        signal.signal(signal.SIGTERM, former)
        signal.set_wakeup_fd(former_file)
        over.set()
        writer.close()
        watcher.join()
        reader.close()
        for event in (_told, _raised, _swallowed):
            event.clear()


@contextlib.contextmanager
def saves_first() -> Iterator[None]:
    """Inside the block SIGTERM only makes `told` true; its end raises Preempted then."""
    global _saving
    _saving += 1
    try:
        yield
    finally:
        _saving -= 1
    if _told.is_set() and not _shared:
        _stop()


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Inside the block SIGTERM raises nothing: somebody looks at `told` and ends all processes."""
    global _shared
    _shared += 1
    try:
        yield
    finally:
        _shared -= 1


def told() -> bool:
    """Whether SIGTERM came, in the block of `heeded`."""
    return _told.is_set()


def saving() -> bool:
    """Whether the main thread is in a block of `saves_first`."""
    return _saving > 0


def leave(status: int) -> NoReturn:
    """Ends this process and its worker processes, whatever the main thread does."""
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(status)


def _receive(number, frame) -> None:
    _told.set()
    if not (_saving or _shared or _raised.is_set()):
        _stop()


def _stop() -> NoReturn:
    # Not print: the signal may have come in the middle of one.
    os.write(2, b"stopped by SIGTERM; the same command continues from there\n")
    _raised.set()
    raise Preempted


def _again(former: Callable) -> Callable:
    """A hook for exceptions that Python cannot raise: in a callback of the garbage collector, say.

    JAX has one. A Preempted that came to nothing there is raised again, by the watcher's signal.
    """

    def hook(unraisable) -> None:
        if isinstance(unraisable.exc_value, Preempted):
            _raised.clear()
            _swallowed.set()
        else:
            former(unraisable)

    return hook


def _watch(reader: socket.socket, over: threading.Event) -> None:
    """Waits for the signal, then for the main thread; ends the process when that takes too long."""
    while signal.SIGTERM not in (found := reader.recv(64)):
        if not found:
            return
    _told.set()
    late = time.monotonic() + LEAVE_SECONDS
    while not over.wait(_LOOK_SECONDS):
        if _swallowed.is_set():
            _swallowed.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        if _saving:
            late = time.monotonic() + LEAVE_SECONDS
        elif time.monotonic() > late:
            leave(PREEMPTED)
