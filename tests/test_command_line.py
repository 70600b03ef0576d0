"""Mistakes in the flags of the commands that take a config."""

import os
import subprocess
import sys

import pytest


def run(repository, script, *flags):
    command = [sys.executable, str(repository / f"launch/{script}.py"), *flags]
    env = os.environ | {"PYTHONPATH": str(repository)}
    return subprocess.run(command, capture_output=True, text=True, cwd=repository, env=env)


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "error: flag --config=None: Flag --config must have a value other than None"),
        (["--config=configs/cora.py:smoke", "--config.seed=x", "--topology=v4-8"], "error: "),
        (["--config={bad}", "--topology=v4-8"], "error: --config={bad}: NameError: name 'nothing'"),
    ],
)
def test_flags_that_cannot_be_read_are_one_line_and_status_2(repository, tmp_path, flags, message):
    (tmp_path / "bad.py").write_text("config = nothing\n")
    bad = str(tmp_path / "bad.py")
    done = run(repository, "tpu_compile", *(flag.replace("{bad}", bad) for flag in flags))
    assert done.returncode == 2 and done.stderr.startswith(message.replace("{bad}", bad))
    assert done.stderr.count("\n") == 1


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
    done = run(repository, script, *config, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.sead does not exist; known: ")
