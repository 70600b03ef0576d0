"""Stages run once, notice changed settings, and never share a workdir."""

import json
import signal
import subprocess
import sys
import textwrap

import pytest

from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.pipelines.stages import MANIFEST, Run, settings_fingerprint

SETTINGS = {"seed": 0, "model": {"layers": 2, "buckets": (64, 128)}, "lang": "日本"}


def test_stage_runs_once_and_is_skipped_by_the_next_run(tmp_path, capsys):
    calls = []

    def work(folder):
        calls.append(str(folder))
        folder.mkdir(parents=True)
        (folder / "data").write_text("x")
        return {"rows": 3, "loss": 0.123456789}

    assert Run(tmp_path).stage("a/b", SETTINGS, work) == {"rows": 3, "loss": 0.123456789}
    assert "a/b: rows 3, loss 0.1235 (" in capsys.readouterr().err
    again = Run(tmp_path)
    assert again.stage("a/b", SETTINGS, work) == {"rows": 3, "loss": 0.123456789}
    assert calls == [str(tmp_path / "a/b")]
    assert "a/b: done before" in capsys.readouterr().err and again.seconds["a/b"] >= 0


def test_manifest_tells_settings_counts_versions_and_time(tmp_path):
    Run(tmp_path, quiet=True).stage("a", SETTINGS, lambda folder: {"rows": 3})
    manifest = read_json(tmp_path / "a" / MANIFEST)
    assert manifest["stage"] == "a" and manifest["counts"] == {"rows": 3}
    assert manifest["settings"] == json.loads(json.dumps(SETTINGS))
    assert manifest["fingerprint"] == settings_fingerprint(SETTINGS)
    assert manifest["seconds"] >= 0 and manifest["packages"]["jax"].count(".") == 2


def test_changed_settings_are_refused_and_every_key_is_named(tmp_path):
    Run(tmp_path, quiet=True).stage("a", SETTINGS, lambda folder: None)
    changed = {"seed": 0, "model": {"layers": 3, "buckets": (64, 128)}, "extra": True}
    with pytest.raises(InputError) as error:
        Run(tmp_path, quiet=True).stage("a", changed, lambda folder: pytest.fail("must not run"))
    message = str(error.value)
    assert "model.layers: 2 then, 3 now" in message and "extra: None then, True now" in message
    assert "lang: '日本' then, None now" in message and "seed" not in message
    assert "buckets" not in message, "a tuple and the list it became in the file are the same"
    assert "another --workdir" in message and str(tmp_path / "a") in message


FAST = {"seed": 0, "mesh": {"data": -1}, "model": {"sizes": {"remat": False}}, "save_every": 5}
SLOW = {"seed": 0, "mesh": {"data": 2}, "model": {"sizes": {"remat": True}}, "save_every": 1}


def test_settings_of_speed_and_memory_are_recorded_and_may_change(tmp_path):
    Run(tmp_path, quiet=True).stage("a", FAST, lambda folder: {"rows": 3})
    manifest = read_json(tmp_path / "a" / MANIFEST)
    assert manifest["settings"] == FAST
    never = lambda folder: pytest.fail("must not run")  # noqa: E731
    assert Run(tmp_path, quiet=True).stage("a", SLOW, never) == {"rows": 3}
    with pytest.raises(InputError, match=r"made with other settings \(seed: 0 then, 1 now\)"):
        Run(tmp_path, quiet=True).stage("a", SLOW | {"seed": 1}, never)


def test_settings_of_later_stages_may_change_and_refuse_only_those(tmp_path):
    short = {"seed": 0, "rounds": 1, "evaluation": {"scorer": "legacy", "split": "test"}}
    long = {"seed": 0, "rounds": 2, "evaluation": {"scorer": "fixed", "split": "test"}}
    stages = [f"round_0/{name}" for name in ("mdpr", "mgen", "answers", "scores")]
    for name in stages:
        Run(tmp_path, quiet=True).stage(name, short, lambda folder: {"rows": 3})
    never = lambda folder: pytest.fail("must not run")  # noqa: E731
    for name in stages[:-1]:
        assert Run(tmp_path, quiet=True).stage(name, long, never) == {"rows": 3}
    with pytest.raises(InputError, match=r"\(evaluation.scorer: 'legacy' then, 'fixed' now\)"):
        Run(tmp_path, quiet=True).stage(stages[-1], long, never)
    other_split = long | {"evaluation": {"scorer": "legacy", "split": "dev"}}
    assert Run(tmp_path, quiet=True).stage(stages[1], other_split, never) == {"rows": 3}
    with pytest.raises(InputError, match=r"\(evaluation.split: 'test' then, 'dev' now\)"):
        Run(tmp_path, quiet=True).stage(stages[2], other_split, never)


