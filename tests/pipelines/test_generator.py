"""mGEN as an object: answers do not depend on batching, devices or order."""

import dataclasses

import jax
import numpy as np
import pytest

from clmrc_jax import sharding
from clmrc_jax.data.generator_features import GeneratorFormat
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines.generator import Generator, GeneratorTraining, _until_eos
from clmrc_jax.train.optimizer import OptimizerConfig

TRAINING = GeneratorTraining(
    steps=(3,), batch_size=8, generate_batch=8, beams=2, max_length=5, save_every=100, log_every=1
)
MODEL = Mt5Config(
    vocab_size=2500,
    d_model=16,
    d_kv=8,
    d_ff=16,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    dropout_rate=0.0,
)
FORMAT = GeneratorFormat(passages=2, source_buckets=(64, 128), target_length=8)


def made(vocabulary, mesh, **format):
    format = dataclasses.replace(FORMAT, **format)
    rules, optimizer = sharding.DEFAULT_RULES, OptimizerConfig(learning_rate=1e-2)
    return Generator(MODEL, TRAINING, optimizer, format, vocabulary, mesh, rules)


@pytest.fixture(scope="module")
def generator(vocabulary):
    return made(vocabulary, sharding.make_mesh(1, 1, jax.devices()[:1]))


@pytest.fixture(scope="module")
def params(generator):
    spread = jax.tree.map(lambda x: 3 * x, jax.jit(generator.init, static_argnums=0)(0))
    return jax.tree.map(np.asarray, spread)


@pytest.fixture(scope="module")
def items(smoke_corpus):
    """Questions with 0 to 2 passages: sources of many lengths."""
    passages = [dataclasses.asdict(p) for p in smoke_corpus.store.get_many(range(0, 600, 30))]
    questions = smoke_corpus.questions("test")[:11]
    return [(q.question, q.lang, passages[i : i + i % 3]) for i, q in enumerate(questions)]


def test_answers_come_in_order_and_do_not_depend_on_their_neighbours(generator, params, items):
    texts, scores, survived = generator.answer(params, items)
    assert len(texts) == len(scores) == len(survived) == len(items) == 11
    assert len(set(texts)) > 3, "the random model must tell the sources apart"
    again, scores_again, _ = generator.answer(params, items[::-1])
    assert again[::-1] == texts
    np.testing.assert_allclose(scores_again[::-1], scores, rtol=1e-4)
    alone, _, _ = generator.answer(params, [items[5]])
    assert alone == [texts[5]]
    assert all(s <= len(item[2]) for s, item in zip(survived, items))


def test_greedy_is_asked_for_with_one_beam(generator, params, items):
    texts, scores, _ = generator.answer(params, items[:8], beams=1)
    beams, beam_scores, _ = generator.answer(params, items[:8])
    assert len(texts) == len(beams) == 8 and max(scores) <= 0 and max(beam_scores) <= 0


def test_no_item_gives_no_answer(generator, params):
    assert generator.answer(params, []) == ([], [], [])


@pytest.mark.slow
def test_answers_are_the_same_on_eight_devices(generator, vocabulary, params, items):
    spread = made(vocabulary, sharding.make_mesh(8, 1))
    assert spread.answer(params, items)[0] == generator.answer(params, items)[0]


@pytest.mark.slow
def test_fusion_answers_do_not_depend_on_missing_passages(vocabulary, params, items):
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    fusion = made(vocabulary, mesh, fusion=True, source_buckets=(64, 256))  # none is cut
    texts, _, survived = fusion.answer(params, items)
    two = [item for item in items if len(item[2]) == 1]
    assert fusion.answer(params, two)[0] == [t for t, i in zip(texts, items) if len(i[2]) == 1]
    assert survived == [len(item[2]) for item in items]


def test_training_lowers_the_loss_and_validates_at_the_end(generator, params, items, tmp_path):
    seen = []

    def validate(params, step):
        seen.append(step)
        return {"exact_match": 0.5}

    rows = [(question, lang, ctxs, "answer") for question, lang, ctxs in items]
    trained = generator.train(
        params,
        rows,
        lambda row, rng, epoch: row,
        round=0,
        seed=0,
        workdir=tmp_path,
        validate=validate,
        steps=6,
    )
    assert seen == [6] and (tmp_path / "generator" / "finished.json").exists()
    lines = (tmp_path / "generator" / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0] and '"valid/exact_match": 0.5' in lines[-1]
    assert jax.tree.structure(trained) == jax.tree.structure(params)


def test_rows_of_like_length_share_batches(generator, params, tmp_path):
    words = ["word " * (12 * (i % 2) + 1) for i in range(16)]
    rows = [("who?", "en", [{"title": "T", "text": text}], "answer") for text in words]
    seen = []

    def choose(row, rng, epoch):
        seen.append(len(row[2][0]["text"]))
        return row

    generator.train(
        *(params, rows, choose),
        **{"round": 0, "seed": 0, "workdir": tmp_path, "steps": len(rows) // TRAINING.batch_size},
        lengths=[len(text) for text in words],
    )
    batches = np.reshape(seen[: len(rows)], (-1, TRAINING.batch_size))
    assert (batches == batches[:, :1]).all() and len(set(batches[:, 0])) == 2


def test_best_keeps_the_highest_exact_match(generator, params, items, tmp_path, monkeypatch):
    changed = dataclasses.replace(TRAINING, steps=(6,), validate_every=2, best=True)
    monkeypatch.setattr(generator, "training", changed)
    seen = {}

    def validate(params, step):
        seen[step] = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
        return {"exact_match": {2: 0.1, 4: 0.7, 6: 0.3}[step]}

    rows = [(question, lang, ctxs, "answer") for question, lang, ctxs in items]
    place = {"workdir": tmp_path, "validate": validate}
    trained = generator.train(params, rows, lambda row, *_: row, round=0, seed=0, **place)
    assert list(seen) == [2, 4, 6]
    for kept, then in zip(jax.tree.leaves(trained), seen[4]):
        np.testing.assert_array_equal(kept, then)


def test_until_eos_drops_the_start_and_what_follows_the_end():
    assert _until_eos(np.array([0, 7, 8, 1, 9, 0]), MODEL) == [7, 8]
    assert _until_eos(np.array([0, 7, 8]), MODEL) == [7, 8]
    assert _until_eos(np.array([0, 1, 1]), MODEL) == []
