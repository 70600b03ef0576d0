import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from clmrc_jax.files import InputError, read_json
from clmrc_jax.train import goodput
from clmrc_jax.train.goodput import KINDS, Goodput


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is set."""
    made = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(goodput.time, "perf_counter", lambda: made.now)
    return made


def spend(meter, clock, **seconds):
    for kind, each in seconds.items():
        with meter.during(kind):
            clock.now += each


def test_goodput_seconds_of_nested_kinds_sum_to_the_clock(clock, tmp_path):
    meter = Goodput(tmp_path)
    clock.now += 5
    meter.switch("step")
    clock.now += 10
    with meter.during("evaluation"):
        clock.now += 2
        with meter.during("checkpoint"):
            clock.now += 1
        clock.now += 2
    clock.now += 20
    summary = meter.line(last=True)
    wanted = {"init": 5, "step": 30, "evaluation": 4, "checkpoint": 1}
    assert {kind: summary[f"seconds/{kind}"] for kind in KINDS} == dict.fromkeys(KINDS, 0) | wanted
    assert summary["elapsed_seconds"] == 40 and summary["goodput"] == 0.75
    assert summary["lost_steps"] == summary["restarts"] == 0
    assert set(meter.line(last=False)) == {"goodput", "elapsed_seconds", "host_memory_peak_bytes"}


def test_goodput_crash_turns_steps_after_the_checkpoint_into_lost_ones(clock, tmp_path):
    first = Goodput(tmp_path)
    spend(first, clock, init=4, compile=8, step=20, data_wait=2)
    saved = dict(first.seconds)
    spend(first, clock, checkpoint=3, step=5, data_wait=1, evaluation=2)
    first.record(step=30)

    second = Goodput(tmp_path)
    second.resume(saved, step=24)
    spend(second, clock, init=1)
    assert second.seconds == {
        "init": 5,
        "compile": 8,
        "data_wait": 2,
        "step": 20,
        "checkpoint": 3,
        "evaluation": 0,
        "lost": 8,
    }
    assert (second.lost_steps, second.restarts) == (6, 1)
    second.record(step=24)

    third = Goodput(tmp_path)  # the second one died before its first step
    third.resume(saved, step=24)
    assert third.seconds == second.seconds
    assert (third.lost_steps, third.restarts) == (6, 2)


def test_goodput_crash_before_the_first_checkpoint_loses_every_step(clock, tmp_path):
    first = Goodput(tmp_path)
    spend(first, clock, init=4, step=20)
    first.record(step=7)
    second = Goodput(tmp_path)
    second.resume(None, step=0)
    assert second.seconds["lost"] == 20 and second.seconds["step"] == 0
    assert second.seconds["init"] == 4 and second.lost_steps == 7


def test_goodput_clean_stop_loses_nothing(clock, tmp_path):
    first = Goodput(tmp_path)
    spend(first, clock, step=20)
    saved = dict(first.seconds)
    spend(first, clock, checkpoint=3)
    first.record(step=7)
    second = Goodput(tmp_path)
    second.resume(saved, step=7)
    assert second.seconds["step"] == 20 and second.seconds["checkpoint"] == 3
    assert second.seconds["lost"] == second.lost_steps == 0 and second.restarts == 1
    second.forget()
    assert os.listdir(tmp_path) == []


def test_goodput_file_is_json_of_the_last_record(clock, tmp_path):
    meter = Goodput(tmp_path)
    clock.now += 2
    meter.record(step=3)
    assert read_json(tmp_path / "goodput.json")["seconds"]["init"] == 2


def test_kind_of_step_is_compile_once_per_shape_and_step():
    seen, step, other = set(), object(), object()
    long, short = {"x": np.zeros((2, 8))}, {"x": np.zeros((2, 4))}
    kinds = [goodput.kind_of_step(step, x, seen) for x in (long, long, short, long)]
    assert kinds == ["compile", "step", "compile", "step"]
    assert goodput.kind_of_step(other, long, seen) == "compile"


def device(peak, process=0):
    stats = None if peak is None else {"peak_bytes_in_use": peak}
    return types.SimpleNamespace(process_index=process, memory_stats=lambda: stats)


def test_memory_peak_is_that_of_the_fullest_own_device():
    devices = [device(5), device(9), device(50, process=1)]
    assert goodput.memory_peak(devices) == {"device_memory_peak_bytes": 9}


def test_memory_peak_of_a_cpu_is_that_of_this_process_alone():
    (name,) = goodput.memory_peak(jax.devices())
    assert name == "host_memory_peak_bytes"
    # A child must not report its parent's peak, as ru_maxrss does after a fork.
    script = (
        "import types; from clmrc_jax.train.goodput import memory_peak as m; "
        "d = types.SimpleNamespace(process_index=0, memory_stats=lambda: None); a = m([d]);"
        "block = b'x' * (200 << 20); b = m([d]); key = 'host_memory_peak_bytes'; "
        "print(b[key] - a[key], a[key])"
    )
    ballast = b"x" * (500 << 20)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert len(ballast) == 500 << 20
    grown, before = map(int, done.stdout.split())
    assert 0.9 * (200 << 20) < grown < 1.1 * (200 << 20)
    assert before < 400 << 20


@pytest.mark.alone
def test_profile_window_is_traced_and_closed(tmp_path):
    profile = goodput.Profile((2, 3), tmp_path / "profile")
    waited = []
    for number in range(1, 6):
        with profile.step(number):
            jax.numpy.ones(3).sum().block_until_ready()
        profile.end_after(number, lambda number=number: waited.append(number))
        assert (tmp_path / "profile").exists() == (number >= 3)
    assert waited == [3]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    profile.close()  # again: nothing runs any more


def test_profile_of_no_window_leaves_no_folder(tmp_path):
    profile = goodput.Profile((), tmp_path / "profile")
    with profile.step(1):
        pass
    profile.end_after(1, lambda: pytest.fail("there is nothing to wait for"))
    profile.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("done, steps, said", [(0, 19, True), (25, 90, True), (0, 20, False)])
def test_profile_says_when_a_training_lies_outside_the_window(tmp_path, capsys, done, steps, said):
    goodput.Profile((20, 25), tmp_path).expect(done, steps, "mdpr")
    text = f"mdpr: its steps {done + 1}..{steps} lie outside profile=(20, 25), no trace\n"
    assert capsys.readouterr().err == (text if said else "")
    goodput.Profile((), tmp_path).expect(done, steps, "mdpr")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("window", [(0, 2), (3, 2), (4,), (1, 2, 3), (1.5, 2), ("1", "2")])
def test_check_window_refuses_what_is_no_window(window):
    goodput.check_window(())
    goodput.check_window((12, 12))
    with pytest.raises(InputError, match=r"profile is .*config.profile=.\(20, 25\)"):
        goodput.check_window(window)
