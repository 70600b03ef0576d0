"""The plain span reader: a BERT encoder and one linear head that points at start and end.

Cui et al. (2019), systems 6, 7 and 9-11 (spec: BERT span-QA baseline); also the head of Dual BERT.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from clmrc_jax.models import bert
from clmrc_jax.models.bert import BertConfig

# Added to the logits of positions that may not be predicted; -10000 as published, so that masked
# logits compare equal too. Its exponential is 0 in float32.
EXCLUDED = -1e4


def init(config: BertConfig, key, pretrained=None):
    """Parameters {"bert", "head": {"kernel" [embed, 2], "bias" [2]}}.

    pretrained: BERT parameters to start from; random if None.
    """
    bert_key, head_key = jax.random.split(key)
    body = bert.init(config, bert_key) if pretrained is None else pretrained
    return {"bert": body, "head": init_head(config, config.hidden_size, head_key)}


def init_head(config: BertConfig, width: int, key):
    """A head on vectors of `width`: truncated normal kernel [width, 2], zero bias [2]."""
    kernel = nn.initializers.truncated_normal(config.initializer_range)(key, (width, 2))
    return {"kernel": kernel, "bias": jnp.zeros(2)}


def logits(head, hidden, span_mask):
    """Start and end logits (Cui et al. eq. 8 before the softmax).

    head: {"kernel" [width, 2], "bias" [2]}   hidden: [batch, length, width]
    span_mask: [batch, length] bool, true where an answer may start or end; -1e4 is added elsewhere
    returns: (start, end), each float32 [batch, length]
    """
    # Two columns cost nothing in float32, and CPUs cannot multiply this shape in bfloat16.
    both = jnp.einsum("bqe,es->sbq", hidden.astype(jnp.float32), head["kernel"])
    both = both + head["bias"][:, None, None] + jnp.where(span_mask.astype(bool), 0.0, EXCLUDED)
    return both[0], both[1]


def forward(config: BertConfig, params, batch, *, key=None):
    """(start, end) logits of a batch, float32 [batch, length].

    batch: input_ids, attention_mask, token_type_ids, span_mask, each [batch, length]
    key: dropout key; None means no dropout.
    """
    ids, mask, segments = (batch[k] for k in ("input_ids", "attention_mask", "token_type_ids"))
    hidden = bert.encode(config, params["bert"], ids, mask, segments, key=key)
    return logits(params["head"], hidden, batch["span_mask"])


def predict(config: BertConfig, params, batch):
    """(start, end) log-probabilities over the positions of each window, float32 [batch, length]."""
    return log_probs(forward(config, params, batch))


def log_probs(start_and_end):
    """Log-softmax over the length of each of (start, end) logits [batch, length]."""
    start, end = start_and_end
    return jax.nn.log_softmax(start, axis=-1), jax.nn.log_softmax(end, axis=-1)


HEAD_AXES = ((r"kernel", ("embed", None)), (r"bias", (None,)))

PARAM_AXES = (
    *((rf"bert/{path}", axes) for path, axes in bert.PARAM_AXES),
    *((rf"head/{path}", axes) for path, axes in HEAD_AXES),
)
