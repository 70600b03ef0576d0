"""mDPR: two BERT towers, tied or separate, whose pooled vectors meet in a dot product.

Karpukhin et al. (2020); CORA section 2.1 (e_q = mBERT_q(q), e_p = mBERT_p(p)).
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from clmrc_jax.models import bert
from clmrc_jax.models.bert import BertConfig


@dataclass(frozen=True)
class BiEncoderConfig:
    """The retriever.

    pooling: "cls" (CORA) or "mean" over real tokens (E5).   tied: one tower for both sides.
    projection: width of a linear layer on top, 0 for none.   normalize: unit-length vectors.
    """

    bert: BertConfig = field(default_factory=BertConfig)
    pooling: str = "cls"
    tied: bool = False
    projection: int = 0
    normalize: bool = False

    def __post_init__(self):
        if self.pooling not in ("cls", "mean"):
            raise ValueError(f"pooling must be 'cls' or 'mean', got {self.pooling!r}")
        if self.projection < 0:
            raise ValueError(f"projection is {self.projection}; it must be at least 0 (none)")

    @property
    def embedding_size(self) -> int:
        """Width of question and passage vectors."""
        return self.projection or self.bert.hidden_size


def pool(hidden, mask, pooling: str):
    """[batch, length, embed] and bool [batch, length] -> float32 [batch, embed]."""
    if pooling == "cls":
        return hidden[:, 0].astype(jnp.float32)
    weights = mask.astype(jnp.float32)[..., None]
    total = jnp.sum(hidden.astype(jnp.float32) * weights, axis=1)
    return total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


def encode_questions(config: BiEncoderConfig, params, ids, mask, *, key=None):
    """[batch, length] ids and mask -> float32 [batch, embedding_size]."""
    return _encode(config, params["shared" if config.tied else "question"], ids, mask, key)


def encode_passages(config: BiEncoderConfig, params, ids, mask, *, key=None):
    """[batch, length] ids and mask -> float32 [batch, embedding_size]."""
    return _encode(config, params["shared" if config.tied else "passage"], ids, mask, key)


def _encode(config, tower, ids, mask, key):
    hidden = bert.encode(config.bert, tower["bert"], ids, mask, key=key)
    vectors = pool(hidden, mask, config.pooling)
    if config.projection:
        vectors = vectors @ tower["projection"]["kernel"] + tower["projection"]["bias"]
    if config.normalize:
        vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors


def init(config: BiEncoderConfig, key, pretrained=None):
    """Parameters {"shared": tower} or {"question": tower, "passage": tower}.

    pretrained: BERT parameters that both towers start from; random if None.
    """
    towers = ("shared",) if config.tied else ("question", "passage")
    return {
        name: _init_tower(config, jax.random.fold_in(key, i), pretrained)
        for i, name in enumerate(towers)
    }


def _init_tower(config, key, pretrained):
    bert_key, projection_key = jax.random.split(key)
    tower = {"bert": bert.init(config.bert, bert_key) if pretrained is None else pretrained}
    if config.projection:
        shape = (config.bert.hidden_size, config.projection)
        kernel = config.bert.initializer_range * jax.random.normal(projection_key, shape)
        tower["projection"] = {"kernel": kernel, "bias": jnp.zeros(config.projection)}
    return tower


PARAM_AXES = tuple((rf"\w+/bert/{path}", axes) for path, axes in bert.PARAM_AXES) + (
    (r"\w+/projection/kernel", ("embed", None)),
    (r"\w+/projection/bias", (None,)),
)
