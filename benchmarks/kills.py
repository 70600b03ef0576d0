"""Kills a run again and again at random moments and compares what it becomes with an undisturbed one.

python benchmarks/kills.py --config=configs/cora.py --kills=50 --seed=0 --workdir=runs/kills

Runs the config once in peace (WORKDIR/peace), then a second time (WORKDIR/killed) that gets SIGKILL
after a random time, `--kills` times, each time started again with the same command; at last it may
finish. Every weight file and every score must then be the same, bit by bit. Exit status 1 otherwise.
"""

import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPARED = ("*.safetensors", "metrics.json", "scores.json", "test.json")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    flags, extra = _parser().parse_known_args(arguments)
    folder = pathlib.Path(flags.workdir)
    seconds = _run(flags.config, folder / "peace", extra)
    start = _run(flags.config, folder / "peace", extra)  # nothing to do: the program's own start
    rng, killed = random.Random(flags.seed), 0
    while killed < flags.kills:
        # Later kills must fall into later stages, so the run may get on by its share of the time.
        wait = start + rng.expovariate(flags.kills / (2 * seconds))
        if not _kill_after(wait, flags.config, folder / "killed", extra):
            break
        killed += 1
        print(
            f"kill {killed} after {wait:.1f} s: {_stages(folder / 'killed')} stages done",
            flush=True,
        )
    _run(flags.config, folder / "killed", extra)
    different = _differences(folder / "peace", folder / "killed")
    print(f"{killed} kills; {len(different)} files differ: {', '.join(different) or 'none'}")
    return 1 if different or not killed else 0


def _command(config: str, workdir, extra) -> list[str]:
    script = str(ROOT / "launch" / "tpu_train.py")
    return [sys.executable, script, f"--config={config}", f"--workdir={workdir}", *extra]


def _run(config: str, workdir, extra) -> float:
    """Seconds of a run to its end."""
    begin = time.monotonic()
    done = subprocess.run(_command(config, workdir, extra), stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"the run in {workdir} ended with status {done.returncode}")
    return time.monotonic() - begin


def _kill_after(seconds: float, config: str, workdir, extra) -> bool:
    """Whether the run was killed; False when it had come to its end before."""
    process = subprocess.Popen(
        _command(config, workdir, extra), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    if process.returncode:
        sys.exit(f"the run in {workdir} ended by itself with status {process.returncode}")
    return False


def _stages(workdir: pathlib.Path) -> int:
    return len(list(workdir.rglob("stage.json")))


def _differences(a: pathlib.Path, b: pathlib.Path) -> list[str]:
    """Compared files that are missing on one side or have other bytes."""
    names = {
        str(path.relative_to(side))
        for side in (a, b)
        for pattern in COMPARED
        for path in side.rglob(pattern)
    }

    def same(name: str) -> bool:
        files = a / name, b / name
        return all(f.exists() for f in files) and files[0].read_bytes() == files[1].read_bytes()

    return sorted(name for name in names if not same(name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/cora.py", help="config file and preset")
    parser.add_argument("--kills", type=int, default=50, help="how many times to kill it")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workdir", required=True, help="folder of both runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
