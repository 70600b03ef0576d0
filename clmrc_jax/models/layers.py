"""Attention and the small pieces that both model families share.

Einsum letters: b batch, q/k query and key length, h heads, d head dimension, e embed.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from clmrc_jax.models.dropout import dropout


class Embed(nn.Embed):
    """`nn.Embed` that casts the rows it takes, not the table it takes them from.

    Flax casts the table, so that its gradient is summed in `dtype`: in bfloat16 a token that occurs
    two thousand times in a batch lost 40% of it, token types nearly all.
    """

    def __call__(self, inputs):
        """int [...] -> [..., features]."""
        return jnp.take(self.embedding, inputs, axis=0).astype(self.dtype)


def _all_but_bias(inputs, kernel, bias, *, dtype):
    return (*nn.dtypes.promote_dtype(inputs, kernel, dtype=dtype), bias)


class Dense(nn.DenseGeneral):
    """`nn.DenseGeneral` that adds its bias in float32, so that its gradient is summed in it."""

    promote_dtype: Callable = _all_but_bias

    def __call__(self, inputs):
        """[..., in] -> [..., out]."""
        return super().__call__(inputs).astype(self.dtype)


def attend(query, key, value, bias=None, *, scale=1.0, dropout_rate=0.0, dropout_key=None):
    """Multi-head attention with the softmax in float32.

    query: [batch, q, heads, kv]   key, value: [batch, k, heads, kv]
    bias:  additive, broadcastable to [batch, heads, q, k]; masked positions hold `MASKED`
    dropout_key: drops attention probabilities at `dropout_rate`; None means no dropout.
    returns: [batch, q, heads, kv]

    Heads go before lengths, and the softmax is normalised after the value product, where the
    array is smaller: on a CPU both together double the speed at length 256.
    """
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * scale
    if bias is not None:
        logits = logits + bias
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = dropout(weights, dropout_rate, dropout_key)
    context = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)
    return (context / total).astype(value.dtype).swapaxes(1, 2)


# Large enough that exp() is exactly 0 in float32, small enough that two of them do not overflow.
MASKED = -1e9


def mask_to_bias(mask):
    """bool [batch, k] (true = may be attended to) -> additive float32 [batch, 1, 1, k]."""
    return jnp.where(mask, 0.0, MASKED)[:, None, None, :].astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def repeat_for_rows(x, rows: int):
    """[1, ...] -> [rows, ...]; on a CPU its gradient takes another way.

    There a sum over the first of several dimensions runs against memory; a product with ones
    takes a fortieth of the time for a bias of [32, 4, 256, 256].
    """
    return jnp.broadcast_to(x, (rows, *x.shape[1:]))


def _sum_over_rows(rows, _, gradient):
    product = lambda g: jnp.einsum("b,b...->...", jnp.ones(rows, g.dtype), g)[None]  # noqa: E731
    plain = lambda g: g.sum(0, keepdims=True)  # noqa: E731
    return (jax.lax.platform_dependent(gradient, cpu=product, default=plain),)


repeat_for_rows.defvjp(lambda x, rows: (repeat_for_rows(x, rows), None), _sum_over_rows)


class RMSNorm(nn.Module):
    """T5's layer norm: no mean, no bias, the variance in float32."""

    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)
        return (x32 * scale).astype(self.dtype)


def relative_position_bucket(distance, *, bidirectional: bool, buckets: int, max_distance: int):
    """T5's bucket of a relative position (key position - query position).

    Half of the buckets hold exact small distances, the other half grow logarithmically up to
    `max_distance`; with `bidirectional` the sign doubles them. distance: int array, any shape.
    """
    bucket = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        bucket = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = -jnp.minimum(distance, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
    ratio = ratio / jnp.log(jnp.float32(max_distance) / exact)
    large = exact + (ratio * (buckets - exact)).astype(distance.dtype)
    return bucket + jnp.where(distance < exact, distance, jnp.minimum(large, buckets - 1))
