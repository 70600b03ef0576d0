"""Batches of the seq2seq objective from pairs of sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clmrc_jax.data.marian_tokenizer import MarianTokenizer
from clmrc_jax.data.pipeline import Transform, pad_to_bucket
from clmrc_jax.files import InputError


@dataclass(frozen=True)
class TranslationFormat:
    """buckets: padded lengths, ascending, for both sides; the last is the most tokens of a side,
    the end token included."""

    buckets: tuple[int, ...] = (32, 64, 128)

    def __post_init__(self):
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise InputError(f"buckets {self.buckets} must ascend")

    @property
    def length(self) -> int:
        """Most tokens of a side."""
        return self.buckets[-1]


def encode_pairs(
    tokenizer: MarianTokenizer, format: TranslationFormat, pairs: Sequence[tuple[str, str]]
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of sources and targets, end token included, cut at `format.length`."""
    room, eos = format.length - 1, tokenizer.ids.eos
    sources = tokenizer.encode_batch([source for source, _ in pairs])
    targets = tokenizer.encode_targets([target for _, target in pairs])
    return tuple([[*ids[:room], eos] for ids in side] for side in (sources, targets))


def length_groups(
    tokenizer: MarianTokenizer,
    format: TranslationFormat,
    pairs: Sequence[tuple[str, str]],
    *,
    tokens: int,
    multiple: int = 1,
    seed: int = 0,
) -> list[tuple[int, list[tuple[str, str]]]]:
    """All pairs in groups (bucket, pairs): batches with little padding.

    tokens: positions of one side of a batch, so a group has `tokens / bucket` pairs (rounded down
        to `multiple`, the devices that share a batch): many short ones or few long ones, and every
        update weighs about the same.
    What is left of a bucket goes to the next longer one; the last group is filled with pairs drawn
    at random. Raises InputError when `tokens` cannot hold `multiple` long pairs.
    """
    rng = np.random.default_rng(seed)
    sides = encode_pairs(tokenizer, format, pairs)
    lengths = np.array([max(map(len, pair)) for pair in zip(*sides)])
    places = np.searchsorted(format.buckets, lengths)
    groups, left = [], np.zeros(0, int)
    for place, bucket in enumerate(format.buckets):
        rows = rows_of(tokens, bucket, multiple)
        pool = rng.permutation(np.concatenate([left, np.flatnonzero(places == place)]))
        if bucket == format.length:
            pool = np.concatenate([pool, rng.integers(0, len(pairs), -len(pool) % rows)])
        full = len(pool) // rows * rows
        groups += [(bucket, group) for group in pool[:full].reshape(-1, rows)]
        left = pool[full:]
    return [(bucket, [pairs[i] for i in group]) for bucket, group in groups]


def rows_of(tokens: int, bucket: int, multiple: int = 1) -> int:
    """Pairs in a batch of `tokens` positions at length `bucket`, a multiple of `multiple`."""
    rows = tokens // bucket // multiple * multiple
    if not rows:
        raise InputError(
            f"batch_tokens {tokens} hold no {multiple} sentences of {bucket} tokens (one for each "
            f"device and accumulated batch); set at least {bucket * multiple}"
        )
    return rows


def translation_batch(
    tokenizer: MarianTokenizer, format: TranslationFormat, pairs: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """A batch of the seq2seq objective, both sides [rows, bucket].

    Both share the smallest bucket that holds them, so there are as many shapes as buckets.
    """
    sources, targets = encode_pairs(tokenizer, format, pairs)
    longest = max(map(len, sources + targets))
    bucket = [next(b for b in format.buckets if b >= longest)]
    tokens, mask = pad_to_bucket(sources, bucket, tokenizer.ids.pad)
    target_tokens, target_mask = pad_to_bucket(targets, bucket, tokenizer.ids.pad)
    return {
        "encoder_input_tokens": tokens,
        "encoder_mask": mask,
        "decoder_target_tokens": target_tokens,
        "decoder_mask": target_mask,
    }


def pair_batches(tokenizer: MarianTokenizer, format: TranslationFormat) -> Transform:
    """`transform(rows, rngs, epoch) -> batch` for rows (source text, target text)."""
    return lambda rows, rngs, epoch: translation_batch(tokenizer, format, rows)


def group_batches(tokenizer: MarianTokenizer) -> Transform:
    """The same for one row of `length_groups` per batch."""

    def transform(rows, rngs, epoch):
        ((bucket, pairs),) = rows
        return translation_batch(tokenizer, TranslationFormat((bucket,)), pairs)

    return transform
