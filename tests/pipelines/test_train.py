"""The main command with its workdir in a bucket, which a stand-in plays."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import bucket
from clmrc_jax.files import read_json, read_jsonl

# Orbax writes arrays to gs:// through a driver of its own, past the stand-in: here its
# checkpoints, and only they, go to a folder instead.
RUN = textwrap.dedent("""
    import importlib.util, pathlib, sys
    import bucket
    from clmrc_jax.pipelines import train
    from clmrc_jax.train import checkpoints

    objects, local, config, workdir = sys.argv[1:]
    bucket.install(pathlib.Path(objects))
    open_checkpoints = checkpoints.open

    def open_locally(folder, *args, **kwargs):
        return open_checkpoints(str(folder).replace("gs://", local), *args, **kwargs)

    checkpoints.open = open_locally
    spec = importlib.util.spec_from_file_location("config", config)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smoke")
    config.index.kind = "scann"
    train.main(config, workdir)
""")


@pytest.fixture
def run(tmp_path, repository):
    """run() -> stderr of the smoke run in gs://bucket/cora, which must end well."""

    def run():
        variables = {
            "CLMRC_JAX_CACHE": str(tmp_path / "cache"),
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "tests/helpers")]),
        }
        inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        places = [str(tmp_path / "objects"), f"{tmp_path}/checkpoints/"]
        config = str(repository / "configs" / "cora.py")
        done = subprocess.run(
            [sys.executable, "-c", RUN, *places, config, "gs://bucket/cora"],
            env=inherited | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


@pytest.mark.slow
def test_cora_in_a_bucket_leaves_what_it_leaves_on_a_disk(run, train, in_bucket, tmp_path):
    run()
    workdir = in_bucket.parent / "cora"
    local = tmp_path / "local"
    status, _, err = train(local, "--config.index.kind=scann")
    assert status == 0, err
    for round in range(2):
        scores = pathlib.PurePath(f"round_{round}") / "scores" / "metrics.json"
        assert read_json(workdir / scores) == read_json(local / scores)
    for training in ("round_0/mdpr/retriever", "round_1/mgen/generator"):
        log = f"{training}/metrics.jsonl"
        steps = [[row["step"] for _, row in read_jsonl(p / log)] for p in (workdir, local)]
        assert steps[0] == steps[1] != []
    own = {str(p.relative_to(local)) for p in local.rglob("*") if p.is_file()}
    kept = {name for name in own if "/final/" not in name and "compilation_cache" not in name}
    objects = {name.removeprefix("bucket/cora/") for name in bucket.Bucket()._names()}
    assert kept - {"lock"} == {n for n in objects if "compilation_cache" not in n} - {"lock"}

    (tmp_path / "cache").rename(tmp_path / "former cache")  # another host, or a new disk
    again = [line for line in run().splitlines() if line.startswith(("corpus", "round_"))]
    assert len(again) == 14 and all("done before" in line for line in again)
