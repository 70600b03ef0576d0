"""Questions and retriever training rows: XOR-TyDi, MIA, MKQA and DPR files, in and out.

A question's text is always raw. The language tag that some published files glue to it
("... [ja]") is taken off on reading; one formatter puts it back where a model wants it.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator

from clmrc_jax.data.fields import (
    id_field,
    known_language,
    language_field,
    rows_field,
    strings_field,
    text_field,
)
from clmrc_jax.data.languages import LANGUAGES
from clmrc_jax.data.passages import Passage, passage_from_row
from clmrc_jax.files import InputError, open_text, read_jsonl, write_jsonl

NO_ANSWER = "NoAns"  # what CORA's MKQA conversion writes for a question without an answer
_CHUNK = 1 << 20  # characters read at a time from a JSON array
_SPACE = re.compile(r"[ \r\n\t]*")
_TAG = re.compile(r"\s*\[([a-z]{2}(?:_[a-z]{2})?)\]$")
_CORA_MKQA_FILE = re.compile(r"^input_([a-z]{2}(?:_[a-z]{2})?)\.jsonl")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question without language tag.

    answers: accepted answers, best first; empty in test files.
    answer_lang: language of the answers, `lang` unless said otherwise (the cross-lingual part of
    XOR-Full's training set has English answers: spec, section 1.7).
    source: where the row comes from ("nq", "xor-tydi"), "" if the file does not say.
    """

    id: str
    question: str
    lang: str
    answers: tuple[str, ...] = ()
    answer_lang: str = ""
    source: str = ""

    def __post_init__(self):
        object.__setattr__(self, "answers", tuple(self.answers))
        object.__setattr__(self, "answer_lang", self.answer_lang or self.lang)


@dataclasses.dataclass(frozen=True)
class RetrieverExample:
    """One row of DPR training data: a question with passages that do and do not answer it."""

    question: Question
    positive_ctxs: tuple[Passage, ...]
    hard_negative_ctxs: tuple[Passage, ...] = ()


def question_from_row(row: dict, where: str, lang: str | None = None) -> Question:
    """A JSON row {id, question, lang, answers} as a question.

    where: "FILE, line 3" for messages.   lang: the language of rows that do not name theirs.
    `has_eng_answer_only: true` (MIA) sets `answer_lang` to English.
    Raises InputError naming place and field.
    """
    code = language_field(row, "lang", where, lang, of="question")
    answer_lang = "en" if row.get("has_eng_answer_only") else code
    if row.get("answer_lang"):
        answer_lang = language_field(row, "answer_lang", where)
    return Question(
        id=id_field(row, "id", where),
        question=text_field(row, "question", where),
        lang=code,
        answers=strings_field(row, "answers", where),
        answer_lang=answer_lang,
        source=text_field(row, "source", where) if row.get("source") else "",
    )


def read_questions(
    path: str | os.PathLike, lang: str | None = None, *, need_answers: bool = False
) -> Iterator[Question]:
    """Streams the questions of a JSONL file (XOR-TyDi, MIA, CORA's MKQA, ours; `.gz` too).

    CORA's `input_{lang}.jsonl` repeat one integer id in every language: their ids become
    "<id>_<lang>", as MIA writes them.
    lang: the language of rows that do not name theirs.
    need_answers: a question without answers is an error (training, scoring).
    Raises InputError naming file, line and field: missing or wrong field, empty question, unknown
    language, id used twice, no question at all.
    """
    cora = _CORA_MKQA_FILE.match(os.path.basename(os.fspath(path)))
    lang = lang or (cora and cora[1])
    lines: dict[str, int] = {}
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        question = question_from_row(row, where, lang)
        if cora and not question.id.endswith(f"_{question.lang}"):
            question = dataclasses.replace(question, id=f"{question.id}_{question.lang}")
        if need_answers and not question.answers:
            raise InputError(f"{where}: field 'answers' is empty; this step needs answers")
        if question.id in lines:
            raise InputError(
                f"{where}: field 'id' {question.id!r} is already used in line "
                f"{lines[question.id]}; ids must be unique"
            )
        lines[question.id] = line
        yield question
    if not lines:
        raise InputError(f"{path}: no question in the file")


