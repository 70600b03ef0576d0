"""Reading comprehension from one command: all stages, killed and continued, and its report."""

import json
import shutil
import signal
import time

import pytest

from clmrc_jax.data.mrc_examples import Answer, MrcExample, write_squad
from clmrc_jax.data.world_facts.cldr import load_world_facts
from clmrc_jax.data.world_facts.reading import reading_examples
from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.evaluate.mrc import score_squad, score_squad2
from clmrc_jax.exit_status import PREEMPTED
from clmrc_jax.files import InputError, read_json, read_jsonl
from clmrc_jax.pipelines.clmrc_report import finish
from clmrc_jax.pipelines.clmrc_settings import SCORERS
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.train.readers import load_reader

BOTH = "--config.systems=('cascade', 'dual_squad')"
STAGES = ("source", "cascade/train", "cascade/read", "dual_squad/train", "dual_squad/read")


def contents(workdir):
    """Every file that must not change, by relative path."""
    changing = ("report", "scores", "lock", "compilation_cache")
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("*"))
        if path.is_file() and path.relative_to(workdir).parts[0].split(".")[0] not in changing
    }


def results(workdir):
    """Answers and weights of both systems."""
    names = ["cascade/read/test.json", "dual_squad/read/test.nbest.json"]
    names += [f"{x}/train/model/heads.safetensors" for x in ("cascade", "dual_squad")]
    return {name: (workdir / name).read_bytes() for name in names}


def test_run_leaves_the_files_of_every_stage(reading_run):
    for stage in STAGES:
        manifest = read_json(reading_run / stage / "stage.json")
        assert manifest["stage"] == stage and manifest["counts"]
    counts = read_json(reading_run / "source/stage.json")["counts"]
    assert counts["questions"] == 6 and counts["windows"] >= 6 and counts["loss"] > 0
    assert not list(reading_run.rglob("*.tmp-*"))
    assert load_reader(reading_run / "source/model").kind == "span"
    dual = load_reader(reading_run / "dual_squad/train/model")
    assert dual.kind == "dual" and dual.dual.residual == "target"
    assert dual.reading["format"]["max_length"] == 64


def test_profile_of_steps_that_no_training_has_is_told(reading_run):
    log = (reading_run.parent / "stderr.txt").read_text()
    assert log.count("lie outside profile=(90, 95), no trace") == 3
    assert not list(reading_run.rglob("profile"))


def test_trainings_record_all_that_a_continued_one_must_share(reading_run):
    configs = [
        read_json(reading_run / f"{name}/reader/finished.json")["config"]
        for name in ("source", "cascade/train")
    ]
    assert configs[0]["rows"] != configs[1]["rows"], "other questions"
    for config in configs:
        assert config["format"]["max_length"] == 64 and config["recipe"]["batch_size"]
        assert config["training"]["dual_heads"] and "save_every" not in config["training"]


def test_answers_are_cut_from_the_passages_and_scored(reading_run):
    world = load_world_facts("smoke")
    examples = {x.id: x for x in reading_examples(world, "test", "ja", source="en")}
    folder = reading_run / "cascade/read"
    predictions, nbest = read_json(folder / "test.json"), read_json(folder / "test.nbest.json")
    assert len(predictions) == 4 and list(nbest) == list(predictions)
    for id, entries in nbest.items():
        assert predictions[id] == entries[0]["text"]
        context = examples[id].context
        assert all(context[e["start"] : e["end"]] == e["text"] for e in entries)
        chances = [e["probability"] for e in entries]
        assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1)
    golds = [Gold(id, "ja", (examples[id].answers[0].text,)) for id in predictions]
    scores = score_squad(golds, predictions, "fixed").extras
    ours = read_json(folder / "scores.json")["test"]
    assert (ours["em"], ours["f1"], ours["count"]) == (scores["em"], scores["f1"], 4)
    assert ours["average"] == pytest.approx((ours["em"] + ours["f1"]) / 2)


def test_report_shows_both_systems_and_their_difference(reading_run):
    report = read_json(reading_run / "report.json")
    assert list(report["systems"]) == ["cascade", "dual_squad"] and report["published"] == {}
    assert report["training"] == {"source": 6, "target": 4, "bilingual": 4}
    f1 = {name: sets["test"]["f1"] for name, sets in report["systems"].items()}
    assert report["summary"]["dual_squad test f1"] == f1["dual_squad"]
    (row,) = report["significance"]
    assert row["f1 difference"] == pytest.approx(f1["cascade"] - f1["dual_squad"])
    assert row["interval"][0] <= row["f1 difference"] <= row["interval"][1]
    assert set(report["examples"][0]["predictions"]) == {"cascade", "dual_squad"}
    assert set(STAGES) < set(report["seconds"])
    assert not (reading_run / "scores.jsonl").exists(), "two systems: the report tests them"
    text = (reading_run / "report.md").read_text("utf-8")
    assert "| dual\\_squad | test | 4 |" in text and "cascade - dual\\_squad" in text
    printed = (reading_run.parent / "stdout.txt").read_text()
    assert "report.md" in printed and "dual_squad" in printed


