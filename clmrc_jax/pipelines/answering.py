"""mGEN's answers to the questions of a split, in parts (`parts`)."""

from collections.abc import Iterable

import numpy as np
from etils import epath

from clmrc_jax.files import read_jsonl, write_json
from clmrc_jax.pipelines.generator import Generator
from clmrc_jax.pipelines.parts import part_files, work_in_parts

PARTS = "parts"  # folder of a stage's answers until all are there


def item(row: dict) -> tuple[str, str, list[dict]]:
    """What `Generator.answer` is asked: question, language and passages of a retrieval row."""
    return row["question"], row["lang"], row["ctxs"]


def answer_in_parts(
    rows: Iterable[dict],
    generator: Generator,
    params,
    folder: epath.Path,
    *,
    closed_book: bool,
    size: int,
    made_by: dict,
) -> None:
    """Answers with passages and, on request, without; all processes call it together.

    rows: of a retrieval run, in the same order in every process.   params: mGEN's.
    size: questions in memory at once, and answered again after a kill at most.
    made_by: what the answers depend on. Raises InputError for parts made by another.
    """

    def work(part: list[dict]) -> list[dict]:
        items = [item(row) for row in part]
        texts, scores, survived = generator.answer(params, items)
        found = {"answer": texts, "score": scores, "survived": survived}
        if closed_book:
            bare = [(question, lang, []) for question, lang, _ in items]
            description = "answer closed book"
            found["closed_book"], _, _ = generator.answer(params, bare, description=description)
        names = ("q_id", *found)
        ids = [row["q_id"] for row in part]
        return [dict(zip(names, row)) for row in zip(ids, *found.values(), strict=True)]

    made_by = made_by | {"closed_book": closed_book}
    work_in_parts(rows, work, folder, size=size, made_by=made_by)


def write_answers(parts: epath.Path, folder: epath.Path, split: str) -> dict:
    """The files {id: answer}, {id: score} and closed-book answers of a split, from its parts.

    returns: {"answers": how many, "survived": mean number of whole passages that reached mGEN}
    """
    names = {"answer": "", "score": ".scores", "closed_book": ".closed_book"}
    found: dict[str, dict] = {name: {} for name in names}
    survived = []
    for path in part_files(parts):
        for _, row in read_jsonl(path):
            survived.append(row["survived"])
            for name in names.keys() & row.keys():
                found[name][row["q_id"]] = row[name]
    for name, ending in names.items():
        if found[name]:
            write_json(folder / f"{split}{ending}.json", found[name])
    return {"answers": len(survived), "survived": float(np.mean(survived))}
