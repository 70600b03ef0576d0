"""Attention and the small pieces that both model families share.

Einsum letters: b batch, q/k query and key length, h heads, d head dimension, e embed.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def attend(query, key, value, bias=None, *, scale=1.0, dropout_rate=0.0, dropout_key=None):
    """Multi-head attention with the softmax in float32.

    query: [batch, q, heads, kv]   key, value: [batch, k, heads, kv]
    bias:  additive, broadcastable to [batch, heads, q, k]; masked positions hold `MASKED`
    dropout_key: drops attention probabilities at `dropout_rate`; None means no dropout.
    returns: [batch, q, heads, kv]
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * scale
    if bias is not None:
        logits = logits + bias
    probabilities = jax.nn.softmax(logits, axis=-1)
    if dropout_key is not None and dropout_rate > 0:
        kept = jax.random.bernoulli(dropout_key, 1 - dropout_rate, probabilities.shape)
        probabilities = jnp.where(kept, probabilities / (1 - dropout_rate), 0)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities.astype(value.dtype), value)


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
