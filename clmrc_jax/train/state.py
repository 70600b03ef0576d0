"""The training state and its sharded creation: shapes first, arrays later."""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from clmrc_jax import sharding as shardings_of
from clmrc_jax.sharding import DEFAULT_RULES, ParamAxes, Rules


@flax.struct.dataclass
class TrainState:
    """All that a step changes. step: int32 scalar, the number of updates done."""

    step: jax.Array
    params: dict
    opt_state: tuple


def abstract_state(params, transform, mesh: Mesh, param_axes: ParamAxes, rules: Rules):
    """The state as ShapeDtypeStructs that carry their shardings; nothing is allocated.

    params: arrays or ShapeDtypeStructs. transform: optax transform.
    """
    params = jax.eval_shape(lambda tree: tree, params)  # float64 becomes float32, as on devices
    opt_state = jax.eval_shape(transform.init, params)
    placed = shardings_of.param_shardings(mesh, params, param_axes, rules)
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state)
    places = TrainState(
        shardings_of.replicated(mesh),
        placed,
        shardings_of.state_shardings(mesh, opt_state, params, placed),
    )
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, places
    )


def make_start(transform, abstract: TrainState) -> Callable[[dict], TrainState]:
    """start(params) -> state placed as `abstract` says, for host or device parameters.

    It copies them: the train step donates its state, and the caller keeps its parameters.
    Each array goes straight to its own devices, never whole onto one of them.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = jax.jit(transform.init, out_shardings=places.opt_state)

    def start(params) -> TrainState:
        params = shardings_of.place(params, places.params, may_alias=False)
        return TrainState(jax.device_put(jnp.int32(0), places.step), params, init(params))

    return start


def init_sharded(
    init: Callable, key, mesh: Mesh, param_axes: ParamAxes, rules: Rules = DEFAULT_RULES
):
    """`init(key)` computed into its shardings: no parameter ever exists unsharded."""
    places = shardings_of.param_shardings(mesh, jax.eval_shape(init, key), param_axes, rules)
    return jax.jit(init, out_shardings=places)(key)
