import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clmrc_jax.models.dropout import dropout
from clmrc_jax.sharding import activate, make_mesh

ONES = jnp.ones((40, 100, 101))  # 101: the last word of a row is used in part


@pytest.mark.parametrize("rate, share", [(0.1, 26 / 256), (0.5, 0.5), (1e-4, 1 / 256)])
def test_share_of_zeros_and_scale_of_the_rest(rate, share):
    found = np.asarray(dropout(ONES, rate, jax.random.key(0)))
    sigma = np.sqrt(share * (1 - share) / ONES.size)
    assert abs(np.mean(found == 0) - share) < 5 * sigma
    np.testing.assert_allclose(np.unique(found), [0, 1 / (1 - share)], rtol=1e-6)


def test_entries_that_share_a_word_are_independent():
    zeros = np.asarray(dropout(ONES, 0.5, jax.random.key(0)) == 0).reshape(-1, 101)
    for distance in (1, 2, 3, 4):
        together = np.mean(zeros[:, :-distance] & zeros[:, distance:])
        assert abs(together - 0.25) < 0.005, distance
    rows = zeros[:-1] & zeros[1:]
    assert abs(rows.mean() - 0.25) < 0.005


def test_key_decides_and_none_switches_off():
    x = jnp.arange(1.0, 9.0)
    assert dropout(x, 0.1, None) is x and dropout(x, 0.0, jax.random.key(0)) is x
    first, again, other = (dropout(ONES[0], 0.1, jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != other).any()


def test_dtype_stays_and_the_gradient_is_the_mask():
    key = jax.random.key(0)
    x = jnp.full((4, 8), 2.0, jnp.bfloat16)
    assert dropout(x, 0.5, key).dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: dropout(x, 0.5, key).sum())(jnp.full((4, 8), 2.0))
    np.testing.assert_array_equal(gradient, dropout(jnp.ones((4, 8)), 0.5, key))


@pytest.mark.parametrize("data, model", [(8, 1), (4, 2)])
def test_hardware_generator_draws_on_each_device_its_own_rows(data, model):
    """One draw for the whole batch would be made on every device: XLA cannot cut it."""
    key = jax.random.key(0, impl="rbg")
    mesh = make_mesh(data, model)
    x = jax.device_put(np.ones((16, 3, 101), np.float32), NamedSharding(mesh, P("data")))

    def total(x):  # recomputed in the backward pass, as the layers are
        return jax.checkpoint(lambda x: dropout(x, 0.5, key).sum())(x)

    with activate(mesh):
        drop = jax.jit(lambda x: dropout(x, 0.5, key)).lower(x).compile()
        found, mask = drop(x), jax.jit(jax.grad(total))(x)
    assert found.sharding.is_equivalent_to(x.sharding, x.ndim)
    drawn = re.findall(r"u32\[(\d+),3,26\]", drop.as_text())
    assert drawn and set(map(int, drawn)) == {16 // data}
    np.testing.assert_array_equal(found, mask)
    rows = np.asarray(found).reshape(16, -1)
    assert len(np.unique(rows, axis=0)) == 16, "devices repeat each other's draws"
    assert abs(np.mean(rows == 0) - 0.5) < 5 * np.sqrt(0.25 / rows.size)
