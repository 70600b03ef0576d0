"""Ends a run again and again at random moments and compares what it becomes with an undisturbed one.

python benchmarks/kills.py --config=configs/cora.py --kills=50 --seed=0 --workdir=runs/kills
python benchmarks/kills.py --compare runs/kills/peace runs/kills/killed

Runs the config once in peace (WORKDIR/peace), then a second time (WORKDIR/killed) that is ended
after a random time, `--kills` times, each time started again with the same command; at last it may
finish. A share of `--sigterm` is told to stop, and must end with status 75; the others get SIGKILL.

Every weight file, every score, and the losses and validations of every logged step must then be the
same, bit by bit; no start may have lost as many steps as lie between two checkpoints, and none at
all after SIGTERM. Steps count from the last one logged: `log_every=1` makes that exact. Exit status
1 otherwise. `--compare` looks at two finished folders.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

from clmrc_jax.exit_status import PREEMPTED

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPARED = ("*.safetensors", "metrics.json", "scores.json", "test.json")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = _parser()
    flags, extra = parser.parse_known_args(arguments)
    if flags.compare:
        return compare(*map(pathlib.Path, flags.compare))
    if flags.workdir is None:
        parser.error("give --workdir, or --compare with two folders")
    folder, command = pathlib.Path(flags.workdir), Command(flags.config, extra)
    seconds = command.finish(folder / "peace")
    start = command.finish(folder / "peace")  # nothing to do: the program's own start
    problems = _disturb(flags, command, folder / "killed", start, seconds)
    command.finish(folder / "killed")
    for text in problems:
        print(text)
    return compare(folder / "peace", folder / "killed") or (1 if problems else 0)


class Command:
    """The training command of a config, with `extra` flags."""

    def __init__(self, config: str, extra: list[str]):
        self.words = [sys.executable, str(ROOT / "launch" / "tpu_train.py"), f"--config={config}"]
        self.extra = extra

    def start(self, workdir: pathlib.Path, **pipes) -> subprocess.Popen:
        """A running process."""
        words = [*self.words, f"--workdir={workdir}", *self.extra]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, **pipes)

    def finish(self, workdir: pathlib.Path) -> float:
        """Seconds of a run to its end."""
        begin = time.monotonic()
        if status := self.start(workdir).wait():
            sys.exit(f"the run in {workdir} ended with status {status}")
        return time.monotonic() - begin

    def end_after(self, seconds: float, workdir: pathlib.Path, kind: signal.Signals) -> int | None:
        """Exit status of a run that got a signal; None when it had come to its end before."""
        process = self.start(workdir, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(kind)
            return process.wait()
        if process.returncode:
            sys.exit(f"the run in {workdir} ended by itself with status {process.returncode}")
        return None


def _disturb(flags, command: Command, workdir, start: float, seconds: float) -> list[str]:
    """Ends the run `flags.kills` times, or until it has come to its end; returns what was wrong."""
    rng, problems, lost, kills = random.Random(flags.seed), [], {}, 0
    for number in range(1, flags.kills + 1):
        # Later ones must fall into later stages, so the run may get on by its share of the time.
        wait = start + rng.expovariate(flags.kills / (2 * seconds))
        kind = signal.SIGTERM if rng.random() < flags.sigterm else signal.SIGKILL
        status = command.end_after(wait, workdir, kind)
        if status is None:
            print(f"the run came to its end after {number - 1} of {flags.kills} signals")
            return problems if number > 1 else ["it was never disturbed; ask for more --kills"]
        if kind == signal.SIGTERM and status not in (PREEMPTED, 0):  # 0: it was at its very end
            problems.append(f"{number}: status {status} after SIGTERM, not {PREEMPTED}")
        before, lost = lost, lost_steps(workdir)
        new = sum(lost.values()) - sum(before.values())
        allowed = interval(workdir) - 1 if kills else 0
        if new > allowed:
            problems.append(
                f"{number}: the start before it lost {new} steps, not {allowed} at most"
            )
        # What a kill costs is counted by the next start that gets to its training.
        kills = (0 if new else kills) + (kind == signal.SIGKILL)
        stages = len(list(workdir.rglob("stage.json")))
        told = f"{number}: {kind.name} after {wait:.1f} s, {stages} stages done"
        print(f"{told}, {new} steps lost by the start", flush=True)
    return problems


def compare(a: pathlib.Path, b: pathlib.Path) -> int:
    """Compares two finished runs and prints what differs; 1 when something does, else 0.

    b: the one that was disturbed, whose lost steps are looked at.
    """
    unfinished = [str(folder) for folder in (a, b) if not (folder / "report.json").exists()]
    if unfinished:
        print(f"not finished (no report.json): {', '.join(unfinished)}")
        return 1
    problems = [f"differs: {name}" for name in differences(a, b)]
    lost = restarts = 0
    for path in sorted(b.rglob("metrics.jsonl")):
        last = _rows(path)[-1]
        lost, restarts = lost + int(last["lost_steps"]), restarts + int(last["restarts"])
        most = int(last["restarts"]) * (interval(b) - 1)
        if last["lost_steps"] > most:
            problems.append(f"{path}: {last['lost_steps']:g} steps lost, not {most} at most")
    for text in problems:
        print(text)
    counts = f"{len(_files(a, COMPARED))} files, {len(_files(a, ['metrics.jsonl']))} trainings"
    print(f"{counts}; restarts of trainings: {restarts}; steps lost: {lost}")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


def differences(a: pathlib.Path, b: pathlib.Path) -> list[str]:
    """Compared files that are missing on one side, or have other bytes, or (logs) other losses."""

    def same(name: str) -> bool:
        files = a / name, b / name
        return all(f.exists() for f in files) and files[0].read_bytes() == files[1].read_bytes()

    def same_losses(name: str) -> bool:
        files = a / name, b / name
        return all(f.exists() for f in files) and _losses(files[0]) == _losses(files[1])

    plain, logs = (_files(a, x) | _files(b, x) for x in (COMPARED, ("metrics.jsonl",)))
    found = [name for name in plain if not same(name)]
    return sorted(found + [name for name in logs if not same_losses(name)])


def _files(folder: pathlib.Path, patterns) -> set[str]:
    found = (path for pattern in patterns for path in folder.rglob(pattern))
    return {str(path.relative_to(folder)) for path in found}


def _rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _losses(path: pathlib.Path) -> list[dict]:
    """Step, loss and validation of every line of a log; the rest is times."""
    return [
        {k: v for k, v in row.items() if k in ("step", "loss") or k.startswith("valid/")}
        for row in _rows(path)
    ]


def lost_steps(workdir: pathlib.Path) -> dict[str, int]:
    """Steps that the starts so far have done again, by training, finished or not."""
    lost = {}
    for path in workdir.rglob("goodput.json"):
        lost[str(path.parent)] = int(json.loads(path.read_text())["lost_steps"])
    for path in workdir.rglob("finished.json"):
        lost[str(path.parent)] = int(_rows(path.parent / "metrics.jsonl")[-1]["lost_steps"])
    return lost


def interval(workdir: pathlib.Path) -> int:
    """Steps between two checkpoints, the longest of the run's trainings."""

    def found(settings):
        for name, value in settings.items():
            if isinstance(value, dict):
                yield from found(value)
            elif name == "save_every":
                yield value

    return max(found(json.loads((workdir / "config.json").read_text())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cora.py", help="config file and preset")
    parser.add_argument("--kills", type=int, default=50, help="how many times to end it")
    parser.add_argument("--sigterm", type=float, default=0.5, help="share of SIGTERM among them")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workdir", help="folder of both runs")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two finished workdirs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
