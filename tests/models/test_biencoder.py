"""Pooling, towers and projection of the bi-encoder against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.models import bert, biencoder
from clmrc_jax.models.biencoder import BiEncoderConfig, pool

encode_questions = jax.jit(biencoder.encode_questions, static_argnums=0)
encode_passages = jax.jit(biencoder.encode_passages, static_argnums=0)
init = jax.jit(biencoder.init, static_argnums=0)

BERT = bert.BertConfig(
    vocab_size=31,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    initializer_range=0.3,
)
IDS = np.random.default_rng(0).integers(1, 31, (3, 6))
MASK = np.arange(6)[None] < np.array([[6], [2], [1]])


def test_pool_cls_is_the_first_token_and_mean_leaves_padding_out():
    hidden = np.random.default_rng(0).standard_normal((3, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(pool(jnp.array(hidden), MASK, "cls"), hidden[:, 0])
    expected = [row[: mask.sum()].mean(0) for row, mask in zip(hidden, MASK, strict=True)]
    np.testing.assert_allclose(
        pool(jnp.array(hidden), jnp.array(MASK), "mean"), expected, atol=1e-6
    )


def test_pool_mean_of_an_empty_row_is_zero_not_nan():
    assert not np.asarray(pool(jnp.ones((1, 3, 2)), jnp.zeros((1, 3), bool), "mean")).any()


def test_tied_towers_agree_and_separate_ones_differ():
    tied = BiEncoderConfig(BERT, tied=True)
    params = init(tied, jax.random.key(0))
    assert set(params) == {"shared"}
    question = encode_questions(tied, params, IDS, MASK)
    np.testing.assert_array_equal(question, encode_passages(tied, params, IDS, MASK))
    separate = dataclasses.replace(tied, tied=False)
    params = init(separate, jax.random.key(0))
    assert set(params) == {"question", "passage"}
    question = encode_questions(separate, params, IDS, MASK)
    assert np.abs(question - encode_passages(separate, params, IDS, MASK)).max() > 0.1


def test_projection_and_unit_length():
    config = BiEncoderConfig(BERT, pooling="mean", tied=True, projection=5, normalize=True)
    params = init(config, jax.random.key(0))
    vectors = encode_questions(config, params, IDS, MASK)
    assert vectors.shape == (3, config.embedding_size) == (3, 5)
    hidden = jax.jit(bert.encode, static_argnums=0)(BERT, params["shared"]["bert"], IDS, MASK)
    expected = pool(hidden, jnp.array(MASK), "mean") @ params["shared"]["projection"]["kernel"]
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_init_pretrained_starts_both_towers_from_it():
    pretrained = {"any": "tree"}
    params = biencoder.init(BiEncoderConfig(BERT), jax.random.key(0), pretrained)
    assert params["question"]["bert"] is pretrained and params["passage"]["bert"] is pretrained


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="'cls' or 'mean', got 'max'"):
        BiEncoderConfig(BERT, pooling="max")
