"""mDPR as an object: training by rounds, validation, encoding."""

import dataclasses
import errno
import os

import jax
import numpy as np
import pytest

from clmrc_jax import sharding
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.files import InputError, read_json
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.pipelines import models
from clmrc_jax.pipelines.generator import GeneratorTraining
from clmrc_jax.pipelines.retriever import Retriever, RetrieverTraining, _Rows
from clmrc_jax.retrieval.batches import PassageTokens
from clmrc_jax.train.optimizer import OptimizerConfig

TRAINING = RetrieverTraining(
    steps=(4, 2),
    batch_size=8,
    english_first=0.5,
    save_every=100,
    log_every=1,
    encode_batch=16,
    embeddings="float32",
)
BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module")
def retriever(vocabulary):
    model = BiEncoderConfig(BertConfig(vocab_size=2500, **BERT), tied=True)
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    format = RetrieverFormat(question_buckets=(64,), passage_buckets=(128,))
    optimizer = OptimizerConfig(learning_rate=1e-3)
    return Retriever(model, TRAINING, optimizer, format, vocabulary, mesh, sharding.DEFAULT_RULES)


@pytest.fixture(scope="module")
def params(retriever):
    return jax.jit(retriever.init, static_argnums=0)(0)


def test_steps_of_later_rounds_repeat_the_last_entry():
    assert [TRAINING.steps_of(round) for round in range(4)] == [4, 2, 2, 2]


def test_validation_ranks_all_questions_against_all_contexts(retriever, params, smoke_corpus):
    rows = [row | {"hard_negative_ctxs": []} for row in smoke_corpus.rows("dev")][:12]
    gold = [row["positive_ctxs"][0] for row in rows]
    questions = retriever.encode_questions(params, [(r["question"], r["lang"]) for r in rows])
    texts = [(ctx["title"], ctx["text"]) for ctx in gold]
    ids = retriever.format.passages(retriever.tokenizer, texts)
    passages = retriever._encode_ids(retriever._encode_passages, params, ids, (128,))
    scores = np.float64(questions) @ np.float64(passages).T
    ranks, losses = [], []
    for i, own in enumerate(gold):
        others = [j for j, ctx in enumerate(gold) if ctx["article_id"] != own["article_id"]]
        ranks.append(np.sum(scores[i, others] > scores[i, i]))
        losses.append(np.log(np.exp(scores[i, [i, *others]] - scores[i, i]).sum()))
    values = retriever.validate(params, rows)
    assert set(values) == {"nll", "accuracy", "average_rank"} and len(set(ranks)) > 3
    np.testing.assert_allclose(values["average_rank"], np.mean(ranks), rtol=1e-6)
    np.testing.assert_allclose(values["nll"], np.mean(losses), rtol=1e-3)
    np.testing.assert_allclose(values["accuracy"], np.mean(np.array(ranks) == 0), rtol=1e-6)


def test_round_0_reads_english_first_and_later_rounds_do_not(
    retriever, params, smoke_corpus, tmp_path, monkeypatch
):
    rows = list(smoke_corpus.rows("annotated"))[:40]
    assert {"en"} < {row["lang"] for row in rows}
    asked = []
    text = retriever.format.question_text
    monkeypatch.setattr(
        type(retriever.format),
        "question_text",
        lambda self, question, lang: asked.append(lang) or text(question, lang),
    )
    first = retriever.train(params, rows, [], round=0, seed=1, workdir=tmp_path / "0")
    assert set(asked[:16]) == {"en"} and {"en"} < set(asked), "two batches of 8, then all"
    retriever.train(first, rows, [], round=1, seed=2, workdir=tmp_path / "1")
    for folder, name in (("0", "retriever_english"), ("0", "retriever"), ("1", "retriever")):
        assert read_json(tmp_path / folder / name / "finished.json")["step"] == 2
    assert not (tmp_path / "1" / "retriever_english").exists()
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, first)
    assert max(jax.tree.leaves(moved)) > 0


