"""Marian (Junczys-Dowmunt et al., 2018): the encoder-decoder of the OPUS-MT translators.

The Transformer of Vaswani et al. (2017): post-norm, sinusoidal positions, one embedding for source,
target and output, plus a bias on the logits. Decoding state is explicit: `init_cache`
makes it, `decode_step` takes and returns it; its layout is that of `decoder_cache`. Einsum letters
are those of `layers`; N = batch * beams.
"""

import functools
import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from clmrc_jax.models import decoder_cache, decoding, mt5
from clmrc_jax.models.dropout import Dropout
from clmrc_jax.models.layers import MASKED, Dense, Embed, attend, mask_to_bias

ACTIVATIONS = {
    "swish": jax.nn.silu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
LAYER_NORM_EPSILON = 1e-5  # PyTorch's default; the published configs do not name it


@dataclass(frozen=True)
class MarianConfig:
    """Sizes of a Marian model, by their published names; defaults are those of opus-mt models."""

    vocab_size: int = 58101
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "swish"
    scale_embedding: bool = True
    max_position_embeddings: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    pad_token_id: int = 58100
    eos_token_id: int = 0
    decoder_start_token_id: int = 58100
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"activation_function {self.activation_function!r}: "
                f"choose one of {', '.join(ACTIVATIONS)}"
            )
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise ValueError(f"d_model {self.d_model} is not divisible by {heads} heads")


@dataclass(frozen=True)
class MarianSearch:
    """How to search for a translation; the names are those of a `generation_config.json`.

    num_beams: 1 is greedy.   max_length: tokens, the start token included; a hypothesis of this
        length ends in the end token (`force_eos`) without paying for it.
    length_penalty, early_stopping: see `decoding.BeamConfig`.
    banned: tokens that are never generated; published folders ban the padding token.
    renormalize: probabilities are those among the tokens that are not banned.
    """

    num_beams: int = 4
    max_length: int = 512
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    banned: tuple[int, ...] = ()
    renormalize: bool = True
    force_eos: bool = True


