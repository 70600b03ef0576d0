"""Retrieval runs: which passages were found for which question, as JSONL; TREC files to go.

    {q_id, question, lang, answers, ctxs: [{id, lang, article_id, title, text, score}]}

One row per question, in the order of the questions, passages best first; `answer_lang` too where
the answers are in another language than the question (XOR-Full's training set). The question is the
text as asked: a language tag belongs to the formatter of a model, never to a file.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from clmrc_jax import files
from clmrc_jax.files import InputError

_QUESTIONS_AT_ONCE = 256
_CTX_FIELDS = ("id", "lang", "title", "text", "score")


def run_rows(questions: Sequence, scores: np.ndarray, rows: np.ndarray, store) -> Iterator[dict]:
    """Joins search results with the passage texts; yields run rows in question order.

    questions: records with id, question, lang, answers.   scores, rows: [q, k] of a search;
    row -1 (nothing found) is left out.   store: get_many(rows) -> passages; each passage is
    read once per 256 questions.
    """
    if len(questions) != len(rows):
        raise ValueError(f"{len(questions)} questions, but results for {len(rows)}")
    for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
        part = slice(start, start + _QUESTIONS_AT_ONCE)
        needed = np.unique(rows[part])
        needed = needed[needed >= 0].tolist()
        passages = dict(zip(needed, map(dataclasses.asdict, store.get_many(needed))))
        for question, q_scores, q_rows in zip(questions[part], scores[part], rows[part]):
            found = zip(q_rows.tolist(), q_scores.tolist())
            answer_lang = getattr(question, "answer_lang", question.lang)
            yield {
                "q_id": question.id,
                "question": question.question,
                "lang": question.lang,
                "answers": list(question.answers),
                **({"answer_lang": answer_lang} if answer_lang != question.lang else {}),
                "ctxs": [passages[r] | {"score": round(s, 6)} for r, s in found if r >= 0],
            }


def write_run(
    path: str | os.PathLike, questions: Sequence, scores: np.ndarray, rows: np.ndarray, store
) -> int:
    """Streams the joined run (see `run_rows`), atomically; returns the number of questions.

    As JSONL, or for trec_eval and its kin where the name ends in `.trec`.
    """
    found = run_rows(questions, scores, rows, store)
    write = write_trec if os.fspath(path).endswith(".trec") else files.write_jsonl
    return write(path, found)


def read_run(path: str | os.PathLike) -> Iterator[dict]:
    """Yields run rows in file order. Raises InputError naming file, line and field."""
    for number, row in files.read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row.get("q_id"), str):
            raise InputError(f"{where}: field q_id is missing or not a string")
        if not isinstance(row.get("ctxs"), list):
            raise InputError(f"{where}: field ctxs is missing or not a list")
        for rank, ctx in enumerate(row["ctxs"], start=1):
            missing = [f for f in _CTX_FIELDS if not isinstance(ctx, dict) or f not in ctx]
            if missing:
                raise InputError(f"{where}: passage {rank} has no field {', '.join(missing)}")
        yield row


def write_trec(path: str | os.PathLike, run: Iterable[dict], tag: str = "clmrc_jax") -> int:
    """Writes run rows as `q_id Q0 passage_id rank score tag`, atomically; returns how many rows.

    Raises InputError for an id with white space: the format has no quoting.
    """
    count = 0
    with files.atomic_write(path) as file:
        for row in run:
            for rank, ctx in enumerate(row["ctxs"], start=1):
                for name in (row["q_id"], ctx["id"]):
                    if not name or name.split() != [name]:
                        raise InputError(f"{path}: id {name!r} cannot stand in a TREC run")
                file.write(f"{row['q_id']} Q0 {ctx['id']} {rank} {ctx['score']} {tag}\n")
            count += 1
    return count
