"""`launch/slurm.sh` with an srun and a scontrol that only note what they were told."""

import os
import pathlib
import subprocess

import pytest

from clmrc_jax.exit_status import PREEMPTED

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm.sh"


@pytest.fixture
def submit(tmp_path):
    """A function (command, status of srun, more environment) -> (exit status, output, calls)."""
    calls = tmp_path / "calls"
    for name, end in (("srun", "exit $SRUN_STATUS"), ("scontrol", "exit 0")):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{end}\n')
        (tmp_path / name).chmod(0o755)

    def run(command, status=0, **more):
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "SRUN_STATUS": str(status)} | more
        done = subprocess.run(
            ["bash", str(SCRIPT), *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
        told = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, done.stdout + done.stderr, told

    return run


COMMAND = ["python", "launch/tpu_train.py", "--workdir=/shared/a b"]
SRUN = "srun --kill-on-bad-exit=0 --wait=300 python launch/tpu_train.py --workdir=/shared/a b"


def test_slurm_success_and_failure_are_passed_on(submit):
    assert submit(COMMAND, 0, SLURM_JOB_ID="7")[::2] == (0, [SRUN])
    assert submit(COMMAND, 2, SLURM_JOB_ID="7")[::2] == (2, [SRUN, SRUN])


def test_slurm_saved_job_is_queued_again(submit):
    code, text, told = submit(COMMAND, PREEMPTED, SLURM_JOB_ID="7")
    assert (code, told) == (0, [SRUN, "scontrol requeue 7"]) and "queueing job 7 again" in text


def test_slurm_gives_up_after_max_restarts(submit):
    restarts = {"SLURM_RESTART_COUNT": "3", "MAX_RESTARTS": "3"}
    code, text, told = submit(COMMAND, PREEMPTED, SLURM_JOB_ID="7", **restarts)
    assert (code, told) == (PREEMPTED, [SRUN]) and "restarted 3 times already" in text


def test_slurm_outside_a_job_or_without_command_says_what_to_do(submit):
    code, text, told = submit(COMMAND, SLURM_JOB_ID="")
    assert code == 2 and "sbatch launch/slurm.sh python" in text and not told
    code, text, told = submit([], SLURM_JOB_ID="7")
    assert code == 2 and "give the command" in text and not told


def test_slurm_every_task_sees_all_gpus_of_its_node():
    text = SCRIPT.read_text()
    options = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --ntasks-per-node=8" in options and "#SBATCH --gpus-per-node=8" in options
    assert not [line for line in options if "gpu-bind" in line or "gpus-per-task" in line]