def question_row(question: Question) -> dict:
    """The JSON row of a question; `answer_lang` and `source` only where they say something."""
    row = {
        "id": question.id,
        "question": question.question,
        "lang": question.lang,
        "answers": list(question.answers),
    }
    if question.answer_lang != question.lang:
        row["answer_lang"] = question.answer_lang
    if question.source:
        row["source"] = question.source
    return row


def write_questions(path: str | os.PathLike, questions: Iterable[Question]) -> int:
    """Streams questions to JSONL, atomically; returns how many."""
    return write_jsonl(path, map(question_row, questions))


def with_english_answers(
    questions: Iterable[Question], english_ids: Collection[str]
) -> Iterator[Question]:
    """Marks the questions whose answers are English (`answer_lang="en"`).

    english_ids: ids of `xor_train_retrieve_eng_span.jsonl`, the published list of them.
    """
    for question in questions:
        if question.id in english_ids:
            question = dataclasses.replace(question, answer_lang="en")
        yield question


def mkqa_languages(path: str | os.PathLike) -> int:
    """Languages of the first row if that is a native MKQA record (questions by language), else 0."""
    for _, row in read_jsonl(path):
        native = "example_id" in row and isinstance(row.get("queries"), dict)
        return len(row["queries"]) + ("en" not in row["queries"]) if native else 0
    return 0


def read_mkqa(
    path: str | os.PathLike,
    langs: Collection[str] | None = None,
    *,
    keep_unanswerable: bool = False,
) -> Iterator[Question]:
    """Questions of a native MKQA file (`mkqa.jsonl.gz`), converted as CORA does (spec, 1.2).

    Answers are every non-null text followed by its aliases. A question without any is left out, or
    kept with the answer "NoAns". Ids are "<example id>_<lang>".
    langs: languages to yield, default all of the record. Raises InputError (file, line, field),
    also for a wanted language that a record lacks.
    """
    wanted = None if langs is None else [known_language(lang, "langs") for lang in langs]
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        key = id_field(row, "example_id", where)
        queries, answers = row.get("queries"), row.get("answers")
        if not isinstance(queries, dict) or not isinstance(answers, dict):
            raise InputError(f"{where}: fields 'queries' and 'answers' must be objects by language")
        queries = {"en": row.get("query")} | queries
        for lang in wanted or answers:
            place = f"{where}, language {lang!r}"
            texts = _mkqa_answers(answers, known_language(lang, place), place)
            if texts or keep_unanswerable:
                question = text_field(queries, lang, place)
                yield Question(f"{key}_{lang}", question, lang, tuple(texts or [NO_ANSWER]))


def _mkqa_answers(answers: dict, lang: str, where: str) -> list[str]:
    texts = []
    for number, answer in enumerate(rows_field(answers, lang, where)):
        if lang not in answers or "text" not in answer:
            raise InputError(f"{where}: answer {number} has no field 'text'")
        if answer["text"] is not None:
            texts.append(text_field(answer, "text", where))
            texts.extend(strings_field(answer, "aliases", where))
    if lang not in answers:
        raise InputError(f"{where}: field 'answers' has no such language")
    return texts


def read_dpr(
    path: str | os.PathLike, lang: str | None = None, passage_lang: str | None = None
) -> Iterator[RetrieverExample]:
    """Streams DPR training rows from a JSON array or a JSONL file (`.gz` too).

    Rows without a positive passage are left out and their number is logged. `q_id` defaults to one
    made from the question and its language, a passage's `id` to one from its language, title and
    text (equal ones get equal ids). A tag "[ja]" at the end of the question is taken off and, if
    `lang` is missing, names the language. Random negatives (`negative_ctxs`) are not used by CORA and not read.
    lang, passage_lang: for rows and passages that do not name their language.
    Raises InputError naming file, row and field.
    """
    count = dropped = 0
    for where, row in _dpr_rows(path):
        count += 1
        example = _dpr_example(row, where, lang, passage_lang)
        if example.positive_ctxs:
            yield example
        else:
            dropped += 1
    if not count:
        raise InputError(f"{path}: no training row in the file")
    if dropped:
        logging.getLogger(__name__).warning(
            "%s: left out %d of %d rows that have no positive passage", path, dropped, count
        )


