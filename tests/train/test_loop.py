import dataclasses
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.files import InputError
from clmrc_jax.models import bert
from clmrc_jax.notice import Preempted
from clmrc_jax.sharding import make_mesh
from clmrc_jax.train.loop import Trainer, TrainingDiverged
from clmrc_jax.train.optimizer import OptimizerConfig

TOY = pathlib.Path(__file__).with_name("toy.py")
spec = importlib.util.spec_from_file_location("toy", TOY)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

TRAINER = toy.trainer()  # shared: one compilation serves most tests


def fit(workdir, trainer=None, params=None, data=None, **options):
    settings = {"steps": 12, "seed": 7, "name": "toy", "log_every": 1, "save_every": 4} | options
    params = toy.init() if params is None else params
    data = toy.dataset() if data is None else data
    return (trainer or TRAINER).fit(params, data, workdir=workdir, **settings)


def lines(workdir, name="toy"):
    with open(pathlib.Path(workdir) / name / "metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def losses(workdir, name="toy"):
    return {row["step"]: row["loss"] for row in lines(workdir, name)}


def stop_at(step):
    """A validate function that sends this process SIGTERM at `step`."""

    def validate(params, done):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"score": 0.0}

    return validate


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """(result, losses) of twelve uninterrupted steps."""
    workdir = tmp_path_factory.mktemp("reference")
    return fit(workdir), losses(workdir)


def test_fit_learns_and_leaves_the_given_params_alone(reference):
    result, values = reference
    assert values[12] < 0.7 * values[1]
    assert list(values) == list(range(1, 13))
    params = toy.init()
    assert not np.array_equal(result.params["in"]["kernel"], params["in"]["kernel"])


def test_frozen_parameters_stay_and_the_others_train_as_if_they_were_constants(tmp_path):
    config = dataclasses.replace(toy.OPTIMIZER, frozen="in/.*")
    first = toy.init()
    result = fit(tmp_path / "a", toy.trainer(config=config))
    np.testing.assert_array_equal(result.params["in"]["kernel"], first["in"]["kernel"])
    assert losses(tmp_path / "a")[12] < 0.9 * losses(tmp_path / "a")[1]

    def loss_fn(params, batch, key):
        return toy.loss_fn(params | {"in": jax.tree.map(jnp.asarray, first["in"])}, batch, key)

    alone = fit(tmp_path / "b", toy.trainer(loss_fn), params={"out": first["out"]})
    jax.tree.map(np.testing.assert_array_equal, result.params["out"], alone.params["out"])


def test_fit_finished_training_returns_saved_params_at_once(tmp_path, reference):
    first = fit(tmp_path)
    again = fit(tmp_path, params=toy.init())
    assert_same(first.params, again.params)
    assert first.metrics == again.metrics
    assert_same(first.params, reference[0].params)
    assert sorted(os.listdir(tmp_path / "toy")) == ["final", "finished.json", "metrics.jsonl"]


def test_fit_second_training_of_other_length_reuses_the_compiled_step(tmp_path):
    fit(tmp_path)
    step = TRAINER.prepare(toy.init())[2]
    before = step._cache_size()
    fit(tmp_path, name="longer", steps=15)
    assert TRAINER.prepare(toy.init())[2] is step
    assert step._cache_size() == before == 1


def test_fit_sigterm_saves_and_the_same_call_continues_exactly(tmp_path, reference, capsys):
    with pytest.raises(Preempted) as stopped:
        fit(tmp_path, validate=stop_at(6), validate_every=1)
    assert stopped.value.code == PREEMPTED == 75
    assert "toy: stopped by SIGTERM, saved step 6" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "toy" / "checkpoints")) == ["4", "6"]
    result = fit(tmp_path)
    assert losses(tmp_path) == reference[1]
    assert_same(result.params, reference[0].params)


