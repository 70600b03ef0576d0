"""Every file in configs/ loads, documents itself, and is guarded against wrong keys."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_names_its_command(path):
    module = load(path)
    assert isinstance(module.get_config(), ml_collections.ConfigDict)
    assert f"--config=configs/{path.name}" in module.__doc__ and "--workdir=" in module.__doc__


def test_presets_are_named_after_themselves_and_documented():
    module = load(next(path for path in CONFIGS if path.stem == "cora"))
    for name in module.PRESETS:
        config = module.get_config(name)
        assert config.name == f"cora:{name}"
        assert f"\n{name} " in module.__doc__, f"preset {name} is not in the module's docstring"
    assert module.get_config().name == "cora:demo"
    with pytest.raises(ValueError, match="no preset 'big'; choose demo, smoke"):
        module.get_config("big")


def test_presets_do_not_share_values():
    module = load(next(path for path in CONFIGS if path.stem == "cora"))
    module.get_config("demo").retriever.batch_size = 1
    assert module.get_config("demo").retriever.batch_size > 1


def tpu_train(repository, *flags):
    command = [sys.executable, str(repository / "launch/tpu_train.py"), *flags]
    env = os.environ | {"PYTHONPATH": str(repository)}
    return subprocess.run(command, capture_output=True, text=True, cwd=repository, env=env)


@pytest.mark.parametrize(
    "flag, names",
    [
        (
            "--config.retriever.batch=4",
            ["error: config.retriever.batch does not exist", "batch_size"],
        ),
        ("--config.seeds.x=4", ["error: config.seeds does not exist; known: corpus, ev"]),
        ("--config.retriever.batch_size=many", ["batch_size"]),
        (
            "--config.corpus.squads=('f.json',)",
            ["error: config corpus.squads: f.json does not name its language", "('f.json', 'en')"],
        ),
        ("--config.retriever.steps=()", ["error: config retriever.steps is (); give one"]),
        ("--config.index.kind=faiss", ["error: config index.kind 'faiss'", "exact, scann, numpy"]),
        ("--config.rules=('embed','data')", ["error: rules has 'embed', which is no pair"]),
        (
            "--config=configs/cora.py:big",
            ["error: --config=", "no preset 'big'; choose demo, smoke"],
        ),
        ("--config=configs/nix.py", ["error: --config=configs/nix.py", "No such file"]),
    ],
)
def test_wrong_override_fails_before_any_work_and_says_why(repository, tmp_path, flag, names):
    config = () if flag.startswith("--config=") else ("--config=configs/cora.py:smoke",)
    done = tpu_train(repository, *config, flag, f"--workdir={tmp_path / 'w'}")
    assert done.returncode != 0
    for name in names:
        assert name in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists(), "nothing was begun"


def test_missing_workdir_is_named(repository):
    done = tpu_train(repository, "--config=configs/cora.py:smoke")
    assert done.returncode != 0 and "--workdir" in done.stderr + done.stdout
