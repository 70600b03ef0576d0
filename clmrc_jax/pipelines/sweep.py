"""Runs a sweep: every point in its own workdir, one after the other, each in its own process.

A run that crashes takes no other with it, and its memory goes back to the system; the sweep itself
starts no JAX backend, which would hold the accelerator that its runs need. The same command
continues: finished runs are recognised by their report, an unfinished one starts again in its
workdir. In the sweep's folder: `sweep.json` (what each run was made from), `table.csv`,
`table.md`, and per run a folder with its `log.txt`.
"""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from etils import epath

from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.pipelines.locks import folder_lock
from clmrc_jax.pipelines.run_identity import identity
from clmrc_jax.pipelines.sweep_points import Point, Sweep
from clmrc_jax.pipelines.sweep_table import REPORT, is_finished

LOG, RECORD = "log.txt", "sweep.json"
SHOWN_LINES = 12
POLL_SECONDS = 0.2


class Stopped(SystemExit):
    """The sweep, or the run it waited for, was told to stop; exits with status 75."""

    def __init__(self, name: str):
        super().__init__(PREEMPTED)
        self.name = name


@dataclasses.dataclass(frozen=True)
class Failure:
    """name: of the run.   reason: one line.   tail: the last lines of its log.   log: its path."""

    name: str
    reason: str
    tail: tuple[str, ...]
    log: str


def run(
    sweep: Sweep,
    workdir: str | os.PathLike,
    trainer: Sequence[str],
    *,
    say: Callable[[str], None],
    echo: bool = True,
) -> list[Failure]:
    """Runs what is not finished yet; returns the runs that failed.

    trainer: the command that gets `--config=.. --config.key=value .. --workdir=..`.
    say: gets the lines about progress.   echo: also show the runs' own output on stderr.
    Raises InputError (a workdir in use, or runs in it that were made from other settings) and
    Stopped after SIGTERM or Ctrl-C, or when a run was preempted.
    """
    folder = epath.Path(workdir)
    with folder_lock(folder), _stop_signals() as stops:
        record(sweep, folder)
        left = [point for point in sweep.points if not is_finished(folder, point)]
        done = len(sweep.points) - len(left)
        say(f"sweep {sweep.name}: {len(sweep.points)} runs in {folder}, {done} finished before")
        failures, begin = [], time.monotonic()
        for number, point in enumerate(left, start=1):
            if stops:
                raise Stopped(point.name)
            title = f"[{done + number}/{len(sweep.points)}] {point.name}"
            started = time.monotonic()
            _wait_for_the_former(folder / point.name, stops, say)
            say(f"{title}: starts, log in {folder / point.name / LOG}")
            failure = _run_point(point, folder, trainer, stops, echo)
            now = time.monotonic()
            result = f"FAILED, {failure.reason}," if failure else "finished"
            say(f"{title}: {result} after {_clock(now - started)}")
            if rest := len(left) - number:
                say(f"  about {_clock((now - begin) / number * rest)} left for {rest} more runs")
            failures += [failure] if failure else []
        return failures


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def record(sweep: Sweep, folder: str | os.PathLike) -> None:
    """Writes sweep.json, which says what every run in the folder was made from.

    Raises InputError when a run of the same name was begun with other settings.
    """
    known = check(sweep, folder)
    for point in sweep.points:
        if point.name not in known or not is_finished(folder, point):
            flags = point.flags()
            known[point.name] = {"source": point.source, "flags": flags, "config": point.config}
    write_json(epath.Path(folder) / RECORD, {"name": sweep.name, "runs": known})


def check(sweep: Sweep, folder: str | os.PathLike) -> dict[str, dict]:
    """The runs that sweep.json knows, by name.

    Raises InputError when one of the sweep was begun with other settings.
    """
    path = epath.Path(folder) / RECORD
    known = read_json(path)["runs"] if path.exists() else {}
    for point in sweep.points:
        former, now = (
            identity(config)
            for config in (known.get(point.name, {}).get("config", point.config), point.config)
        )
        if former != now:
            keys = sorted(k for k in {*former, *now} if former.get(k) != now.get(k))
            changed = "; ".join(
                f"{k}: {former.get(k)!r:.60} then, {now.get(k)!r:.60} now" for k in keys
            )
            raise InputError(
                f"{path.parent / point.name}: this run was made with other settings ({changed}). "
                f"Use another --workdir, or delete this folder and {path}"
            )
    return known