def test_fit_sigkill_continues_with_bit_identical_losses(tmp_path, reference):
    command = [sys.executable, str(TOY), str(tmp_path), "12"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    log = tmp_path / "toy" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not log.exists() or log.read_text().count("\n") < 7:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    seen = losses(tmp_path)
    assert len(seen) < 12 and not (tmp_path / "toy" / "finished.json").exists()
    result = fit(tmp_path)
    assert losses(tmp_path) == reference[1] | seen == reference[1]
    assert [row["step"] for row in lines(tmp_path)] == list(range(1, 13))
    assert_same(result.params, reference[0].params)


def interrupt(workdir, at, **options):
    with pytest.raises(Preempted):
        fit(workdir, validate=stop_at(at), validate_every=1, **options)


def array_file(folder):
    """The largest file of a checkpoint's arrays."""
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "missing"])
def test_fit_corrupt_newest_checkpoint_falls_back_and_says_so(tmp_path, reference, capsys, kind):
    interrupt(tmp_path, 6)
    path = array_file(tmp_path / "toy" / "checkpoints" / "6")
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        path.unlink()
    fit(tmp_path)
    message = capsys.readouterr().err
    assert "checkpoints/6: file state/" in message and "continuing from step 4" in message
    assert losses(tmp_path) == reference[1]


def test_fit_only_corrupt_checkpoints_raise(tmp_path):
    interrupt(tmp_path, 2)
    array_file(tmp_path / "toy" / "checkpoints" / "2").write_bytes(b"")
    with pytest.raises(InputError, match="no earlier checkpoint is intact; remove .*toy to start"):
        fit(tmp_path)


def test_fit_checkpoint_of_another_model_names_the_parameter(tmp_path):
    interrupt(tmp_path, 2)
    wide = toy.init(width=32)
    with pytest.raises(InputError, match=r"params/in/kernel is float32\[8, 16\].*float32\[8, 32\]"):
        fit(tmp_path, params=wide)


def test_fit_checkpoint_of_another_config_names_the_key(tmp_path):
    interrupt(tmp_path, 2)
    faster = toy.trainer(
        config=OptimizerConfig(learning_rate=0.5, warmup_steps=2, weight_decay=0.01)
    )
    with pytest.raises(InputError, match="optimizer/learning_rate=0.02, now .*=0.5"):
        fit(tmp_path, trainer=faster)
    with pytest.raises(InputError, match="steps=12, now steps=13"):
        fit(tmp_path, steps=13)


def test_fit_nan_loss_stops_and_names_step_and_checkpoint(tmp_path):
    early = {row for batch in range(2) for row in rows_of(batch)}
    spoiled = next(row for row in rows_of(2) if row not in early)
    with pytest.raises(TrainingDiverged, match="loss is nan .* at step 3 .*: step 2,.*in batch 2"):
        fit(tmp_path, data=toy.dataset(spoil=spoiled), save_every=1)
    assert sorted(os.listdir(tmp_path / "toy" / "checkpoints")) == ["1", "2"]


def rows_of(batch):
    """The rows of a global batch, found by their targets."""
    targets = toy.dataset()[batch]["y"]
    return [int(np.flatnonzero((toy.DATA[:, :4] == target).all(1))[0]) for target in targets]


def test_fit_best_metric_returns_the_best_params_even_when_interrupted(tmp_path):
    scores = {3: 5.0, 6: 2.0, 9: 4.0, 12: 3.0}
    seen = {}

    def validate(params, done):
        seen[done] = jax.device_get(params)
        return {"average_rank": scores[done], "nll": done}

    options = {"validate_every": 3, "best_metric": ("average_rank", "min")}

    def interrupted(params, done):
        if done == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(params, done)

    with pytest.raises(Preempted):
        fit(tmp_path, validate=interrupted, **options)
    result = fit(tmp_path, validate=validate, **options)
    assert_same(result.params, seen[6])
    assert result.metrics == {"average_rank": 2.0, "nll": 6.0}
    rows = {row["step"]: row.get("valid/average_rank") for row in lines(tmp_path)}
    assert {step: rows[step] for step in scores} == scores


