"""The main command from a question to an answer, killed and continued."""

import json
import random
import resource
import shutil
import signal
import time
import types
import zlib

import jax
import numpy as np
import pytest

from clmrc_jax import hosts
from clmrc_jax.data.qa_examples import Question
from clmrc_jax.evaluate.recall import score_retrieval
from clmrc_jax.files import read_json, read_jsonl, write_json, write_jsonl
from clmrc_jax.pipelines.cora import Cora, _last_metrics
from clmrc_jax.pipelines.settings import cora_settings
from clmrc_jax.pipelines.stages import Run

STAGES = ("mdpr", "index", "retrieved", "mgen", "answers", "scores")
TOWER = "mdpr/model/{}/model.safetensors"


def contents(workdir):
    """Every file of a workdir that must not change, by relative path."""
    changing = ("report", "figures", "lock", "compilation_cache")
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("*"))
        if path.is_file() and path.relative_to(workdir).parts[0].split(".")[0] not in changing
    }


def results(workdir):
    """The final scores and all weights."""
    names = ["scores/metrics.json", "mgen/model/model.safetensors"]
    names += [TOWER.format(tower) for tower in ("question", "passage")]
    return {
        f"round_{r}/{name}": (workdir / f"round_{r}" / name).read_bytes()
        for r in range(2)
        for name in names
    }


def test_run_leaves_the_files_of_every_stage(smoke_run):
    for round in range(2):
        folder = smoke_run / f"round_{round}"
        for stage in (*STAGES, *(["mined"] if round == 0 else [])):
            manifest = read_json(folder / stage / "stage.json")
            assert manifest["stage"] == f"round_{round}/{stage}" and manifest["counts"]
    assert not (smoke_run / "round_1" / "mined").exists(), "nothing trains on it"
    counts = read_json(smoke_run / "corpus" / "stage.json")["counts"]
    assert counts["test questions"] == 26 * 8 and len(counts["languages"]) == 13
    assert not list(smoke_run.rglob("*.tmp-*"))
    assert {path.name for path in (smoke_run / "round_0/mined").iterdir()} == {
        "stage.json",
        "mined.jsonl",
        "training.jsonl",
    }


def test_manifests_tell_what_validation_said(smoke_run):
    mdpr = read_json(smoke_run / "round_1/mdpr/stage.json")["counts"]
    assert {"loss", "valid/nll", "valid/average_rank"} <= set(mdpr)
    mgen = read_json(smoke_run / "round_1/mgen/stage.json")["counts"]
    assert {"loss", "valid/exact_match"} <= set(mgen)


def test_manifest_tells_the_validation_of_the_parameters_kept(tmp_path):
    lines = [{"step": 2, "loss": 1.5, "valid/nll": 0.2}, {"step": 4, "loss": 1.0, "valid/nll": 0.9}]
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    write_json(tmp_path / "finished.json", {"step": 4, "metrics": {"nll": 0.9}})
    assert _last_metrics(tmp_path) == {"loss": 1.0, "valid/nll": 0.9}
    write_json(tmp_path / "finished.json", {"step": 2, "metrics": {"nll": 0.2}})
    assert _last_metrics(tmp_path) == {"kept_step": 2.0, "loss": 1.0, "valid/nll": 0.2}


@pytest.fixture
def retrieved(tmp_path):
    """A Cora that is nothing but finished stages of round 0 in tmp_path, and its retrieval run."""
    ctxs = [{"id": "p", "lang": "en", "title": "Oulu", "text": "a town", "score": 1.0}]
    run = [
        {"q_id": f"{i}_fi", "question": "?", "lang": "fi", "answers": [answer], "ctxs": ctxs * 3}
        for i, answer in enumerate(["Oulu", "Turku"] * 10)
    ]
    for split in ("dev", "test"):
        write_jsonl(tmp_path / f"round_0/retrieved/{split}.jsonl", run)
    write_json(tmp_path / "round_0/index/stage.json", {"counts": {"index_recall": 0.5}})
    questions = [Question(row["q_id"], "?", "fi", tuple(row["answers"])) for row in run]
    cora = object.__new__(Cora)
    cora.settings = types.SimpleNamespace(
        generate=False,
        generator=types.SimpleNamespace(validation_rows=7),
        evaluation=types.SimpleNamespace(split="test", recall_at=2),
    )
    cora.run = Run(tmp_path, quiet=True)
    cora.corpus = types.SimpleNamespace(gold=lambda: None, questions=lambda split: questions)
    return cora, run


