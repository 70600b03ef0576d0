"""What `pip install .` copies: modules, and the models and tables that they open."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_a_built_package_has_its_models_and_tables(tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "build", f"--build-base={tmp_path}"]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = tmp_path / "lib" / "clmrc_jax"
    needed = [path for path in (ROOT / "clmrc_jax").rglob("*") if path.is_file()]
    needed = [p.relative_to(ROOT / "clmrc_jax") for p in needed if p.parent.name != "__pycache__"]
    missing = [str(path) for path in needed if not (built / path).exists()]
    assert not missing, "pip install . would lack them: package_data of setup.py"
    for name in ("pretrained/mbert/model.safetensors", "pretrained/mt5/spiece.model"):
        assert (built / name).read_bytes() == (ROOT / "clmrc_jax" / name).read_bytes()
    assert (built / "data/world_facts/questions.json").exists()


def test_every_extra_that_a_message_advises_exists():
    setup = (ROOT / "setup.py").read_text("utf-8")
    known = set(re.findall(r'^    "(\w+)": \[', setup, re.M)) | {"test"}
    assert {"tpu", "segment", "gcs"} <= known
    advised = set()
    for folder in ("clmrc_jax", "launch", "configs", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md"):
                advised |= set(re.findall(r"(?:clmrc_jax|\.)\[(\w+)\]\"", path.read_text("utf-8")))
    assert advised and not advised - known