def commands(
    sweep: Sweep, workdir: str | os.PathLike, trainer: Sequence[str], launcher: Sequence[str] = ()
) -> list[str]:
    """One shell command per unfinished run, to be run wherever the workdir can be reached.

    launcher: what starts the trainer elsewhere, e.g. `launch/tpu_vm.py run ..`; `{number}` in it
    becomes the run's number from 1.
    """
    folder = epath.Path(workdir)
    return [
        shlex.join(
            [
                *(part.replace("{number}", str(number)) for part in launcher),
                *trainer,
                *point.flags(),
                f"--workdir={folder / point.name}",
            ]
        )
        for number, point in enumerate(sweep.points, start=1)
        if not is_finished(folder, point)
    ]


def report_failures(failures: Sequence[Failure], say: Callable[[str], None]) -> None:
    """Says which runs failed, and the last lines of their logs."""
    for failure in failures:
        say(f"\n{failure.name}: {failure.reason}; the end of {failure.log}:")
        for line in failure.tail:
            say(f"  {line}")
    if failures:
        say(f"\n{len(failures)} runs failed; the same command tries them again")


def _wait_for_the_former(run_folder, stops: list, say: Callable[[str], None]) -> None:
    """Returns when no run of a sweep that was killed (SIGKILL) is at work in the folder any more."""
    said = False
    while not stops:
        try:
            with folder_lock(run_folder):
                return
        except InputError as error:
            if not said:
                say(f"waiting: {error}")
            said = True
        time.sleep(POLL_SECONDS)
    raise Stopped(run_folder.name)


def _run_point(point: Point, folder, trainer, stops: list, echo: bool) -> Failure | None:
    run_folder = folder / point.name
    run_folder.mkdir(parents=True, exist_ok=True)
    command = [*trainer, *point.flags(), f"--workdir={run_folder}"]
    with _local_log(run_folder) as log:
        cache = os.fspath(folder / "compilation_cache")
        environment = {"PYTHONUNBUFFERED": "1", "JAX_COMPILATION_CACHE_DIR": cache} | os.environ
        status = _wait(command, environment, log, stops, echo)
        if status == PREEMPTED or stops:
            raise Stopped(point.name)
        lines = log.read_text("utf-8", "replace").splitlines()
    if status == 0 and is_finished(folder, point):
        return None
    return Failure(point.name, _reason(status), tuple(lines[-SHOWN_LINES:]), str(run_folder / LOG))


def _reason(status: int) -> str:
    if status == 0:
        return f"exited well, but left no {REPORT}"
    if status == -signal.SIGKILL:
        return "killed (SIGKILL), as the system does when memory is short"
    if status < 0:
        return f"ended by signal {signal.Signals(-status).name}"
    return f"exit status {status}"


@contextlib.contextmanager
def _local_log(run_folder) -> Iterator[pathlib.Path]:
    """The run's log file; one of an object store is written here and copied when the run ends."""
    if "://" not in os.fspath(run_folder):
        yield pathlib.Path(run_folder) / LOG
        return
    with tempfile.TemporaryDirectory(prefix="clmrc_sweep_") as local:
        log, remote = pathlib.Path(local) / LOG, run_folder / LOG
        log.write_bytes(remote.read_bytes() if remote.exists() else b"")
        try:
            yield log
        finally:
            remote.write_bytes(log.read_bytes())


def _wait(command: list[str], environment, log: pathlib.Path, stops: list, echo: bool) -> int:
    """Runs a command with its output in `log`; returns its exit status.

    The first signal in `stops` goes on to the run as SIGTERM, so that it saves; the second ends
    it at once. Its own session keeps Ctrl-C from it, and holds the processes it may leave.
    """
    with log.open("ab") as file, log.open("rb") as reader:
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        reader.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        told = 0
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
                if len(stops) > told:
                    process.send_signal(signal.SIGKILL if told else signal.SIGTERM)
                    told += 1
                _echo(reader, echo)
        finally:
            _echo(reader, echo)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _echo(reader, echo: bool) -> None:
    if echo and (text := reader.read()):
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()


@contextlib.contextmanager
def _stop_signals() -> Iterator[list]:
    """A list that SIGTERM and Ctrl-C add to; the former handlers come back afterwards."""
    seen: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    former = [signal.signal(kind, lambda number, _: seen.append(number)) for kind in kinds]
    try:
        yield seen
    finally:
        for kind, handler in zip(kinds, former):
            signal.signal(kind, handler)
