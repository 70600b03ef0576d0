"""Self-adaptive attention: the factored and chunked forms against the published one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.models import saa
from clmrc_jax.models.layers import mask_to_bias

RNG = np.random.default_rng(0)
TARGET_MASK = np.arange(10) < np.array([[10], [6]])
SOURCE_MASK = np.arange(7) < np.array([[4], [7]])
BIASES = mask_to_bias(jnp.array(TARGET_MASK)), mask_to_bias(jnp.array(SOURCE_MASK))


def random_qkv(target=10, source=7, heads=2, size=4):
    draw = lambda length: RNG.normal(size=(2, length, heads, size)).astype(np.float32)  # noqa: E731
    return draw(target), draw(source), draw(source)


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def published(query, key, value, adaptive, mask_padding):
    """Float64, one row and one head at a time."""
    out = np.zeros(query.shape)
    for b, h in np.ndindex(query.shape[0], query.shape[2]):
        q, k, v = (np.float64(x[b, :, h]) for x in (query, key, value))
        masked = [np.where(m[b], 0, -1e4) for m in (TARGET_MASK, SOURCE_MASK)]
        scores = q @ k.T
        if adaptive:
            own = softmax(q @ q.T + mask_padding * masked[0])
            theirs = softmax(k @ k.T + mask_padding * masked[1])
            scores = own @ scores @ theirs.T
        out[b, :, h] = softmax(scores / np.sqrt(q.shape[-1]) + masked[1]) @ v
    return out


def explicit(query, key, value, target_bias, source_bias, **options):
    maps = saa.attention_maps(query, key, target_bias, source_bias, **options)
    return saa.attend_explicitly(maps, value)


@pytest.mark.parametrize("adaptive, mask_padding", [(True, True), (True, False), (False, True)])
def test_three_ways_to_the_published_attention_and_their_gradients_agree(adaptive, mask_padding):
    arrays = random_qkv()
    options = {"adaptive": adaptive, "mask_padding": mask_padding}
    ways = [  # the last divides neither length
        explicit,
        saa.attend_adaptively,
        functools.partial(saa.attend_adaptively, chunk=4),
    ]
    pull = RNG.normal(size=arrays[0].shape).astype(np.float32)
    gradients = []
    for way in ways:

        def loss(q, k, v, way=way):
            out = way(q, k, v, *BIASES, **options)
            return jnp.sum(out * pull), out

        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
        (_, out), gradient = run(*arrays)
        np.testing.assert_allclose(out, published(*arrays, adaptive, mask_padding), atol=1e-5)
        gradients.append(gradient)
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_memory_shrinks_from_maps_to_factored_to_chunks():
    """What XLA sets aside for the gradient, at a length where the maps dominate."""
    arrays = [jax.ShapeDtypeStruct((1, 256, 4, 8), jnp.float32)] * 3
    bias = jax.ShapeDtypeStruct((1, 1, 1, 256), jnp.float32)
    one_map = 4 * 256 * 256 * 4

    def peak(way):
        gradient = jax.grad(lambda q, k, v, t, s: jnp.sum(way(q, k, v, t, s) ** 2), (0, 1, 2))
        analysis = jax.jit(gradient).lower(*arrays, bias, bias).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    chunked = functools.partial(saa.attend_adaptively, chunk=32)
    naive, factored, small = (peak(way) for way in (explicit, saa.attend_adaptively, chunked))
    assert naive > 5 * one_map
    assert factored < 0.8 * naive
    assert small < one_map


def test_chunks_get_different_dropout_with_the_right_mean():
    query, key, value = (np.ones((1, n, 1, 4), np.float32) for n in (64, 50, 50))
    out = saa.attend_in_chunks(
        query, key, value, None, 8, dropout_rate=0.5, dropout_key=jax.random.key(0)
    )
    rows = np.asarray(out)[0, :, 0, 0]
    assert len(np.unique(rows.reshape(8, 8), axis=0)) == 8, "chunks repeat each other's dropout"
    assert abs(rows.mean() - 1) < 0.1


def test_explicit_dropout_keeps_the_mean():
    query, key, value = (np.ones((1, n, 1, 4), np.float32) for n in (64, 50, 50))
    zero = jnp.zeros((1, 1, 1, 50))
    maps = saa.attention_maps(query, key, jnp.zeros((1, 1, 1, 64)), zero)
    out = saa.attend_explicitly(maps, value, dropout_rate=0.5, dropout_key=jax.random.key(0))
    assert abs(np.mean(out) - 1) < 0.1 and np.std(out) > 0.05
