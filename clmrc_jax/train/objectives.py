"""Losses of the training loop: contrastive (mDPR), seq2seq (mGEN), masked language model.

Each `*_objective` returns `loss_fn(params, batch, key) -> (loss, metrics)`; the loop never
learns which one it runs. `metrics["weight"]` is what the loss is a mean over, so that
accumulation over several batches is exact. `key=None` switches dropout off (validation).
Span objectives of reading comprehension belong here as well.
"""

import jax
import jax.numpy as jnp

from clmrc_jax.files import InputError
from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.models.marian import MarianConfig
from clmrc_jax.models.mt5 import Mt5Config

EXCLUDED = -1e9


def contrastive_scores(questions, passages, batch, *, mask_duplicates=True, mask_articles=True):
    """Scores of every question against every passage of the global batch, with exclusions.

    questions: [batch, embed]   passages: [batch, contexts, embed], context 0 is the positive
    batch: `passage_valid`, `passage_key`, `article_key`, each [batch, contexts]
    mask_duplicates: a copy of the positive elsewhere in the batch is no negative.
    mask_articles: neither is another question's passage from the positive's article
        (key -1: article unknown); a question's own hard negatives always count.
    returns: float32 [batch, batch * contexts]; the positive of row i stands at i * contexts
    """
    rows, contexts = batch["passage_key"].shape
    flat = passages.reshape(rows * contexts, -1)
    scores = jnp.einsum("qe,pe->qp", questions, flat, preferred_element_type=jnp.float32)
    owner = jnp.repeat(jnp.arange(rows), contexts)[None, :]
    column = jnp.tile(jnp.arange(contexts), rows)[None, :]
    own = owner == jnp.arange(rows)[:, None]
    excluded = ~batch["passage_valid"].reshape(1, -1)
    if mask_duplicates:
        excluded = excluded | _same_as_positive(batch["passage_key"])
    if mask_articles:
        known = batch["article_key"].reshape(1, -1) >= 0
        excluded = excluded | (_same_as_positive(batch["article_key"]) & known & ~own)
    return jnp.where(excluded & ~(own & (column == 0)), EXCLUDED, scores)


def _same_as_positive(keys):
    """[batch, contexts] -> bool [batch, batch * contexts]: equal to the row's positive."""
    return keys[:, :1] == keys.reshape(1, -1)


def contrastive_loss(scores, contexts: int):
    """Negative log likelihood of the positive (CORA eq. 2), and what is worth logging.

    scores: float32 [batch, batch * contexts] from `contrastive_scores`
    returns: mean loss, {"accuracy", "average_rank" (0-based), "weight"}
    """
    rows = scores.shape[0]
    positive = jnp.take_along_axis(scores, (jnp.arange(rows) * contexts)[:, None], axis=1)
    loss = jnp.mean(jax.nn.logsumexp(scores, axis=1) - positive[:, 0])
    rank = jnp.sum(scores > positive, axis=1)
    return loss, {
        "accuracy": jnp.mean(rank == 0),
        "average_rank": jnp.mean(rank.astype(jnp.float32)),
        "weight": jnp.float32(rows),
    }


def contrastive_objective(
    config: BiEncoderConfig,
    *,
    mask_duplicates: bool = True,
    mask_articles: bool = True,
    temperature: float = 1.0,
    chunk_size: int = 0,
    freeze_passages: bool = False,
):
    """mDPR's loss over in-batch and hard negatives of the whole global batch.

    chunk_size: rows encoded at a time, 0 for all at once. With chunks, activations are
        recomputed in the backward pass (GradCache, Gao et al. 2021), so memory does not grow
        with the batch; it must divide the batch.
    temperature: divides the scores (E5 trains with 0.01; DPR and CORA use 1).
    freeze_passages: no gradient through the passage tower.
    """

    def encode(tower, params, ids, mask, key):
        shape = ids.shape[:-1]
        ids, mask = (x.reshape(-1, x.shape[-1]) for x in (ids, mask))
        if not chunk_size:
            return tower(config, params, ids, mask, key=key).reshape(*shape, -1)
        vectors = _encode_in_chunks(tower, config, params, ids, mask, key, chunk_size)
        return vectors.reshape(*shape, -1)

    def loss_fn(params, batch, key):
        question_key, passage_key = (None, None) if key is None else jax.random.split(key)
        towers = (biencoder.encode_questions, biencoder.encode_passages)
        questions = encode(
            towers[0], params, batch["question_ids"], batch["question_mask"], question_key
        )
        passages = encode(
            towers[1], params, batch["passage_ids"], batch["passage_mask"], passage_key
        )
        if freeze_passages:
            passages = jax.lax.stop_gradient(passages)
        scores = contrastive_scores(
            questions / temperature,
            passages,
            batch,
            mask_duplicates=mask_duplicates,
            mask_articles=mask_articles,
        )
        return contrastive_loss(scores, passages.shape[1])

    return loss_fn


