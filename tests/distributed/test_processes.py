"""Two real processes of four devices each, against one process of eight."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from clmrc_jax import hosts
from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.notice import Preempted
from clmrc_jax.retrieval.embeddings import EmbeddingStore
from clmrc_jax.sharding import DEFAULT_RULES, make_mesh
from clmrc_jax.train.pretrained import load_marian

HERE = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("toy", HERE.parent / "train" / "toy.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

FSDP = {**DEFAULT_RULES, "mlp": "data"}  # of the toy, whose embed has four columns

COMPILE_QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(script, *words, devices, **variables):
    """A running script of this folder, with variables of the environment."""
    flags = f"--xla_force_host_platform_device_count={devices} {COMPILE_QUICKLY}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(HERE.parents[1])} | variables
    command = [sys.executable, str(HERE / script), *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def results(processes) -> list[tuple[int, str]]:
    """(exit status, stderr) of each."""
    try:
        errors = [process.communicate(timeout=900)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, errors)]


def run_two(what, *words):
    port = free_port()
    return results([start("process.py", what, port, i, *words, devices=4) for i in range(2)])


@pytest.mark.parametrize("what", ["talk", "place", "search"])
def test_two_processes_agree(what):
    for status, errors in run_two(what):
        assert status == 0, errors


def test_main_thread_and_watcher_that_leave_together_shut_the_service_down_once(monkeypatch):
    """A second shutdown aborts the process (status -6) where 75 was to be its status."""
    shutdowns, left, gone = [], [], threading.Event()

    def leave(status):
        left.append(status)
        gone.set()

    def shut_down():
        shutdowns.append(threading.current_thread())
        time.sleep(0.2)

    monkeypatch.setattr(hosts, "_leaving", threading.Lock())
    monkeypatch.setattr(jax.distributed, "shutdown", shut_down)
    monkeypatch.setattr(hosts.notice, "leave", leave)
    for status in (PREEMPTED, 1):  # the second one waits for ever, as here nobody ends the process
        threading.Thread(target=hosts._leave, args=(status,), daemon=True).start()
        time.sleep(0.05)
    assert gone.wait(5) and not time.sleep(0.5)
    assert left == [PREEMPTED] and len(shutdowns) == 1


def test_failure_of_one_process_ends_both_with_its_message():
    waiting, failed = run_two("fail")
    assert waiting[0] == failed[0] == 2
    assert "error: process 1 on " in waiting[1] and "questions.jsonl, line 3: empty" in waiting[1]
    assert "error: questions.jsonl, line 3: empty question" in failed[1]


def losses(workdir) -> dict[int, float]:
    with open(pathlib.Path(workdir) / "toy" / "metrics.jsonl") as file:
        return {row["step"]: row["loss"] for row in map(json.loads, file)}


def fit(workdir, mesh, rules=DEFAULT_RULES, until=None):
    """Trains to step 12 on a mesh, or to step `until` and a SIGTERM."""

    def validate(params, done):
        if done == until:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"score": 0.0}

    trainer = toy.trainer(mesh=mesh, rules=rules)
    options = {"steps": 12, "seed": 7, "name": "toy", "log_every": 1, "save_every": 4}
    options |= {"workdir": workdir, "validate": validate, "validate_every": 1}
    if until is None:
        trainer.fit(toy.init(), toy.dataset(noise=0.0), **options)
        return
    with pytest.raises(Preempted):
        trainer.fit(toy.init(), toy.dataset(noise=0.0), **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Losses of twelve steps on one device."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    fit(workdir, make_mesh(1, 1, jax.devices()[:1]))
    return losses(workdir)


def assert_continues(workdir, undisturbed):
    found = losses(workdir)
    assert list(found) == list(range(1, 13))
    np.testing.assert_allclose(list(found.values()), list(undisturbed.values()), atol=1e-5)


def test_training_moves_from_eight_devices_to_other_meshes(tmp_path, undisturbed):
    first, second = tmp_path / "a", tmp_path / "b"
    fit(first, make_mesh(8, 1), FSDP, until=5)
    shutil.copytree(first, second)
    fit(first, make_mesh(4, 2), until=9)
    fit(first, make_mesh(2, 4), FSDP)
    fit(second, make_mesh(1, 1, jax.devices()[:1]))
    for workdir in (first, second):
        assert_continues(workdir, undisturbed)


def test_training_moves_from_two_processes_to_one(tmp_path, undisturbed):
    for status, errors in run_two("train", tmp_path):
        assert status == 0, errors
    assert (tmp_path / "toy" / "checkpoints" / "4").exists() and len(losses(tmp_path)) < 12
    fit(tmp_path, make_mesh(2, 1, jax.devices()[:2]))
    assert_continues(tmp_path, undisturbed)


def test_rows_that_both_processes_hold_train_and_count_once(tmp_path, undisturbed):
    for status, errors in run_two("share", tmp_path):
        assert status == 0, errors
    assert_continues(tmp_path, undisturbed)
    for row in rows(tmp_path / "toy" / "metrics.jsonl")[1:]:
        assert row["examples_per_second"] * row["step_seconds"] == pytest.approx(16)


def test_two_processes_train_one_translator(tmp_path):
    for status, errors in run_two("translate", tmp_path):
        assert status == 0, errors
    (last,) = rows(tmp_path / "model/translator/metrics.jsonl")[-1:]
    assert last["step"] == 3 and np.isfinite([last["loss"], last["valid/chrf"]]).all()
    _, exported = load_marian(tmp_path / "export")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(exported))
    assert len(rows(tmp_path / "test/en-es.jsonl")) > 10


def test_sigterm_stops_two_processes_at_the_same_step_of_a_later_training(tmp_path):
    for status, errors in run_two("stop", tmp_path):
        assert status == PREEMPTED, errors
    assert (tmp_path / "first" / "finished.json").exists()
    assert max(int(x.name) for x in (tmp_path / "second" / "checkpoints").iterdir()) <= 5


def test_sigterm_to_one_process_stops_both_in_an_encoding_and_the_rest_is_done_later(tmp_path):
    for status, errors in run_two("encode", tmp_path, 120, "stop"):
        assert status == PREEMPTED, errors
        assert "process 1 on " in errors and "the same command continues" in errors
    shards = {path.name for path in (tmp_path / "encode" / "embeddings").glob("*.npy")}
    assert {"shard-00000.npy", "shard-00001.npy"} <= shards and "shard-00002.npy" not in shards
    for status, errors in run_two("encode", tmp_path):
        assert status == 0, errors
    assert encoded(tmp_path) == {"sum": 32 * 33 / 2}


def encoded(workdir):
    return json.loads((workdir / "encode" / "stage.json").read_text())["counts"]


@pytest.mark.slow
def test_a_host_that_has_more_to_encode_is_waited_for_longer_than_a_collective_would(tmp_path):
    for status, errors in run_two("encode", tmp_path, 45):
        assert status == 0, errors
    assert encoded(tmp_path) == {"sum": 32 * 33 / 2}


def run_cora(tmp_path, part):
    """Workdirs of a run by one process and one by two."""
    one, two = tmp_path / "one", tmp_path / "two"
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    running = [
        start("cora_process.py", two, part, 2, devices=4, JAX_PROCESS_ID=str(i), **cluster)
        for i in range(2)
    ]
    for status, errors in results(running):
        assert status == 0, errors
    (only,) = results([start("cora_process.py", one, part, 1, devices=8)])
    assert only[0] == 0, only[1]
    return one, two


def rows(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def assert_same_training(one, two):
    logs = sorted(path.relative_to(one) for path in one.rglob("metrics.jsonl"))
    assert logs
    for log in logs:
        for a, b in zip(rows(one / log), rows(two / log), strict=True):
            keys = ["loss", *(name for name in a if name.startswith("valid/"))]
            np.testing.assert_allclose([b[k] for k in keys], [a[k] for k in keys], rtol=1e-5)


def assert_same_search(one, two):
    """The same passages; half-precision embeddings leave near ties in any order."""
    found = [EmbeddingStore(w / "round_0/index/embeddings") for w in (one, two)]
    vectors = [store.rows(0, len(store)) for store in found]
    np.testing.assert_allclose(*vectors, atol=2e-3)
    for path in sorted((one / "round_0/retrieved").glob("*.jsonl")):
        for a, b in zip(rows(path), rows(two / path.relative_to(one)), strict=True):
            assert a["q_id"] == b["q_id"]
            scores = [[ctx["score"] for ctx in row["ctxs"]] for row in (a, b)]
            np.testing.assert_allclose(*scores, atol=2e-3)
            assert len({ctx["id"] for row in (a, b) for ctx in row["ctxs"]}) <= 22


def assert_written_once(one, two):
    """Two processes leave the files of one; Orbax alone writes a part per process."""

    def names(workdir):
        paths = (path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file())
        kept = (p for p in paths if p.parts[0] != "compilation_cache" and "state" not in p.parts)
        return sorted(map(str, kept))

    assert names(one) == names(two)


def test_training_encoding_and_search_by_two_processes_equal_those_by_one(tmp_path):
    one, two = run_cora(tmp_path, "retriever")
    assert_same_training(one, two)
    assert_same_search(one, two)
    assert_written_once(one, two)


@pytest.mark.slow
def test_whole_run_by_two_processes_equals_that_by_one(tmp_path):
    one, two = run_cora(tmp_path, "whole")
    assert_same_training(one, two)
    assert_same_search(one, two)
    assert_written_once(one, two)
    for round in ("round_0", "round_1"):
        names = ("scores/metrics.json", "answers/test.json", "answers/test.closed_book.json")
        for name in names:
            a, b = (json.loads((w / round / name).read_text()) for w in (one, two))
            assert a == b, name
    mined = [rows(w / "round_0/mined/training.jsonl") for w in (one, two)]
    assert mined[0] == mined[1] and len(mined[0]) > 100
    report = json.loads((two / "report.json").read_text())
    assert len(report["rounds"]) == 2
