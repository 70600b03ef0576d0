"""`launch/tpu_compile.py`, as a person runs it: exit status, tables, messages."""

import json
import os
import subprocess
import sys

import pytest

from clmrc_jax.pipelines import topology

TOO_LARGE = (
    "--config.retriever_head.projection=1024",
    "--config.index.max_rows_on_device=67108864",
)


@pytest.fixture(scope="module")
def compile_for(repository):
    """compile_for(*flags) -> the finished process, on the paper's preset."""
    script = repository / "launch" / "tpu_compile.py"
    env = os.environ | {"PYTHONPATH": str(repository)}

    def run(*flags):
        command = [sys.executable, str(script), "--config=configs/cora.py:paper", *flags]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=repository)

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--topology=v4-9",), "error: --topology=v4-9: there is no such slice"),
        (("--topology=v4-8", "--config.mesh.model=3"), "error: mesh"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_two(compile_for, flags, message):
    if not topology.can_compile() and "v4-9" not in flags[0]:
        pytest.skip("libtpu is not installed: pip install 'jax[tpu]'")
    process = compile_for(*flags)
    assert process.returncode == 2, process.stderr
    assert message in process.stderr and "Traceback" not in process.stderr
    assert process.stdout == ""


@pytest.mark.skipif(not topology.can_compile(), reason="libtpu is not installed")
def test_exit_status_tells_whether_it_fits(compile_for):
    search = ("--topology=v5e-4", "--steps=exact search")
    process = compile_for(*search, *TOO_LARGE)
    assert process.returncode == 1, process.stderr
    assert "exact search does not fit" in process.stdout
    assert "--config.index.max_rows_on_device=33554432" in process.stdout
    process = compile_for(*search, "--config.index.max_rows_on_device=1048576", "--json")
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["fits"] and report["chips"] == 4
    assert [row["step"] for row in report["steps"]] == ["exact search"]
