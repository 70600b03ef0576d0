"""mGEN's inputs: the ONE formatter of the source string, and its training batches.

Source (spec of the released code, section 1.7; CORA section 2.1):
    <Q>: QUESTION [lang] <P>:<0: TITLE> TEXT <1: TITLE> TEXT ...
Question, language and passages stay separate fields until they meet here.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clmrc_jax.data import setting_checks
from clmrc_jax.data.pipeline import pad_to_bucket
from clmrc_jax.data.tokenization import Tokenizer
from clmrc_jax.files import InputError

TAGS = {"single": 1, "double": 2, "none": 0}


@dataclass(frozen=True)
class GeneratorFormat:
    """How a question with passages becomes mGEN's source, in training as in evaluation.

    tag: "single", "none", or "double" (what the published evaluation fed to the model).
    passages: how many passages are offered (top k); 0 is the closed-book format.
    source_buckets: padded lengths, ascending; the last is the most source tokens, the end token
        included (per passage with `fusion`); the rest is cut at the right.
    target_length: most target tokens, the end token included.
    fusion: Fusion-in-Decoder, one source per passage.
    """

    tag: str = "single"
    passages: int = 15
    source_buckets: tuple[int, ...] = (1000,)
    target_length: int = 25
    fusion: bool = False

    def __post_init__(self):
        if self.tag not in TAGS:
            raise InputError(f"tag must be one of {', '.join(TAGS)}; got {self.tag!r}")
        setting_checks.buckets(self, "source_buckets")
        setting_checks.at_least(self, 0, "passages")
        setting_checks.at_least(self, 1, "target_length")

    @property
    def source_length(self) -> int:
        """Most source tokens."""
        return self.source_buckets[-1]

    @property
    def labelling_length(self) -> int:
        """Padded length, about, of a question with one of its passages."""
        share = self.source_length / (1 if self.fusion else max(self.passages, 1))
        return next(bucket for bucket in self.source_buckets if bucket >= share)

    def one_length(self) -> "GeneratorFormat":
        """The same with the longest bucket alone: hosts that batch apart agree on lengths."""
        return dataclasses.replace(self, source_buckets=self.source_buckets[-1:])

    def head(self, question: str, lang: str) -> str:
        """`<Q>: question [lang]`. Raises InputError for an empty question."""
        text = " ".join(question.split())
        if not text:
            raise InputError("empty question: every question needs text")
        return f"<Q>: {text}" + f" [{lang}]" * TAGS[self.tag]

    def parts(self, question: str, lang: str, ctxs: Sequence[dict]) -> list[str]:
        """The source cut before each passage; joined by spaces they are the source string."""
        head = self.head(question, lang)
        blocks = [f"<{i}: {_line(c['title'])}> {_line(c['text'])}" for i, c in enumerate(ctxs)]
        if not blocks:
            return [head]
        if self.fusion:
            return [f"{head} <P>:{block}" for block in blocks]
        return [f"{head} <P>:{blocks[0]}", *blocks[1:]]


def _line(text: str) -> str:
    """One line: every run of white space, newlines too, becomes one space."""
    return " ".join(text.split())


def encode_sources(
    tokenizer: Tokenizer, format: GeneratorFormat, items: Sequence[tuple[str, str, Sequence[dict]]]
):
    """Token ids of (question, lang, ctxs) items, and how many passages reached the model.

    SentencePiece never lets a piece cross a space, so tokenising the parts and concatenating
    equals tokenising the whole string; the parts' lengths then tell what the limit cuts off.

    returns: ids per item (per passage with `fusion`), survived per item: whole passages.
    """
    parts = [format.parts(q, lang, list(ctxs)[: format.passages]) for q, lang, ctxs in items]
    flat = iter(tokenizer.encode_batch([part for group in parts for part in group]))
    encoded = [[next(flat) for _ in group] for group in parts]
    room, eos = format.source_length - 1, tokenizer.ids.eos
    if format.fusion:
        cut = [[[*ids[:room], eos] for ids in group] for group in encoded]
        survived = [sum(len(ids) <= room for ids in group) for group in encoded]
    else:
        joined = [[i for ids in group for i in ids] for group in encoded]
        cut = [[*ids[:room], eos] for ids in joined]
        ends = [np.cumsum([len(ids) for ids in group]) for group in encoded]
        survived = [int((end <= room).sum()) for end in ends]
    has_passages = [bool(item[2]) and format.passages > 0 for item in items]
    return cut, [n if has else 0 for n, has in zip(survived, has_passages)]


def count_tokens(tokenizer: Tokenizer, format: GeneratorFormat):
    """`count(question, lang, ctxs) -> tokens` of the question and of every passage of a source."""

    def count(question, lang, ctxs):
        parts = format.parts(question, lang, ctxs) if ctxs else []
        head, *counts = map(len, tokenizer.encode_batch([format.head(question, lang), *parts]))
        with_head = len(counts) if format.fusion else 1
        return [head, *(n - head for n in counts[:with_head]), *counts[with_head:]]

    return count


def encode_targets(tokenizer: Tokenizer, format: GeneratorFormat, answers: Sequence[str]):
    """Token ids of answers, end token included, at most `target_length`."""
    ids = tokenizer.encode_batch([_line(answer) for answer in answers])
    return [[*i[: format.target_length - 1], tokenizer.ids.eos] for i in ids]


def pad_sources(format: GeneratorFormat, sources, pad_id: int):
    """ids of `encode_sources` -> tokens and mask, [rows, length] or [rows, passages, length]."""
    if not format.fusion:
        return pad_to_bucket(sources, format.source_buckets, pad_id)
    count = max(format.passages, 1)
    flat = [ids for group in sources for ids in (*group, *[[]] * (count - len(group)))]
    tokens, mask = pad_to_bucket(flat, format.source_buckets, pad_id)
    return tuple(x.reshape(len(sources), count, -1) for x in (tokens, mask))


def seq2seq_batch(format: GeneratorFormat, sources, targets, pad_id: int) -> dict[str, np.ndarray]:
    """ids of sources and targets -> a batch of the seq2seq objective."""
    tokens, mask = pad_sources(format, sources, pad_id)
    target_tokens, target_mask = pad_to_bucket(targets, (format.target_length,), pad_id)
    return {
        "encoder_input_tokens": tokens,
        "encoder_mask": mask,
        "decoder_target_tokens": target_tokens,
        "decoder_mask": target_mask,
    }


def seq2seq_batches(tokenizer: Tokenizer, format: GeneratorFormat, choose):
    """`transform(rows, rngs, epoch, longest) -> batch` of the seq2seq objective.

    choose(row, rng, epoch) -> (question, lang, ctxs, answer): what to train on in this epoch.
    longest: the largest expected length of the batch; it is padded by the real ones.
    """

    def transform(rows, rngs, epoch, longest=None):
        chosen = [choose(row, rng, epoch) for row, rng in zip(rows, rngs, strict=True)]
        sources, _ = encode_sources(tokenizer, format, [item[:3] for item in chosen])
        targets = encode_targets(tokenizer, format, [item[3] for item in chosen])
        return seq2seq_batch(format, sources, targets, tokenizer.ids.pad)

    return transform