def _dpr_example(row: dict, where: str, lang, passage_lang) -> RetrieverExample:
    text, tag = _untagged(text_field(row, "question", where))
    named = None if row.get("lang") == "NONE" else row.get("lang")  # CORA's mark on NQ rows
    key = "q_id" if "q_id" in row else "id"
    made = hashlib.sha1(f"{named or tag or lang}\n{text}".encode()).hexdigest()[:16]
    row = (
        {"id": row.get(key, f"dpr-{made}"), "lang": named or tag or None, "question": text}
        | {name: row[name] for name in ("answers", "answer_lang", "source") if name in row}
        | {name: row[name] for name in row if name.endswith("_ctxs")}
    )
    return RetrieverExample(
        question_from_row(row, where, lang),
        _dpr_passages(row, "positive_ctxs", where, passage_lang),
        _dpr_passages(row, "hard_negative_ctxs", where, passage_lang),
    )


def _dpr_passages(row: dict, name: str, where: str, lang: str | None) -> tuple[Passage, ...]:
    passages = []
    for number, fields in enumerate(rows_field(row, name, where)):
        key = fields.get("id", fields.get("passage_id"))
        if key is None:
            content = "\n".join(str(fields.get(part)) for part in ("lang", "title", "text"))
            key = hashlib.sha1(content.encode()).hexdigest()[:16]
        place = f"{where}, {name}[{number}]"
        passages.append(passage_from_row(fields | {"id": key}, place, lang))
    return tuple(passages)


def _untagged(question: str) -> tuple[str, str]:
    """("question", "ja") of "question [ja]", of "question [ja] [ja]" too; ("question", "")."""
    tag = ""
    while (found := _TAG.search(question)) and found[1] in LANGUAGES:
        question, tag = question[: found.start()], found[1]
    return question, tag


def _dpr_rows(path: str | os.PathLike) -> Iterator[tuple[str, dict]]:
    """Yields ("FILE, line 3" or "FILE, item 3", row) of a JSONL file or a JSON array."""
    with open_text(path) as file:
        start = file.read(1)
        while start and start in " \ufeff\r\n\t":
            start = file.read(1)
    if start != "[":
        for line, row in read_jsonl(path):
            yield f"{path}, line {line}", row
        return
    for number, row in enumerate(_array_items(path), start=1):
        where = f"{path}, item {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected a JSON object, got {row!r:.60}")
        yield where, row


def _array_items(path: str | os.PathLike) -> Iterator[object]:
    """Streams the items of a file that is one JSON array: a training file may be 8 GB long."""
    decoder, number, wanted = json.JSONDecoder(), 0, 1
    with open_text(path) as file:
        text = file.read(_CHUNK)
        at = _SPACE.match(text, text.index("[") + 1).end()
        while text[at : at + 1] != "]":
            try:
                item, end = decoder.raw_decode(text, at)
                end = _SPACE.match(text, end).end()
                if text[end : end + 1] not in (",", "]"):  # perhaps cut between two items
                    raise json.JSONDecodeError("no ',' or ']' after the item", text, end)
            except json.JSONDecodeError as error:
                # Double what is read, so that a long item is not decoded many times over.
                more = file.read(wanted * _CHUNK)
                if not more:
                    raise InputError(
                        f"{path}, item {number + 1}: not valid JSON, or cut off ({error.msg})"
                    ) from error
                text, wanted = text[at:] + more, wanted * 2
                at = _SPACE.match(text).end()
                continue
            number, wanted = number + 1, 1
            yield item
            at = _SPACE.match(text, end + (text[end] == ",")).end()


def dpr_row(example: RetrieverExample) -> dict:
    """The JSON row of a training example."""
    row = question_row(example.question)
    return (
        {"q_id": row.pop("id")}
        | row
        | {
            "positive_ctxs": [dataclasses.asdict(passage) for passage in example.positive_ctxs],
            "hard_negative_ctxs": [
                dataclasses.asdict(passage) for passage in example.hard_negative_ctxs
            ],
        }
    )
