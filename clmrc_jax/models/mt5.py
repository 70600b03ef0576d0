"""mT5 / T5 v1.1 (Xue et al., 2021): gated GELU, relative position buckets, untied output.

Decoding state is explicit: `init_cache` makes it, `decode_step` takes and returns it; its layout is
that of `decoder_cache`. Einsum letters are those of `layers`; N = batch * beams.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from clmrc_jax.models import decoder_cache
from clmrc_jax.models.dropout import Dropout
from clmrc_jax.models.layers import (
    MASKED,
    Embed,
    RMSNorm,
    attend,
    mask_to_bias,
    relative_position_bucket,
    repeat_for_rows,
)


@dataclass(frozen=True)
class Mt5Config:
    """Sizes of an mT5; defaults are mT5-base."""

    vocab_size: int = 250112
    d_model: int = 768
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 12
    num_decoder_layers: int = 12
    num_heads: int = 12
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    tie_word_embeddings: bool = False
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        if self.dtype == "float16":
            raise ValueError("mT5 overflows in float16; use dtype='bfloat16' or 'float32'")


def _normal(variance_fan):
    """T5's initializer: standard deviation 1 / sqrt(fan)."""
    return nn.initializers.normal(variance_fan**-0.5)


class _Attention(nn.Module):
    config: Mt5Config
    bidirectional: bool = True
    relative: bool = False

    def setup(self):
        c = self.config

        def heads(fan):
            return nn.DenseGeneral(
                (c.num_heads, c.d_kv), use_bias=False, dtype=c.dtype, kernel_init=_normal(fan)
            )

        # 1/sqrt(d_kv) is folded into q's initializer: T5 does not scale the logits.
        self.q, self.k, self.v = heads(c.d_model * c.d_kv), heads(c.d_model), heads(c.d_model)
        self.o = nn.DenseGeneral(
            c.d_model,
            axis=(-2, -1),
            use_bias=False,
            dtype=c.dtype,
            kernel_init=_normal(c.num_heads * c.d_kv),
        )
        if self.relative:
            self.relative_attention_bias = nn.Embed(
                c.relative_attention_num_buckets, c.num_heads, embedding_init=_normal(c.d_model)
            )

    def position_bias(self, query_positions, key_positions):
        """[q], [k] -> float32 [1, heads, q, k]."""
        buckets = relative_position_bucket(
            key_positions[None, :] - query_positions[:, None],
            bidirectional=self.bidirectional,
            buckets=self.config.relative_attention_num_buckets,
            max_distance=self.config.relative_attention_max_distance,
        )
        return self.relative_attention_bias(buckets).transpose(2, 0, 1)[None]

    def keys_values(self, x):
        """[batch, k, embed] -> two of [batch, k, heads, kv]."""
        return self.k(x), self.v(x)

    def __call__(self, x, keys_values, bias, deterministic=True):
        """x: [batch, q, embed] -> [batch, q, embed]."""
        rate = self.config.dropout_rate
        key = None if deterministic or rate == 0 else self.make_rng("dropout")
        return self.o(attend(self.q(x), *keys_values, bias, dropout_rate=rate, dropout_key=key))


class _GatedMlp(nn.Module):
    config: Mt5Config

    @nn.compact
    def __call__(self, x, deterministic):
        c = self.config

        def dense(size, fan, name):
            return nn.Dense(
                size, use_bias=False, dtype=c.dtype, kernel_init=_normal(fan), name=name
            )

        gate = jax.nn.gelu(dense(c.d_ff, c.d_model, "wi_0")(x), approximate=True)
        x = gate * dense(c.d_ff, c.d_model, "wi_1")(x)  # [batch, length, mlp]
        x = Dropout(c.dropout_rate)(x, deterministic=deterministic)
        return dense(c.d_model, c.d_ff, "wo")(x)


