"""Attention, RMS norm and relative position buckets against float64 NumPy and PyTorch's answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.models import layers


def reference_attention(query, key, value, allowed):
    """Float64 softmax attention; allowed: [batch, k] bool."""
    logits = np.einsum("bqhd,bkhd->bhqk", query, key, dtype=np.float64)
    logits = np.where(allowed[:, None, None, :], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, value)


def random_qkv(batch=2, q=3, k=5, heads=2, dim=4):
    rng = np.random.default_rng(0)
    draw = lambda length: rng.standard_normal((batch, length, heads, dim)).astype(np.float32)  # noqa: E731
    return draw(q), draw(k), draw(k)


def test_attend_masked_keys_get_no_weight():
    query, key, value = random_qkv()
    allowed = np.array([[True] * 5, [True, False, True, False, False]])
    ours = layers.attend(query, key, value, layers.mask_to_bias(jnp.array(allowed)))
    np.testing.assert_allclose(ours, reference_attention(query, key, value, allowed), atol=1e-6)


def test_attend_dropout_keeps_the_mean_and_needs_a_key():
    query, key, value = random_qkv()
    plain = layers.attend(query, key, value, dropout_rate=0.5)
    np.testing.assert_array_equal(plain, layers.attend(query, key, value))
    keys = jax.random.split(jax.random.key(0), 4000)
    drop = lambda k: layers.attend(query, key, value, dropout_rate=0.5, dropout_key=k)  # noqa: E731
    dropped = jax.vmap(drop)(keys)
    assert np.abs(dropped[0] - plain).max() > 0.1
    np.testing.assert_allclose(dropped.mean(0), plain, atol=0.1)


@pytest.mark.parametrize("shape", [(1, 2, 3, 5), (1, 4)])
def test_repeated_rows_and_the_gradient_of_a_plain_sum(shape):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in (shape, (7, *shape[1:])))
    value, gradient = jax.value_and_grad(
        lambda x: jnp.sum(jnp.square(layers.repeat_for_rows(x, 7)) * weight)
    )(jnp.asarray(x))
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    np.testing.assert_allclose(value, (x**2 * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, (2 * x * weight).sum(0, keepdims=True), atol=1e-5)


def test_rms_norm_float64_reference():
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    scale = np.linspace(0.5, 2, 7, dtype=np.float32)
    ours = layers.RMSNorm(epsilon=1e-5).apply({"params": {"scale": scale}}, x)
    x = x.astype(np.float64)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("buckets, max_distance", [(32, 128), (8, 20), (16, 64)])
def test_relative_position_bucket_equals_pytorch(repository, bidirectional, buckets, max_distance):
    golden = np.load(repository / "tests/golden/mt5_square.npz")
    expected = golden[f"buckets_{int(bidirectional)}_{buckets}_{max_distance}"]
    ours = layers.relative_position_bucket(
        jnp.arange(-300, 301),
        bidirectional=bidirectional,
        buckets=buckets,
        max_distance=max_distance,
    )
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("rows", [1, 4])
def test_embed_sums_its_gradient_in_float32_and_gives_vectors_of_its_dtype(rows):
    table = layers.Embed(rows, 3, dtype="bfloat16")
    ids = jnp.zeros((2000,), jnp.int32)
    params = table.init(jax.random.key(0), ids)
    assert table.apply(params, ids).dtype == jnp.bfloat16
    gradient = jax.grad(lambda p: table.apply(p, ids).astype(jnp.float32).sum())(params)
    expected = np.zeros((rows, 3)) + 2000 * (np.arange(rows) == 0)[:, None]
    np.testing.assert_array_equal(gradient["params"]["embedding"], expected)


def test_dense_sums_the_gradient_of_its_bias_in_float32():
    dense = layers.Dense(3, dtype="bfloat16")
    x = jnp.ones((2000, 2), jnp.bfloat16)
    params = dense.init(jax.random.key(0), x)
    assert dense.apply(params, x).dtype == jnp.bfloat16
    gradient = jax.grad(lambda p: dense.apply(p, x).astype(jnp.float32).sum())(params)
    np.testing.assert_array_equal(gradient["params"]["bias"], [2000] * 3)
