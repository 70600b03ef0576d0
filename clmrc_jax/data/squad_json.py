"""The forms of SQuAD-style files, read into one: paragraphs, their questions, their answers.

Read: SQuAD 1.1 and 2.0 (and the authors' files with `trans_*` fields beside), CMRC 2018 in its own
form, lists of paragraphs, lists of single questions with their context (MLQA), as `.json`,
`.json.gz` or `.zip`. What a row means is its reader's affair: `squad_corpus`, `mrc_examples`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from clmrc_jax.data.fields import id_field, rows_field, text_field
from clmrc_jax.files import InputError, read_json_documents, whole_text


@dataclass(frozen=True)
class AnswerRow:
    """One answer. start: its character offset as the file has it, None where it has none.

    fields: the whole JSON object.
    """

    text: str
    start: int | None
    fields: dict = field(default_factory=dict)


@dataclass(frozen=True)
class QuestionRow:
    """One question. place: file and JSON path, for messages. answers: () also if unanswerable.

    impossible: said to be unanswerable (`is_impossible`, or an empty list of answers).
    """

    place: str
    id: str
    question: str
    answers: tuple[AnswerRow, ...]
    impossible: bool
    fields: dict


@dataclass(frozen=True)
class ParagraphRow:
    """One paragraph. article: its number in the file, from 0. title: "" where there is none.

    of_article: what the file says of the article beside its paragraphs.
    """

    place: str
    article: int
    title: str
    context: str
    questions: tuple[QuestionRow, ...]
    fields: dict
    of_article: dict


def read_paragraphs(path: str | os.PathLike, *, labelled: bool = True) -> Iterator[ParagraphRow]:
    """The paragraphs of one file, in file order.

    labelled: read the answers, except blank ones (some machine-translated sets have them);
    otherwise they may be missing or of any form, and are left out.
    Raises InputError naming file and JSON path: another form, a missing, wrong or empty field, no
    paragraph at all.
    """
    count = 0
    for where, document in read_json_documents(path):
        for article, place, fields in _paragraphs(document, where):
            yield _paragraph(fields, place, article, labelled)
            count += 1
    if not count:
        raise InputError(f"{path}: no paragraph in the file")


@dataclass(frozen=True)
class _Article:
    number: int
    title: str
    fields: dict


def _paragraphs(document, where: str) -> Iterator[tuple[_Article, str, dict]]:
    """Yields (article, place, paragraph object) of any of the known forms."""
    if isinstance(document, dict) and "data" in document:
        for number, article in enumerate(rows_field(document, "data", where)):
            place = f"{where}, data[{number}]"
            if "paragraphs" in article:
                about = {name: x for name, x in article.items() if name != "paragraphs"}
                about = _Article(number, _title(article, place), about)
                for inner, fields in enumerate(rows_field(article, "paragraphs", place)):
                    yield about, f"{place}.paragraphs[{inner}]", fields
            else:
                raise InputError(f"{place}: field 'paragraphs' is missing")
    elif isinstance(document, list):  # a paragraph or a question with its context per item
        for number, fields in enumerate(rows_field({"list": document}, "list", where)):
            place = f"{where}, [{number}]"
            yield _Article(number, _title(fields, place), {}), place, fields
    else:
        raise InputError(
            f"{where}: not a SQuAD-style file; expected an object with the field 'data', or a "
            "list of paragraphs"
        )


def _title(fields: dict, where: str) -> str:
    if fields.get("title") is None:
        return ""
    return text_field(fields, "title", where, blank=True).replace("_", " ").strip()


def _paragraph(fields: dict, where: str, article: _Article, labelled: bool) -> ParagraphRow:
    cmrc = "context_text" in fields
    context = text_field(fields, "context_text" if cmrc else "context", where)
    if "qas" not in fields and "question" not in fields:
        raise InputError(f"{where}: field 'qas' is missing (fields present: {', '.join(fields)})")
    flat = "qas" not in fields  # one question beside its context
    rows = [fields] if flat else rows_field(fields, "qas", where)
    questions = []
    for number, row in enumerate(rows):
        place = where if flat else f"{where}.qas[{number}]"
        impossible = labelled and (bool(row.get("is_impossible")) or row.get("answers") == [])
        answers = _answers(row, place) if labelled and not impossible else ()
        key = id_field(row, "query_id" if cmrc else "id", place)
        asked = text_field(row, "query_text" if cmrc else "question", place)
        questions.append(QuestionRow(place, key, asked, answers, impossible, row))
    return ParagraphRow(
        where, article.number, article.title, context, tuple(questions), fields, article.fields
    )


def _answers(row: dict, where: str) -> tuple[AnswerRow, ...]:
    """The non-blank answers of an answerable question, in file order."""
    if "answers" not in row:
        raise InputError(
            f"{where}: field 'answers' is missing (fields present: {', '.join(row)}); a file without "
            "answers can be read or translated (--unlabelled), not trained on or scored"
        )
    answers = row["answers"]
    if isinstance(answers, dict):  # flat rows: {"text": [...], "answer_start": [...]}
        answers = _columns(answers, where)
    if not isinstance(answers, list):
        raise InputError(f"{where}: field 'answers' must be a list, not {answers!r:.60}")
    found = []
    for number, answer in enumerate(answers):
        fields = answer if isinstance(answer, dict) else {"text": answer}
        text = fields.get("text")
        if not isinstance(text, str):
            raise InputError(f"{where}.answers[{number}]: no text in {answer!r:.60}")
        start = offset_field(fields, "answer_start", f"{where}.answers[{number}]")
        whole_text(text, f"{where}.answers[{number}]")
        if text.strip():
            found.append(AnswerRow(text, start, fields))
    return tuple(found)


def _columns(answers: dict, where: str):
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list):
        return [{"text": text} for text in texts] if isinstance(texts, list) else texts
    if len(texts) != len(starts):
        raise InputError(f"{where}: {len(texts)} answers have {len(starts)} values answer_start")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]


def offset_field(row: dict, name: str, where: str) -> int | None:
    """The character offset `row[name]`, None if absent. Raises InputError if it is no integer."""
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputError(
            f"{where}: field {name!r} is {value!r:.60} ({type(value).__name__}); "
            "a character offset (an integer) is needed"
        )
    return value
