"""The GPU benchmark with two small layers on the CPU, and a stand-in for PyTorch's side."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import types

import pytest

NAMES = ["train mDPR", "encode", "encode 180", "train mGEN", "generate", "train Dual BERT"]


@pytest.fixture(scope="module")
def gpu(repository):
    folder = repository / "benchmarks"
    sys.path.insert(0, str(folder))  # its files find each other as those of a script do
    try:
        spec = importlib.util.spec_from_file_location("gpu", folder / "gpu.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.fixture
def python(tmp_path):
    """python(body) -> an executable that does this instead of running Python."""

    def make(body):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


def _run(repository, *flags):
    # Unoptimised programs compile in a third of the time.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, str(repository / "benchmarks" / "gpu.py"), "--tiny", *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_all_measurements_come_out_without_torch(repository, python):
    flags = f"--torch_python={python('exit 1')}", "--repeats=1", "--calls=1", "--json"
    done = _run(repository, *flags)
    assert done.returncode == 0, done.stderr
    assert "no torch and transformers: ours is measured alone" in done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert row["torch"] is None and len(row["ours"]["seconds"]) == 1
        for name in ("median", "examples_per_second", "tflops"):
            assert math.isfinite(row["ours"][name]) and row["ours"][name] > 0, row


def test_unknown_measurement_is_refused_with_those_that_exist(repository):
    done = _run(repository, "--only=encode,encode 18")
    assert done.returncode == 2
    assert f"no such measurement; choose of {', '.join(NAMES)}" in done.stderr


def _case(gpu, name):
    return next(case for case in gpu.make_cases(tiny=True) if case.name == name)


def test_other_side_gets_the_batch_and_the_sizes(gpu, python, tmp_path):
    answer = '{"seconds": [0.5, 0.25, 1], "device": "card", "version": "9"}'
    # Called as: python gpu_torch.py FOLDER
    command = python(f"cp $2/case.json $2/batch.npz {tmp_path}; echo a warning; echo '{answer}'")
    options = types.SimpleNamespace(torch_python=command, repeats=3, calls=2, compile=False)
    found = gpu._torch(_case(gpu, "train Dual BERT"), options)
    assert found == json.loads(answer) and (tmp_path / "batch.npz").exists()
    case = json.loads((tmp_path / "case.json").read_text())
    assert case["repeats"] == 3 and case["kind"] == "dual_bert" and not case["compile"]
    assert case["variables"]["target/cls/squad/output_weights"] == [2, 64]
    assert case["sizes"]["hidden_size"] == 32 and "dtype" not in case["sizes"]


def test_other_side_that_fails_fails_its_measurement_alone(gpu, python):
    options = types.SimpleNamespace(
        torch_python=python("exit 3"), repeats=1, calls=1, compile=False
    )
    failed = gpu._torch(_case(gpu, "encode"), options)
    assert failed == {"error": "PyTorch ended with status 3 (message above)"}
    device = types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    case = types.SimpleNamespace(rows=64, flops=0.5 * 989e12)
    ours = gpu._rates(case, {"seconds": [1.0, 2.0, 1.0]}, device)
    assert ours["mfu"] == pytest.approx(0.5) and ours["examples_per_second"] == 64
    row = {"name": "encode", "shape": "64 x 8", "ours": ours}
    theirs = gpu._rates(case, {"seconds": [2.0], "device": "card", "version": "9"}, device)
    rows = [row | {"torch": theirs}, row | {"torch": gpu._rates(case, failed, device)}]
    text = gpu._table({"device": "H100", "jax": "1", "rows": rows})
    lines = text.splitlines()
    assert lines[0] == "jax 1 on H100; torch 9 on card"
    assert "| 64 | 494.5 | 50.0% | 2000.0 | 32 | 247.2 | 25.0% | 2.00 |" in lines[4]
    assert "failed" in lines[5] and lines[6] == f"encode, torch: {failed['error']}"
    assert len({line.count("|") for line in lines[2:6]}) == 1


def test_paper_sizes_are_the_default_and_rows_can_be_fewer(gpu):
    cases = {case.name: case for case in gpu.make_cases(tiny=False, rows=2)}
    assert cases["train mDPR"].shape == "2 x 64 + 4 x 256"
    assert cases["generate"].shape == "2 x (1000 -> 20, 4 beams)"
    assert cases["train Dual BERT"].torch["dtype"] == "bfloat16"
    assert cases["encode 180"].batch["mask"].sum(axis=1).tolist() == [180, 180]
    # 2 * (4 * 768^2 + 2 * 768 * 3072) + 4 * 180 * 768 per token and layer
    assert cases["encode 180"].flops == 2 * 180 * 12 * (14_155_776 + 552_960)
