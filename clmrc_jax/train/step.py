"""The gradient of a batch: at once, or accumulated over micro-batches to the same result."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clmrc_jax.files import InputError

LossFn = Callable[[dict, dict, jax.Array], tuple[jax.Array, dict]]


def base_key(seed: int, mesh: Mesh) -> jax.Array:
    """The random key that a training's dropout comes from; each step folds its number in.

    On TPUs the hardware's generator ("rbg"): the default one, threefry, costs about as much as
    the layers themselves to run and to compile. Its numbers depend on the device mesh.
    """
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    return jax.random.key(seed, impl="rbg" if on_tpu else None)


def gradients(loss_fn: LossFn, params, batch: dict, key, accumulate: int, mesh: Mesh):
    """(loss, metrics, gradients) of the whole global batch.

    loss_fn(params, batch, key) -> (loss, metrics): float32 scalars; each a mean weighted by
    `metrics["weight"]`, e.g. the number of target tokens (1 when absent).
    accumulate: micro-batches computed one after another; the weighted means over them are the
    values of the whole batch, and "weight" is their sum. A loss that compares the rows of a
    batch with each other (in-batch negatives) sees the rows of one micro-batch only.
    """
    differentiate = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
        (loss, values), gradient = differentiate(params, batch, key)
        return loss, values, gradient
    micro = {name: _split(name, array, accumulate, mesh) for name, array in batch.items()}

    def weighted(index):
        part = {name: array[index] for name, array in micro.items()}
        (loss, values), gradient = differentiate(params, part, jax.random.fold_in(key, index))
        weight = jnp.float32(values.get("weight", 1.0))
        values = {name: value for name, value in values.items() if name != "weight"}
        return weight, jax.tree.map(lambda x: x * weight, (loss, values, gradient))

    def body(total, index):
        return jax.tree.map(jnp.add, total, weighted(index)), None

    shapes = jax.eval_shape(weighted, jnp.int32(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (weight, sums), _ = jax.lax.scan(body, zeros, jnp.arange(accumulate))
    loss, values, gradient = jax.tree.map(lambda x: x / weight, sums)
    return loss, values | {"weight": weight}, gradient


def _split(name, array, accumulate, mesh):
    """[rows, ...] -> [accumulate, rows / accumulate, ...], every row staying on its device.

    Micro-batch m takes rows m, m + accumulate, ...; consecutive rows would have to move.
    """
    rows, ways = array.shape[0], mesh.shape["data"]
    if rows % (accumulate * ways):
        raise InputError(
            f"batch array {name!r} has {rows} rows, which do not divide into "
            f"accumulate={accumulate} micro-batches over {ways} devices of the data axis"
        )
    array = array.reshape(rows // accumulate, accumulate, *array.shape[1:])
    place = NamedSharding(mesh, PartitionSpec(None, "data"))
    return jax.lax.with_sharding_constraint(jnp.swapaxes(array, 0, 1), place)
