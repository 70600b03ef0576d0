"""BERT against PyTorch, sub-module by sub-module; golden files from tests/golden/make_goldens.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from clmrc_jax.models import bert, weight_maps
from clmrc_jax.models.biencoder import pool
from clmrc_jax.models.layers import mask_to_bias
from clmrc_jax.sharding import flatten_paths
from clmrc_jax.train.pretrained import load_bert

TOLERANCE = 1e-5  # hidden states are of size 1


@pytest.fixture(params=["bert_wide", "bert_deep"])
def golden(request, repository):
    """(config, params, arrays, gradients by published name)."""
    folder = repository / "tests/golden"
    config, params = load_bert(folder / request.param)
    arrays = dict(np.load(folder / f"{request.param}.npz"))
    return config, params, arrays, load_file(folder / f"{request.param}_grads.safetensors")


jitted_encode = jax.jit(bert.encode, static_argnums=0)


def encode(config, params, arrays):
    inputs = (arrays[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    return jitted_encode(config, params, *inputs)


def real(arrays, hidden):
    """Hidden states at real tokens; those at padding are nobody's promise."""
    return np.asarray(hidden)[arrays["attention_mask"]]


def test_embeddings_equal_pytorch(golden):
    config, params, arrays, _ = golden
    ours = bert._Embeddings(config).apply(
        {"params": params["embeddings"]}, arrays["input_ids"], arrays["token_type_ids"], True
    )
    np.testing.assert_allclose(ours, arrays["embedded"], atol=TOLERANCE)


@pytest.mark.parametrize("module, expected", [("attention", "attended"), ("layer", "layer")])
def test_first_layer_equals_pytorch(golden, module, expected):
    config, params, arrays, _ = golden
    bias = mask_to_bias(jnp.array(arrays["attention_mask"]))
    weights = params["layers_0"]
    if module == "attention":
        block, weights = bert._Attention(config), weights["attention"]
    else:
        block = bert._Layer(config)
    ours = block.apply({"params": weights}, arrays["embedded"], bias, True)
    np.testing.assert_allclose(real(arrays, ours), real(arrays, arrays[expected]), atol=TOLERANCE)


def test_hidden_states_equal_pytorch(golden):
    config, params, arrays, _ = golden
    ours = encode(config, params, arrays)
    np.testing.assert_allclose(real(arrays, ours), real(arrays, arrays["hidden"]), atol=TOLERANCE)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooled_vectors_equal_pytorch(golden, pooling):
    config, params, arrays, _ = golden
    ours = pool(encode(config, params, arrays), jnp.array(arrays["attention_mask"]), pooling)
    np.testing.assert_allclose(ours, arrays[pooling], atol=TOLERANCE)


def test_single_token_equals_pytorch(golden):
    config, params, arrays, _ = golden
    ids = arrays["input_ids"][:, :1]
    ours = jitted_encode(config, params, ids, np.ones_like(ids, bool))
    np.testing.assert_allclose(ours, arrays["single_token"], atol=TOLERANCE)


def test_gradients_of_every_weight_equal_pytorch(golden):
    config, params, arrays, expected = golden
    weights = arrays["cotangent"] * arrays["attention_mask"][..., None]
    gradients = jax.jit(jax.grad(lambda p: jnp.sum(encode(config, p, arrays) * weights)))(params)
    ours = weight_maps.bert_to_published(config, gradients)
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        if name.endswith("key.bias"):  # softmax is blind to it: its gradient is rounding alone
            assert max(np.abs(ours[name]).max(), np.abs(gradient).max()) < 1e-5
            continue
        size = np.abs(gradient).max()
        np.testing.assert_allclose(ours[name], gradient, atol=1e-4 * size, err_msg=name)


