"""Dual BERT (Cui et al. 2019, section 4): a reader that sees target and translation side by side.

One shared encoder reads both; self-adaptive attention fetches what the source side knows for
every target position; a head points at the span in the target, an auxiliary head in the source,
whose loss counts as much as the two gold spans resemble each other (lambda).
`paper` follows the paper, `official` the released code; `DualBertConfig` lists the differences.
"""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from clmrc_jax.models import bert, saa, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dropout import Dropout
from clmrc_jax.models.layers import Dense, mask_to_bias
from clmrc_jax.models.span_representation import (
    LAMBDA_MODES,
    SPAN_ATTENTIONS,
    similarity,
    span_vectors,
)


@dataclass(frozen=True)
class DualBertConfig:
    """The model; defaults are mode `paper`. D1-D9: where the released code differs from the paper.

    residual (D1): what R is added to, "target" (eq. 7) or "source" (released code).
    lambda_mode (D2): "cosine_example" (eq. 12), "cosine_batch_mean", "official_dot" (released
        code), "const" (`lambda_value`), "none" (no auxiliary loss); see `similarity`.
    lambda_group_size: rows that share a lambda in the two batch modes; 0: all.
    lambda_stop_grad (D3): no gradient through lambda. It flows in the released code.
    loss_terms (D4): "sum" of start and end (eq. 9) or their "mean" (released code).
    span_attention (D5): "average" (paper) or "self_adaptive" (released code), see `span_vectors`.
    mask_padding (D6): padding takes no part in A_T, A_S and the span attention. The released
        code lets it, so that its outputs depend on how much padding there is.
    span_range (D7): where a span may lie, "passage" ([CLS], meaning no answer in this window,
        and the passage: the batch's span masks) or "tokens" (all real tokens; the paper is silent).
    D8, learning rate and epochs, is `train.span_recipe.Recipe`.
    equal_lengths (D9): refuse target and source of different lengths, as the released code must.
    adaptive: False is the ablation without SAA (plain inter-attention).
    fusion_dropout: of the last attention map and of R; the encoder's own rates do not count here.
    saa: "factored" or "explicit", two ways to the same numbers; see `models.saa`.
    saa_chunk: rows of the factored maps held at a time, 0 for all; less memory, more time.
    """

    bert: BertConfig = field(default_factory=BertConfig)
    residual: str = "target"
    lambda_mode: str = "cosine_example"
    lambda_value: float = 1.0
    lambda_group_size: int = 0
    lambda_stop_grad: bool = False
    loss_terms: str = "sum"
    span_attention: str = "average"
    mask_padding: bool = True
    span_range: str = "passage"
    equal_lengths: bool = False
    adaptive: bool = True
    fusion_dropout: float = 0.1
    saa: str = "factored"
    saa_chunk: int = 0

    def __post_init__(self):
        for name, known in (
            ("residual", ("target", "source")),
            ("lambda_mode", LAMBDA_MODES),
            ("loss_terms", ("sum", "mean")),
            ("span_attention", SPAN_ATTENTIONS),
            ("span_range", ("passage", "tokens")),
            ("saa", ("factored", "explicit")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}"
                )
        if self.saa == "explicit" and self.saa_chunk:
            raise ValueError("saa_chunk works with saa='factored'; explicit maps are whole")


def paper(bert: BertConfig, **options) -> DualBertConfig:
    """Dual BERT as the paper has it, padding masked. options: fields to change."""
    return DualBertConfig(bert, **options)


def official(bert: BertConfig, **options) -> DualBertConfig:
    """Dual BERT as the released code computes it (D1-D9). options: fields to change."""
    released = {
        "residual": "source",
        "lambda_mode": "official_dot",
        "lambda_stop_grad": False,
        "loss_terms": "mean",
        "span_attention": "self_adaptive",
        "mask_padding": False,
        "span_range": "passage",
        "equal_lengths": True,
    }
    return DualBertConfig(bert, **released | options)


