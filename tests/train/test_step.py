import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clmrc_jax.files import InputError
from clmrc_jax.sharding import make_mesh
from clmrc_jax.train import step

RNG = np.random.default_rng(0)
BATCH = {
    "x": RNG.normal(size=(12, 5)).astype(np.float32),
    "mask": RNG.random((12, 3)) < 0.4,
}
PARAMS = {"w": RNG.normal(size=5).astype(np.float32)}


def token_loss(params, batch, key):
    """A mean over the true tokens of the mask, as in sequence training."""
    tokens = batch["mask"].sum(-1)
    error = jnp.square(batch["x"] @ params["w"])
    weight = tokens.sum().astype(jnp.float32)
    return (error * tokens).sum() / weight, {"doubled": (error * tokens).sum() * 2 / weight} | {
        "weight": weight
    }


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_gradients_token_weighted_mean_is_that_of_the_whole_batch(accumulate):
    mesh = make_mesh(2, 1, jax.devices()[:2])
    tokens = BATCH["mask"].sum(-1).astype(np.float64)
    guess = BATCH["x"].astype(np.float64) @ PARAMS["w"]
    expected = (guess**2 * tokens).sum() / tokens.sum()
    gradient = (2 * guess * tokens) @ BATCH["x"] / tokens.sum()
    run = jax.jit(lambda p, b, k: step.gradients(token_loss, p, b, k, accumulate, mesh))
    loss, values, found = run(PARAMS, BATCH, jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(values["doubled"], 2 * expected, rtol=1e-5)
    assert values["weight"] == tokens.sum()
    np.testing.assert_allclose(found["w"], gradient, rtol=1e-5)


def test_gradients_indivisible_micro_batches_raise():
    mesh = make_mesh(2, 1, jax.devices()[:2])
    with pytest.raises(InputError, match="12 rows.*accumulate=4 micro-batches over 2 devices"):
        step.gradients(token_loss, PARAMS, BATCH, jax.random.key(0), 4, mesh)
