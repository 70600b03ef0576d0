"""Losses against float64 NumPy, chunked and sharded against plain."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax import sharding
from clmrc_jax.files import InputError
from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.train import objectives
from clmrc_jax.train.objectives import contrastive_loss, contrastive_scores, token_cross_entropy

BERT = bert.BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=16,
    max_position_embeddings=8,
    initializer_range=0.5,
)
CONFIG = biencoder.BiEncoderConfig(BERT)
MT5 = mt5.Mt5Config(
    vocab_size=24, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_decoder_layers=1, num_heads=2
)


def reference_loss(questions, passages, batch, mask_duplicates=True, mask_articles=True):
    """CORA eq. 2 in loops: per question, the log-sum over the contexts that count."""
    losses, ranks = [], []
    rows, contexts = batch["passage_key"].shape
    for i in range(rows):
        scores, positive = [], questions[i] @ passages[i, 0]
        for j in range(rows):
            for c in range(contexts):
                if (j, c) == (i, 0):
                    continue
                same = batch["passage_key"][j, c] == batch["passage_key"][i, 0]
                article = batch["article_key"][j, c]
                sibling = article == batch["article_key"][i, 0] and article >= 0 and j != i
                out = (mask_duplicates and same) or (mask_articles and sibling)
                if batch["passage_valid"][j, c] and not out:
                    scores.append(questions[i] @ passages[j, c])
        logits = np.array([positive, *scores])
        top = logits.max()
        losses.append(top + np.log(np.exp(logits - top).sum()) - positive)
        ranks.append(sum(score > positive for score in scores))
    return np.mean(losses), np.mean(ranks), np.mean(np.array(ranks) == 0)


def random_batch(seed, rows=6, contexts=3):
    rng = np.random.default_rng(seed)
    valid = rng.random((rows, contexts)) < 0.7
    valid[:, 0] = True
    return {
        "passage_valid": valid,
        "passage_key": rng.integers(0, 9, (rows, contexts)).astype(np.int32),
        "article_key": rng.integers(-1, 4, (rows, contexts)).astype(np.int32),
    }


@pytest.mark.parametrize("duplicates", [True, False])
@pytest.mark.parametrize("articles", [True, False])
def test_contrastive_loss_equals_loops(duplicates, articles):
    masks = {"mask_duplicates": duplicates, "mask_articles": articles}
    for seed in range(5):
        batch = random_batch(seed)
        rng = np.random.default_rng(seed + 100)
        questions, passages = rng.normal(size=(6, 8)), rng.normal(size=(6, 3, 8))
        scores = contrastive_scores(jnp.float32(questions), jnp.float32(passages), batch, **masks)
        loss, metrics = contrastive_loss(scores, 3)
        expected, rank, accuracy = reference_loss(questions, passages, batch, **masks)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["average_rank"], rank, atol=1e-6)
        np.testing.assert_allclose(metrics["accuracy"], accuracy, atol=1e-6)
        assert metrics["weight"] == 6


def counted(passage_key, article_key, valid=None, **masks):
    """How many contexts each question is compared with: with equal scores, exp(loss)."""
    keys, articles = np.array(passage_key, np.int32), np.array(article_key, np.int32)
    valid = np.ones(keys.shape, bool) if valid is None else np.array(valid)
    batch = {"passage_key": keys, "article_key": articles, "passage_valid": valid}
    zeros = jnp.zeros((*keys.shape, 2))
    scores = contrastive_scores(zeros[:, 0], zeros, batch, **masks)
    return np.sum(np.asarray(scores) > objectives.EXCLUDED / 2, axis=1).tolist()


def test_two_identical_questions_in_a_batch_do_not_compete():
    same = [[7], [7], [8]]
    assert counted(same, [[-1]] * 3) == [2, 2, 3]
    assert counted(same, [[-1]] * 3, mask_duplicates=False) == [3, 3, 3]
    batch = {"passage_key": np.int32([[7], [7]]), "article_key": np.int32([[-1], [-1]])}
    vectors = jnp.ones((2, 4))
    batch["passage_valid"] = np.ones((2, 1), bool)
    loss, metrics = contrastive_loss(contrastive_scores(vectors, vectors[:, None], batch), 1)
    assert loss == 0 and metrics["average_rank"] == 0 and metrics["accuracy"] == 1


def test_same_article_is_no_negative_but_own_hard_negatives_count():
    keys, article = [[1, 2], [3, 4]], [[5, 5], [5, 6]]
    assert counted(keys, article) == [3, 2]
    assert counted(keys, article, mask_articles=False) == [4, 4]
    assert counted(keys, [[-1, -1], [-1, -1]]) == [4, 4], "unknown articles are not one article"


def test_missing_hard_negatives_never_count():
    keys, article = [[1, 1], [3, 4]], [[-1, -1]] * 2
    masks = {"mask_duplicates": False, "mask_articles": False}
    assert counted(keys, article, [[True, False], [True, True]], **masks) == [3, 3]


def test_perfect_retriever_has_average_rank_zero_and_the_worst_the_last():
    batch = random_batch(0)
    scores = np.full((6, 18), -5.0, np.float32)
    scores[np.arange(6), np.arange(6) * 3] = 5
    assert contrastive_loss(jnp.array(scores), 3)[1]["average_rank"] == 0
    assert contrastive_loss(jnp.array(-scores), 3)[1]["average_rank"] == 17
    assert batch["passage_valid"].all(1).sum() < 6


@functools.cache
def biencoder_case(rows=8, contexts=2):
    rng = np.random.default_rng(3)
    batch = random_batch(4, rows, contexts)
    for name, shape in (("question", (rows, 5)), ("passage", (rows, contexts, 7))):
        lengths = rng.integers(2, shape[-1] + 1, shape[:-1])
        batch[f"{name}_mask"] = np.arange(shape[-1]) < lengths[..., None]
        batch[f"{name}_ids"] = rng.integers(1, 40, shape).astype(np.int32)
    params = jax.tree.map(
        np.asarray, jax.jit(biencoder.init, static_argnums=0)(CONFIG, jax.random.key(0))
    )
    return params, batch


def loss_and_gradients(loss_fn, params, batch, key=None):
    run = jax.jit(jax.value_and_grad(lambda p, b: loss_fn(p, b, key), has_aux=True))
    (loss, _), gradients = run(params, batch)
    return np.asarray(loss), jax.tree.map(np.asarray, gradients)


@functools.cache
def plain_result():
    params, batch = biencoder_case()
    return loss_and_gradients(objectives.contrastive_objective(CONFIG), params, batch)


def assert_same(first, second):
    np.testing.assert_allclose(first[0], second[0], rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(first[1]))
    for a, b in zip(jax.tree.leaves(first[1]), jax.tree.leaves(second[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * largest)


def test_objective_is_the_reference_loss_of_the_encoded_vectors():
    params, batch = biencoder_case()
    encode = jax.jit(biencoder.encode_questions, static_argnums=0)
    questions = encode(CONFIG, params, batch["question_ids"], batch["question_mask"])
    swapped = {"question": params["passage"]}
    ids, mask = (batch[f"passage_{x}"].reshape(16, 7) for x in ("ids", "mask"))
    passages = encode(CONFIG, swapped, ids, mask)
    expected, _, _ = reference_loss(
        np.float64(questions), np.float64(passages).reshape(8, 2, -1), batch
    )
    np.testing.assert_allclose(plain_result()[0], expected, rtol=1e-5)


def test_chunks_change_neither_loss_nor_gradients():
    params, batch = biencoder_case()
    chunked = objectives.contrastive_objective(CONFIG, chunk_size=2)
    assert_same(plain_result(), loss_and_gradients(chunked, params, batch))


@pytest.mark.parametrize("data_ways, model_ways, chunk_size", [(8, 1, 0), (4, 2, 4)])
def test_loss_and_gradients_are_the_same_on_every_mesh(data_ways, model_ways, chunk_size):
    params, batch = biencoder_case()
    mesh = sharding.make_mesh(data_ways, model_ways)
    objective = objectives.contrastive_objective(CONFIG, chunk_size=chunk_size)
    places = sharding.param_shardings(mesh, params, biencoder.PARAM_AXES)
    with sharding.activate(mesh):
        result = loss_and_gradients(
            objective, jax.device_put(params, places), sharding.place_batch(mesh, batch)
        )
    assert_same(plain_result(), result)


def test_chunk_size_must_divide_the_batch():
    params, batch = biencoder_case()
    objective = objectives.contrastive_objective(CONFIG, chunk_size=3)
    with pytest.raises(InputError, match="chunk_size 3 does not divide the 8 rows"):
        jax.eval_shape(lambda p, b: objective(p, b, None), params, batch)


def test_chunks_get_different_dropout():
    """The same question in two chunks is dropped out differently, or chunking would bias."""
    config = dataclasses.replace(CONFIG, bert=dataclasses.replace(BERT, hidden_dropout_prob=0.5))
    params, _ = biencoder_case()
    ids = np.tile(np.arange(1, 6, dtype=np.int32), (4, 1))
    encode = jax.jit(
        lambda key: objectives._encode_in_chunks(
            biencoder.encode_questions, config, params, ids, ids > 0, key, 2
        )
    )
    vectors = np.asarray(encode(jax.random.key(1)))
    assert len(np.unique(vectors.round(4), axis=0)) == 4
    np.testing.assert_array_equal(vectors, encode(jax.random.key(1)))


def test_frozen_passages_get_no_gradient_and_temperature_scales_scores():
    params, batch = biencoder_case()
    objective = objectives.contrastive_objective(CONFIG, temperature=0.5, freeze_passages=True)
    loss, gradients = loss_and_gradients(objective, params, batch)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["passage"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients["question"]))
    doubled = {"question": params["question"], "passage": params["passage"]}
    encode = jax.jit(biencoder.encode_questions, static_argnums=0)
    questions = encode(CONFIG, doubled, batch["question_ids"], batch["question_mask"])
    flat = [batch[f"passage_{x}"].reshape(16, 7) for x in ("ids", "mask")]
    passages = encode(CONFIG, {"question": params["passage"]}, *flat).reshape(8, 2, -1)
    expected, _, _ = reference_loss(np.float64(questions) * 2, np.float64(passages), batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_cross_entropy_equals_numpy_and_ignores_padding(smoothing):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 4, 11)) * 3, rng.integers(0, 11, (3, 4))
    mask = np.arange(4) < np.array([[4], [2], [1]])
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = (1 - smoothing) * np.eye(11)[targets] + smoothing / 11
    expected = -(wanted * np.log(probabilities)).sum(-1)[mask].mean()
    loss, metrics = token_cross_entropy(jnp.float32(logits), targets, mask, smoothing)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["weight"] == 7
    right = (logits.argmax(-1) == targets)[mask].mean()
    np.testing.assert_allclose(metrics["accuracy"], right, rtol=1e-6)
    spoiled = np.where(mask[..., None], logits, 1e4)
    again, _ = token_cross_entropy(jnp.float32(spoiled), targets, mask, smoothing)
    np.testing.assert_array_equal(loss, again)


def test_token_cross_entropy_of_no_token_is_zero():
    loss, metrics = token_cross_entropy(
        jnp.ones((1, 2, 5)), np.zeros((1, 2), int), np.zeros((1, 2))
    )
    assert loss == 0 and np.isfinite(metrics["accuracy"])


def mt5_case():
    rng = np.random.default_rng(5)
    params = jax.jit(mt5.init, static_argnums=0)(MT5, jax.random.key(0))
    tokens = rng.integers(3, 24, (2, 3, 4)).astype(np.int32)
    lengths = np.array([[4, 2, 3], [3, 4, 0]])  # the second question has two passages
    return params, {
        "encoder_input_tokens": tokens,
        "encoder_mask": np.arange(4) < lengths[..., None],
        "decoder_target_tokens": np.int32([[5, 6, 1], [7, 1, 0]]),
        "decoder_mask": np.array([[True] * 3, [True, True, False]]),
    }


def test_fusion_batch_equals_encoding_each_passage_and_concatenating():
    params, batch = mt5_case()
    loss, metrics = jax.jit(objectives.seq2seq_objective(MT5), static_argnums=2)(
        params, batch, None
    )
    encode = jax.jit(mt5.encode, static_argnums=0)
    decode = jax.jit(mt5.decode, static_argnums=0)
    losses = []
    for i in range(2):
        states = []
        for tokens, mask in zip(batch["encoder_input_tokens"][i], batch["encoder_mask"][i]):
            if mask.any():
                states.append(
                    np.asarray(encode(MT5, params, tokens[None, mask], mask[None, mask]))[0]
                )
        states = np.concatenate(states)[None]
        targets = batch["decoder_target_tokens"][i][batch["decoder_mask"][i]]
        inputs = np.int32([[0, *targets[:-1]]])
        logits = np.float64(decode(MT5, params, states, np.ones(states.shape[:2], bool), inputs))[0]
        normal = np.log(np.exp(logits).sum(-1))
        losses += (normal - logits[np.arange(len(targets)), targets]).tolist()
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    assert metrics["weight"] == 5


def test_single_source_batch_ignores_padding_of_source_and_target():
    params, batch = mt5_case()
    single = {k: v[:, 0] if k.startswith("encoder") else v for k, v in batch.items()}
    objective = jax.jit(objectives.seq2seq_objective(MT5), static_argnums=2)
    loss, _ = objective(params, single, None)
    mask = single["encoder_mask"]
    other = single | {"encoder_input_tokens": np.where(mask, single["encoder_input_tokens"], 9)}
    targets = np.where(single["decoder_mask"], single["decoder_target_tokens"], 13)
    again, _ = objective(params, other | {"decoder_target_tokens": targets}, None)
    np.testing.assert_allclose(loss, again, rtol=1e-6)


def test_masked_lm_reads_only_weighted_positions():
    keys = jax.random.split(jax.random.key(2))
    init = jax.jit(bert.init, static_argnums=0)
    head = jax.jit(bert.init_masked_lm_head, static_argnums=0)
    params = {"bert": init(BERT, keys[0]), "head": head(BERT, keys[1])}
    batch = {
        "input_ids": np.int32([[3, 9, 4, 8], [3, 5, 8, 0]]),
        "attention_mask": np.array([[True] * 4, [True, True, True, False]]),
        "masked_positions": np.int32([[1, 2], [1, 0]]),
        "masked_labels": np.int32([[11, 12], [13, 0]]),
        "masked_weights": np.array([[True, True], [True, False]]),
    }
    objective = jax.jit(objectives.masked_lm_objective(BERT), static_argnums=2)
    loss, metrics = objective(params, batch, None)
    encode = jax.jit(bert.encode, static_argnums=0)
    hidden = encode(BERT, params["bert"], batch["input_ids"], batch["attention_mask"])
    logits_of = jax.jit(bert.masked_lm_logits, static_argnums=0)
    logits = np.float64(logits_of(BERT, params["bert"], params["head"], hidden))
    picked = [(0, 1, 11), (0, 2, 12), (1, 1, 13)]
    expected = [np.log(np.exp(logits[r, p]).sum()) - logits[r, p, label] for r, p, label in picked]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    assert metrics["weight"] == 3
