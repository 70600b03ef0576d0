"""The keys and values that a decoder keeps while it writes token by token.

A cache is {"layers_<i>": layer, "encoder_mask": bool [batch, source]}. A layer holds the keys and
values of the source once per source, "cross_key" and "cross_value" [batch, source, heads, kv], and
those of the answer per beam, "self_key" and "self_value" [N, max_length, heads, kv];
N = batch * beams.
"""

import jax
import jax.numpy as jnp


def create(cross_keys_values, encoder_mask, max_length: int, beams: int, dtype) -> dict:
    """A cache without a token of the answer.

    cross_keys_values: for every decoder layer two of [batch, source, heads, kv]
    dtype: of the answer's keys and values.
    """
    batch, _, heads, kv = cross_keys_values[0][0].shape
    empty = jnp.zeros((batch * beams, max_length, heads, kv), dtype)
    cache = {
        f"layers_{i}": {
            "self_key": empty,
            "self_value": empty,
            "cross_key": key,
            "cross_value": value,
        }
        for i, (key, value) in enumerate(cross_keys_values)
    }
    return {**cache, "encoder_mask": encoder_mask.astype(bool)}


def append(layer: dict, keys_values, position) -> dict:
    """The layer with one more position of the answer; keys_values: two of [N, 1, heads, kv]."""
    at = (0, position, 0, 0)
    key, value = (
        jax.lax.dynamic_update_slice(layer[name], new, at)
        for name, new in zip(("self_key", "self_value"), keys_values)
    )
    return {**layer, "self_key": key, "self_value": value}


def attend_to_answer(attention, x, layer: dict, bias):
    """Attention to what is written so far. x: [N, 1, embed] -> [N, 1, embed]."""
    return attention(x, (layer["self_key"], layer["self_value"]), bias)


def attend_to_source(attention, x, layer: dict, bias):
    """Attention to the source. x: [N, 1, embed], bias: [batch, 1, 1, source] -> [N, 1, embed]."""
    # The beams of one source are `q` positions against its single copy of keys and values.
    batch = layer["cross_key"].shape[0]
    y = x.reshape(batch, -1, x.shape[-1])
    return attention(y, (layer["cross_key"], layer["cross_value"]), bias).reshape(x.shape)


def reorder(cache: dict, parents) -> dict:
    """Gathers the answer's keys and values by beam; parents: int [N], rows of the old cache.

    A parent belongs to the same source, so each source gathers among its own beams: batches
    sharded by source stay where they are, where a gather over all rows would send the cache round.
    """
    batch = cache["encoder_mask"].shape[0]
    beams = parents.shape[0] // batch
    own = (parents % beams).reshape(batch, beams, 1, 1, 1)

    def move(x):
        grouped = x.reshape(batch, beams, *x.shape[1:])
        return jnp.take_along_axis(grouped, own, axis=1).reshape(x.shape)

    def gather(layer):
        moved = {name: move(layer[name]) for name in ("self_key", "self_value")}
        return {**layer, **moved}

    return {k: v if k == "encoder_mask" else gather(v) for k, v in cache.items()}
