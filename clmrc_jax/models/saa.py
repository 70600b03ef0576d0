"""Self-adaptive attention (SAA): inter-attention between two languages, filtered on both sides by
what each side attends to in itself (Cui et al. 2019, eq. 1-5).

Published, per head, with Q the projected target, K and V the projected source (d = kv):

    S = Q Kᵀ    A_T = softmax(Q Qᵀ)    A_S = softmax(K Kᵀ)    Ã = A_T S A_Sᵀ
    R' = softmax(Ã / √d + source padding) V

`attend_explicitly` computes exactly that, five length x length maps per head. S has rank d, so

    A_T (Q Kᵀ) A_Sᵀ = (A_T Q) (A_S K)ᵀ

which makes SAA three ordinary attentions: `attend_adaptively` needs length² d operations instead
of length³ and never forms S or Ã; with `chunk` no whole map exists at any time.

Einsum letters: b batch, q/k target and source length, h heads, d head dimension.
"""

import jax
import jax.numpy as jnp

from clmrc_jax.models.dropout import dropout
from clmrc_jax.models.layers import attend


def attend_adaptively(
    query,
    key,
    value,
    target_bias,
    source_bias,
    *,
    adaptive: bool = True,
    mask_padding: bool = True,
    chunk: int = 0,
    dropout_rate: float = 0.0,
    dropout_key=None,
):
    """R' of eq. 5 through the factored product.

    query: [batch, target, heads, kv]   key, value: [batch, source, heads, kv]
    target_bias, source_bias: [batch, 1, 1, length] from `layers.mask_to_bias`
    adaptive: False leaves the self-attentions out (Ã := S, plain inter-attention).
    mask_padding: padding takes no part in A_T and A_S. It never does in the last softmax.
    chunk: rows of the maps computed at a time, and again in the backward pass; 0 for all.
    dropout_key: drops probabilities of the last softmax at `dropout_rate`; None for no dropout.
    returns: [batch, target, heads, kv]
    """
    if adaptive:
        query = attend_in_chunks(query, query, query, target_bias if mask_padding else None, chunk)
        key = attend_in_chunks(key, key, key, source_bias if mask_padding else None, chunk)
    return attend_in_chunks(
        query,
        key,
        value,
        source_bias,
        chunk,
        scale=query.shape[-1] ** -0.5,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
    )


def attend_in_chunks(query, key, value, bias, chunk: int, *, dropout_key=None, **options):
    """`layers.attend`, `chunk` query rows at a time; shapes and `options` are those of `attend`.

    The maps of a chunk are recomputed in the backward pass: the largest array that stays is
    [batch, heads, chunk, k] instead of [batch, heads, q, k].
    bias: [batch, 1, 1, k] or None.   chunk: need not divide the length; 0 means one chunk.
    """
    batch, length, heads, size = query.shape
    if not chunk or chunk >= length:
        return attend(query, key, value, bias, dropout_key=dropout_key, **options)
    count = -(-length // chunk)
    query = jnp.pad(query, ((0, 0), (0, count * chunk - length), (0, 0), (0, 0)))
    pieces = query.reshape(batch, count, chunk, heads, size).swapaxes(0, 1)

    @jax.checkpoint
    def one(piece_and_index):
        piece, index = piece_and_index
        piece_key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        return attend(piece, key, value, bias, dropout_key=piece_key, **options)

    # [count, batch, chunk, heads, kv] -> [batch, length, heads, kv]
    result = jax.lax.map(one, (pieces, jnp.arange(count))).swapaxes(0, 1)
    return result.reshape(batch, count * chunk, heads, value.shape[-1])[:, :length]


def attention_maps(
    query, key, target_bias, source_bias, *, adaptive: bool = True, mask_padding: bool = True
) -> dict:
    """Every map of the published form, left product first as in the official code.

    Arguments as in `attend_adaptively`. returns float32 [batch, heads, rows, columns]:
    S and A_tilde and P (the last softmax) [target, source], A_T [target, target],
    A_S [source, source]; without A_T, A_S where not `adaptive`.
    """

    query, key = query.astype(jnp.float32), key.astype(jnp.float32)

    def product(x, y):
        return jnp.einsum("bqhd,bkhd->bhqk", x, y)

    maps = {"S": product(query, key)}
    maps["A_tilde"] = maps["S"]
    if adaptive:
        for name, x, bias in (("A_T", query, target_bias), ("A_S", key, source_bias)):
            maps[name] = jax.nn.softmax(product(x, x) + (bias if mask_padding else 0.0))
        maps["A_tilde"] = maps["A_T"] @ maps["S"] @ maps["A_S"].swapaxes(-1, -2)
    maps["P"] = jax.nn.softmax(maps["A_tilde"] * query.shape[-1] ** -0.5 + source_bias)
    return maps


def attend_explicitly(maps: dict, value, *, dropout_rate: float = 0.0, dropout_key=None):
    """R' of eq. 5 from the maps of `attention_maps`.

    value: [batch, source, heads, kv]   returns: [batch, target, heads, kv]
    """
    weights = dropout(maps["P"], dropout_rate, dropout_key)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
