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
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the service has no public door yet
from jax.experimental import multihost_utils

from clmrc_jax import notice
from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.files import InputError

T = TypeVar("T")
_WEEK = 7 * 24 * 3600 * 1000  # milliseconds; a process that died ends the wait much sooner
_LOOK_SECONDS = 1.0
_LEAVE_SECONDS = 30.0
_FAILURE, _NOTICE, _ASKED = "clmrc_jax/failure", "clmrc_jax/notice", "clmrc_jax/asked/"
_leaving = threading.Lock()
_calls = itertools.count()  # the same on all processes, which run the same program


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
    """Whether a training is to save and leave now, because a process of the run got SIGTERM.

    Every process asks after every update, inside `notice.saves_first`, and all get the same
    answer there. With several processes a notice is heard inside `share_failures` alone.
    """
    return _stop_point.reached() if several() else notice.told()


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
    """What ends one process inside the block ends every process of the run, within seconds.

    After an exception the others print the message and leave, even from inside a collective,
    where they would wait for ever for the one that failed: with status 2 for an InputError, else
    1. (A process that is killed says nothing; the service's heartbeat ends the others then.)

    After SIGTERM to any of them all leave with status 75, from a training as soon as they have
    saved the same step. The program ends here then.
    """
    if not several():
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(done,), daemon=True)
    with notice.heeded(), notice.shared():
        watcher.start()
        try:
            yield
        except notice.Preempted:
            done.set()
            _leave(PREEMPTED)
        except Exception as error:
            told = notice.told() or _look(_NOTICE)
            done.set()
            _announce(error, told)
            if told:
                _leave(PREEMPTED)
            raise
        finally:
            done.set()
            watcher.join()


def _announce(error: Exception, told: bool) -> None:
    """Publishes an error; after a notice it is taken for a consequence: others have left already."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    text, status = f"{_name()}: {kind}{error}", 2 if isinstance(error, InputError) else 1
    if told:
        print(f"after SIGTERM: {text}", file=sys.stderr, flush=True)
        _publish_end(f"{_name()} was stopped by SIGTERM; the same command continues", PREEMPTED)
    else:
        _publish_end(f"error: {text}", status)


def _name() -> str:
    return f"process {jax.process_index()} on {socket.gethostname()}"


def _publish_end(text: str, status: int) -> None:
    _publish(_FAILURE, {"text": text, "status": status})


def _watch(done: threading.Event) -> None:
    while not done.wait(_LOOK_SECONDS):
        _leave_with_others(done)
        if notice.told():
            _publish(_NOTICE, _name())
        who = _look(_NOTICE)
        if who is None or done.is_set():
            continue
        if notice.saving():
            _stop_point.agree(done)
        else:
            _publish_end(f"{who} was stopped by SIGTERM; the same command continues", PREEMPTED)
            _leave_with_others(done)


def _leave_with_others(done: threading.Event) -> None:
    end = _look(_FAILURE)
    if end and not done.is_set():
        print(end["text"], file=sys.stderr, flush=True)
        _leave(end["status"])


def _leave(status: int) -> NoReturn:
    """Ends this process, whatever its main thread waits for; the failed one sees it go.

    Main thread and watcher may both come here. The first ends the process; a second shutdown of
    the service would abort it, with another status.
    """
    _leaving.acquire()
    late = threading.Timer(_LEAVE_SECONDS, notice.leave, (status,))
    late.daemon = True
    late.start()
    with contextlib.suppress(Exception):
        jax.distributed.shutdown()
    notice.leave(status)


class _StopPoint:
    """The question of `must_stop` that all processes answer with yes, counted over the run's life.

    While they agree no process asks on: the point lies one after the last question of them all.
    """

    def __init__(self):
        self._lock, self._asked, self._point = threading.Lock(), 0, None

    def reached(self) -> bool:
        """Whether this question is the one; counts it."""
        with self._lock:
            self._asked += 1
            return self._point is not None and self._asked >= self._point

    def agree(self, done: threading.Event) -> None:
        """Fixes the point once all processes have come to it; every watcher calls it."""
        with self._lock:
            if self._point is not None:
                return
            _publish(f"{_ASKED}{jax.process_index()}", self._asked)
            while len(asked := _service().key_value_dir_get(_ASKED)) < jax.process_count():
                _leave_with_others(done)  # one that had nothing to save has ended the run
                if done.wait(0.1):
                    return
            self._point = 1 + max(int(count) for _, count in asked)


_stop_point = _StopPoint()


def _publish(key: str, value) -> None:
    """Lets all processes see a value, plain JSON; the first one stays."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was faster
        _service().key_value_set(key, json.dumps(value))


def _look(key: str):
    """The value of `_publish`, or None without one."""
    try:
        return json.loads(_service().key_value_try_get(key))
    except jax.errors.JaxRuntimeError:
        return None


def _service():
    return distributed.global_state.client
