"""What the processes of one run tell each other: who writes, what came out, what went wrong.

All processes run the same program. Here are the few places where they differ: process 0 writes
what is single, the others wait for it and learn its result; a part of the work done by each is
put together again; and a failure of one ends all with its message. With one process every
function is a plain call.

Waiting goes through JAX's coordination service and not through a collective: it may take hours
(process 0 prepares a corpus), and a collective would keep the devices spinning.
"""

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax._src import distributed  # the service has no public door yet
from jax.experimental import multihost_utils

from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.files import InputError

T = TypeVar("T")
_WEEK = 7 * 24 * 3600 * 1000  # milliseconds; a process that died ends the wait much sooner
_LOOK_SECONDS = 2.0
_LEAVE_SECONDS = 30.0
_FAILURE = "clmrc_jax/failure"
# The same on all processes, which run the same program.
_calls, _stops_asked = itertools.count(), itertools.count()


class Preempted(SystemExit):
    """The process was told to stop (SIGTERM), and has saved; exits with status 75."""

    def __init__(self):
        super().__init__(PREEMPTED)


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, which writes what is single."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if several():
        _service().wait_at_barrier(f"clmrc_jax/{next(_calls)}/{name}", _WEEK)


def must_stop() -> bool:
    """Whether all processes are to save and leave now, because one of several got SIGTERM.

    Every process asks at the same places of the program (after every update, before every stage),
    and all get the same answer there. With one process the caller handles the signal itself.
    """
    # The number has to rise over the whole life of the process, not over one training.
    return several() and multihost_utils.reached_preemption_sync_point(next(_stops_asked))


def on_first(name: str, work: Callable[[], T]) -> T:
    """`work()` done by process 0 alone; all processes return its result, plain JSON values.

    When it fails the others wait, until `share_failures` ends them.
    """
    if not several():
        return work()
    key = f"clmrc_jax/{next(_calls)}/{name}"
    if is_first():
        _service().key_value_set(key, json.dumps(work()))
    return json.loads(_service().blocking_key_value_get(key, _WEEK))


def gather(name: str, value: T) -> list[T]:
    """The values of all processes, plain JSON, in the order of the processes."""
    if not several():
        return [value]
    wait_for_all(name)  # a collective's patience is shorter
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(texts, sizes)]


@contextlib.contextmanager
def share_failures() -> Iterator[None]:
    """An exception inside the block ends every process of the run, within seconds.

    The others print the message and leave, even from inside a collective, where they would wait
    for ever for the one that failed: with status 2 for an InputError, else 1. (A process that is
    killed says nothing; the service's heartbeat ends the others then.)
    """
    if not several():
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(done,), daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        done.set()
        _announce(error)
        raise
    finally:
        done.set()
        watcher.join()


def _announce(error: Exception) -> None:
    who = f"process {jax.process_index()} on {socket.gethostname()}"
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    message = {"text": f"{who}: {kind}{error}", "status": 2 if isinstance(error, InputError) else 1}
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was faster
        _service().key_value_set(_FAILURE, json.dumps(message))


def _watch(done: threading.Event) -> None:
    service = _service()
    while not done.wait(_LOOK_SECONDS):
        try:
            message = json.loads(service.key_value_try_get(_FAILURE))
        except jax.errors.JaxRuntimeError:  # not found: nobody failed
            continue
        if not done.is_set():
            print(f"error: {message['text']}", file=sys.stderr, flush=True)
            _leave(message["status"])


def _leave(status: int) -> None:
    """Ends this process, whatever its main thread waits for; the failed one sees it go."""
    late = threading.Timer(_LEAVE_SECONDS, os._exit, (status,))
    late.daemon = True
    late.start()
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()
    os._exit(status)


def _service():
    return distributed.global_state.client