def test_padding_and_its_amount_change_nothing(golden):
    config, params, arrays, _ = golden
    mask = arrays["attention_mask"]
    other = np.where(mask, arrays["input_ids"], config.vocab_size - 1)
    np.testing.assert_array_equal(
        real(arrays, jitted_encode(config, params, other, mask)),
        real(arrays, jitted_encode(config, params, arrays["input_ids"], mask)),
    )
    alone = jitted_encode(config, params, other[1:2, :4], mask[1:2, :4])
    padded = jitted_encode(config, params, other, mask)
    np.testing.assert_allclose(alone[0], padded[1, :4], atol=TOLERANCE)


def test_dropout_follows_its_key_and_remat_changes_no_gradient(repository):
    config, params = load_bert(repository / "tests/golden/bert_wide")
    saving = dataclasses.replace(config, remat=True)
    ids = jnp.arange(12).reshape(2, 6)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(c, key):
        loss = lambda p: jnp.sum(bert.encode(c, p, ids, ids >= 0, key=key) ** 3)  # noqa: E731
        return jax.tree.leaves(jax.grad(loss)(params))

    key, other_key = jax.random.key(0), jax.random.key(1)
    plain, saved, other = (
        gradients(config, key),
        gradients(saving, key),
        gradients(config, other_key),
    )
    for a, b in zip(plain, saved, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert any(np.abs(a - b).max() > 0.1 for a, b in zip(plain, other, strict=True))


def test_bfloat16_compute_stays_near_float32(golden):
    config, params, arrays, _ = golden
    half = dataclasses.replace(config, dtype="bfloat16")
    hidden = encode(half, params, arrays)
    assert hidden.dtype == jnp.bfloat16
    error = np.abs(real(arrays, hidden.astype(jnp.float32)) - real(arrays, arrays["hidden"]))
    assert error.max() < 0.15


def test_init_has_the_published_weights_and_masked_lm_head_ties_the_table():
    config = bert.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
    )
    params = jax.jit(functools.partial(bert.init, config))(jax.random.key(0))
    published = weight_maps.bert_to_published(config, params)  # raises on any other tree
    assert len(published) == 5 + 16
    head = bert.init_masked_lm_head(config, jax.random.key(1))
    logits_of = jax.jit(bert.masked_lm_logits, static_argnums=0)
    logits = logits_of(config, params, head, jnp.ones((2, 3, 8)))
    assert logits.shape == (2, 3, 11) and logits.dtype == jnp.float32


def test_too_long_input_names_the_limit(golden):
    config, params, _, _ = golden
    ids = np.ones((1, config.max_position_embeddings + 1), np.int32)
    with pytest.raises(ValueError, match=f"{config.max_position_embeddings} positions"):
        bert.encode(config, params, ids, ids > 0)


def test_heads_must_divide_the_width():
    with pytest.raises(
        ValueError, match="hidden_size 10 is not divisible by num_attention_heads 3"
    ):
        bert.BertConfig(hidden_size=10, num_attention_heads=3)


def test_gradients_in_bfloat16_are_summed_in_float32():
    """Of tables and biases, which get thousands of addends; bfloat16 adds nothing to a large sum."""
    config = bert.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    params = bert.init(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.3, (64, 128)), 49).astype(np.int32)  # one word a third of all
    types = (np.arange(128) >= 20).astype(np.int32) * np.ones_like(ids)
    arrays = {"input_ids": ids, "attention_mask": ids > -1, "token_type_ids": types}
    weights = rng.standard_normal((*ids.shape, 32)).astype(np.float32) + 0.5

    def gradients(config):
        loss = lambda p: jnp.sum(encode(config, p, arrays).astype(jnp.float32) * weights)  # noqa: E731
        return flatten_paths(jax.jit(jax.grad(loss))(params))

    exact = gradients(config)
    half = gradients(dataclasses.replace(config, dtype="bfloat16"))
    for path, expected in exact.items():
        if "key/bias" in path:  # zero but for rounding: the softmax does not see it
            continue
        error = np.linalg.norm(half[path] - expected) / np.linalg.norm(expected)
        assert error < 0.03, path