class _Layer(nn.Module):
    """One pre-norm layer; with `decoder` it also attends to the encoder."""

    config: Mt5Config
    decoder: bool
    relative: bool

    def setup(self):
        c = self.config
        norm = lambda: RMSNorm(c.layer_norm_epsilon, c.dtype)  # noqa: E731
        self.self_attention = _Attention(c, not self.decoder, self.relative)
        self.self_attention_norm = norm()
        if self.decoder:
            self.cross_attention = _Attention(c)
            self.cross_attention_norm = norm()
        self.mlp, self.mlp_norm = _GatedMlp(c), norm()
        self.dropout = Dropout(c.dropout_rate)

    def __call__(self, x, bias, encoded, encoder_bias, deterministic):
        y = self.self_attention_norm(x)
        y = self.self_attention(y, self.self_attention.keys_values(y), bias, deterministic)
        x = x + self.dropout(y, deterministic=deterministic)
        if self.decoder:
            keys_values = self.cross_attention.keys_values(encoded)
            y = self.cross_attention_norm(x)
            y = self.cross_attention(y, keys_values, encoder_bias, deterministic)
            x = x + self.dropout(y, deterministic=deterministic)
        y = self.mlp(self.mlp_norm(x), deterministic)
        x = x + self.dropout(y, deterministic=deterministic)
        return nn.with_logical_constraint(x, ("batch", "length", "embed"))

    def step(self, x, cache, position, bias, encoder_bias):
        """One token. x: [N, 1, embed]; cache as in `init_cache` -> (x, cache)."""
        y = self.self_attention_norm(x)
        cache = decoder_cache.append(cache, self.self_attention.keys_values(y), position)
        x = x + decoder_cache.attend_to_answer(self.self_attention, y, cache, bias)
        y = self.cross_attention_norm(x)
        x = x + decoder_cache.attend_to_source(self.cross_attention, y, cache, encoder_bias)
        return x + self.mlp(self.mlp_norm(x), True), cache


class _Stack(nn.Module):
    config: Mt5Config
    decoder: bool

    def setup(self):
        c = self.config
        count = c.num_decoder_layers if self.decoder else c.num_layers
        layer = nn.remat(_Layer, static_argnums=(5,)) if c.remat else _Layer
        self.layers = [layer(c, self.decoder, i == 0) for i in range(count)]
        self.final_norm = RMSNorm(c.layer_norm_epsilon, c.dtype)
        self.dropout = Dropout(c.dropout_rate)

    def position_bias(self, query_positions, key_positions):
        return self.layers[0].self_attention.position_bias(query_positions, key_positions)

    def __call__(self, x, bias, encoded=None, encoder_bias=None, deterministic=True):
        positions = jnp.arange(x.shape[1])
        bias = bias + repeat_for_rows(self.position_bias(positions, positions), len(x))
        x = self.dropout(x, deterministic=deterministic)
        for layer in self.layers:
            x = layer(x, bias, encoded, encoder_bias, deterministic)
        return self.dropout(self.final_norm(x), deterministic=deterministic)


class Mt5(nn.Module):
    """The encoder-decoder; use it through the functions below."""

    config: Mt5Config

    def setup(self):
        c = self.config
        # compute in c.dtype: the 250k-row table itself stays float32
        self.shared = Embed(
            c.vocab_size, c.d_model, dtype=c.dtype, embedding_init=nn.initializers.normal(1.0)
        )
        self.encoder, self.decoder = _Stack(c, decoder=False), _Stack(c, decoder=True)
        if not c.tie_word_embeddings:
            self.lm_head = nn.Dense(
                c.vocab_size, use_bias=False, dtype=c.dtype, kernel_init=_normal(c.d_model)
            )

    def encode(self, tokens, mask, deterministic=True):
        bias = mask_to_bias(mask)
        return self.encoder(self.shared(tokens), bias, deterministic=deterministic)

    def decode(self, encoded, encoder_mask, tokens, decoder_mask, deterministic=True):
        """Logits of all positions at once; shapes as in the function `decode`."""
        length = tokens.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if decoder_mask is not None:
            causal = causal & decoder_mask[:, None, None, :]
        bias = jnp.where(causal, 0.0, MASKED)
        hidden = self.decoder(
            self.shared(tokens), bias, encoded, mask_to_bias(encoder_mask), deterministic
        )
        return self.logits(hidden)

    def logits(self, hidden):
        c = self.config
        if c.tie_word_embeddings:
            return self.shared.attend(hidden * c.d_model**-0.5).astype(jnp.float32)
        return self.lm_head(hidden).astype(jnp.float32)

    def cross_keys_values(self, encoded):
        return [layer.cross_attention.keys_values(encoded) for layer in self.decoder.layers]

    def step(self, cache, tokens, position):
        """Logits of one position per row, and the cache with it; shapes as in `decode_step`."""
        length = cache["layers_0"]["self_key"].shape[1]
        keys = jnp.arange(length)
        bias = self.decoder.position_bias(position[None], keys)
        bias = bias + jnp.where(keys <= position, 0.0, MASKED)
        encoder_bias = mask_to_bias(cache["encoder_mask"])
        x = self.shared(tokens[:, None])  # [N, 1, embed]
        new = dict(cache)
        for i, layer in enumerate(self.decoder.layers):
            name = f"layers_{i}"
            x, new[name] = layer.step(x, cache[name], position, bias, encoder_bias)
        return self.logits(self.decoder.final_norm(x[:, 0])), new

    def __call__(self, tokens, mask):
        return self.decode(self.encode(tokens, mask), mask, tokens, None)


