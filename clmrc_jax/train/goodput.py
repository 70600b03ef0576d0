"""Where the time of a training goes, how much memory it took, and a look inside by profiler.

Goodput is the share of a training's time that went into steps which count: the rest is
starting, compiling, waiting for data, saving, evaluating, and steps that a crash undid. The
idea is that of ml-goodput-measurement, with plain numbers in the metrics log.
"""

import contextlib
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
from etils import epath

from clmrc_jax.files import InputError, read_json, write_json

# init: from the call of `fit` to the first step, restoring included. compile: the calls of the
# step that compiled it. data_wait: for the next batch. step: everything else in the loop, the
# devices' work. checkpoint: as long as saving held the loop up. evaluation: validation.
# lost: steps, with their data and evaluation, that a restart had to do again.
KINDS = ("init", "compile", "data_wait", "step", "checkpoint", "evaluation", "lost")
_UNDONE = ("data_wait", "step", "evaluation")  # what a crash makes worthless
_FILE = "goodput.json"


class Goodput:
    """Seconds by kind; at every moment exactly one kind runs, so they sum to the wall clock.

    folder: of the training; `goodput.json` in it carries the seconds over a crash. The time
    between the processes of a training is not counted. Only process 0 reads and writes it.
    devices: whose memory is watched.
    """

    def __init__(self, folder: str | os.PathLike, devices: Iterable[jax.Device] = ()):
        self._path, self._devices = epath.Path(folder) / _FILE, list(devices)
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.lost_steps = self.restarts = 0
        self._kind, self._since = "init", time.perf_counter()

    def switch(self, kind: str) -> str:
        """From now on time counts as `kind`; returns the kind until now."""
        now, former = time.perf_counter(), self._kind
        self.seconds[former] += now - self._since
        self._kind, self._since = kind, now
        return former

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """The block counts as `kind`, and not as what is around it."""
        former = self.switch(kind)
        try:
            yield
        finally:
            self.switch(former)

    def resume(self, saved: dict | None, step: int) -> None:
        """Adds what earlier processes spent.

        saved: the seconds in the checkpoint restored, None without one.   step: it is from.
        Time that was spent on steps after the checkpoint becomes `lost`.
        """
        if jax.process_index() or not self._path.exists():
            return
        former, saved = read_json(self._path), saved or dict.fromkeys(KINDS, 0.0)
        for kind in KINDS:
            undone = 0.0
            if kind in _UNDONE and former["step"] > step:
                undone = max(0.0, former["seconds"][kind] - saved[kind])
            self.seconds[kind] += former["seconds"][kind] - undone
            self.seconds["lost"] += undone
        self.lost_steps = former["lost_steps"] + max(0, former["step"] - step)
        self.restarts = former["restarts"] + 1

    def record(self, step: int) -> None:
        """Writes what a later process must know if this one dies now."""
        self.switch(self._kind)
        if jax.process_index() == 0:
            write_json(
                self._path,
                {
                    "step": step,
                    "seconds": self.seconds,
                    "lost_steps": self.lost_steps,
                    "restarts": self.restarts,
                },
            )

    def forget(self) -> None:
        """Removes the file, when the training is finished."""
        self._path.unlink(missing_ok=True)

    def line(self, last: bool) -> dict[str, float]:
        """What the log says: {"goodput": share of the time that went into steps which count,
        "elapsed_seconds": all time} and `memory_peak`; in the last line of a training also
        `seconds/<kind>`, the number of lost steps, and of restarts."""
        self.switch(self._kind)
        total = sum(self.seconds.values())
        share = {"goodput": self.seconds["step"] / max(total, 1e-9), "elapsed_seconds": total}
        if last:
            share |= {f"seconds/{kind}": seconds for kind, seconds in self.seconds.items()}
            share |= {"lost_steps": self.lost_steps, "restarts": self.restarts}
        return share | memory_peak(self._devices)


def kind_of_step(step: object, batch: Mapping, seen: set) -> str:
    """ "compile" for the first batch of its shapes, which the jitted step is compiled for.

    seen: remembers steps and shapes.
    """
    shapes = id(step), tuple((name, array.shape) for name, array in batch.items())
    kind = "step" if shapes in seen else "compile"
    seen.add(shapes)
    return kind


def memory_peak(devices: Iterable[jax.Device]) -> dict[str, int]:
    """High-water mark of memory in bytes, of this process from its start until now.

    {"device_memory_peak_bytes": largest of this process's devices}; where devices do not count
    (the CPU), {"host_memory_peak_bytes": of the process, Python and compilers included}.
    """
    own = [d for d in devices if d.process_index == jax.process_index()]
    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in own]
    if peaks and None not in peaks:
        return {"device_memory_peak_bytes": max(peaks)}
    return {"host_memory_peak_bytes": _host_peak()}


def _host_peak() -> int:
    # ru_maxrss is inherited from the process that started this one, VmHWM is not.
    status = pathlib.Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Profile:
    """A `jax.profiler` trace of the steps first..last (from 1), for TensorBoard or XProf.

    steps: (first, last), or () for no trace.   folder: where it goes.
    """

    def __init__(self, steps: tuple[int, ...], folder: str | os.PathLike):
        self._steps, self._folder = steps, os.fspath(folder)
        self._running = False

    def expect(self, done: int, steps: int, name: str) -> None:
        """Says on stderr when none of the steps after `done` up to `steps` will be traced.

        No error: of the trainings of a run, which share one window, some are short.
        """
        window = self._steps
        if window and not (window[0] <= steps and done < window[1]) and jax.process_index() == 0:
            text = f"{name}: its steps {done + 1}..{steps} lie outside profile={window}, no trace"
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the dispatch of one step; begins the trace with the first of the window."""
        if not self._steps or not self._steps[0] <= number <= self._steps[1]:
            yield
            return
        if not self._running:
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def end_after(self, number: int, wait: Callable[[], None]) -> None:
        """Closes the trace after the window's last step, when `wait` says that it is done."""
        if self._running and number >= self._steps[1]:
            wait()
            self.close()

    def close(self) -> None:
        """Ends the trace and writes it, if one runs."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


def check_window(window: tuple) -> None:
    """Raises InputError unless `window` is () or two steps with 1 <= first <= last."""
    numbers = all(isinstance(step, int) for step in window)
    if window and not (numbers and len(window) == 2 and 1 <= window[0] <= window[1]):
        raise InputError(
            f"profile is {window!r}; give (first step, last step), counted from 1, as in "
            '--config.profile="(20, 25)", or () for no trace'
        )