def test_fit_best_metric_unknown_name_raises(tmp_path):
    with pytest.raises(InputError, match="best_metric 'f1' is not among .*: em"):
        options = {"validate": lambda params, done: {"em": 1.0}, "validate_every": 1}
        fit(tmp_path, best_metric=("f1", "max"), **options)


def test_fit_bert_same_losses_on_every_mesh(tmp_path):
    config = bert.BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    params = jax.device_get(jax.jit(lambda key: bert.init(config, key))(jax.random.key(0)))

    def loss_fn(params, batch, key):
        hidden = bert.encode(config, params, batch["ids"], batch["ids_mask"], key=key)
        return jnp.square(hidden.mean(1) - batch["y"]).mean(), {}

    def transform(rows, rngs, epoch):
        ids = np.stack([rng.integers(0, 64, 8) for rng in rngs]).astype(np.int32)
        y = np.stack([rng.normal(size=16) for rng in rngs]).astype(np.float32)
        return {"ids": ids, "ids_mask": ids > 9, "y": y}

    data = make_dataset(range(64), batch_size=16, seed=0, transform=transform)
    found = {}
    for data_ways, model_ways in ((1, 1), (8, 1), (4, 2)):
        mesh = make_mesh(data_ways, model_ways, jax.devices()[: data_ways * model_ways])
        trainer = Trainer(loss_fn, OptimizerConfig(learning_rate=1e-3), mesh, bert.PARAM_AXES)
        name = f"{data_ways}x{model_ways}"
        fit(tmp_path, trainer, params, data, name=name, steps=4)
        found[name] = list(losses(tmp_path, name).values())
    np.testing.assert_allclose(found["8x1"], found["1x1"], atol=1e-5)
    np.testing.assert_allclose(found["4x2"], found["1x1"], atol=1e-5)


