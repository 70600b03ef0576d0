"""Attention and the small pieces that both model families share.

Einsum letters: b batch, q/k query and key length, h heads, d head dimension, e embed.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from clmrc_jax.models.dropout import dropout


def attend(query, key, value, *biases, scale=1.0, dropout_rate=0.0, dropout_key=None):
    """Multi-head attention with the softmax in float32.

    query: [batch, q, heads, kv]   key, value: [batch, k, heads, kv]
    biases: additive, of four dimensions that broadcast to [batch, heads, q, k]; masked positions
        hold `MASKED`; None is left out
    dropout_key: drops attention probabilities at `dropout_rate`; None means no dropout.
    returns: [batch, q, heads, kv]

    Heads go before lengths, and the softmax is normalised after the value product, where the
    array is smaller: on a CPU both together double the speed at length 256.
    """
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * scale
    for bias in biases:
        logits = logits if bias is None else add_bias(logits, bias)
    weights = jnp.exp(logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = dropout(weights, dropout_rate, dropout_key)
    context = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)
    return (context / total).astype(value.dtype).swapaxes(1, 2)


@jax.custom_vjp
def add_bias(logits, bias):
    """logits [batch, ...] + bias, broadcast; on a CPU the bias's gradient takes another way.

    There a sum over the first of several dimensions runs against memory: a product with ones
    gives the gradient of a bias of all rows, [1, heads, q, k], forty times as fast.
    """
    return logits + bias


def _add_bias_backward(bias, gradient):
    broadcast = [i for i, size in enumerate(bias.shape) if size != gradient.shape[i]]

    def product(gradient):
        ones = jnp.ones(gradient.shape[0], gradient.dtype)
        return jnp.einsum("b,b...->...", ones, gradient)[None].sum(broadcast[1:], keepdims=True)

    def plain(gradient):
        return gradient.sum(broadcast, keepdims=True)

    if 0 in broadcast:
        summed = jax.lax.platform_dependent(gradient, cpu=product, default=plain)
    else:
        summed = plain(gradient)
    return gradient, summed.astype(bias.dtype)


add_bias.defvjp(lambda logits, bias: (logits + bias, bias), _add_bias_backward)


# Large enough that exp() is exactly 0 in float32, small enough that two of them do not overflow.
MASKED = -1e9


def mask_to_bias(mask):
    """bool [batch, k] (true = may be attended to) -> additive float32 [batch, 1, 1, k]."""
    return jnp.where(mask, 0.0, MASKED)[:, None, None, :].astype(jnp.float32)


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
