"""mGEN's labels of all mining candidates, in parts (`parts`).

At the paper's size there are tens of millions of candidates: of each, 8 bytes of its question stay
in memory.
"""

import array
import bisect
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from etils import epath

from clmrc_jax import hosts
from clmrc_jax.files import JsonlRows, write_jsonl
from clmrc_jax.pipelines import mining
from clmrc_jax.pipelines.mining import Candidate, MiningRules
from clmrc_jax.pipelines.parts import part_files, work_in_parts

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

    candidates, size, made_by: items of `work_in_parts`, how many a part has, and what made them.
    predict: all processes call it with the same candidates, and process 0 writes what it returns.
    returns: what is labelled, on process 0 alone. Raises InputError for parts made by another.
    """
    questions = array.array("Q")

    def noted() -> Iterator[Candidate]:
        for candidate in candidates:
            questions.append(_key(candidate.q_id))
            yield candidate

    def label(part: list[Candidate]) -> list[dict]:
        pairs = zip(part, predict(part), strict=True)
        return [dataclasses.asdict(c) | {"prediction": prediction} for c, prediction in pairs]

    work_in_parts(noted(), label, folder, size=size, made_by=made_by)
    return Labelled(folder, questions) if hosts.is_first() else None


class Labelled:
    """Labelled candidates on disk, and which of them belong to one question."""

    def __init__(self, folder: epath.Path, questions: Sequence[int]):
        """questions: the key of every candidate's question."""
        self._parts = [JsonlRows(path) for path in part_files(folder)]
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


def _key(q_id: str) -> int:
    """64 bits of a question's id: two of 10 million questions share one once in 300,000 runs."""
    return int.from_bytes(hashlib.blake2b(q_id.encode(), digest_size=8).digest(), "little")