def test_fit_two_processes_train_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(TOY), str(tmp_path), "6", str(port)]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    both = [
        subprocess.Popen([*command, str(i)], env=environment, stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    fit(tmp_path, toy.trainer(toy.plain_loss_fn), data=toy.dataset(noise=0.0), name="one", steps=6)
    one, two = losses(tmp_path, "one"), losses(tmp_path, "two")
    assert list(two) == list(one)
    np.testing.assert_allclose(list(two.values()), list(one.values()), atol=1e-5)


def test_fit_checkpoint_continues_on_another_mesh(tmp_path, reference):
    interrupt(tmp_path, 6)
    fit(tmp_path, toy.trainer(mesh=make_mesh(4, 2)))
    np.testing.assert_allclose(
        list(losses(tmp_path).values()), list(reference[1].values()), atol=1e-5
    )


def test_fit_accumulation_equals_the_big_batch(tmp_path):
    whole = fit(tmp_path, toy.trainer(toy.plain_loss_fn), name="whole", steps=5)
    mesh = make_mesh(2, 1, jax.devices()[:2])
    parts = toy.trainer(toy.plain_loss_fn, mesh=mesh, accumulate=4)
    split = fit(tmp_path, parts, name="split", steps=5)
    for key in ("loss", "weight", "grad_norm"):
        expected = [row[key] for row in lines(tmp_path, "whole")]
        np.testing.assert_allclose(
            [row[key] for row in lines(tmp_path, "split")], expected, rtol=1e-5
        )
    np.testing.assert_allclose(
        split.params["in"]["kernel"], whole.params["in"]["kernel"], atol=1e-5
    )


def test_fit_log_lines_tell_speed_and_padding(tmp_path):
    fit(tmp_path, flops_per_batch=1e6, log_every=4)
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == [4, 8, 12]
    wanted = {"step_seconds", "examples_per_second", "data_wait_seconds", "tflops", "loss"}
    assert all(wanted <= set(row) for row in rows)
    assert "first_step_seconds" in rows[0] and "mfu" not in rows[0]  # a CPU has no known peak
    masks = [toy.dataset()[b]["x_mask"] for b in range(4, 8)]
    assert rows[1]["padding_waste"] == pytest.approx(1 - np.mean(masks))


def test_fit_log_tells_goodput_and_its_last_line_where_the_time_went(tmp_path):
    options = {"validate": lambda params, step: {"score": 1.0}, "validate_every": 6, "log_every": 4}
    interrupt(tmp_path, 6, log_every=4)
    fit(tmp_path, toy.trainer(), **options)  # a new trainer compiles
    *rows, last = lines(tmp_path)
    assert all(0 < row["goodput"] < 1 and row["elapsed_seconds"] > 0 for row in (*rows, last))
    kinds = {name: value for name, value in last.items() if name.startswith("seconds/")}
    assert sum(kinds.values()) == pytest.approx(last["elapsed_seconds"])
    assert kinds["seconds/compile"] > 0 and kinds["seconds/evaluation"] > 0
    assert last["restarts"] == 1 and last["lost_steps"] == 0 == kinds["seconds/lost"]
    assert last["host_memory_peak_bytes"] > 1 << 20 and "seconds/step" not in rows[0]
    finished = json.loads((tmp_path / "toy" / "finished.json").read_text())
    assert finished["goodput"]["elapsed_seconds"] > last["elapsed_seconds"]
    assert finished["goodput"]["seconds/checkpoint"] > kinds["seconds/checkpoint"]
    assert "goodput" not in finished["metrics"]


def test_fit_crash_between_checkpoints_counts_the_steps_as_lost(tmp_path, reference):
    def crash(params, done):
        if done == 7:
            raise KeyboardInterrupt
        return {"score": 0.0}

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, validate=crash, validate_every=1)
    fit(tmp_path)
    last = lines(tmp_path)[-1]
    assert last["restarts"] == 1 and last["lost_steps"] == 2  # 5 and 6 were logged, 4 was saved
    assert last["seconds/lost"] > 0 and losses(tmp_path) == reference[1]


@pytest.mark.alone
def test_fit_profile_writes_a_trace_of_the_window_and_changes_nothing(tmp_path, reference):
    fit(tmp_path, profile=(5, 6))
    assert list((tmp_path / "toy" / "profile").rglob("*.xplane.pb"))
    assert losses(tmp_path) == reference[1]
    with pytest.raises(InputError, match="profile is .*counted from 1"):
        fit(tmp_path, name="toy", profile=(0, 2))


def test_fit_shorter_than_the_profile_window_trains_and_says_so(tmp_path, reference, capsys):
    fit(tmp_path, profile=(13, 15))
    assert "toy: its steps 1..12 lie outside profile=(13, 15)" in capsys.readouterr().err
    assert losses(tmp_path) == reference[1] and not (tmp_path / "toy" / "profile").exists()


@pytest.mark.alone
def test_fit_profile_of_a_stopped_training_is_closed(tmp_path):
    interrupt(tmp_path, 6, profile=(5, 12))
    assert list((tmp_path / "toy" / "profile").rglob("*.xplane.pb"))
    jax.profiler.start_trace(str(tmp_path / "other"))  # nothing else runs
    jax.profiler.stop_trace()


def test_fit_too_little_data_or_indivisible_batch_raises(tmp_path):
    with pytest.raises(InputError, match="toy: 12 steps, but only 3 batches"):
        fit(tmp_path, data=toy.dataset().slice(slice(0, 3)))
    with pytest.raises(InputError, match="12 rows.*8 devices"):
        fit(tmp_path, toy.trainer(mesh=make_mesh(8, 1)), data=toy.dataset(batch_size=12))


def test_fit_error_in_the_transform_reaches_the_caller(tmp_path):
    def transform(rows, rngs, epoch):
        raise InputError("questions.jsonl, line 3: empty question")

    data = make_dataset(range(8), batch_size=4, seed=0, transform=transform)
    with pytest.raises(InputError, match="line 3: empty question"):
        fit(tmp_path, data=data)
