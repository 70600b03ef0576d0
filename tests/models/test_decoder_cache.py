"""The cache of step-by-step decoding; the goldens of mT5 and Marian test it inside the models."""

import jax
import jax.numpy as jnp
import numpy as np

from clmrc_jax.models import decoder_cache

BATCH, BEAMS, SOURCE, LENGTH, HEADS, KV = 2, 3, 5, 4, 2, 3


def filled():
    """A cache of two layers whose every number is another one."""
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, BATCH, SOURCE, HEADS, KV)).astype("f") for _ in range(2)]
    mask = np.ones((BATCH, SOURCE), int)
    cache = decoder_cache.create(pairs, mask, LENGTH, BEAMS, jnp.float32)
    for name in ("layers_0", "layers_1"):
        for position in range(LENGTH):
            new = rng.normal(size=(2, BATCH * BEAMS, 1, HEADS, KV)).astype("f")
            cache[name] = decoder_cache.append(cache[name], new, position)
    return cache


def test_an_empty_cache_has_rows_per_beam_and_sources_once():
    pair = jnp.ones((2, BATCH, SOURCE, HEADS, KV), jnp.float32)
    cache = decoder_cache.create([pair], jnp.ones((BATCH, SOURCE)), LENGTH, BEAMS, jnp.bfloat16)
    layer = cache["layers_0"]
    assert layer["cross_key"].shape == layer["cross_value"].shape == (BATCH, SOURCE, HEADS, KV)
    for name in ("self_key", "self_value"):
        assert layer[name].shape == (BATCH * BEAMS, LENGTH, HEADS, KV)
        assert layer[name].dtype == jnp.bfloat16 and not layer[name].any()
    assert cache["encoder_mask"].dtype == bool


def test_append_writes_one_position_and_leaves_the_rest():
    before = filled()["layers_1"]
    keys, values = np.full((2, BATCH * BEAMS, 1, HEADS, KV), [[[[[7.0]]]], [[[[8.0]]]]], "f")
    after = jax.jit(decoder_cache.append)(before, (keys, values), 2)
    for name, value in (("self_key", 7), ("self_value", 8)):
        expected = np.array(before[name])
        expected[:, 2] = value
        np.testing.assert_array_equal(after[name], expected)
    assert set(after) == set(before)


def test_reorder_gathers_the_answer_and_leaves_the_source():
    before, parents = filled(), np.array([2, 0, 0, 3, 5, 3])  # of the same source each
    after = jax.jit(decoder_cache.reorder)(before, parents)
    for name in ("layers_0", "layers_1"):
        for kind, array in before[name].items():
            own = kind.startswith("self")
            expected = np.asarray(array)[parents] if own else array
            np.testing.assert_array_equal(after[name][kind], expected)
    np.testing.assert_array_equal(after["encoder_mask"], before["encoder_mask"])


def test_attention_sees_each_beams_answer_and_its_own_source():
    layer = filled()["layers_0"]
    x = jnp.arange(BATCH * BEAMS, dtype=jnp.float32).reshape(-1, 1, 1)

    def attention(x, keys_values, bias):
        """Adds the sum of a row's keys."""
        return x + keys_values[0].sum((1, 2, 3))[:, None, None]

    own = decoder_cache.attend_to_answer(attention, x, layer, None)
    np.testing.assert_allclose(own, x + layer["self_key"].sum((1, 2, 3))[:, None, None])
    source = decoder_cache.attend_to_source(attention, x, layer, None)
    sums = np.repeat(layer["cross_key"].sum((1, 2, 3)), BEAMS)
    np.testing.assert_allclose(source, x + sums[:, None, None])
