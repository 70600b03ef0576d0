"""Mistakes in the flags of the commands that take a config."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "script, flags",
    [
        ("tpu_train", ["--workdir=w"]),
        ("tpu_compile", ["--topology=v4-8"]),
        ("preflight", ["--workdir=w"]),
        ("pretrain", ["--workdir=w", "--output=o"]),
    ],
)
def test_every_command_with_a_config_names_a_wrong_key(repository, script, flags):
    config = ("--config", "configs/cora.py:smoke", "--config.sead", "3")
    command = [sys.executable, str(repository / f"launch/{script}.py"), *config, *flags]
    env = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.sead does not exist; known: ")
