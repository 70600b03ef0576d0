"""Batches of random tokens for the benchmarks, shaped as the runs' own: numpy alone.

Every text takes three quarters to the whole of its padded length, or `tokens` of it.
"""

import numpy as np


def texts(rng, rows: int, length: int, vocab_size: int, tokens: int = 0):
    """ids int32 [rows, length], 0 on padding, and mask bool [rows, length]."""
    used = rng.integers(3 * length // 4, length + 1, rows) if not tokens else np.full(rows, tokens)
    mask = np.arange(length)[None] < used[:, None]
    return np.int32(mask * rng.integers(2, vocab_size, mask.shape)), mask


def contrastive(rows: int, contexts: int, lengths: tuple[int, int], vocab_size: int) -> dict:
    """A batch of `train.objectives.contrastive_objective`; lengths: of questions and passages."""
    rng = np.random.default_rng(0)
    batch = dict(zip(("question_ids", "question_mask"), texts(rng, rows, lengths[0], vocab_size)))
    for name, array in zip(("ids", "mask"), texts(rng, rows * contexts, lengths[1], vocab_size)):
        batch[f"passage_{name}"] = array.reshape(rows, contexts, -1)
    keys = np.arange(rows * contexts, dtype=np.int32).reshape(rows, contexts)
    valid = np.ones((rows, contexts), bool)
    return batch | {"passage_valid": valid, "passage_key": keys, "article_key": keys}


def seq2seq(rows: int, source: int, target: int, vocab_size: int) -> dict[str, np.ndarray]:
    """A batch of `train.objectives.seq2seq_objective`."""
    rng, batch = np.random.default_rng(0), {}
    names = ("encoder_input_tokens", "encoder_mask"), ("decoder_target_tokens", "decoder_mask")
    for pair, length in zip(names, (source, target)):
        batch |= zip(pair, texts(rng, rows, length, vocab_size))
    return batch


def span_pairs(rows: int, length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """A batch of `train.span_objectives.dual_span_objective`, both sides of one length."""
    rng, batch = np.random.default_rng(0), {"valid": np.ones(rows, bool)}
    position = np.arange(length)[None]
    for prefix in ("", "source_"):
        ids, mask = texts(rng, rows, length, vocab_size)
        start = rng.integers(length // 8, length // 2, rows)
        fields = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.int32(mask & (position >= length // 8)),
            "span_mask": mask & ((position == 0) | (position >= length // 8)),
            "start": np.int32(start),
            "end": np.int32(start + rng.integers(0, 8, rows)),
        }
        batch |= {prefix + name: value for name, value in fields.items()}
    return batch
