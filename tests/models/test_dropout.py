import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.models.dropout import dropout

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
