"""Reading comprehension: a question, the passage that holds its answer, and where it stands.

`read_mrc` reads every form of `squad_json` (SQuAD 1.1 and 2.0, CMRC 2018, DRCD, XQuAD, JaQuAD,
KorQuAD ...) and the translated-aligned files of Cross-Lingual MRC (spec 1.3), whose `trans_*`
fields become the source side. Offsets count characters (code points) of the passage.
"""

import collections
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clmrc_jax.data.fields import known_language, text_field
from clmrc_jax.data.squad_json import ParagraphRow, QuestionRow, offset_field, read_paragraphs
from clmrc_jax.files import InputError, write_json

LOCATE = ("offset", "first")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """An answer. start: character offset in the passage; -1 where it does not occur there."""

    text: str
    start: int


@dataclass(frozen=True)
class SourceSide:
    """The same question and passage in the source language (the `trans_*` fields).

    answer: the aligned answer, a piece of `context`; None where there is none.
    translated_answer: the translation of the answer on its own, "" if unknown.
    """

    lang: str
    question: str
    context: str
    answer: Answer | None
    translated_answer: str = ""


@dataclass(frozen=True)
class MrcExample:
    """One question with its passage.

    answers: every reference, in file order; () if unanswerable or not labelled.
    impossible: the passage does not answer it (SQuAD 2.0).
    source: its translation, if there is one.
    article: what its document is called in the file, "#<number>" without title; equal in parallel
        files, so that a split by article holds in every language.
    """

    id: str
    lang: str
    title: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    impossible: bool = False
    source: SourceSide | None = None
    article: str = ""

    def gold(self) -> Answer | None:
        """The answer to train on: the first that stands in the passage (official: the first)."""
        return next((answer for answer in self.answers if answer.start >= 0), None)


def read_mrc(
    path: str | os.PathLike,
    lang: str,
    *,
    locate: str = "offset",
    labelled: bool = True,
    counts: collections.Counter | None = None,
    source_lang: str = "en",
) -> list[MrcExample]:
    """The questions of one SQuAD-style or translated-aligned file, in file order.

    lang: of the file.   source_lang: of its `trans_*` fields, where the file does not say.
    locate: "offset" takes an answer where the file says, or at the nearest occurrence if it is not
    there; "first" always at the first occurrence (the official code; wrong for 14% of DRCD).
    labelled: False leaves all answers out, whether the file has them or not (prediction).
    counts: gets what was mended or missing, also logged: `relocated`, `absent`, `blank`,
    `untranslated`, `source_relocated`, `source_absent`.
    Raises InputError naming file and JSON path: see `squad_json`, and an id that comes twice.
    """
    if locate not in LOCATE:
        raise InputError(f"locate {locate!r}: choose one of {', '.join(LOCATE)}")
    found = collections.Counter() if counts is None else counts
    before = found.copy()
    langs = [known_language(code, os.fspath(path)) for code in (lang, source_lang)]
    places: dict[str, str] = {}
    examples = []
    for paragraph in read_paragraphs(path, labelled=labelled):
        for row in paragraph.questions:
            if row.id in places:
                raise InputError(
                    f"{row.place}: id {row.id!r} came before, at {places[row.id]}; predictions go "
                    "by id, so every question needs its own"
                )
            places[row.id] = row.place
            examples.append(_example(paragraph, row, langs, locate, labelled, found))
    if not examples:
        raise InputError(f"{path}: no question in the file")
    _log_found(path, found - before, len(examples))
    return examples


def _example(
    paragraph: ParagraphRow, row: QuestionRow, langs, locate: str, labelled: bool, found
) -> MrcExample:
    lang, source_lang = langs
    answers = tuple(
        located(answer.text, paragraph.context, answer.start, locate, found)
        for answer in row.answers
    )
    source = None
    if "trans_context" in paragraph.fields or "trans_question" in row.fields:
        source = _source(paragraph, row, source_lang, locate, found)
    if labelled and not answers and not row.impossible:
        found["blank"] += 1
    return MrcExample(
        row.id,
        lang,
        paragraph.title,
        row.question,
        paragraph.context,
        answers,
        row.impossible,
        source,
        paragraph.title or f"#{paragraph.article}",
    )


def located(
    text: str, context: str, start: int | None, locate: str, found: collections.Counter, name=""
) -> Answer:
    """The answer with the offset where it stands, or -1; `found` counts what the file had wrong.

    start: the offset in the file; None asks for the first occurrence.   name: prefix of the counts.
    """
    if locate == "first" or start is None:
        first = context.find(text)
        found[f"{name}absent"] += first < 0
        return Answer(text, first)
    if start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    nearest = _nearest(text, context, start)
    found[f"{name}absent" if nearest < 0 else f"{name}relocated"] += 1
    return Answer(text, nearest)


def _nearest(text: str, context: str, start: int) -> int:
    """The occurrence of `text` that begins nearest to `start`, the earlier of two; or -1."""
    start = min(max(start, 0), len(context))
    before = context.rfind(text, 0, start + len(text))
    after = context.find(text, start)
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before <= after - start else after


