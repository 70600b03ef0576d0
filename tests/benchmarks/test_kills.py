"""The kill benchmark on the smallest reading run."""

import importlib.util
import json
import signal

import pytest


@pytest.fixture(scope="module")
def kills(repository):
    path = repository / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished_run(folder, losses=(0.5, 0.25), lost=0, restarts=0, weights=b"1"):
    """A workdir with one training of twenty steps, saved every five."""
    rows = [{"step": 10 * (i + 1), "loss": loss, "seconds": i} for i, loss in enumerate(losses)]
    rows[-1] |= {"valid/nll": 1.0, "lost_steps": float(lost), "restarts": float(restarts)}
    training = folder / "mdpr" / "retriever"
    training.mkdir(parents=True)
    (training / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (training / "finished.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({"retriever": {"save_every": 5}}))
    (folder / "report.json").write_text("{}")
    return folder


def compare(kills, *folders):
    return kills.main(["--compare", *map(str, folders)])


def test_equal_runs_are_equal_although_their_times_differ(kills, tmp_path, capsys):
    a = finished_run(tmp_path / "a")
    b = finished_run(tmp_path / "b", lost=8, restarts=2)
    log = b / "mdpr/retriever/metrics.jsonl"
    log.write_text(log.read_text().replace('"seconds": 1', '"seconds": 7'))
    assert compare(kills, a, b) == 0
    assert "restarts of trainings: 2; steps lost: 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": b"2"}, "differs: model.safetensors"),
        ({"losses": (0.5, 0.125)}, "differs: mdpr/retriever/metrics.jsonl"),
        ({"losses": (0.5, 0.3, 0.25)}, "differs: mdpr/retriever/metrics.jsonl"),
        ({"lost": 9, "restarts": 2}, "9 steps lost, not 8 at most"),
    ],
)
def test_other_weights_other_losses_and_too_many_lost_steps_are_found(
    kills, tmp_path, capsys, change, told
):
    a, b = finished_run(tmp_path / "a"), finished_run(tmp_path / "b", **change)
    assert compare(kills, a, b) == 1
    assert told in capsys.readouterr().out


def test_missing_files_and_unfinished_runs_are_found(kills, tmp_path, capsys):
    a, b = finished_run(tmp_path / "a"), finished_run(tmp_path / "b")
    (b / "model.safetensors").unlink()
    assert kills.differences(a, b) == kills.differences(b, a) == ["model.safetensors"]
    (b / "report.json").unlink()
    assert compare(kills, a, b) == 1 and "not finished" in capsys.readouterr().out


def disturb(kills, workdir, *happened, sigterm):
    """Problems of a run to which that happens: (exit status, lost steps counted by then)."""
    finished_run(workdir)
    (workdir / "mdpr/retriever/finished.json").unlink()
    told = iter(happened)

    class Scripted:
        def end_after(self, seconds, folder, kind):
            assert kind == (signal.SIGTERM if sigterm else signal.SIGKILL)
            status, lost = next(told)
            text = json.dumps({"lost_steps": lost})
            (folder / "mdpr/retriever/goodput.json").write_text(text)
            return status

    flags = kills._parser().parse_args([f"--kills={len(happened)}", f"--sigterm={sigterm}"])
    return kills._disturb(flags, Scripted(), workdir, 0.0, 1.0)


def test_a_start_may_lose_less_than_lies_between_two_checkpoints(kills, tmp_path):
    assert disturb(kills, tmp_path / "a", (-9, 0), (-9, 4), (-9, 8), (None, 8), sigterm=0) == []
    (problem,) = disturb(kills, tmp_path / "b", (-9, 0), (-9, 4), (-9, 9), sigterm=0)
    assert problem == "3: the start before it lost 5 steps, not 4 at most"


def test_after_sigterm_nothing_is_lost_and_the_status_says_so(kills, tmp_path):
    assert disturb(kills, tmp_path / "a", (75, 0), (75, 0), (0, 0), sigterm=1) == []
    problems = disturb(kills, tmp_path / "b", (75, 0), (143, 1), sigterm=1)
    assert problems == [
        "2: status 143 after SIGTERM, not 75",
        "2: the start before it lost 1 steps, not 0 at most",
    ]


def test_a_run_that_was_never_disturbed_shows_nothing(kills, tmp_path):
    (problem,) = disturb(kills, tmp_path / "a", (None, 0), sigterm=0)
    assert "never disturbed" in problem


@pytest.mark.slow
def test_disturbed_reading_run_ends_with_the_same_bits(kills, tmp_path):
    flags = ["--config=configs/dual_bert.py:smoke", f"--workdir={tmp_path}"]
    flags += ["--kills=8", "--seed=1"]  # of which the first comes after two per cent of the run
    assert kills.main(flags) == 0
