"""How much a translated answer resembles the original: span vectors and Dual BERT's dynamic lambda
(Cui et al. 2019, section 4.3, eq. 10-12). No parameters.
"""

import jax
import jax.numpy as jnp

from clmrc_jax.models.layers import MASKED, mask_to_bias

SPAN_ATTENTIONS = ("average", "self_adaptive")
LAMBDA_MODES = ("cosine_example", "cosine_batch_mean", "official_dot", "const", "none")


def span_vectors(hidden, start, end, attention_mask, *, attention="average", mask_padding=True):
    """H̃ = [B^s ; B^e ; B^att] of eq. 10 and 11: first, last and self-attended gold vector.

    hidden: [batch, length, embed]   start, end: [batch] int, inclusive
    attention_mask: [batch, length] bool, true on real tokens
    returns: float32 [batch, 3 * embed]
    With X the hidden states, zero outside of the span, and A = softmax(X Xᵀ), B^att is
    "average": A over the span's columns; the mean of the span's rows of A X. The paper's words,
        "a simple dot product with average pooling", values outside of the span masked.
    "self_adaptive": the official code. Columns outside of the span keep logit 0 in A; with
        M = A X Xᵀ Aᵀ and a the mean of M's rows, B^att = softmax(a over the span) X.
        `mask_padding` keeps padding out of A and of that mean; without it, as published, the
        result depends on how much padding there is.
    """
    hidden = hidden.astype(jnp.float32)
    position = jnp.arange(hidden.shape[1])[None, :]
    inside = (position >= start[:, None]) & (position <= end[:, None])
    first, last = (
        ((position == place[:, None]) & inside).astype(jnp.float32) for place in (start, end)
    )
    if attention == "average":
        attended = _average(hidden, inside)
    else:
        real = attention_mask.astype(bool) if mask_padding else jnp.ones_like(inside)
        attended = _self_adaptive(hidden, inside, real)
    # products with one-hot rows: a label outside of the window, or an end before its start, gives
    # zeros, never a neighbour
    parts = [jnp.einsum("bl,ble->be", row, hidden) for row in (first, last)]
    return jnp.concatenate([*parts, attended], axis=-1)


def _average(hidden, inside):
    rows = _attended_rows(hidden, inside, inside)
    weights = inside.astype(jnp.float32)
    weights = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1.0)
    return jnp.einsum("bl,ble->be", weights, rows)


def _self_adaptive(hidden, inside, real):
    # M = (A X)(A X)ᵀ, so the mean of its rows is one product with the mean of A X
    rows = _attended_rows(hidden, inside, real)
    share = real.astype(jnp.float32)
    share = share / jnp.maximum(jnp.sum(share, axis=1, keepdims=True), 1.0)
    mean = jnp.einsum("bl,ble->be", share, rows)
    scores = jnp.einsum("be,ble->bl", mean, rows)
    weights = jax.nn.softmax(jnp.where(inside, scores, MASKED), axis=-1)
    return jnp.einsum("bl,ble->be", weights * inside, hidden)


def _attended_rows(hidden, inside, columns):
    """A X: [batch, length, embed]; the softmax of A runs over `columns` [batch, length]."""
    x = hidden * inside[..., None]
    logits = jnp.einsum("bqe,bke->bqk", x, x) + mask_to_bias(columns)[:, 0]
    return jax.nn.softmax(logits, axis=-1) @ x


def cosine(a, b):
    """Cosine of the rows of two [batch, size] arrays, float32 [batch]; 0 beside a zero row."""
    squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    return jnp.sum(a * b, axis=-1) * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def similarity(target, source, weights, *, mode: str, group_size: int = 0):
    """What lambda is the positive part of (eq. 12), one number per row.

    target, source: float32 [batch, size], span vectors   weights: [batch], 0 for padding rows
    mode: "cosine_example": the row's cosine.   "cosine_batch_mean": mean cosine of its group.
        "official_dot": sum over its group of dot products, divided by `size`; the official
        code's cosine-distance op does that to vectors of any length, so it grows with the group.
    group_size: consecutive rows that form a group, 0 for the whole batch; 8 is what one core
        of the published runs saw. Raises ValueError when it does not divide the batch.
    returns: float32 [batch]
    """
    rows, width = target.shape
    size = group_size or rows
    if rows % size:
        raise ValueError(f"lambda_group_size {size} does not divide the {rows} rows of the batch")
    if mode == "cosine_example":
        return cosine(target, source)

    def group_sums(values):
        sums = jnp.sum((values * weights).reshape(-1, size), axis=1, keepdims=True)
        return jnp.broadcast_to(sums, (rows // size, size)).reshape(rows)

    if mode == "official_dot":
        return group_sums(jnp.sum(target * source, axis=-1) / width)
    return group_sums(cosine(target, source)) / jnp.maximum(group_sums(jnp.ones(rows)), 1.0)
