"""mGEN's labels of all mining candidates, part by part: memory for one part, and a place to go on.

A part is so many candidates with mGEN's predictions, a JSON-lines file that appears when the last
of them is labelled. The same command labels what is in no part yet. At the paper's size there are
tens of millions of candidates: of each, 8 bytes of its question stay in memory.
"""

import array
import bisect
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from etils import epath

from clmrc_jax import hosts
from clmrc_jax.files import InputError, JsonlRows, read_json, write_json, write_jsonl
from clmrc_jax.pipelines import mining
from clmrc_jax.pipelines.mining import Candidate, MiningRules

MADE_BY = "made_by.json"
Predict = Callable[[Sequence[Candidate]], Sequence[str]]


def label_candidates(
    candidates: Iterable[Candidate],
    predict: Predict,
    folder: epath.Path,
    *,
    size: int,
    made_by: dict,
) -> "Labelled | None":
    """Labels all candidates into `folder`; all processes call it together.

    candidates: in the same order in every process and whenever the command is run again.
    predict: all processes call it with the same candidates, and process 0 writes what it returns.
    size: candidates per part; may change when continuing.   made_by: a JSON object that must not.
    returns: what is labelled, on process 0 alone. Raises InputError for parts made by another.
    """
    done = hosts.on_first("labelled before?", lambda: _begin(folder, made_by))
    questions = array.array("Q")

    def noted() -> Iterator[Candidate]:
        for candidate in candidates:
            questions.append(_key(candidate.q_id))
            yield candidate

    left = itertools.islice(noted(), done, None)
    for number in itertools.count(len(_parts(folder)) if hosts.is_first() else 0):
        part = list(itertools.islice(left, size))
        if not part:
            return Labelled(folder, questions) if hosts.is_first() else None
        predictions = predict(part)
        if hosts.is_first():
            pairs = zip(part, predictions, strict=True)
            write_jsonl(
                _part(folder, number), (dataclasses.asdict(c) | {"prediction": p} for c, p in pairs)
            )


class Labelled:
    """Labelled candidates on disk, and which of them belong to one question."""

    def __init__(self, folder: epath.Path, questions: Sequence[int]):
        """questions: the key of every candidate's question."""
        self._parts = [JsonlRows(path) for path in _parts(folder)]
        self._ends = list(itertools.accumulate(map(len, self._parts)))
        self._questions = np.asarray(questions, np.uint64)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, i: int) -> tuple[Candidate, str]:
        """A candidate, and what mGEN generated from it."""
        part = bisect.bisect_right(self._ends, i)
        row = self._parts[part][i - (self._ends[part] - len(self._parts[part]))]
        prediction = row.pop("prediction")
        return Candidate(**row | {"answers": tuple(row["answers"])}), prediction

    def questions(self) -> Iterator[list[tuple[Candidate, str]]]:
        """The candidates of one question after the other, in the order of their first ones."""
        _, first, which = np.unique(self._questions, return_index=True, return_inverse=True)
        first = first[which]
        order = np.argsort(first, kind="stable")
        borders = np.flatnonzero(np.diff(first[order], prepend=-1))
        for start, stop in itertools.pairwise([*borders, len(order)]):
            yield [self[int(i)] for i in order[start:stop]]

    def write_mined(
        self, path: epath.Path, rules: MiningRules, round: int, names: mining.Names
    ) -> tuple[dict[str, int], int]:
        """Writes `mining.mined_rows` of all candidates.

        returns: {"candidates", "linked", "positives"} of them, how many rows
        """
        counts = dict.fromkeys(("candidates", "linked", "positives"), 0)

        def rows() -> Iterator[dict]:
            for pairs in self.questions():
                candidates, predictions = zip(*pairs)
                counts["candidates"] += len(pairs)
                counts["linked"] += sum(c.origin == "language_link" for c in candidates)
                labels = [mining.label(*pair, rules) for pair in pairs]
                counts["positives"] += labels.count(mining.POSITIVE)
                yield from mining.mined_rows(candidates, predictions, rules, round, names)

        count = write_jsonl(path, rows())
        return counts, count


def _begin(folder: epath.Path, made_by: dict) -> int:
    """How many candidates are labelled in `folder`, which belongs to `made_by` from now on."""
    path, made_by = folder / MADE_BY, json.loads(json.dumps(made_by))
    if not path.exists():
        write_json(path, made_by)
    elif read_json(path) != made_by:
        raise InputError(
            f"{folder}: these candidates were labelled with other settings, or are others; use the "
            "old settings, or another --workdir, or delete this folder"
        )
    return sum(len(JsonlRows(part)) for part in _parts(folder))


def _part(folder: epath.Path, number: int) -> epath.Path:
    return folder / f"part-{number:06d}.jsonl"


def _parts(folder: epath.Path) -> list[epath.Path]:
    return sorted(folder.glob("part-*.jsonl"))


def _key(q_id: str) -> int:
    """64 bits of a question's id: two of 10 million questions share one once in 300,000 runs."""
    return int.from_bytes(hashlib.blake2b(q_id.encode(), digest_size=8).digest(), "little")
