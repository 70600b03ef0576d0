"""mDPR's inputs: one formatter for training, encoding and search, and the training batches."""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from clmrc_jax.data import setting_checks
from clmrc_jax.data.passage_names import by_id
from clmrc_jax.data.pipeline import pad_to_bucket
from clmrc_jax.data.tokenization import Tokenizer
from clmrc_jax.files import InputError

POSITIVES = ("uniform", "first")


@dataclass(frozen=True)
class RetrieverFormat:
    """How questions and passages become token sequences.

    tag_language: append ` [lang]` to the question (CORA; the reference did so only sometimes).
    strip_question_mark: legacy DPR behaviour, one ASCII `?` off the end, in training as in search.
    query_prefix, passage_prefix: text put in front, e.g. "query: " for E5.
    question_buckets, passage_buckets: padded lengths, ascending; a batch takes the smallest that
        holds it, and the last one is the most tokens of an input, special ones included.
    """

    tag_language: bool = True
    strip_question_mark: bool = False
    query_prefix: str = ""
    passage_prefix: str = ""
    question_buckets: tuple[int, ...] = (32, 64, 256)
    passage_buckets: tuple[int, ...] = (64, 128, 192, 256)

    def __post_init__(self):
        setting_checks.buckets(self, "question_buckets", "passage_buckets")

    def one_length(self) -> "RetrieverFormat":
        """The same with the longest buckets alone: hosts that batch apart agree on lengths."""
        longest = {x: getattr(self, x)[-1:] for x in ("question_buckets", "passage_buckets")}
        return dataclasses.replace(self, **longest)

    def question_text(self, question: str, lang: str) -> str:
        """The string that the question tower reads. Raises InputError for an empty question."""
        text = question.strip()
        if self.strip_question_mark:
            text = text.removesuffix("?")
        if not text:
            raise InputError("empty question: every question needs text")
        tag = f" [{lang}]" if self.tag_language and lang else ""
        return f"{self.query_prefix}{text}{tag}"

    def questions(self, tokenizer: Tokenizer, questions: Sequence[tuple[str, str]]):
        """Token ids of (question, lang) pairs."""
        texts = [self.question_text(question, lang) for question, lang in questions]
        return tokenizer.pack(texts, max_length=self.question_buckets[-1])

    def passages(self, tokenizer: Tokenizer, passages: Sequence[tuple[str, str]]):
        """Token ids of (title, text) pairs: `[CLS] title [SEP] text [SEP]`.

        With a prefix (E5) title and text are one string, as that model was trained.
        """
        if self.passage_prefix:
            joined = [self.passage_prefix + f"{title} {text}".strip() for title, text in passages]
            return tokenizer.pack(joined, max_length=self.passage_buckets[-1])
        titles, texts = zip(*passages) if passages else ((), ())
        return tokenizer.pack(titles, texts, max_length=self.passage_buckets[-1])


def stable_key(text: str) -> int:
    """31-bit key of a string, equal in every process and run."""
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def _keys(names: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """int32 array of keys; -1 for an empty name, which is unknown and equal to nothing."""
    keys = [stable_key(name) if name else -1 for name in names]
    return np.array(keys, np.int32).reshape(shape)


def contrastive_batches(
    tokenizer: Tokenizer,
    format: RetrieverFormat,
    *,
    hard_negatives: int = 1,
    positives: str = "uniform",
    article_key: Callable[[dict], str] | None = None,
    passage_names: Callable[[dict], tuple[str, ...]] = by_id,
):
    """`transform(rows, rngs, epoch) -> batch` of the contrastive objective.

    rows: DPR rows (`question, lang, positive_ctxs, hard_negative_ctxs`).
    positives: "uniform" over a question's positives, or "first" (legacy: mined positives are
        then never trained on).
    article_key: names the article of a passage, so that articles linked across languages can
        count as one; default `article_id` (unknown when empty).
    passage_names: see `data.passage_names`; here the last name decides which passages are the same.
    Batch shapes: see `train.objectives.contrastive_objective`.
    """
    if positives not in POSITIVES:
        raise InputError(f"positives {positives!r}: choose one of {', '.join(POSITIVES)}")
    name_article = article_key or (lambda ctx: ctx.get("article_id") or "")

    def choose(row, rng):
        if not row["positive_ctxs"]:
            raise InputError(f"question {row.get('q_id')!r} has no positive passage")
        pick = rng.integers(len(row["positive_ctxs"])) if positives == "uniform" else 0
        negatives = row["hard_negative_ctxs"]
        order = rng.permutation(len(negatives))[:hard_negatives]
        return [row["positive_ctxs"][pick], *(negatives[i] for i in order)]

    def transform(rows, rngs, epoch):
        del epoch
        contexts = 1 + hard_negatives
        chosen = [choose(row, rng) for row, rng in zip(rows, rngs, strict=True)]
        valid = np.array([[i < len(c) for i in range(contexts)] for c in chosen])
        filled = [ctx for c in chosen for ctx in c + c[:1] * (contexts - len(c))]
        questions = format.questions(tokenizer, [(r["question"], r["lang"]) for r in rows])
        passages = format.passages(tokenizer, [(c["title"], c["text"]) for c in filled])
        pad_id = tokenizer.ids.pad
        question_ids, question_mask = pad_to_bucket(questions, format.question_buckets, pad_id)
        ids, mask = pad_to_bucket(passages, format.passage_buckets, pad_id)
        shape = (len(rows), contexts)
        return {
            "question_ids": question_ids,
            "question_mask": question_mask,
            "passage_ids": ids.reshape(*shape, -1),
            "passage_mask": mask.reshape(*shape, -1),
            "passage_valid": valid,
            "passage_key": _keys((passage_names(ctx)[-1] for ctx in filled), shape),
            "article_key": _keys(map(name_article, filled), shape),
        }

    return transform