def _encode_in_chunks(tower, config, params, ids, mask, key, chunk_size):
    rows = ids.shape[0]
    if rows % chunk_size:
        raise InputError(f"chunk_size {chunk_size} does not divide the {rows} rows of the batch")
    count = rows // chunk_size

    # Row i * count + j goes to chunk j: each chunk then takes an equal part of every device.
    def split(x):
        return x.reshape(chunk_size, count, *x.shape[1:]).swapaxes(0, 1)

    @jax.checkpoint
    def one(chunk):
        chunk_ids, chunk_mask, index = chunk
        chunk_key = None if key is None else jax.random.fold_in(key, index)
        return tower(config, params, chunk_ids, chunk_mask, key=chunk_key)

    vectors = jax.lax.map(one, (split(ids), split(mask), jnp.arange(count)))
    return vectors.swapaxes(0, 1).reshape(rows, -1)


def token_cross_entropy(logits, targets, mask, label_smoothing: float = 0.0):
    """Mean cross entropy over the real tokens.

    logits: float32 [..., vocab]   targets, mask: [...]
    label_smoothing: share of the probability spread evenly over the vocabulary.
    returns: mean loss, {"accuracy", "weight" (number of tokens)}
    """
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = log_normalizer - target_logits
    if label_smoothing:
        uniform = log_normalizer - jnp.mean(logits, axis=-1)
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    weights = mask.astype(jnp.float32)
    count = jnp.maximum(jnp.sum(weights), 1.0)
    right = (jnp.argmax(logits, axis=-1) == targets) * weights
    return jnp.sum(loss * weights) / count, {"accuracy": jnp.sum(right) / count, "weight": count}


def seq2seq_objective(config: Mt5Config | MarianConfig, *, model=mt5, label_smoothing: float = 0.0):
    """Cross entropy of the target, padding masked: mGEN's loss (CORA eq. 1) or a translator's.

    model: the module with the functions of `config`'s kind (`encode`, `decode`, `shift_right`).

    A batch whose `encoder_input_tokens` have three axes [batch, passages, length] is read by
    Fusion-in-Decoder, one with two axes as a single concatenated source.
    """

    def loss_fn(params, batch, key):
        encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
        tokens, mask = batch["encoder_input_tokens"], batch["encoder_mask"]
        targets = batch["decoder_target_tokens"]
        if tokens.ndim == 3:
            encoded, mask = model.encode_fusion(config, params, tokens, mask, key=encoder_key)
        else:
            encoded = model.encode(config, params, tokens, mask, key=encoder_key)
        inputs = model.shift_right(config, targets)
        logits = model.decode(config, params, encoded, mask, inputs, key=decoder_key)
        return token_cross_entropy(logits, targets, batch["decoder_mask"], label_smoothing)

    return loss_fn


def masked_lm_objective(config: bert.BertConfig):
    """BERT's masked language model; params {"bert": .., "head": ..}.

    batch: input_ids, attention_mask [batch, length]; masked_positions, masked_labels,
    masked_weights [batch, predictions].
    """

    def loss_fn(params, batch, key):
        hidden = bert.encode(
            config, params["bert"], batch["input_ids"], batch["attention_mask"], key=key
        )
        picked = jnp.take_along_axis(hidden, batch["masked_positions"][..., None], axis=1)
        logits = bert.masked_lm_logits(config, params["bert"], params["head"], picked)
        return token_cross_entropy(logits, batch["masked_labels"], batch["masked_weights"])

    return loss_fn