def test_the_first_process_alone_reads_the_run_and_scores_it(retrieved, tmp_path, monkeypatch):
    cora, run = retrieved
    folder, returned = tmp_path / "round_0/scores", []
    monkeypatch.setattr(Cora, "_stage", lambda *call: returned.append(call[-1](folder)))
    with monkeypatch.context() as patch:
        patch.setattr(hosts, "is_first", lambda: False)
        patch.setattr("clmrc_jax.pipelines.cora.score_retrieval", None)
        patch.setattr("clmrc_jax.pipelines.cora.JsonlRows", None)
        cora.evaluate(0, 9)
    assert not folder.exists()
    cora.evaluate(0, 9)
    assert returned == [{}, {"r_multi@2": 50}]
    scores, metrics = score_retrieval(run, k=2), read_json(folder / "metrics.json")
    assert metrics["retrieval"] == {"languages": scores.languages, "macro": scores.macro}
    assert metrics["matrix"] == {"fi": {"en": 100}} and metrics["index_recall"] == 0.5


def test_every_process_has_its_part_in_the_recall_of_gold(retrieved, tmp_path, monkeypatch):
    """It encodes the questions, with parameters that lie on the devices of all processes."""
    cora, asked = retrieved[0], []
    monkeypatch.setattr(Cora, "_stage", lambda *call: call[-1](tmp_path / "scores"))
    monkeypatch.setattr(Cora, "_gold_recall", lambda self, embeddings: asked.append(embeddings))
    monkeypatch.setattr("clmrc_jax.pipelines.cora.EmbeddingStore", str)
    write_json(tmp_path / "zero_shot/gold_recall.json", {})
    cora.corpus.gold = dict
    for first in (False, True):
        monkeypatch.setattr(hosts, "is_first", lambda first=first: first)
        cora.evaluate(0, 9)
    assert len(asked) == 2 and "gold" in read_json(tmp_path / "scores/metrics.json")


def test_validation_of_mgen_reads_its_sample_alone(retrieved, monkeypatch):
    cora, run = retrieved
    sample, shown = random.Random(0).sample(run, 7), []

    def answer(params, items, **how):
        shown.append(items)
        return ["Oulu"] * len(items), None, None

    cora.generator = types.SimpleNamespace(answer=answer)
    monkeypatch.setattr("clmrc_jax.pipelines.cora.read_run", None)
    monkeypatch.setattr("clmrc_jax.pipelines.cora.item", lambda row: row["q_id"])
    found = cora._generator_validation(0)({}, 1)
    assert shown == [[row["q_id"] for row in sample]]
    right = [row["answers"] == ["Oulu"] for row in sample]
    assert found == {"exact_match": pytest.approx(np.mean(right))} and 0 < sum(right) < 7


def test_answers_runs_and_scores_speak_of_the_same_questions(smoke_run):
    questions = [row for _, row in read_jsonl(smoke_run / "corpus/questions.test.jsonl")]
    ids = [row["id"] for row in questions]
    for round in range(2):
        folder = smoke_run / f"round_{round}"
        run = [row for _, row in read_jsonl(folder / "retrieved/test.jsonl")]
        assert [row["q_id"] for row in run] == ids
        assert all(row["question"] == q["question"] for row, q in zip(run, questions))
        for row in run:
            scores = [ctx["score"] for ctx in row["ctxs"]]
            assert len(scores) == 20 and scores == sorted(scores, reverse=True)
            assert len({ctx["id"] for ctx in row["ctxs"]}) == 20
        for name in ("test.json", "test.closed_book.json", "test.scores.json"):
            assert list(read_json(folder / "answers" / name)) == ids
        metrics = read_json(folder / "scores/metrics.json")
        languages = {row["lang"] for row in questions}
        assert set(metrics["answers"]["languages"]) == languages
        assert set(metrics["closed_book"]["languages"]) == languages
        assert 0 <= metrics["retrieval"]["macro"]["r_multi@10"] <= 100


def test_mining_adds_rows_and_keeps_the_annotated_ones(smoke_run):
    annotated = [row for _, row in read_jsonl(smoke_run / "corpus/annotated.jsonl")]
    training = [row for _, row in read_jsonl(smoke_run / "round_0/mined/training.jsonl")]
    counts = read_json(smoke_run / "round_0/mined/stage.json")["counts"]
    assert [row["q_id"] for row in training[: len(annotated)]] == [r["q_id"] for r in annotated]
    assert counts["linked"] > 50 and counts["rows"] == len(training)
    for old, new in zip(annotated, training):
        assert new["positive_ctxs"][0] == old["positive_ctxs"][0], "the gold passage stays"
    mined = read_json(smoke_run / "round_1/mdpr/stage.json")["counts"]["rows"]
    assert mined == len(training), "round 1 trains on them"


def test_weights_of_both_models_rest_on_the_host(smoke_run):
    settings = cora_settings(read_json(smoke_run / "config.json"))
    made = Cora(settings, Run(smoke_run, quiet=True))
    started = made.parameters()
    made.train()  # every stage is done: it only loads
    for params in (started, made.parameters()):
        assert set(params) == {"retriever", "generator"}
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))