def test_second_call_repeats_no_stage_and_one_system_leaves_scores_for_a_sweep(
    reading_run, train_reader, tmp_path
):
    workdir = tmp_path / "w"
    shutil.copytree(reading_run, workdir)
    status, out, err = train_reader(workdir, "--config.systems=('cascade',)", "--json")
    assert status == 0, err
    stages = [line for line in err.splitlines() if line.startswith(("source", "cascade"))]
    assert len(stages) == 3 and all("done before" in line for line in stages)
    assert contents(workdir) == contents(reading_run)
    shown = json.loads(out)["cascade"]["test"]
    rows = [row for _, row in read_jsonl(workdir / "scores.jsonl")]
    assert len(rows) == 4 and rows[0]["id"].startswith("test/")
    assert sum(row["f1"] for row in rows) * 25 == pytest.approx(shown["f1"])
    assert read_json(workdir / "report.json")["summary"]["test em"] == shown["em"]


def test_other_settings_on_the_same_workdir_are_refused(reading_run, train_reader):
    before = contents(reading_run)
    status, _, err = train_reader(reading_run, BOTH, "--config.target_recipe.learning_rate=1e-4")
    assert status == 2 and "error: " in err and "Traceback" not in err
    assert "target_recipe.learning_rate: 0.001 then, 0.0001 now" in err
    assert contents(reading_run) == before


def test_source_model_goes_on_where_it_fits(reading_run, begin_reading):
    source = str(reading_run / "source/model")
    clmrc = begin_reading(source_model=source, **{"model.pretrained": source})
    kernel = load_reader(source).params["head"]["kernel"]
    assert (clmrc.source_params["head"]["kernel"] == kernel).all()
    reader, model, _ = clmrc.source_reader
    assert reader is not clmrc.reader and model == clmrc.reader.bert
    assert not clmrc.run.path("source").exists(), "nothing was trained"


def test_source_model_of_another_size_is_refused(reading_run, begin_reading):
    with pytest.raises(
        InputError, match=r"other sizes \(vocab_size 600, not .*hidden_size 16, not"
    ):
        begin_reading(
            source_model=str(reading_run / "source/model"), **{"model.pretrained": "builtin"}
        )


