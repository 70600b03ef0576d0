"""Self-supervised targets: BERT's masking and T5's span corruption, on token ids."""

from collections.abc import Sequence

import numpy as np

from clmrc_jax.data.tokenization import SpecialIds


def mask_tokens(
    ids: Sequence[int], rng: np.random.Generator, special: SpecialIds, vocab: int, share=0.15
):
    """BERT's masking: of `share` of the tokens 80% become [MASK], 10% random, 10% stay.

    ids begins and ends with special tokens, which are never masked.
    returns: corrupted ids, positions, original ids at the positions
    """
    candidates = np.flatnonzero(~np.isin(ids, (special.cls, special.sep)))
    count = max(1, round(share * len(candidates)))
    positions = np.sort(rng.permutation(candidates)[:count])
    corrupted, labels = np.array(ids), np.array(ids)[positions]
    draw = rng.random(len(positions))
    random = rng.integers(0, vocab, len(positions))
    corrupted[positions] = np.where(draw < 0.8, special.mask, np.where(draw < 0.9, random, labels))
    return corrupted.tolist(), positions.tolist(), labels.tolist()


def corrupt_spans(
    ids: Sequence[int], rng: np.random.Generator, special: SpecialIds, share=0.15, mean_length=3.0
):
    """T5's span corruption: spans leave the source, a sentinel in the place of each.

    ids: at least two tokens, without eos.
    returns: source and target ids, both ending in eos
    """
    length = len(ids)
    noise = min(max(1, round(share * length)), length - 1)
    spans = min(max(1, round(noise / mean_length)), len(special.sentinels), length - noise)
    noise_lengths = _random_parts(noise, spans, rng)
    kept_lengths = _random_parts(length - noise, spans, rng)
    source, target, at = [], [], 0
    for kept, dropped, sentinel in zip(kept_lengths, noise_lengths, special.sentinels):
        source += [*ids[at : at + kept], sentinel]
        target += [sentinel, *ids[at + kept : at + kept + dropped]]
        at += kept + dropped
    return [*source, *ids[at:], special.eos], [*target, special.eos]


def _random_parts(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Splits `total` into `parts` positive integers, uniformly over all ways."""
    cuts = np.sort(rng.permutation(total - 1)[: parts - 1] + 1)
    return np.diff(np.concatenate([[0], cuts, [total]]))
