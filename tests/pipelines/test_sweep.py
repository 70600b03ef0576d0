import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.files import InputError, read_json
from clmrc_jax.pipelines import sweep, sweep_table
from clmrc_jax.pipelines.locks import workdir_lock
from clmrc_jax.pipelines.sweep_points import load_sweep

CONFIG = """
import ml_collections


def get_config(preset="good"):
    return ml_collections.ConfigDict({"seed": 0, "rate": 1e-4})
"""
# Stands for launch/tpu_train.py: notes every start, then does what its preset is called.
TRAINER = """
import json, os, pathlib, signal, sys, time

given = dict(x.lstrip("-").split("=", 1) for x in sys.argv[1:])
folder, preset = pathlib.Path(given["workdir"]), given["config"].split(":")[1]
folder.mkdir(exist_ok=True)
starts = folder / "starts"
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
print("training", preset, flush=True)
if preset == "crash" or preset == "once" and starts.read_text() == "x":
    raise RuntimeError("no such luck")
if preset == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if preset == "slow":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (folder / "ready").write_text("")
    time.sleep(60)
if preset == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "ready").write_text("")
    time.sleep(60)
if preset != "silent":
    report = {"summary": {"f1": 10.0 + int(given["config.seed"])}}
    (folder / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def runner(tmp_path):
    """run(sweep text) -> (failures, lines said), in tmp_path / "w"."""
    (tmp_path / "x.py").write_text(CONFIG)
    (tmp_path / "trainer.py").write_text(TRAINER)
    trainer = [sys.executable, str(tmp_path / "trainer.py")]

    def run(text, **options):
        said = []
        options = {"say": said.append, "echo": False} | options
        plan = load_sweep(str(tmp_path / "x.py"), text)
        return sweep.run(plan, tmp_path / "w", trainer, **options), said

    run.plan = lambda text: load_sweep(str(tmp_path / "x.py"), text)
    run.trainer = trainer
    return run


def starts(folder):
    return {p.parent.name: len(p.read_text()) for p in sorted(folder.glob("*/starts"))}


def test_run_all_points_then_only_what_is_missing(runner, tmp_path):
    failures, said = runner('{"preset": "good", "seed": [0, 1]}')
    assert failures == []
    assert re.search(r"^\[1/2\] good,seed=0: finished after 0:00:0\d\n  about 0:00:0\d left for 1 more", "\n".join(said), re.M)  # fmt: skip
    failures, said = runner('{"preset": "good", "seed": [0, 1, 2]}')
    assert failures == [] and "3 runs in" in said[0] and "2 finished before" in said[0]
    assert starts(tmp_path / "w") == {f"good,seed={i}": 1 for i in range(3)}
    log = (tmp_path / "w" / "good,seed=2" / "log.txt").read_text()
    assert log.startswith("$ ") and "--config.seed=2" in log and "training good" in log


def test_run_failures_do_not_end_the_sweep_and_are_tried_again(runner, tmp_path, capsys):
    text = '{"preset": ["crash", "killed", "silent", "once", "good"], "seed": 4}'
    failures, said = runner(text)
    assert [f.name.partition(",")[0] for f in failures] == ["crash", "killed", "silent", "once"]
    crash, killed, silent, _ = failures
    assert crash.reason == "exit status 1" and crash.tail[-1] == "RuntimeError: no such luck"
    assert "SIGKILL" in killed.reason and silent.reason == "exited well, but left no report.json"
    assert sum("FAILED" in line for line in said) == 4
    shown = []
    sweep.report_failures(failures, shown.append)
    assert "  RuntimeError: no such luck" in shown
    assert shown[-1] == "\n4 runs failed; the same command tries them again"
    failures, _ = runner(text)
    assert [f.name.partition(",")[0] for f in failures] == ["crash", "killed", "silent"]
    assert starts(tmp_path / "w")["once,seed=4"] == 2
    plan = runner.plan(text)
    table = sweep_table.collect(plan, tmp_path / "w")
    means = {row.labels["system"]: row.mean("f1") for row in table.rows}
    assert means["good"] == means["once"] == 14.0 and means["crash"] is None


def when_ready(path, action):
    """Calls `action` in a thread as soon as the file is there."""

    def watch():
        until = time.monotonic() + 30
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.02)
        action()

    threading.Thread(target=watch).start()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_run_signal_lets_the_run_save_and_stops_the_sweep(runner, tmp_path, kind):
    ready = tmp_path / "w" / "slow,seed=0" / "ready"
    when_ready(ready, lambda: os.kill(os.getpid(), kind))
    handler = signal.getsignal(kind)
    with pytest.raises(sweep.Stopped) as stopped:
        runner('{"preset": ["slow", "good"], "seed": 0}')
    assert stopped.value.code == PREEMPTED
    assert stopped.value.name == "slow,seed=0" and signal.getsignal(kind) is handler
    assert starts(tmp_path / "w") == {"slow,seed=0": 1}


def test_run_second_signal_ends_a_run_that_ignores_the_first(runner, tmp_path):
    ready = tmp_path / "w" / "stubborn,seed=0" / "ready"

    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.6)
        os.kill(os.getpid(), signal.SIGTERM)

    when_ready(ready, twice)
    with pytest.raises(sweep.Stopped):
        runner('{"preset": "stubborn", "seed": 0}')


def test_run_preempted_run_stops_the_sweep(runner, tmp_path):
    ready = tmp_path / "w" / "slow,seed=0" / "ready"

    def preempt():
        found = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
        for child in found.stdout.split():
            with open(f"/proc/{child}/cmdline") as file:
                if str(tmp_path) in file.read():
                    os.kill(int(child), signal.SIGTERM)

    when_ready(ready, preempt)
    with pytest.raises(sweep.Stopped):
        runner('{"preset": ["slow", "good"], "seed": 0}')


def test_run_shows_the_output_of_its_runs(runner, capfd):
    runner('{"preset": "good", "seed": 0}', echo=True)
    assert "training good\n" in capfd.readouterr().err


def test_run_workdir_in_use_or_of_other_settings_raises(runner, tmp_path):
    with workdir_lock(tmp_path / "w"):
        with pytest.raises(InputError, match="is running in this workdir"):
            runner('{"seed": 0}')
    runner('{"preset": "good", "seed": 0}')
    (tmp_path / "x.py").write_text(CONFIG.replace("1e-4", "2e-4"))
    with pytest.raises(InputError, match=r"made with other settings \(rate: 0.0001 then, 0.0002"):
        runner('{"preset": "good", "seed": 0}')


def test_run_waits_for_the_run_that_a_killed_sweep_has_left(runner, tmp_path):
    """It holds the accelerator, so that no other run may start either."""
    said, left = [], tmp_path / "w" / "good,seed=0"
    with contextlib.ExitStack() as orphan:
        orphan.enter_context(workdir_lock(left))

        def say(line):
            said.append(line)
            if "waiting" in line:
                assert starts(tmp_path / "w") == {}
                orphan.close()

        plan = runner.plan('{"preset": "good", "seed": [0, 1]}')
        assert sweep.run(plan, tmp_path / "w", runner.trainer, say=say, echo=False) == []
    (line,) = [line for line in said if "waiting" in line]
    assert f"{left}: process {os.getpid()}" in line and "is running in this workdir" in line


def test_run_told_to_stop_while_it_waits_stops(runner, tmp_path):
    with workdir_lock(tmp_path / "w" / "good,seed=0"):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(sweep.Stopped):
            runner('{"preset": "good", "seed": 0}')


def test_run_starts_no_jax_backend_which_would_hold_the_accelerator(runner, tmp_path):
    runner('{"preset": "good", "seed": 0}')
    program = """