def test_trainings_record_all_that_a_continued_one_must_share(smoke_run):
    """The loop refuses to go on with other values (test_retriever.py)."""
    folder = smoke_run / "round_1"
    config = read_json(folder / "mdpr/retriever/finished.json")["config"]
    assert config["retriever"]["batch_size"] == 16 and config["retriever"]["positives"] == "uniform"
    assert config["retriever_format"]["tag_language"] and "save_every" not in config["retriever"]
    assert config["retriever_head"]["pooling"] == "cls" and config["retriever_model"]["sizes"]
    rows = (smoke_run / "round_0/mined/training.jsonl").read_bytes()
    assert config["rows"] == zlib.crc32(rows)
    config = read_json(folder / "mgen/generator/finished.json")["config"]
    assert config["generator"]["label_smoothing"] == 0 and config["generator_format"]["passages"]
    assert config["mining"]["copy_numbers"] and config["synthetic_languages"]
    assert config["rows"] == zlib.crc32((folder / "retrieved/train.jsonl").read_bytes())


def test_report_is_written_and_printed(smoke_run):
    report = read_json(smoke_run / "report.json")
    assert len(report["rounds"]) == 2 and report["corpus"]["passages"] > 500
    assert any("RANDOM weights" in note for note in report["notes"])
    assert report["examples"][0]["ctxs"][0]["lang"]
    assert "# " in (smoke_run / "report.md").read_text("utf-8")
    assert len(list((smoke_run / "figures").glob("*.png"))) >= 2
    printed = (smoke_run.parent / "stdout.txt").read_text()
    assert "report.md" in printed and "Japanese" in printed
    log = (smoke_run.parent / "stderr.txt").read_text()
    assert "round_1/scores: " in log and "CheckpointManager" not in log


def test_profile_traces_the_trainings_that_are_long_enough(smoke_run):
    for training in ("round_0/mgen/generator", "round_1/mdpr/retriever", "round_1/mgen/generator"):
        assert list((smoke_run / training / "profile").rglob("*.xplane.pb")), training
    log = (smoke_run.parent / "stderr.txt").read_text()
    for name, steps in (("retriever_english", 1), ("retriever", 3)):
        assert f"{name}: its steps 1..{steps} lie outside profile=(4, 5), no trace" in log
        assert not (smoke_run / "round_0/mdpr" / name / "profile").exists()


def test_second_call_does_no_stage_again_with_or_without_a_profile(smoke_run, train):
    before = contents(smoke_run)
    status, out, err = train(smoke_run, "--json")
    assert status == 0, err
    stages = [line for line in err.splitlines() if line.startswith(("corpus", "round_"))]
    assert len(stages) == 14 and all("done before" in line for line in stages)
    after = contents(smoke_run)
    assert [name for name in before if after.get(name) != before[name]] == []
    last = json.loads(out)
    assert last["round"] == 1, "stdout is JSON and nothing else"


def test_other_settings_are_refused(smoke_run, train):
    before = contents(smoke_run)
    status, _, err = train(smoke_run, "--config.seed=1")
    assert status == 2 and "error: " in err and "seed: 0 then, 1 now" in err
    assert "Traceback" not in err and contents(smoke_run) == before


def test_full_disk_stops_with_a_message_and_leaves_no_half_written_stage(train, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    status, _, err = train(tmp_path / "w", preexec_fn=limit)
    assert status == 2 and "corpus/annotated.jsonl: cannot write" in err and "free space" in err
    left = [path.name for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert set(left) <= {"lock", "config.json"}, "no half-written file has a name that is read"


def wait_for(path, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert path.exists(), f"{path} never came"


@pytest.mark.slow
def test_killed_three_times_the_run_ends_with_the_same_bits(smoke_run, launch, train, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(smoke_run / "corpus", workdir / "corpus")
    moments = {
        "retriever training": "round_0/mdpr/retriever_english/finished.json",
        "encoding": "round_0/mdpr/stage.json",
        "mining": "round_0/scores/stage.json",
        "generator training": "round_1/retrieved/stage.json",
    }
    for moment, file in moments.items():
        flags = ("--config=configs/cora.py:smoke", f"--workdir={workdir}")
        with open(tmp_path / "log", "w") as log:
            process = launch("tpu_train", *flags, stdout=log, stderr=log)
            wait_for(workdir / file, process)
            time.sleep(0.3)
            assert process.poll() is None, f"too late to be killed in {moment}"
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert not (workdir / "round_1/mgen/stage.json").exists()
    status, _, err = train(workdir)
    assert status == 0, err
    assert results(workdir) == results(smoke_run)