def _apply(config, params, method, *args, key=None):
    rngs = None if key is None else {"dropout": key}
    return Mt5(config).apply({"params": params}, *args, method=method, rngs=rngs)


def init(config: Mt5Config, key):
    """Random parameters: nested dict of float32 arrays."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    return Mt5(config).init(key, tokens, tokens == 0)["params"]


def encode(config: Mt5Config, params, tokens, mask, *, key=None):
    """Encoder states. tokens, mask: [batch, length] -> [batch, length, embed]."""
    return _apply(config, params, Mt5.encode, tokens, mask.astype(bool), key is None, key=key)


def encode_fusion(config: Mt5Config, params, tokens, mask, *, key=None):
    """Fusion-in-Decoder (Izacard & Grave, 2021): every passage is encoded alone.

    tokens, mask: [batch, passages, length]
    returns: states [batch, passages * length, embed] and mask [batch, passages * length]
    """
    batch, passages, length = tokens.shape
    flat = (batch * passages, length)
    encoded = encode(config, params, tokens.reshape(flat), mask.reshape(flat), key=key)
    return encoded.reshape(batch, passages * length, -1), mask.reshape(batch, -1)


def decode(config, params, encoded, encoder_mask, tokens, decoder_mask=None, *, key=None):
    """Teacher-forced logits.

    encoded: [batch, source, embed]   encoder_mask: bool [batch, source]
    tokens: decoder inputs [batch, target] (`shift_right` of the targets)
    returns: float32 [batch, target, vocab]
    """
    args = (encoded, encoder_mask.astype(bool), tokens, decoder_mask, key is None)
    return _apply(config, params, Mt5.decode, *args, key=key)


def shift_right(config: Mt5Config, targets):
    """[batch, target] targets -> decoder inputs that begin with the start token."""
    start = jnp.full_like(targets[:, :1], config.decoder_start_token_id)
    return jnp.concatenate([start, targets[:, :-1]], axis=1)


def init_cache(config: Mt5Config, params, encoded, encoder_mask, max_length: int, beams: int = 1):
    """Decoding state for `decode_step`, laid out as `decoder_cache` describes."""
    pairs = _apply(config, params, Mt5.cross_keys_values, encoded)
    return decoder_cache.create(pairs, encoder_mask, max_length, beams, encoded.dtype)


reorder_cache = decoder_cache.reorder


def decode_step(config: Mt5Config, params, cache, tokens, position):
    """Logits of the next token. tokens: int [N], position: int scalar (0 for the first).

    returns: float32 [N, vocab] and the new cache
    """
    return _apply(config, params, Mt5.step, cache, tokens, jnp.asarray(position))


def forward_flops(config: Mt5Config, batch: int, source: int, target: int) -> float:
    """Floating-point operations of one teacher-forced pass (2 per multiply-add)."""
    inner, e = config.num_heads * config.d_kv, config.d_model
    attention, mlp = 2 * 4 * e * inner, 2 * 3 * e * config.d_ff
    encoder = config.num_layers * source * (attention + mlp + 4 * source * inner)
    cross = 2 * 2 * e * inner * (target + source) + 4 * target * source * inner
    decoder = config.num_decoder_layers * (target * (attention + mlp + 4 * target * inner) + cross)
    return float(batch * (encoder + decoder + 2 * target * e * config.vocab_size))


_ATTENTION = r"layers_\d+/(self|cross)_attention"
PARAM_AXES = (
    (r"shared/embedding", ("vocab", "embed")),
    (rf"(encoder|decoder)/{_ATTENTION}/[qkv]/kernel", ("embed", "heads", "kv")),
    (rf"(encoder|decoder)/{_ATTENTION}/o/kernel", ("heads", "kv", "embed")),
    (
        r"(encoder|decoder)/layers_0/self_attention/relative_attention_bias/embedding",
        ("relpos_buckets", "heads"),
    ),
    (r"(encoder|decoder)/layers_\d+/mlp/wi_[01]/kernel", ("embed", "mlp")),
    (r"(encoder|decoder)/layers_\d+/mlp/wo/kernel", ("mlp", "embed")),
    (r"(encoder|decoder)/(layers_\d+/)?\w+_norm/scale", ("embed",)),
    (r"lm_head/kernel", ("embed", "vocab")),
)