def test_source_model_with_another_vocabulary_is_refused(reading_run, begin_reading, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(reading_run / "source/model", other)
    shutil.copy(f"{builtin_folder('bert')}/spiece.model", other)
    with pytest.raises(InputError, match="has another vocabulary than this run's.*model.tokenizer"):
        begin_reading(
            source_model=str(other), **{"model.pretrained": str(reading_run / "source/model")}
        )


def test_dual_bert_as_source_model_is_refused(reading_run, begin_reading):
    source = str(reading_run / "dual_squad/train/model")
    with pytest.raises(InputError, match="is a Dual BERT; give a plain reader's folder"):
        begin_reading(source_model=source, **{"model.pretrained": source})


def test_scorer_whose_package_is_missing_is_named_before_training(begin_reading, monkeypatch):
    def score(golds, predictions, mode):
        assert golds[0].lang == "ja" and mode == "fixed"
        raise ImportError('cutting text needs MeCab; run: pip install "clmrc_jax[segment]"')

    clmrc = begin_reading(**{"model.pretrained": "builtin", "data.world": "smoke"})
    monkeypatch.setitem(SCORERS, "xquad", score)
    with pytest.raises(InputError, match=r"'test', scorer 'xquad' .*'ja': .*pip install"):
        clmrc.train()
    assert not clmrc.run.path("source").exists()


def test_training_counts_what_was_mended_in_its_files(begin_reading, reading_run, monkeypatch):
    clmrc = begin_reading(**{"model.pretrained": str(reading_run / "source/model")})
    clmrc.sets.mended["source_train"] = {"relocated": 2}
    train = lambda model, first, *rest, **options: (first, {"questions": 6})  # noqa: E731
    monkeypatch.setattr(clmrc.reader, "train", train)
    assert "head" in clmrc.source_params
    counts = read_json(clmrc.run.path("source/stage.json"))["counts"]
    assert counts == {"questions": 6, "relocated": 2}


@pytest.fixture
def squad2_run(begin_reading, reading_run, tmp_path):
    """squad2_run(**changes): the source reader of `reading_run` has answered a SQuAD 2.0 file."""
    questions = [
        MrcExample(
            f"q{n}", "en", "T", "Which currency?", "Norway has the krone.", answers, not answers
        )
        for n, answers in enumerate([(Answer("krone", 15),), (Answer("krone", 14),), ()])
    ]
    write_squad(tmp_path / "squad2.json", questions)
    source = str(reading_run / "source/model")
    files = {"data.kind": "files", "data.source": "en"}
    files["data.evaluate"] = (("dev", str(tmp_path / "squad2.json"), "en", "squad2"),)

    def make(**changes):
        given = {"systems": ("zero_shot",), "source_model": source, "model.pretrained": source}
        clmrc = begin_reading(**given | files | changes)
        clmrc.train()
        return clmrc

    return make


def test_squad2_set_is_answered_and_its_best_threshold_reported(squad2_run):
    clmrc = squad2_run()
    folder = clmrc.run.path("zero_shot/read")
    answers, nulls = (read_json(folder / f"dev.{x}json") for x in ("", "null_scores."))
    assert all(answers.values()) and set(nulls) == {"q0", "q1", "q2"}
    found = read_json(folder / "scores.json")["dev"]
    golds = [Gold(f"q{n}", "en", ("krone",) * (n < 2)) for n in range(3)]
    expected = score_squad2(golds, answers, "fixed", nulls).extras
    assert {k: found[k] for k in found if k.startswith("best_")} == {
        k: v for k, v in expected.items() if k.startswith("best_")
    }
    assert found["best_em"] >= max(found["em"], 100 / 3), "silence is right once"
    report = finish(clmrc, 1.0, as_json=True)
    assert report["summary"]["dev best_em"] == found["best_em"]
    page = clmrc.run.path("report.md").read_text()
    assert "| zero\\_shot | dev | " in page and 'threshold of "no answer"' in page
    counts = read_json(folder / "stage.json")["counts"]
    assert counts["dev relocated"] == 1 and "Mended or missing" in page and "dev: 1 reloc" in page


def test_squad2_set_with_a_threshold_is_answered_by_it(squad2_run):
    folder = squad2_run(**{"decoding.null_threshold": float("-inf")}).run.path("zero_shot/read")
    assert set(read_json(folder / "dev.json").values()) == {""}
    assert set(read_json(folder / "dev.null_scores.json")) == {"q0", "q1", "q2"}
    found = read_json(folder / "scores.json")["dev"]
    assert found["em"] == pytest.approx(100 / 3) and "best_em" not in found


def wait_for(path, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert path.exists(), f"{path} never came"


def test_killed_in_training_the_run_continues_to_the_same_bits(reading_run, train_reader, tmp_path):
    workdir = tmp_path / "w"
    process = train_reader.start(workdir, BOTH)
    wait_for(workdir / "dual_squad/train/reader/checkpoints/4", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "dual_squad/train/stage.json").exists(), "killed too late"
    done = {name: (workdir / name / "stage.json").read_bytes() for name in STAGES[:3]}
    status, _, err = train_reader(workdir, BOTH)
    assert status == 0, err
    for name, manifest in done.items():
        assert f"{name}: done before" in err
        assert (workdir / name / "stage.json").read_bytes() == manifest
    assert results(workdir) == results(reading_run)


@pytest.mark.slow
def test_stopped_run_goes_on_with_another_mesh_and_other_memory_settings(
    reading_run, train_reader, tmp_path
):
    workdir = tmp_path / "w"
    shutil.copytree(reading_run, workdir)
    shutil.rmtree(workdir / "dual_squad")
    process = train_reader.start(workdir, BOTH)
    wait_for(workdir / "dual_squad/train/reader/checkpoints/4", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == PREEMPTED, err
    other = {
        "mesh.data": 2,
        "rules": "(('embed', 'data'),)",
        "model.sizes.remat": True,
        "dual.saa_chunk": 8,
        "training.save_every": 3,
        "training.log_every": 1,
        "training.predict_batch": 6,
        "training.read_chunk": 3,
    }
    flags = [BOTH, *(f"--config.{key}={value}" for key, value in other.items())]
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    status, _, err = train_reader(workdir, *flags, variables=devices)
    assert status == 0, err
    for name in STAGES[:3]:
        assert f"{name}: done before" in err
    log = [row for _, row in read_jsonl(workdir / "dual_squad/train/reader/metrics.jsonl")]
    assert log[0]["step"] > 4, "it went on from the checkpoint"
    recorded = read_json(workdir / "dual_squad/train/stage.json")["settings"]
    assert recorded["rules"] == {"embed": "data"} and recorded["mesh"]["data"] == 2
    flags.append("--config.target_recipe.learning_rate=1e-4")
    status, _, err = train_reader(workdir, *flags, variables=devices)
    assert status == 2 and "(target_recipe.learning_rate: 0.001 then, 0.0001 now)" in err


def test_sigterm_outside_of_a_training_ends_with_75_and_the_run_continues_to_the_same_bits(
    reading_run, train_reader, tmp_path
):
    """While it makes its vocabulary, and while it reads."""
    workdir = tmp_path / "w"
    for moment, unfinished in (
        ("config.json", "source"),
        ("cascade/train/stage.json", "cascade/read"),
    ):
        process = train_reader.start(workdir, BOTH)
        wait_for(workdir / moment, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
        assert process.returncode == PREEMPTED, err
        assert "stopped by SIGTERM; the same command continues" in err and "Traceback" not in err
        assert not (workdir / unfinished / "stage.json").exists(), "told too late"
    status, _, err = train_reader(workdir, BOTH)
    assert status == 0, err
    assert results(workdir) == results(reading_run)
