import csv
import importlib.util
import json
import os
import shlex
import subprocess
import sys

import pytest

from clmrc_jax.files import write_json

TINY = ("--config.generate=False", "--config.rounds=0", "--config.retriever.steps=(2,)")


@pytest.fixture
def sweep_main(repository, monkeypatch):
    """main(arguments) -> exit status, called in the repository's root."""
    monkeypatch.chdir(repository)
    spec = importlib.util.spec_from_file_location("launch_sweep", "launch/sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def smoke(workdir, *flags):
    sweep = '--sweep={"seed": [0, 1]}'
    return ["--config=configs/cora.py:smoke", sweep, f"--workdir={workdir}", *flags]


def test_sweep_dry_run_lists_the_runs_and_their_state(sweep_main, tmp_path, capsys):
    write_json(tmp_path / "smoke,seed=1" / "report.json", {})
    assert sweep_main(smoke(tmp_path, "--dry_run", "--config.rounds=0")) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "to run    smoke,seed=0  --config=configs/cora.py:smoke --config.rounds=0 --config.seed=0"
    )
    assert second.startswith("finished  smoke,seed=1  ")
    assert os.listdir(tmp_path) == ["smoke,seed=1"], "nothing was written"


def test_sweep_emit_prints_commands_for_tpu_vms_or_any_queue(sweep_main, tmp_path, capsys):
    assert sweep_main(smoke(tmp_path, "--emit=commands")) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "python launch/tpu_train.py --config=configs/cora.py:smoke --config.seed=1 "
        f"--workdir={tmp_path}/smoke,seed=1"
    )
    slice = "--tpu_vm=s{number} --zone=us-central2-b --accelerator=v4-8 --spot"
    assert sweep_main(smoke(tmp_path, "--emit=jobs", slice)) == 0
    said = capsys.readouterr()
    assert f"warning: --workdir={tmp_path} is a folder of each slice" in said.err
    line = said.out.splitlines()[1]
    job = "python launch/tpu_vm.py run s2 --zone=us-central2-b --accelerator=v4-8 --spot -- "
    assert line.startswith(job + "python launch/tpu_train.py --config=")
    command = [sys.executable, *shlex.split(line)[1:]]
    command.insert(command.index("--"), "--dry_run")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # tpu_vm takes it
    assert f"{tmp_path}/smoke,seed=1" in done.stdout


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.seeds=1"], "seeds does not exist; known: "),
        (["--configs=1"], "--configs=1: unknown argument"),
        (["--sweep=table2"], "has no sweep 'table2'"),
        (["--emit=jobs"], "--emit=jobs needs --tpu_vm='NAME"),
        (["--emit=jobs", "--tpu_vm=s --zone='a"], "--zone='a: No closing quotation"),
        (["--config=configs/none.py"], "configs/none.py: no such config file"),
    ],
)
def test_sweep_bad_input_ends_before_any_work(sweep_main, tmp_path, capsys, flags, message):
    assert sweep_main(smoke(tmp_path / "w", *flags)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "w").exists()


def test_sweep_collect_makes_the_table_of_what_is_there(sweep_main, tmp_path, capsys):
    write_json(tmp_path / "smoke,seed=1" / "report.json", {"summary": {"f1": 3.0}})
    assert sweep_main(smoke(tmp_path, "--collect", "--json")) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["n"] == 1 and row["metrics"] == {"f1": {"mean": 3.0, "std": None}}
    assert "1 of 2" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("flag", ["--collect", "--dry_run", "--emit=commands"])
def test_sweep_shows_no_runs_of_other_settings(sweep_main, tmp_path, capsys, flag):
    assert sweep_main(smoke(tmp_path, "--emit=commands")) == 0
    write_json(tmp_path / "smoke,seed=1" / "report.json", {"summary": {"f1": 3.0}})
    assert sweep_main(smoke(tmp_path, flag, "--config.retriever.batch_size=24")) == 2
    assert "made with other settings (retriever.batch_size: " in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()


def test_sweep_refuses_to_run_as_one_of_several_processes(
    sweep_main, tmp_path, capsys, monkeypatch
):
    several = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
    for name, value in several.items():
        monkeypatch.setenv(name, value)
    assert sweep_main(smoke(tmp_path / "w")) == 2
    error = capsys.readouterr().err
    assert "error: launch/sweep.py works in one process, and this is process 2 of 4" in error
    assert not (tmp_path / "w").exists()


def test_sweep_command_starts_no_jax_backend(repository, tmp_path):
    (tmp_path / "trainer.py").write_text("raise SystemExit(1)")
    program = """
import importlib.util, sys

spec = importlib.util.spec_from_file_location("sweep", "launch/sweep.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.TRAINER = sys.argv[1]
assert module.main(sys.argv[2:]) == 1
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
"""
    command = [sys.executable, "-c", program, str(tmp_path / "trainer.py"), *smoke(tmp_path / "w")]
    env = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "2 runs failed" in done.stderr, done.stderr


def launch(repository, *flags):
    command = [sys.executable, str(repository / "launch" / "sweep.py"), *flags]
    hidden = ("XLA_FLAGS", "FORCE_COLOR")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PYTHONPATH": str(repository)}
    return subprocess.run(command, env=env, cwd=repository, capture_output=True, text=True)


@pytest.mark.slow
def test_sweep_trains_two_seeds_and_fails_one_run(repository, tmp_path):
    sweep = '--sweep=[{"seed": [0, 1]}, {"index.kind": "faiss", "seed": 0}]'
    flags = ("--config=configs/cora.py:smoke", sweep, f"--workdir={tmp_path}", "--quiet", *TINY)
    done = launch(repository, *flags)
    assert done.returncode == 1, done.stderr
    assert "error: config index.kind 'faiss'" in done.stderr and "1 runs failed" in done.stderr
    with open(tmp_path / "table.csv") as file:
        good, bad = csv.DictReader(file)
    assert good["n"] == "2" and bad["n"] == "0"
    assert float(good["retrieval.mrr_multi@10 mean"]) >= 0
    reports = [tmp_path / f"smoke,seed={seed}" / "report.json" for seed in (0, 1)]
    times = [path.stat().st_mtime for path in reports]
    again = launch(repository, *flags)
    assert "2 finished before" in again.stderr
    assert [path.stat().st_mtime for path in reports] == times