class _Fusion(nn.Module):
    """B_T, B_S -> F of eq. 7, with the intermediates of eq. 1-7 by name."""

    config: DualBertConfig

    @nn.compact
    def __call__(self, target, source, target_mask, source_mask, deterministic, maps):
        """target: [batch, L_T, embed]   source: [batch, L_S, embed]   masks: [batch, length]"""
        c, b = self.config, self.config.bert
        heads = (b.num_attention_heads, b.hidden_size // b.num_attention_heads)
        kernel = nn.initializers.truncated_normal(b.initializer_range)

        def dense(name, shape, axis=-1):
            return Dense(shape, axis, dtype=b.dtype, kernel_init=kernel, name=name)

        query = dense("query", heads)(target)  # [batch, L_T, heads, kv]
        key, value = (dense(name, heads)(source) for name in ("key", "value"))
        biases = mask_to_bias(target_mask), mask_to_bias(source_mask)
        masking = {"adaptive": c.adaptive, "mask_padding": c.mask_padding}
        dropout = {
            "dropout_rate": c.fusion_dropout,
            "dropout_key": None if deterministic else self.make_rng("dropout"),
        }
        out = {"query": query, "key": key, "value": value}
        if maps or c.saa == "explicit":
            named = saa.attention_maps(query, key, *biases, **masking)
            out |= {f"saa_{name}": array for name, array in named.items()}
        if c.saa == "explicit":
            attended = saa.attend_explicitly(named, value, **dropout)
        else:
            attended = saa.attend_adaptively(
                query, key, value, *biases, chunk=c.saa_chunk, **masking, **dropout
            )
        transformed = dense("output", b.hidden_size, (-2, -1))(attended)  # eq. 6
        transformed = Dropout(c.fusion_dropout)(transformed, deterministic=deterministic)
        norm = nn.LayerNorm(epsilon=b.layer_norm_eps, dtype=b.dtype, name="LayerNorm")
        fused = norm(transformed + (target if c.residual == "target" else source))
        fused = nn.with_logical_constraint(fused, ("batch", "length", "embed"))
        return out | {"attended": attended, "transformed": transformed, "fused": fused}


def init(config: DualBertConfig, key, pretrained=None):
    """Parameters {"bert", "fusion", "target_head", "source_head"}, float32.

    fusion: {"query", "key", "value", "output": {"kernel", "bias"}, "LayerNorm"}, shaped as in
    `models.bert`; the heads as in `models.span_head`, on 2 * embed (target) and embed (source).
    pretrained: BERT parameters to start from; random if None.
    """
    bert_key, fusion_key, *head_keys = jax.random.split(key, 4)
    size = config.bert.hidden_size
    hidden, mask = jnp.zeros((1, 2, size)), jnp.ones((1, 2), bool)
    fusion = _Fusion(config).init(fusion_key, hidden, hidden, mask, mask, True, False)["params"]
    return {
        "bert": bert.init(config.bert, bert_key) if pretrained is None else pretrained,
        "fusion": fusion,
        "target_head": span_head.init_head(config.bert, 2 * size, head_keys[0]),
        "source_head": span_head.init_head(config.bert, size, head_keys[1]),
    }


def inherit_head(params, head):
    """The parameters with both heads made from a plain reader's; not published.

    head: {"kernel" [embed, 2], "bias" [2]}. The auxiliary head is a copy of it, the target head
    reads B_T with it, and F with its own first values: Dual BERT begins as about that reader.
    """
    size, target = len(head["kernel"]), params["target_head"]
    kernel = jnp.concatenate([head["kernel"], target["kernel"][size:]])
    heads = {"target_head": {"kernel": kernel, "bias": head["bias"]}, "source_head": head}
    return params | heads


def encode(config: DualBertConfig, params, batch, *, key=None):
    """B_T and B_S: both sides through the one encoder, in one call where their lengths are equal.

    params: the BERT parameters   batch: see `forward`
    returns: [batch, L_T, embed], [batch, L_S, embed]
    """
    names = ("input_ids", "attention_mask", "token_type_ids")
    target, source = ([batch[side + name] for name in names] for side in ("", "source_"))
    lengths = target[0].shape[1], source[0].shape[1]
    if lengths[0] == lengths[1]:
        # The two sides of a row become neighbours, so that they stay on the row's device.
        rows = [jnp.stack(pair, axis=1).reshape(-1, lengths[0]) for pair in zip(target, source)]
        hidden = bert.encode(config.bert, params, *rows, key=key)
        hidden = hidden.reshape(-1, 2, *hidden.shape[1:])
        return hidden[:, 0], hidden[:, 1]
    if config.equal_lengths or config.residual == "source":
        raise ValueError(
            f"target length {lengths[0]} and source length {lengths[1]} differ, and "
            f"equal_lengths={config.equal_lengths}, residual={config.residual!r} need equal ones; "
            "make max_length and source_length equal, or use mode 'paper'"
        )
    keys = (None, None) if key is None else jax.random.split(key)
    sides = zip((target, source), keys)
    return tuple(bert.encode(config.bert, params, *side, key=k) for side, k in sides)


def forward(config: DualBertConfig, params, batch, *, key=None, maps: bool = False) -> dict:
    """Everything the loss needs, and the intermediates, by name.

    batch: input_ids, attention_mask, token_type_ids, span_mask, each [batch, L_T], and the same
        with the prefix `source_`, [batch, L_S]; with labels also start, end, source_start,
        source_end (int) and valid (bool), each [batch].
    key: dropout key; None means no dropout.   maps: also give the maps of attention, whole.
    returns
        target_hidden (B_T), source_hidden (B_S)                [batch, length, embed]
        query (Q), key (K), value (V), attended (R')            [batch, length, heads, kv]
        saa_S, saa_A_T, saa_A_S, saa_A_tilde, saa_P (if asked)  [batch, heads, rows, columns]
        transformed (R), fused (F)                              [batch, L_T, embed]
        joined (H_T)                                            [batch, L_T, 2 * embed]
        start_logits, end_logits                                float32 [batch, L_T]
        source_start_logits, source_end_logits                  float32 [batch, L_S]
        with labels: target_span, source_span (H̃)               float32 [batch, 3 * embed]
                     similarity (lambda before the clamp; not for const and none)  [batch]
                     lambda (per row, constant within a group)  float32 [batch]
    Raises ValueError when the lengths differ and the config does not allow it.
    """
    encoder_key, fusion_key = (None, None) if key is None else jax.random.split(key)
    target, source = encode(config, params["bert"], batch, key=encoder_key)
    out = _Fusion(config).apply(
        {"params": params["fusion"]},
        target,
        source,
        batch["attention_mask"].astype(bool),
        batch["source_attention_mask"].astype(bool),
        key is None,
        maps,
        rngs=None if key is None else {"dropout": fusion_key},
    )
    out |= {"target_hidden": target, "source_hidden": source}
    out["joined"] = jnp.concatenate([target, out["fused"]], axis=-1)  # eq. 7
    range_ = "span_mask" if config.span_range == "passage" else "attention_mask"
    for side, head, hidden in (("", "target", out["joined"]), ("source_", "source", source)):
        start, end = span_head.logits(params[f"{head}_head"], hidden, batch[side + range_])
        out |= {f"{side}start_logits": start, f"{side}end_logits": end}
    return out | _weigh(config, batch, target, source) if "start" in batch else out


def _weigh(config, batch, target, source) -> dict:
    """Span vectors and lambda (eq. 10-12)."""
    out = {
        f"{name}_span": span_vectors(
            hidden,
            batch[f"{side}start"],
            batch[f"{side}end"],
            batch[f"{side}attention_mask"],
            attention=config.span_attention,
            mask_padding=config.mask_padding,
        )
        for name, side, hidden in (("target", "", target), ("source", "source_", source))
    }
    mode, rows = config.lambda_mode, target.shape[0]
    if mode in ("const", "none"):
        return out | {"lambda": jnp.full(rows, config.lambda_value if mode == "const" else 0.0)}
    raw = similarity(
        out["target_span"],
        out["source_span"],
        batch["valid"].astype(jnp.float32),
        mode=mode,
        group_size=config.lambda_group_size,
    )
    clamped = jnp.maximum(raw, 0.0)
    clamped = jax.lax.stop_gradient(clamped) if config.lambda_stop_grad else clamped
    return out | {"similarity": raw, "lambda": clamped}


def predict(config: DualBertConfig, params, batch):
    """(start, end) log-probabilities in the target, float32 [batch, L_T]; labels are not used."""
    # Without labels there is no lambda, whose groups need not divide a batch of reading.
    out = forward(config, params, {k: x for k, x in batch.items() if k != "start"})
    return span_head.log_probs((out["start_logits"], out["end_logits"]))


PARAM_AXES = (
    *((rf"bert/{path}", axes) for path, axes in bert.PARAM_AXES),
    (r"fusion/(query|key|value)/kernel", ("embed", "heads", "kv")),
    (r"fusion/(query|key|value)/bias", ("heads", "kv")),
    (r"fusion/output/kernel", ("heads", "kv", "embed")),
    (r"fusion/(output/bias|LayerNorm/(scale|bias))", ("embed",)),
    *((rf"(target|source)_head/{path}", axes) for path, axes in span_head.HEAD_AXES),
)