def test_evaluation_sets_added_to_a_reading_run_train_nothing_again(tmp_path):
    one = {"scorer": "fixed", "data": {"evaluate": ["a"]}, "decoding": {"n_best": 20}}
    two = {"scorer": "legacy", "data": {"evaluate": ["a", "b"]}, "decoding": {"n_best": 5}}
    never = lambda folder: pytest.fail("must not run")  # noqa: E731
    for name in ("source", "cascade/train", "bt_aligner/train"):
        Run(tmp_path, quiet=True).stage(name, one, lambda folder: {})
    assert Run(tmp_path, quiet=True).stage("source", two, never) == {}
    assert Run(tmp_path, quiet=True).stage("cascade/train", two, never) == {}
    with pytest.raises(InputError, match="data.evaluate"):  # it trained on answers read so
        Run(tmp_path, quiet=True).stage("bt_aligner/train", two, never)


def test_manifest_whose_fingerprint_is_of_all_settings_is_compared_by_what_matters(tmp_path):
    Run(tmp_path, quiet=True).stage("a", FAST, lambda folder: {"rows": 3})
    manifest = read_json(tmp_path / "a" / MANIFEST)
    write_json(tmp_path / "a" / MANIFEST, manifest | {"fingerprint": "0123456789abcdef"})
    never = lambda folder: pytest.fail("must not run")  # noqa: E731
    assert Run(tmp_path, quiet=True).stage("a", SLOW, never) == {"rows": 3}
    with pytest.raises(InputError, match="seed: 0 then, 1 now"):
        Run(tmp_path, quiet=True).stage("a", FAST | {"seed": 1}, never)


def test_stage_begins_without_what_killed_processes_were_writing(tmp_path):
    folder = tmp_path / "a"
    left = [folder / "run.jsonl.tmp-11", folder / "model.tmp-12", folder / "b/index.tmp-13"]
    for path in left[1:]:
        path.mkdir(parents=True)
        (path / "weights.tmp-12").write_text("half")
    left[0].write_text("half")
    kept = [folder / "shard", folder / "b/40.orbax-checkpoint-tmp-1"]
    for path in kept:
        path.write_text("x")

    def work(folder):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)

    Run(tmp_path, quiet=True).stage("a", SETTINGS, work)
    left[0].write_text("half")
    Run(tmp_path, quiet=True).stage("a", SETTINGS, work)
    assert left[0].exists(), "a finished stage is only looked at"


def test_failed_stage_leaves_no_manifest_and_runs_again(tmp_path):
    run = Run(tmp_path, quiet=True)
    with pytest.raises(ZeroDivisionError):
        run.stage("a", SETTINGS, lambda folder: {"rows": 1 // 0})
    assert not (tmp_path / "a" / MANIFEST).exists()
    assert run.stage("a", SETTINGS, lambda folder: {"rows": 1}) == {"rows": 1}


def test_damaged_manifest_is_an_input_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / MANIFEST).write_text('{"stage": "a", ')
    with pytest.raises(InputError, match="stage.json: not valid JSON"):
        Run(tmp_path, quiet=True).stage("a", SETTINGS, lambda folder: None)


SCRIPT = textwrap.dedent("""
    import sys, time
    from clmrc_jax.files import InputError, write_jsonl
    from clmrc_jax.pipelines.locks import workdir_lock
    from clmrc_jax.pipelines.stages import Run

    def rows(pause):
        for i in range(5):
            yield {"i": i}
            if i == 3 and pause:
                print("in the middle", flush=True)
                time.sleep(60)

    workdir, pause = sys.argv[1], len(sys.argv) > 2
    try:
        with workdir_lock(workdir):
            run = Run(workdir)
            run.stage("first", {}, lambda folder: {"rows": write_jsonl(folder / "rows.jsonl", rows(False))})
            run.stage("second", {}, lambda folder: {"rows": write_jsonl(folder / "rows.jsonl", rows(pause))})
    except InputError as error:
        print(error)
        sys.exit(2)
""")


def start(workdir, *flags):
    command = [sys.executable, "-c", SCRIPT, str(workdir), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_second_run_is_refused_and_a_killed_one_is_continued(tmp_path):
    running = start(tmp_path, "pause")
    assert running.stdout.readline() == "in the middle\n"
    second = start(tmp_path)
    out, _ = second.communicate()
    assert second.returncode == 2 and f"process {running.pid} on" in out
    assert "give another --workdir" in out
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert (tmp_path / "first" / MANIFEST).exists()
    assert not (tmp_path / "second" / MANIFEST).exists()
    assert not (tmp_path / "second" / "rows.jsonl").exists(), "only whole files have their name"
    third = start(tmp_path)
    _, err = third.communicate()
    assert third.returncode == 0, err
    assert "first: done before" in err and "second: rows 5" in err
    assert len((tmp_path / "second" / "rows.jsonl").read_text().splitlines()) == 5
