"""Losses of reading comprehension for the training loop: the plain span reader and Dual BERT.

Same form as in `train.objectives`: `loss_fn(params, batch, key) -> (loss, metrics)`. Rows whose
`valid` is false only fill the batch and weigh nothing.
"""

import jax
import jax.numpy as jnp

from clmrc_jax.models import dual_bert, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig


def span_losses(start_logits, end_logits, start, end, *, terms: str = "mean"):
    """Cross entropy of the gold positions, per row (Cui et al. 2019, eq. 9).

    start_logits, end_logits: float32 [batch, length]   start, end: [batch] int
    terms: "sum" of start and end, or their "mean".
    returns: float32 [batch]. A label outside of the window contributes 0.
    """
    total = _cross_entropy(start_logits, start) + _cross_entropy(end_logits, end)
    return total / 2 if terms == "mean" else total


def _cross_entropy(logits, label):
    gold = jax.nn.one_hot(label, logits.shape[-1])
    return -jnp.sum(gold * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def span_objective(config: BertConfig):
    """Loss of the plain reader: the mean of start and end cross entropy.

    batch: the span batch of `models.span_head.forward` with start, end, valid [batch].
    metrics: accuracy (both ends right), weight (valid rows).
    """

    def loss_fn(params, batch, key):
        start, end = span_head.forward(config, params, batch, key=key)
        mean, weight = _mean_over(batch["valid"])
        loss = mean(span_losses(start, end, batch["start"], batch["end"]))
        return loss, {"accuracy": mean(_exact(start, end, batch)), "weight": weight}

    return loss_fn


def dual_span_objective(config: DualBertConfig):
    """Dual BERT's loss: L = L_T + lambda L_aux (eq. 13), lambda row by row.

    A lambda that its group shares multiplies every row of the group, which is the group's lambda
    on the group's mean auxiliary loss, averaged over groups. Accumulating micro-batches gives
    the two batch modes of lambda the rows of one micro-batch; set `lambda_group_size` to
    make that explicit.
    batch: see `models.dual_bert.forward`, with labels.
    metrics: accuracy, target_loss, auxiliary_loss (unweighted), lambda, weight (valid rows).
    """

    def loss_fn(params, batch, key):
        out = dual_bert.forward(config, params, batch, key=key)
        mean, weight = _mean_over(batch["valid"])
        target, auxiliary = (
            span_losses(
                out[f"{side}start_logits"],
                out[f"{side}end_logits"],
                batch[f"{side}start"],
                batch[f"{side}end"],
                terms=config.loss_terms,
            )
            for side in ("", "source_")
        )
        loss = mean(target + out["lambda"] * auxiliary)
        return loss, {
            "accuracy": mean(_exact(out["start_logits"], out["end_logits"], batch)),
            "target_loss": mean(target),
            "auxiliary_loss": mean(auxiliary),
            "lambda": mean(out["lambda"]),
            "weight": weight,
        }

    return loss_fn


def _mean_over(valid):
    """(mean of [batch] values over the valid rows, their number as float32)."""
    weights = valid.astype(jnp.float32)
    count = jnp.sum(weights)
    return lambda values: jnp.sum(values * weights) / jnp.maximum(count, 1.0), count


def _exact(start_logits, end_logits, batch):
    right_start = jnp.argmax(start_logits, axis=-1) == batch["start"]
    right_end = jnp.argmax(end_logits, axis=-1) == batch["end"]
    return (right_start & right_end).astype(jnp.float32)
