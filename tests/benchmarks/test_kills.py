"""The kill benchmark on the smallest reading run."""

import importlib.util

import pytest


@pytest.fixture(scope="module")
def kills(repository):
    path = repository / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_differing_and_missing_files_are_found(kills, tmp_path):
    for side, files in (("a", {"x/scores.json": b"1", "y.safetensors": b"2"}), ("b", {})):
        for name, content in ({"x/scores.json": b"1"} | files).items():
            path = tmp_path / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    assert kills._differences(tmp_path / "a", tmp_path / "b") == ["y.safetensors"]
    (tmp_path / "b" / "y.safetensors").write_bytes(b"3")
    assert kills._differences(tmp_path / "a", tmp_path / "b") == ["y.safetensors"]


@pytest.mark.slow
def test_killed_reading_run_ends_with_the_same_bits(kills, tmp_path):
    flags = ["--config=configs/dual_bert.py:smoke", "--kills=4", f"--workdir={tmp_path}"]
    assert kills.main(flags) == 0