def test_half_trained_retriever_goes_on_with_its_own_settings_alone(
    retriever, params, smoke_corpus, tmp_path, monkeypatch
):
    rows = [row for row in smoke_corpus.rows("annotated")][:16]

    def train(config):
        where = {"workdir": tmp_path, "config": config}
        return retriever.train(params, rows, [], round=1, seed=2, **where)

    validate = type(retriever).validate
    monkeypatch.setattr(retriever, "training", dataclasses.replace(TRAINING, save_every=1))
    monkeypatch.setattr(type(retriever), "validate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # killed after the last update, before the end
        retriever.train(params, rows, rows, round=1, seed=2, workdir=tmp_path, config={"x": 1})
    monkeypatch.setattr(type(retriever), "validate", validate)
    with pytest.raises(InputError, match="was made with x=1, now x=2; use the old value"):
        train({"x": 2})
    train({"x": 1})
    assert read_json(tmp_path / "retriever/finished.json")["config"]["x"] == 1


def leaves(params):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def test_validation_on_the_way_changes_nothing_unless_the_best_is_kept(
    retriever, params, smoke_corpus, tmp_path, monkeypatch
):
    rows, dev = list(smoke_corpus.rows("annotated"))[:24], smoke_corpus.rows("dev")
    seen, ranks = [], iter([3.0, 1.0, 2.0, 4.0])

    def train(name, **changes):
        changed = dataclasses.replace(TRAINING, steps=(4,), validation_rows=8, **changes)
        monkeypatch.setattr(retriever, "training", changed)
        trained = retriever.train(params, rows, dev, round=1, seed=3, workdir=tmp_path / name)
        return leaves(trained), read_json(tmp_path / name / "retriever/finished.json")["step"]

    plain, _ = train("plain")
    often, _ = train("often", validate_every=1)
    for a, b in zip(plain, often):
        np.testing.assert_array_equal(a, b)

    def validate(self, p, validation):
        seen.append((leaves(p), [row["q_id"] for row in validation]))
        return {"average_rank": next(ranks)}

    monkeypatch.setattr(type(retriever), "validate", validate)
    best, step = train("best", validate_every=1, best=True)
    assert step == 2, "the lowest rank"
    for kept, then in zip(best, seen[1][0]):
        np.testing.assert_array_equal(kept, then)
    assert any((a != b).any() for a, b in zip(best, plain))
    ids = {tuple(validated) for _, validated in seen}
    assert len(seen) == 4 and len(ids) == 1, "the same questions every time"
    assert list(ids.pop()) != [row["q_id"] for row in dev][:8], "a sample, not the first ones"


def test_english_rows_are_not_held_in_memory(smoke_corpus):
    rows = smoke_corpus.rows("annotated")
    english = _Rows.of_language(rows, "en")
    assert list(english) == [row for row in rows if row["lang"] == "en"]
    assert english.source is rows and english.numbers.nbytes == 4 * len(english) > 0
    assert not _Rows.of_language(rows, "none")


def test_corpus_rows_are_store_rows(retriever, params, smoke_corpus, tmp_path):
    embeddings = retriever.encode_corpus(params, smoke_corpus.store, tmp_path / "e")
    assert embeddings.shape == (len(smoke_corpus.store), 16)
    rows = [0, 7, len(smoke_corpus.store) - 1]
    passages = smoke_corpus.store.get_many(rows)
    tokens = PassageTokens(retriever.tokenizer_folder, retriever.format)(passages)
    direct = retriever._encode_ids(retriever._encode_passages, params, tokens, (128,))
    stored = np.concatenate([embeddings.rows(row, row + 1) for row in rows])
    np.testing.assert_allclose(stored, direct, atol=1e-5)
    assert len(retriever.encode_questions(params, [])) == 0
    bert = dataclasses.replace(retriever.model.bert, remat=True)
    again = Retriever(
        dataclasses.replace(retriever.model, bert=bert),
        dataclasses.replace(TRAINING, encode_batch=8),
        OptimizerConfig(),
        retriever.format,
        retriever.tokenizer_folder,
        retriever.mesh,
        sharding.DEFAULT_RULES,
    )
    same = again.encode_corpus(params, smoke_corpus.store, tmp_path / "e")
    assert same.spec == embeddings.spec, "speed and memory are no part of what was encoded"


def test_unknown_choice_is_refused():
    with pytest.raises(InputError, match="positives 'best': choose one of uniform, first"):
        RetrieverTraining(positives="best")


@pytest.mark.parametrize("settings", [RetrieverTraining, GeneratorTraining])
def test_best_needs_validations_to_choose_from(settings):
    assert settings(best=True, validate_every=5).best
    for changes in ({}, {"validate_every": 5, "validation_rows": 0}):
        with pytest.raises(InputError, match="best=True keeps the best .*: set validate_every"):
            settings(best=True, **changes)
    with pytest.raises(InputError, match="validate_every is -1; 0 validates at the end only"):
        settings(validate_every=-1)


def test_projection_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / models.PROJECTION).write_bytes(b"former")
    kernel = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=f"{models.PROJECTION}: cannot write"):
            models._save_projection(tmp_path, kernel)
    assert (tmp_path / models.PROJECTION).read_bytes() == b"former"
    models._save_projection(tmp_path, kernel)
    np.testing.assert_array_equal(models.load_projection(tmp_path)["kernel"], kernel["kernel"])
    assert len(list(tmp_path.iterdir())) == 1
