"""What mGEN is trained on in a round: retrieved passages and answers, synthetic ones included."""

from collections.abc import Callable, Sequence

import numpy as np

from clmrc_jax.evaluate.answer_match import contains_answer, searchable
from clmrc_jax.pipelines.generator import GeneratorTraining
from clmrc_jax.pipelines.mining import MiningRules, translate_answer


class GeneratorRows:
    """Rows of a retrieval run over training questions, then synthetic rows (spec 4.2).

    For every English question and every other language that links translate its answer to, a
    synthetic row exists with probability `synthetic_share`: the same question and passages, the
    translated answer, that language's tag. Only places in two small arrays are in memory.

    run: random-access run rows.   languages: targets of synthetic answers.   top: passages per
    source.   round: synthetic rows wait for `synthetic_after_epoch` in round 0 alone (CORA
    footnote 2: they are added after the third epoch of the initial training).
    """

    def __init__(
        self,
        run: Sequence[dict],
        links,
        rules: MiningRules,
        training: GeneratorTraining,
        languages: Sequence[str],
        top: int,
        *,
        round: int,
        seed: int,
    ):
        self.run, self.links, self.rules = run, links, rules
        self.training, self.languages, self.top, self.round = training, languages, top, round
        places = []
        if training.synthetic_share:
            rng = np.random.default_rng(seed)
            for i in range(len(run)):
                row = run[i]
                if row["lang"] != "en" or _tag(row) != "en":
                    continue
                drawn = np.flatnonzero(rng.random(len(languages)) < training.synthetic_share)
                places += [(i, k) for k in drawn if self._translated(row, languages[k])]
        self._places = np.array(places, np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.run) + len(self._places)

    def __getitem__(self, i: int) -> dict:
        """A run row, with `synthetic` = target language (None for a real row)."""
        if i < len(self.run):
            return self.run[i] | {"synthetic": None}
        row, language = self._places[i - len(self.run)]
        return self.run[int(row)] | {"synthetic": self.languages[language]}

    def choose(self, row: dict, rng: np.random.Generator, epoch: int):
        """(question, language tag, passages, answer) to train on; epoch: passes over real rows.

        While synthetic rows have to wait, a real row takes their place.
        """
        started = self.round > 0 or epoch >= self.training.synthetic_after_epoch
        if row["synthetic"] and not started:
            row = self[int(rng.integers(len(self.run)))]
        ctxs = self.passages(row, rng)
        if row["synthetic"]:
            return row["question"], row["synthetic"], ctxs, self._translated(row, row["synthetic"])
        return row["question"], _tag(row), ctxs, row["answers"][0]

    def passages(self, row: dict, rng: np.random.Generator) -> list[dict]:
        """At most `answer_passages` with an answer string, filled up in rank order, shuffled."""
        answering, others, drawn = self._offered(row)
        kept = [answering[i] for i in rng.permutation(len(answering))[:drawn]] + others
        return [kept[i] for i in rng.permutation(len(kept))]

    def expected_lengths(self, count: Callable[[str, str, list[dict]], list[int]]) -> np.ndarray:
        """Expected tokens of every row's source, int32 [rows]; reads all rows once.

        count: (question, language, passages) -> tokens of the question and of each passage.
        """
        lengths = np.zeros(len(self.run), np.int32)
        for i in range(len(self.run)):
            row = self.run[i]
            answering, others, drawn = self._offered(row)
            question, *passages = count(row["question"], _tag(row), answering + others)
            mean = np.mean(passages[: len(answering)]) if answering else 0
            lengths[i] = question + drawn * mean + sum(passages[len(answering) :])
        return np.concatenate([lengths, lengths[self._places[:, 0]]])

    def _offered(self, row: dict) -> tuple[list[dict], list[dict], int]:
        """Passages with an answer string, those that always join them, and how many are drawn."""
        answers, answering, others = searchable(row["answers"]), [], []
        for ctx in row["ctxs"]:
            hit = contains_answer(answers, f"{ctx['title']} {ctx['text']}", _tag(row))
            (answering if hit else others).append(ctx)
        drawn = min(self.training.answer_passages, self.top, len(answering))
        return answering, others[: self.top - drawn], drawn

    def _translated(self, row: dict, target: str) -> str | None:
        return translate_answer(self.links, self.rules, row["answers"][0], target)


def _tag(row: dict) -> str:
    """Language that the answer is to be in: XOR's cross-lingual rows have English answers."""
    return row.get("answer_lang") or row["lang"]
