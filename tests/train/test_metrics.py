import importlib.util
import json
import pathlib
import types

import numpy as np
import pytest

from clmrc_jax.files import InputError, read_jsonl
from clmrc_jax.train import checkpoints, metrics

spec = importlib.util.spec_from_file_location("toy", pathlib.Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


def write(path, steps, **options):
    writer = metrics.MetricWriter(path, **options)
    for step in steps:
        writer.write(step, {"loss": step / 2})
    writer.close()


def steps_in(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_metric_writer_resume_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2, 3, 4])
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # killed within the line
    write(path, [3, 4, 5], restored_step=2)
    assert steps_in(path) == [1, 2, 3, 4, 5]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_metric_writer_fresh_start_forgets_the_old_file(tmp_path):
    write(tmp_path / "m.jsonl", [1, 2])
    write(tmp_path / "m.jsonl", [1])
    assert steps_in(tmp_path / "m.jsonl") == [1]


def test_metric_writer_in_a_bucket_keeps_the_lines_of_a_killed_process(in_bucket):
    path = in_bucket / "m.jsonl"
    first = metrics.MetricWriter(path)
    for step in (1, 2):
        first.write(step, {"loss": float(step)})
    first.flush()  # a checkpoint of step 2 follows
    first.write(3, {"loss": 3.0})  # killed: never closed
    assert steps_in(path) == [1, 2]
    write(path, [3, 4], restored_step=2)
    assert steps_in(path) == [1, 2, 3, 4]
    write(path, [2], restored_step=1)
    assert steps_in(path) == [1, 2]


def test_metric_writer_in_a_bucket_uploads_by_itself_after_a_while(in_bucket, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    writer = metrics.MetricWriter(in_bucket / "m.jsonl")
    for step, seconds in ((1, 30), (2, 29), (3, 1), (4, 59)):
        now[0] += seconds
        writer.write(step, {"loss": np.float32("nan")})
    assert steps_in(in_bucket / "m.jsonl") == [1, 2, 3]
    writer.close()
    assert steps_in(in_bucket / "m.jsonl") == [1, 2, 3, 4]


def test_log_of_a_training_in_a_bucket_has_every_step_after_a_kill(
    in_bucket, tmp_path, monkeypatch
):
    open_checkpoints = checkpoints.open  # Orbax reaches gs:// by a way of its own
    here = str(tmp_path / "checkpoints")
    monkeypatch.setattr(
        checkpoints,
        "open",
        lambda folder, **options: open_checkpoints(
            str(folder).replace(str(in_bucket), here), **options
        ),
    )

    def fit(workdir, **options):
        settings = {"steps": 12, "seed": 7, "name": "toy", "log_every": 1, "save_every": 4}
        toy.trainer().fit(toy.init(), toy.dataset(), workdir=workdir, **settings, **options)

    def validate(params, step):
        if step == 10:
            raise KeyboardInterrupt
        return {}

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(metrics.MetricWriter, "close", lambda self: None)  # killed
        fit(in_bucket, validate=validate, validate_every=10)
    fit(in_bucket)
    logged = [row["step"] for _, row in read_jsonl(in_bucket / "toy" / "metrics.jsonl")]
    assert logged == list(range(1, 13))


def test_metric_writer_nan_becomes_null(tmp_path):
    writer = metrics.MetricWriter(tmp_path / "m.jsonl")
    writer.write(1, {"loss": np.float32("nan")})
    writer.close()
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "loss": None}


def test_metric_writer_tensorboard_missing_says_what_to_install(tmp_path):
    if importlib.util.find_spec("tensorboardX"):
        write(tmp_path / "m.jsonl", [1], tensorboard=True)
        assert list((tmp_path / "tensorboard").glob("events*"))
        return
    with pytest.raises(InputError, match="pip install tensorboardX"):
        metrics.MetricWriter(tmp_path / "m.jsonl", tensorboard=True)


def test_timers_padding_waste_counts_the_masks_of_all_sides():
    timers = metrics.Timers()
    batch = {
        "question_mask": np.array([[True, False], [True, True]]),
        "passage_mask": np.array([[True, False, False, False], [True, True, True, True]]),
        "ids": np.zeros((2, 2)),
    }
    timers.batch(batch, waited=0.5, slices=3)
    window = timers.window()
    assert window["padding_waste"] == 4 / 12 and window["data_wait_seconds"] == 0.5
    assert window["examples_per_second"] == pytest.approx(6 / window["step_seconds"])
    assert timers.window() == {}


def test_flop_rates_mfu_only_where_the_peak_is_known():
    tpu, cpu = types.SimpleNamespace(device_kind="TPU v4"), types.SimpleNamespace(device_kind="cpu")
    assert metrics.flop_rates(550e12, 2.0, [tpu, tpu]) == {"tflops": 275.0, "mfu": 0.5}
    assert metrics.flop_rates(550e12, 2.0, [cpu]) == {"tflops": 275.0}
    assert metrics.flop_rates(None, 2.0, [tpu]) == {}


def test_timers_padding_waste_leaves_out_where_an_answer_may_lie():
    timers = metrics.Timers()
    whole, passage = np.ones((2, 4), bool), np.array([[True, False, True, False]] * 2)
    batch = {"attention_mask": whole, "span_mask": passage}
    timers.batch(batch | {f"source_{name}": array for name, array in batch.items()}, waited=0.0)
    assert timers.window()["padding_waste"] == 0
