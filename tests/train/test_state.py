import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clmrc_jax.sharding import DEFAULT_RULES, make_mesh
from clmrc_jax.train import state
from clmrc_jax.train.optimizer import OptimizerConfig, make_transform

AXES = ((r"kernel", ("embed", "mlp")),)


def init(key):
    return {"kernel": jax.random.normal(key, (4, 8))}


def test_init_sharded_equals_plain_init_and_lies_where_the_table_says():
    placed = state.init_sharded(init, jax.random.key(0), make_mesh(4, 2), AXES)
    assert placed["kernel"].sharding.spec == P(None, "model")
    np.testing.assert_array_equal(placed["kernel"], init(jax.random.key(0))["kernel"])


@pytest.mark.parametrize("source", ["numpy", "device", "float64"])
def test_start_copies_the_parameters_and_places_the_moments(source):
    mesh = make_mesh(4, 2)
    params = state.init_sharded(init, jax.random.key(0), mesh, AXES)
    if source != "device":
        params = jax.tree.map(np.array, params)
    if source == "float64":
        params = jax.tree.map(np.float64, params)
    transform = make_transform(OptimizerConfig())
    abstract = state.abstract_state(params, transform, mesh, AXES, DEFAULT_RULES)
    made = state.make_start(transform, abstract)(params)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == shapes
    moments = [leaf for leaf in jax.tree.leaves(made.opt_state) if leaf.shape == (4, 8)]
    assert len(moments) == 2 and {leaf.sharding.spec for leaf in moments} == {P(None, "model")}
    before = np.array(params["kernel"])
    jax.block_until_ready(jax.jit(lambda s: jax.tree.map(jnp.negative, s), donate_argnums=0)(made))
    np.testing.assert_array_equal(params["kernel"], before)
