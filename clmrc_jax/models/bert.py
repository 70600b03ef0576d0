"""BERT encoder (Devlin et al., 2019) with the parameter names of Hugging Face's `BertModel`.

mBERT, multilingual-E5 and every other BERT body are this module with another `BertConfig`.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from clmrc_jax.models.dropout import Dropout
from clmrc_jax.models.layers import Dense, attend, mask_to_bias


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder; defaults are mBERT base (uncased)."""

    vocab_size: int = 105879
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    pad_token_id: int = 0
    initializer_range: float = 0.02
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by "
                f"num_attention_heads {self.num_attention_heads}"
            )


class _Attention(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, hidden, bias, deterministic):
        c = self.config
        heads, init = c.num_attention_heads, nn.initializers.normal(c.initializer_range)
        head_dim = c.hidden_size // heads

        def project(name):
            return Dense((heads, head_dim), dtype=c.dtype, kernel_init=init, name=name)

        query, key, value = (project(name)(hidden) for name in ("query", "key", "value"))
        rate = c.attention_probs_dropout_prob
        context = attend(
            query,
            key,
            value,
            bias,
            scale=head_dim**-0.5,
            dropout_rate=rate,
            dropout_key=None if deterministic or rate == 0 else self.make_rng("dropout"),
        )  # [batch, length, heads, kv]
        output = Dense(
            c.hidden_size, axis=(-2, -1), dtype=c.dtype, kernel_init=init, name="output"
        )(context)
        return _add_and_norm(c, hidden, output, deterministic)


def _add_and_norm(config: BertConfig, residual, x, deterministic):
    x = Dropout(config.hidden_dropout_prob)(x, deterministic=deterministic)
    norm = nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=config.dtype, name="LayerNorm")
    return norm(x + residual)


class _Layer(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, hidden, bias, deterministic):
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        hidden = _Attention(c, name="attention")(hidden, bias, deterministic)
        # [batch, length, embed] -> [batch, length, mlp] -> [batch, length, embed]
        x = Dense(c.intermediate_size, dtype=c.dtype, kernel_init=init, name="intermediate")(hidden)
        x = jax.nn.gelu(x, approximate=False)
        x = Dense(c.hidden_size, dtype=c.dtype, kernel_init=init, name="output")(x)
        hidden = _add_and_norm(c, hidden, x, deterministic)
        return nn.with_logical_constraint(hidden, ("batch", "length", "embed"))


class _Embeddings(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, input_ids, token_type_ids, deterministic):
        c = self.config
        init = nn.initializers.normal(c.initializer_range)

        def embed(count, name):  # in float32, and so are the sums of its gradients over tokens
            return nn.Embed(count, c.hidden_size, embedding_init=init, name=name)

        x = embed(c.vocab_size, "word_embeddings")(input_ids)
        positions = jnp.arange(input_ids.shape[1])[None, :]
        x = x + embed(c.max_position_embeddings, "position_embeddings")(positions)
        x = x + embed(c.type_vocab_size, "token_type_embeddings")(token_type_ids)
        x = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=c.dtype, name="LayerNorm")(x)
        return Dropout(c.hidden_dropout_prob)(x, deterministic=deterministic)


class BertEncoder(nn.Module):
    """[batch, length] token ids and mask -> [batch, length, embed] last hidden states."""

    config: BertConfig

    @nn.compact
    def __call__(self, input_ids, attention_mask, token_type_ids, deterministic=True):
        c = self.config
        if input_ids.shape[1] > c.max_position_embeddings:
            raise ValueError(
                f"sequence length {input_ids.shape[1]} exceeds the model's "
                f"{c.max_position_embeddings} positions; shorten max_length in the config"
            )
        hidden = _Embeddings(c, name="embeddings")(input_ids, token_type_ids, deterministic)
        bias = mask_to_bias(attention_mask)
        layer = nn.remat(_Layer, static_argnums=(3,)) if c.remat else _Layer
        for i in range(c.num_hidden_layers):
            hidden = layer(c, name=f"layers_{i}")(hidden, bias, deterministic)
        return hidden


def encode(config: BertConfig, params, input_ids, attention_mask, token_type_ids=None, *, key=None):
    """Last hidden states.

    input_ids: [batch, length] int   attention_mask: [batch, length] bool, true on real tokens
    token_type_ids: [batch, length] int or None (all 0, as in DPR and CORA)
    key: dropout key; None means no dropout.   returns: [batch, length, embed]
    Raises ValueError when the length exceeds the model's positions.
    """
    if token_type_ids is None:
        token_type_ids = jnp.zeros_like(input_ids)
    rngs = None if key is None else {"dropout": key}
    mask = attention_mask.astype(bool)
    return BertEncoder(config).apply(
        {"params": params}, input_ids, mask, token_type_ids, key is None, rngs=rngs
    )


def init(config: BertConfig, key):
    """Random parameters: nested dict of float32 arrays."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    return BertEncoder(config).init(key, tokens, tokens == 0, tokens)["params"]


def masked_lm_logits(config: BertConfig, params, head, hidden):
    """Masked-language-model logits with the output tied to the word embeddings.

    hidden: [..., embed]   head: {"dense", "LayerNorm", "bias" [vocab]} from `init_masked_lm_head`
    returns: [..., vocab] float32
    """
    x = hidden @ head["dense"]["kernel"].astype(hidden.dtype) + head["dense"]["bias"]
    x = jax.nn.gelu(x, approximate=False)
    norm = nn.LayerNorm(epsilon=config.layer_norm_eps)
    x = norm.apply({"params": head["LayerNorm"]}, x)
    table = params["embeddings"]["word_embeddings"]["embedding"]
    logits = jnp.einsum("...e,ve->...v", x, table, preferred_element_type=jnp.float32)
    return logits + head["bias"]


def init_masked_lm_head(config: BertConfig, key):
    """Random parameters of the masked-language-model head."""
    size = config.hidden_size
    kernel = config.initializer_range * jax.random.normal(key, (size, size))
    return {
        "dense": {"kernel": kernel, "bias": jnp.zeros(size)},
        "LayerNorm": {"scale": jnp.ones(size), "bias": jnp.zeros(size)},
        "bias": jnp.zeros(config.vocab_size),
    }


def forward_flops(config: BertConfig, batch: int, length: int) -> float:
    """Floating-point operations of one forward pass (2 per multiply-add; embeddings are free)."""
    e, m = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * e * e + 2 * e * m) + 4 * length * e
    return float(batch * length * config.num_hidden_layers * per_token)


PARAM_AXES = (
    (r"embeddings/word_embeddings/embedding", ("vocab", "embed")),
    (r"embeddings/(position|token_type)_embeddings/embedding", (None, "embed")),
    (r"(.*/)?LayerNorm/(scale|bias)", ("embed",)),
    (r"layers_\d+/attention/(query|key|value)/kernel", ("embed", "heads", "kv")),
    (r"layers_\d+/attention/(query|key|value)/bias", ("heads", "kv")),
    (r"layers_\d+/attention/output/kernel", ("heads", "kv", "embed")),
    (r"layers_\d+/attention/output/bias", ("embed",)),
    (r"layers_\d+/intermediate/kernel", ("embed", "mlp")),
    (r"layers_\d+/intermediate/bias", ("mlp",)),
    (r"layers_\d+/output/kernel", ("mlp", "embed")),
    (r"layers_\d+/output/bias", ("embed",)),
)