def _source(
    paragraph: ParagraphRow, row: QuestionRow, lang: str, locate: str, found
) -> SourceSide | None:
    """The `trans_*` fields of a question; None, counted, where its translation is missing."""
    context = _optional(paragraph.fields, "trans_context", paragraph.place)
    question = _optional(row.fields, "trans_question", row.place)
    if not context.strip() or not question.strip():
        found["untranslated"] += 1
        return None
    own = _optional(paragraph.fields, "trans_lang", paragraph.place)
    first = row.answers[0].fields if row.answers else {}
    text = _optional(first, "trans_aligned_text", row.place)
    start = offset_field(first, "trans_aligned_start", row.place)
    answer = None
    if text.strip() or (first and locate == "first"):  # officially "" stands at 0 (bug B4)
        answer = located(text, context, start, locate, found, "source_")
    elif first:
        found["source_absent"] += 1
    return SourceSide(
        known_language(own, paragraph.place) if own else lang,
        question,
        context,
        answer,
        _optional(first, "trans_text", row.place),
    )


def _optional(fields: dict, name: str, place: str) -> str:
    return text_field({name: ""} | fields, name, place, blank=True)


_FOUND = {
    "relocated": "answers did not stand at their offset; the nearest occurrence was taken",
    "absent": "answers do not occur in their passage; they have no position",
    "blank": "questions have only blank answers; they cannot be trained on",
    "untranslated": "questions or their passages have no translation",
    "source_relocated": "aligned answers did not stand at their offset in the translation; the "
    "nearest occurrence was taken",
    "source_absent": "aligned answers are missing or do not occur in the translated passage",
}


def _log_found(path: str | os.PathLike, found: collections.Counter, questions: int) -> None:
    for name, text in _FOUND.items():
        if found[name]:
            _log.warning("%s: %d %s (%d questions)", path, found[name], text, questions)


def pair_parallel(targets: Sequence[MrcExample], sources: Iterable[MrcExample]) -> list[MrcExample]:
    """Target examples with the example of the same id as source side (XQuAD in two languages).

    Targets without a partner keep none, counted in the log. Raises InputError for a source id that
    comes twice, and if no id is common.
    """
    by_id: dict[str, MrcExample] = {}
    for example in sources:
        if by_id.setdefault(example.id, example) is not example:
            raise InputError(
                f"source question {example.id!r} comes twice; pair one language at a time"
            )
    pairs = [_paired(target, by_id.get(target.id)) for target in targets]
    alone = [pair.id for pair in pairs if pair.source is None]
    if len(alone) == len(pairs):
        raise InputError(
            f"none of {len(pairs)} target questions has the id of one of {len(by_id)} source "
            "questions; give parallel files, such as XQuAD in two languages"
        )
    if alone:
        _log.warning(
            "%d of %d questions have no translation (%s ...)", len(alone), len(pairs), alone[0]
        )
    return pairs


def _paired(target: MrcExample, source: MrcExample | None) -> MrcExample:
    if source is None:
        return target
    alone = source.answers[0].text if source.answers else ""
    side = SourceSide(source.lang, source.question, source.context, source.gold(), alone)
    return dataclasses.replace(target, source=side)


def write_squad(path: str | os.PathLike, examples: Iterable[MrcExample]) -> int:
    """Writes SQuAD JSON (2.0 if a question is unanswerable), atomically; returns the questions.

    Neighbours with the same article and passage share one paragraph, so order is kept.
    """
    return _write(path, examples, aligned=False)


def write_aligned(path: str | os.PathLike, examples: Iterable[MrcExample]) -> int:
    """Writes the authors' translated-aligned form (spec 1.3) plus `trans_lang`, atomically.

    Raises InputError naming the question that has no translation. Returns the questions.
    """
    return _write(path, examples, aligned=True)


def _write(path: str | os.PathLike, examples: Iterable[MrcExample], aligned: bool) -> int:
    examples = list(examples)
    data = []
    for article in _runs(examples, lambda x: (x.article, x.title)):
        parts = _runs(article, lambda x: (x.context, x.source and x.source.context))
        paragraphs = [_paragraph(part, aligned) for part in parts]
        data.append({"title": article[0].title, "paragraphs": paragraphs})
    version = "v2.0" if any(example.impossible for example in examples) else "1.1"
    write_json(path, {"version": version, "data": data})
    return len(examples)


def _runs(examples: list[MrcExample], key) -> list[list[MrcExample]]:
    return [list(run) for _, run in itertools.groupby(examples, key)]


def _paragraph(examples: list[MrcExample], aligned: bool) -> dict:
    """The JSON object of one passage and its questions."""
    fields: dict = {"context": examples[0].context, "qas": []}
    for example in examples:
        answers = [{"text": a.text, "answer_start": a.start} for a in example.answers]
        row = {"id": example.id, "question": example.question, "answers": answers}
        if example.impossible:
            row["is_impossible"] = True
        if aligned:
            source = example.source
            if source is None:
                raise InputError(f"question {example.id!r} has no translation to be written")
            fields |= {"trans_context": source.context, "trans_lang": source.lang}
            row["trans_question"] = source.question
            aligned_to = source.answer or Answer("", -1)
            for answer in answers:
                answer["trans_text"] = source.translated_answer
                answer["trans_aligned_text"] = aligned_to.text
                answer["trans_aligned_start"] = aligned_to.start
        fields["qas"].append(row)
    return fields