class _Attention(nn.Module):
    config: MarianConfig
    heads: int

    def setup(self):
        c = self.config
        kernel = nn.initializers.normal(c.init_std)
        split = (self.heads, c.d_model // self.heads)
        self.q, self.k, self.v = (Dense(split, dtype=c.dtype, kernel_init=kernel) for _ in range(3))
        self.o = Dense(c.d_model, axis=(-2, -1), dtype=c.dtype, kernel_init=kernel)

    def keys_values(self, x):
        """[batch, k, embed] -> two of [batch, k, heads, kv]."""
        return self.k(x), self.v(x)

    def __call__(self, x, keys_values, bias, deterministic=True):
        """x: [batch, q, embed] -> [batch, q, embed]."""
        c = self.config
        rate, scale = c.attention_dropout, (c.d_model // self.heads) ** -0.5
        key = None if deterministic or rate == 0 else self.make_rng("dropout")
        context = attend(
            self.q(x), *keys_values, bias, scale=scale, dropout_rate=rate, dropout_key=key
        )
        return self.o(context)


class _Mlp(nn.Module):
    config: MarianConfig
    size: int

    @nn.compact
    def __call__(self, x, deterministic):
        c = self.config
        kernel = nn.initializers.normal(c.init_std)
        x = Dense(self.size, dtype=c.dtype, kernel_init=kernel, name="wi")(x)
        x = ACTIVATIONS[c.activation_function](x)  # [batch, length, mlp]
        x = Dropout(c.activation_dropout)(x, deterministic=deterministic)
        return Dense(c.d_model, dtype=c.dtype, kernel_init=kernel, name="wo")(x)


class _Layer(nn.Module):
    """One post-norm layer; with `decoder` it also attends to the encoder."""

    config: MarianConfig
    decoder: bool

    def setup(self):
        c = self.config
        side = "decoder" if self.decoder else "encoder"
        heads, size = (getattr(c, f"{side}_{name}") for name in ("attention_heads", "ffn_dim"))

        def norm():
            return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=c.dtype)

        self.self_attention, self.self_attention_norm = _Attention(c, heads), norm()
        if self.decoder:
            self.cross_attention, self.cross_attention_norm = _Attention(c, heads), norm()
        self.mlp, self.mlp_norm = _Mlp(c, size), norm()
        self.dropout = Dropout(c.dropout)

    def __call__(self, x, bias, encoded, encoder_bias, deterministic):
        def drop(y):
            return self.dropout(y, deterministic=deterministic)

        keys_values = self.self_attention.keys_values(x)
        y = self.self_attention(x, keys_values, bias, deterministic)
        x = self.self_attention_norm(x + drop(y))
        if self.decoder:
            keys_values = self.cross_attention.keys_values(encoded)
            y = self.cross_attention(x, keys_values, encoder_bias, deterministic)
            x = self.cross_attention_norm(x + drop(y))
        x = self.mlp_norm(x + drop(self.mlp(x, deterministic)))
        return nn.with_logical_constraint(x, ("batch", "length", "embed"))

    def step(self, x, cache, position, bias, encoder_bias):
        """One token. x: [N, 1, embed]; cache as in `init_cache` -> (x, cache)."""
        cache = decoder_cache.append(cache, self.self_attention.keys_values(x), position)
        y = decoder_cache.attend_to_answer(self.self_attention, x, cache, bias)
        x = self.self_attention_norm(x + y)
        y = decoder_cache.attend_to_source(self.cross_attention, x, cache, encoder_bias)
        x = self.cross_attention_norm(x + y)
        return self.mlp_norm(x + self.mlp(x, True)), cache


class _Stack(nn.Module):
    config: MarianConfig
    decoder: bool

    def setup(self):
        c = self.config
        layer = nn.remat(_Layer, static_argnums=(5,)) if c.remat else _Layer
        count = c.decoder_layers if self.decoder else c.encoder_layers
        self.layers = [layer(c, self.decoder) for _ in range(count)]
        self.dropout = Dropout(c.dropout)

    def __call__(self, x, bias, encoded=None, encoder_bias=None, deterministic=True):
        x = self.dropout(x, deterministic=deterministic)
        for layer in self.layers:
            x = layer(x, bias, encoded, encoder_bias, deterministic)
        return x


class Marian(nn.Module):
    """The encoder-decoder; use it through the functions below."""

    config: MarianConfig

    def setup(self):
        c = self.config
        table = nn.initializers.normal(c.init_std)
        self.shared = Embed(c.vocab_size, c.d_model, dtype=c.dtype, embedding_init=table)
        self.encoder, self.decoder = _Stack(c, decoder=False), _Stack(c, decoder=True)
        self.final_logits = _Bias(c.vocab_size)

    def embed(self, tokens, positions):
        """tokens [batch, length], positions [length, embed] -> [batch, length, embed]."""
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        return self.shared(tokens) * scale + positions.astype(self.config.dtype)

    def encode(self, tokens, mask, deterministic=True):
        """Encoder states; shapes as in the function `encode`."""
        x = self.embed(tokens, sinusoids(tokens.shape[1], self.config.d_model))
        return self.encoder(x, mask_to_bias(mask), deterministic=deterministic)

    def decode(self, encoded, encoder_mask, tokens, decoder_mask, deterministic=True):
        """Logits of all positions at once; shapes as in the function `decode`."""
        length = tokens.shape[1]
        seen = jnp.tril(jnp.ones((length, length), bool))[None, None]
        if decoder_mask is not None:
            seen = seen & decoder_mask[:, None, None, :]
        x = self.embed(tokens, sinusoids(length, self.config.d_model))
        bias = jnp.where(seen, 0.0, MASKED)
        return self.logits(
            self.decoder(x, bias, encoded, mask_to_bias(encoder_mask), deterministic)
        )

    def logits(self, hidden):
        """[..., embed] -> float32 [..., vocab]."""
        return self.final_logits(self.shared.attend(hidden).astype(jnp.float32))

    def cross_keys_values(self, encoded):
        """Keys and values of the source for every decoder layer."""
        return [layer.cross_attention.keys_values(encoded) for layer in self.decoder.layers]

    def step(self, cache, tokens, position):
        """Logits of one position per row, and the cache with it; shapes as in `decode_step`."""
        length = cache["layers_0"]["self_key"].shape[1]
        bias = jnp.where(jnp.arange(length) <= position, 0.0, MASKED)[None, None, None]
        encoder_bias = mask_to_bias(cache["encoder_mask"])
        x = self.embed(tokens[:, None], sinusoids(length, self.config.d_model)[position])
        new = dict(cache)
        for i, layer in enumerate(self.decoder.layers):
            name = f"layers_{i}"
            x, new[name] = layer.step(x, cache[name], position, bias, encoder_bias)
        return self.logits(x[:, 0]), new

    def __call__(self, tokens, mask):
        return self.decode(self.encode(tokens, mask), mask, tokens, None)


class _Bias(nn.Module):
    """Marian's bias on the logits. PyTorch keeps it fixed; Marian trains it, and so do we."""

    size: int

    @nn.compact
    def __call__(self, logits):
        return logits + self.param("bias", nn.initializers.zeros, (self.size,))


def sinusoids(length: int, size: int):
    """Position vectors of Vaswani et al. (2017), float32 [length, size]: sines, then cosines.

    Computed in float64: in float32 the angle of position 500 is off by 1e-5.
    """
    column = np.arange(size)
    angles = np.arange(length)[:, None] / 10000.0 ** (2 * (column // 2) / size)
    halves = (np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2]))
    return jnp.asarray(np.concatenate(halves, axis=1), jnp.float32)


def _apply(config, params, method, *args, key=None):
    rngs = None if key is None else {"dropout": key}
    return Marian(config).apply({"params": params}, *args, method=method, rngs=rngs)


def init(config: MarianConfig, key):
    """Random parameters: nested dict of float32 arrays."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    return Marian(config).init(key, tokens, tokens == 0)["params"]


def encode(config: MarianConfig, params, tokens, mask, *, key=None):
    """Encoder states. tokens, mask: [batch, length] -> [batch, length, embed]."""
    return _apply(config, params, Marian.encode, tokens, mask.astype(bool), key is None, key=key)


def decode(config, params, encoded, encoder_mask, tokens, decoder_mask=None, *, key=None):
    """Teacher-forced logits.

    encoded: [batch, source, embed]   encoder_mask: bool [batch, source]
    tokens: decoder inputs [batch, target] (`shift_right` of the targets)
    returns: float32 [batch, target, vocab]
    """
    args = (encoded, encoder_mask.astype(bool), tokens, decoder_mask, key is None)
    return _apply(config, params, Marian.decode, *args, key=key)


def init_cache(config: MarianConfig, params, encoded, encoder_mask, max_length: int, beams=1):
    """Decoding state for `decode_step`, laid out as `decoder_cache` describes."""
    pairs = _apply(config, params, Marian.cross_keys_values, encoded)
    return decoder_cache.create(pairs, encoder_mask, max_length, beams, encoded.dtype)


def decode_step(config: MarianConfig, params, cache, tokens, position):
    """Logits of the next token. tokens: int [N], position: int scalar (0 for the first).

    returns: float32 [N, vocab] and the new cache
    """
    return _apply(config, params, Marian.step, cache, tokens, jnp.asarray(position))


reorder_cache = decoder_cache.reorder
shift_right = mt5.shift_right  # decoder inputs begin with the start token, as T5's do


def generate(config: MarianConfig, params, tokens, mask, search: MarianSearch):
    """Translations, token by token those of `MarianMTModel.generate`; call it inside `jax.jit`.

    tokens, mask: [batch, source]
    returns: `decoding.Generated` with one hypothesis per source, [batch, 1, max_length]
    """
    encoded = encode(config, params, tokens, mask)
    cache = init_cache(config, params, encoded, mask, search.max_length, search.num_beams)
    banned = np.isin(np.arange(config.vocab_size), search.banned)
    only_eos = np.where(np.arange(config.vocab_size) == config.eos_token_id, 0.0, -np.inf)

    def step(cache, tokens, position):
        logits, cache = decode_step(config, params, cache, tokens, position)
        if search.renormalize:  # banned before the softmax, not after it
            logits = jnp.where(banned, -jnp.inf, logits)
        if search.force_eos:
            last = position + 2 == search.max_length
            logits = jnp.where(last, only_eos.astype(np.float32), logits)
        return logits, cache

    ids = {
        "start": config.decoder_start_token_id,
        "eos": config.eos_token_id,
        "pad": config.pad_token_id,
    }
    common = {"batch": len(tokens), "allowed_tokens": ~banned if search.banned else None}
    if search.num_beams == 1:
        return decoding.greedy(step, cache, max_length=search.max_length, **common, **ids)
    beams = decoding.BeamConfig(
        beams=search.num_beams,
        length_penalty=search.length_penalty,
        early_stopping=search.early_stopping,
        max_length=search.max_length,
        **ids,
    )
    return decoding.beam_search(step, cache, beams, reorder=reorder_cache, **common)


def forward_flops(config: MarianConfig, batch: int, source: int, target: int) -> float:
    """Floating-point operations of one teacher-forced pass (2 per multiply-add)."""
    e = config.d_model
    encoder = source * (8 * e * e + 4 * e * config.encoder_ffn_dim + 4 * source * e)
    decoder = target * (12 * e * e + 4 * e * config.decoder_ffn_dim + 4 * (target + source) * e)
    decoder += 4 * e * e * source
    layers = config.encoder_layers * encoder + config.decoder_layers * decoder
    return float(batch * (layers + 2 * target * e * config.vocab_size))


_ATTENTION = r"layers_\d+/(self|cross)_attention"
PARAM_AXES = (
    (r"shared/embedding", ("vocab", "embed")),
    (rf"(encoder|decoder)/{_ATTENTION}/[qkv]/kernel", ("embed", "heads", "kv")),
    (rf"(encoder|decoder)/{_ATTENTION}/[qkv]/bias", ("heads", "kv")),
    (rf"(encoder|decoder)/{_ATTENTION}/o/kernel", ("heads", "kv", "embed")),
    (rf"(encoder|decoder)/{_ATTENTION}/o/bias", ("embed",)),
    (r"(encoder|decoder)/layers_\d+/mlp/wi/kernel", ("embed", "mlp")),
    (r"(encoder|decoder)/layers_\d+/mlp/wi/bias", ("mlp",)),
    (r"(encoder|decoder)/layers_\d+/mlp/wo/kernel", ("mlp", "embed")),
    (r"(encoder|decoder)/layers_\d+/mlp/wo/bias", ("embed",)),
    (r"(encoder|decoder)/layers_\d+/\w+_norm/(scale|bias)", ("embed",)),
    (r"final_logits/bias", ("vocab",)),
)