import sys
from clmrc_jax.pipelines import sweep
from clmrc_jax.pipelines.sweep_points import load_sweep

plan = load_sweep(sys.argv[1], '{"preset": "good", "seed": [0, 1]}')
assert sweep.run(plan, sys.argv[2], sys.argv[3:], say=print) == []
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
"""
    words = [str(tmp_path / "x.py"), str(tmp_path / "w"), *runner.trainer]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 0 and "good,seed=1: finished" in done.stdout, done.stderr


def test_unfinished_runs_go_on_with_other_settings_of_speed_and_memory(runner, tmp_path):
    text = '{"preset": ["good", "crash"], "seed": 0}'
    speed = CONFIG.replace('"seed": 0', '"seed": 0, "save_every": 5')
    (tmp_path / "x.py").write_text(speed)
    runner(text)
    (tmp_path / "x.py").write_text(speed.replace('"save_every": 5', '"save_every": 1'))
    runner(text)
    runs = read_json(tmp_path / "w" / "sweep.json")["runs"]
    assert runs["good,seed=0"]["config"]["save_every"] == 5, "what the finished run was made with"
    assert runs["crash,seed=0"]["config"]["save_every"] == 1
    assert starts(tmp_path / "w") == {"good,seed=0": 1, "crash,seed=0": 2}


def test_record_keeps_what_other_sweeps_ran_in_the_folder(runner, tmp_path):
    runner('{"preset": "good", "seed": 0}')
    runner('{"preset": "good", "rate": 0.5, "seed": 0}')
    runs = read_json(tmp_path / "w" / "sweep.json")["runs"]
    assert list(runs) == ["good,seed=0", "good,rate=0.5,seed=0"]
    assert runs["good,rate=0.5,seed=0"]["config"] == {"seed": 0, "rate": 0.5}


def test_commands_are_those_of_the_unfinished_runs(runner, tmp_path):
    text = '{"preset": "good", "seed": [0, 1]}'
    runner('{"preset": "good", "seed": 0}')
    lines = sweep.commands(runner.plan(text), tmp_path / "w", runner.trainer)
    assert len(lines) == 1
    assert subprocess.run(shlex.split(lines[0])).returncode == 0
    assert sweep.commands(runner.plan(text), tmp_path / "w", runner.trainer) == []
    jobs = sweep.commands(runner.plan(text), tmp_path / "v", ["train"], ["vm", "--name=s-{number}"])
    assert [line.split()[:3] for line in jobs] == [["vm", f"--name=s-{i}", "train"] for i in (1, 2)]
