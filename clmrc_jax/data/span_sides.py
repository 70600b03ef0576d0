"""One side of examples, target or source, as windows with labels."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass

from clmrc_jax.data.char_split import char_split_tokenizer
from clmrc_jax.data.mrc_examples import Answer, MrcExample
from clmrc_jax.data.official_spans import holds_answer, piece_span, word_span
from clmrc_jax.data.span_windows import SpanFormat, Window, cut_windows
from clmrc_jax.data.token_offsets import TokenizedText, tokenize
from clmrc_jax.data.tokenization import Tokenizer
from clmrc_jax.files import InputError


@dataclass(frozen=True)
class SideRow:
    """One side of an example. answer: None for an unanswerable question, or without label."""

    number: int
    id: str
    question: str
    context: str
    answer: Answer | None


def target_row(number: int, example: MrcExample, labelled: bool, format: SpanFormat) -> SideRow:
    """The target side of an example; without answer if it has none that can be a label."""
    answer = None
    if labelled and not example.impossible:
        # Officially the first answer counts, whether it stands in the passage or not (bug B3).
        official = format.mode == "official" and example.answers
        answer = example.answers[0] if official else example.gold()
    return SideRow(number, example.id, example.question, example.context, answer)


def source_row(number: int, example: MrcExample, labelled: bool) -> SideRow:
    """The source side of an example. Raises InputError where the translation is missing or blank."""
    source = example.source
    if source is None:
        raise InputError(
            f"question {example.id!r} has no translation; translate its file (launch/translate.py) "
            "or pair it with a parallel file"
        )
    for name, text in (("question", source.question), ("passage", source.context)):
        if not text.strip():
            raise InputError(f"question {example.id!r}: its translated {name} is empty")
    answer = source.answer if labelled and not example.impossible else None
    answer = answer if answer is not None and answer.start >= 0 else None
    return SideRow(number, example.id, source.question, source.context, answer)


def side_windows(
    rows: Sequence[SideRow],
    tokenizer: Tokenizer,
    format: SpanFormat,
    *,
    source: bool,
    counts: collections.Counter | None = None,
) -> list[list[Window] | None]:
    """The windows of every row; None for one whose label cannot be made, and `counts` says why.

    Raises InputError naming the question: no token in it or in its passage, or no room.
    """
    counts = collections.Counter() if counts is None else counts
    official = format.mode == "official"
    tokenizer = char_split_tokenizer(tokenizer) if official else tokenizer
    passages = tokenize(tokenizer, [row.context for row in rows], by_space=official and source)
    asked = list(dict.fromkeys(row.question for row in rows))
    questions = dict(zip(asked, tokenizer.encode_batch(asked)))
    length = format.source_length if source else format.max_length
    found = []
    for row in rows:
        text, question = passages[row.context], questions[row.question]
        _check_tokens(row, text, question, source)
        question = question[: format.max_query_length]
        room = length - len(question) - 3
        if room < 1:
            raise InputError(
                f"question {row.id!r} has {len(question)} tokens, and a window holds {length}: no "
                "room for the passage; raise the length or lower max_query_length"
            )
        problem, span = _label(row, text, tokenizer, official)
        if problem and not (source and problem == "uncovered"):  # a source may be without label
            counts[problem] += 1
            found.append(None)
            continue
        special = (tokenizer.ids.cls, tokenizer.ids.sep)
        options = {"example": row.number, "room": room, "stride": format.doc_stride}
        found.append(cut_windows(text, question, special, span=span, **options))
    return found


def _check_tokens(row: SideRow, text: TokenizedText, question: list[int], source: bool) -> None:
    side = "translated " if source else ""
    for name, tokens in (("passage", text.ids), ("question", question)):
        if not len(tokens):
            raise InputError(
                f"question {row.id!r}: its {side}{name} is empty, or holds nothing that the "
                "tokenizer keeps; give it text or drop the question"
            )


def _label(
    row: SideRow, text: TokenizedText, tokenizer: Tokenizer, official: bool
) -> tuple[str, tuple[int, int] | None]:
    """("", first and last token or None), or why there is no label."""
    answer = row.answer
    if answer is None:
        return "", None
    if official:
        words = word_span(text.split, answer)
        if not holds_answer(text.split, words, answer):
            return "mismatched", None
        return "", piece_span(text.split, words, answer, tokenizer)
    span = text.span(answer.start, answer.start + len(answer.text)) if answer.text else None
    return ("uncovered" if span is None else ""), span
