"""Batches of the seq2seq objective from pairs of sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def translation_batches(tokenizer: MarianTokenizer, format: TranslationFormat) -> Transform:
    """`transform(rows, rng, epoch) -> batch` for rows (source text, target text).

    Both sides share a bucket, so there are as many compiled shapes as buckets.
    """

    def transform(rows, rng, epoch):
        sources, targets = encode_pairs(tokenizer, format, rows)
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

    return transform
