"""A SQuAD-style file becomes the authors' translated-aligned form (spec 1.3), resumably.

Beside every field of the file's articles, paragraphs, questions and answers:
    paragraph  trans_context, trans_lang
    question   trans_question
    answer     trans_text (the answer translated on its own), trans_aligned_text (what SimpleMatch
               found in trans_context, "" for nothing), trans_aligned_start (its character offset,
               -1 for nothing), trans_aligned_score (F1, 0 to 1)
What was translated is in the cache, so the same command continues where it was stopped.
"""

import collections
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence

from clmrc_jax.data.fields import known_language
from clmrc_jax.data.squad_json import AnswerRow, ParagraphRow, QuestionRow, read_paragraphs
from clmrc_jax.files import InputError, write_json
from clmrc_jax.progress import Meter
from clmrc_jax.translate.align import simple_match
from clmrc_jax.translate.aligned import log_gaps, translate_texts
from clmrc_jax.translate.translator import batch_of, batches, open_translator, prepare


@dataclasses.dataclass(frozen=True)
class TranslateOptions:
    """One translation of a file.

    data: SQuAD-style file of any form that `squad_json` reads.   lang: its language.
    to: language to translate into (the source language of Dual BERT).
    translator: see `translator.KINDS`.   output: the aligned file, .json.
    cache: folder of finished translations, "" = `translations` beside the output.
    delta: of SimpleMatch.   paragraphs: translate the first so many only, 0 = all.
    unlabelled: the file has no answers, or they are to be left out.
    consent_to_pay, google_project: for the translator `google`.
    """

    data: str
    lang: str
    translator: str
    output: str
    to: str = "en"
    cache: str = ""
    delta: int = 5
    paragraphs: int = 0
    unlabelled: bool = False
    consent_to_pay: bool = False
    google_project: str = ""

    def __post_init__(self):
        if self.delta < 0 or self.paragraphs < 0:
            raise InputError("--delta and --paragraphs must not be negative")
        if os.fspath(self.output).endswith((".gz", ".zip")):
            raise InputError(f"--output={self.output}: is written as plain .json")
        for flag in ("lang", "to"):
            object.__setattr__(self, flag, known_language(getattr(self, flag), f"--{flag}"))
        if self.lang == self.to:
            raise InputError(f"--lang and --to are both {self.lang!r}; nothing is to be translated")


def translate_file(options: TranslateOptions) -> dict:
    """Translates `options.data` and writes `options.output`, whole or not at all.

    Returns the summary that `--json` prints: questions, texts, characters, answers, aligned,
    exact (score 1), mean_score, unaligned, untranslated, seconds.
    Raises InputError for bad files and flags, TranslationError when the translator fails.
    """
    begin = time.monotonic()
    rows = _read(options)
    beside = os.path.join(os.path.dirname(options.output), "translations")
    translator = open_translator(
        options.translator,
        options.cache or beside,
        consent=options.consent_to_pay,
        project=options.google_project,
    )
    texts = _texts(rows)
    prepare(translator, texts, options.lang, options.to)
    into: dict[str, str] = {}
    with Meter(f"{options.lang} to {options.to}", len(texts)) as meter:
        for part in batches(texts, batch_of(translator)):
            into |= translate_texts(translator, part, options.lang, options.to)
            meter.advance(len(part))
    document, scores, counts = _aligned(rows, into, options)
    write_json(options.output, document)
    log_gaps(counts)
    return {
        "output": options.output,
        "questions": counts["all"],
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        **_score_summary(scores),
        "unaligned": counts["unaligned"],
        "untranslated": counts["untranslated"],
        "seconds": round(time.monotonic() - begin, 2),
    }


def _read(options: TranslateOptions) -> list[ParagraphRow]:
    rows = list(read_paragraphs(options.data, labelled=not options.unlabelled))
    rows = rows[: options.paragraphs or None]
    places: dict[str, str] = {}
    for question in (question for row in rows for question in row.questions):
        first = places.setdefault(question.id, question.place)
        if first != question.place:
            raise InputError(
                f"{question.place}: id {question.id!r} came before, at {first}; every question "
                "needs its own"
            )
    if not places:
        raise InputError(f"{options.data}: no question in the file")
    return rows


def _texts(rows: Sequence[ParagraphRow]) -> list[str]:
    """The distinct texts of a file, paragraph by paragraph."""

    def each() -> Iterator[str]:
        for row in rows:
            yield row.context
            for question in row.questions:
                yield question.question
                yield from (answer.text for answer in question.answers)

    return list(dict.fromkeys(each()))


def _aligned(
    rows: Sequence[ParagraphRow], into: dict[str, str], options: TranslateOptions
) -> tuple[dict, list[float], collections.Counter]:
    """(the aligned document, the score of every answer, what is missing)."""
    articles: dict[int, dict] = {}
    scores: list[float] = []
    counts = collections.Counter()
    for row in rows:
        about = {"title": row.title} | row.of_article
        article = articles.setdefault(row.article, about | {"paragraphs": []})
        context = into[row.context]
        questions = []
        for question in row.questions:
            answers = [_answer(x, row.context, into, options) for x in question.answers]
            questions.append(_question(question, into, answers))
            found = [answer["trans_aligned_score"] for answer in answers]
            scores += found
            counts["all"] += 1
            counts["unaligned"] += bool(found) and not found[0]
            counts["untranslated"] += not (into[question.question].strip() and context.strip())
        article["paragraphs"].append(
            {**_others(row.fields, flat="qas" not in row.fields), "context": row.context}
            | {"trans_context": context, "trans_lang": options.to, "qas": questions}
        )
    version = "v2.0" if any(q.impossible for row in rows for q in row.questions) else "1.1"
    return {"version": version, "data": list(articles.values())}, scores, counts


def _others(fields: dict, *, flat: bool) -> dict:
    """What a paragraph has beside its text and its questions, to be kept.

    flat: the object is a question beside its context, and `_question` keeps what it has.
    """
    replaced = ("context_text", "qas", "title")  # CMRC's own form; its title is the article's
    return {} if flat else {k: v for k, v in fields.items() if k not in replaced}


def _question(row: QuestionRow, into: dict[str, str], answers: list[dict]) -> dict:
    replaced = ("query_id", "query_text", "context", "title")
    kept = {k: v for k, v in row.fields.items() if k not in replaced}
    own = {"id": row.id, "question": row.question, "trans_question": into[row.question]}
    return {**kept, **own, "answers": answers}


def _answer(row: AnswerRow, paragraph: str, into: dict[str, str], options) -> dict:
    """One answer with its translation and alignment; paragraph: the text it was written for."""
    translated = into[row.text]
    match = simple_match(translated, into[paragraph], options.to, options.delta)
    return {
        **row.fields,
        "text": row.text,
        "answer_start": paragraph.find(row.text) if row.start is None else row.start,
        "trans_text": translated,
        "trans_aligned_text": match.text if match.start >= 0 else "",
        "trans_aligned_start": match.start,
        "trans_aligned_score": round(match.score, 4),
    }


def _score_summary(scores: list[float]) -> dict:
    mean = sum(scores) / len(scores) if scores else 0.0
    return {
        "answers": len(scores),
        "aligned": sum(score > 0 for score in scores),
        "exact": sum(score == 1 for score in scores),
        "mean_score": round(mean, 4),
    }
