"""Is the difference between two systems on the same questions more than chance?

Two tests over per-question scores, both two-sided, paired and seeded:
`paired_bootstrap`          would other questions of the same kind give the same sign? Resamples
                            the questions; also gives the confidence interval of the difference.
`approximate_randomization` could the two systems be the same one? Swaps their answers to each
                            question by a coin.
Both depend on the paired differences only through how often each value occurs. Where there are
few values (EM has three), a resample is therefore one multinomial (binomial) draw over them:
the same distribution as question by question, at a fraction of the cost. Questions count as independent; those that share
a passage are not quite, so a p-value just under the limit deserves doubt. p is never 0: the
observed outcome counts as one of the resamples (Davison and Hinkley 1997, 4.2).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clmrc_jax.evaluate.scores import mean
from clmrc_jax.files import InputError

_CELLS = 1 << 22  # numbers drawn at once: 32 MiB
_FEW = 10  # a draw per distinct value costs about as much as ten draws per question
_TIE = 1e-9  # equal sums may differ in their last bits


@dataclass(frozen=True)
class Significance:
    """difference: mean of first minus second, in the unit of the scores.   p_value: two-sided.

    low, high: bootstrap confidence interval of the difference; None from randomization.
    count: questions.   samples: resamples drawn.
    """

    difference: float
    p_value: float
    count: int
    samples: int
    low: float | None = None
    high: float | None = None


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    *,
    samples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Significance:
    """Paired bootstrap test with the percentile interval.

    first, second: [questions] scores of two systems, same order.   p: share of resampled
    differences that lie at least as far from the observed one as 0 does (the resamples,
    centred, stand for the null hypothesis). Raises ValueError for unequal or empty sequences.
    """
    differences = _differences(first, second)
    generator, count = np.random.default_rng(seed), len(differences)
    values, counts = np.unique(differences, return_counts=True)

    def means_of(size: int) -> np.ndarray:
        if _FEW * len(values) < count:
            return generator.multinomial(count, counts / count, size) @ values / count
        drawn = generator.integers(0, count, (size, count), dtype=np.int32)
        return differences[drawn].mean(axis=1)

    difference = float(differences.mean())
    means = _in_chunks(means_of, samples, count)
    p_value = _share(np.abs(means - difference), abs(difference))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Significance(difference, p_value, count, samples, float(low), float(high))


def approximate_randomization(
    first: Sequence[float], second: Sequence[float], *, samples: int = 10_000, seed: int = 0
) -> Significance:
    """Approximate randomization test: p is the share of random swaps whose difference is as large.

    Arguments and errors of `paired_bootstrap`.
    """
    differences = _differences(first, second)
    generator, count = np.random.default_rng(seed), len(differences)
    values, counts = np.unique(np.abs(differences), return_counts=True)

    def means_of(size: int) -> np.ndarray:
        if _FEW * len(values) < count:
            unswapped = generator.binomial(counts, 0.5, (size, len(counts)))
            return (2 * unswapped - counts) @ values / count
        coins = np.frombuffer(generator.bytes(size * (-(-count // 8))), np.uint8)
        coins = np.unpackbits(coins.reshape(size, -1), axis=1, count=count)
        return coins.astype(np.float64) @ differences * 2 / count - differences.mean()

    difference = float(differences.mean())
    p_value = _share(np.abs(_in_chunks(means_of, samples, count)), abs(difference))
    return Significance(difference, p_value, count, samples)


def question_means(runs: Iterable[Iterable[Mapping]], metric: str) -> dict[str, float]:
    """Mean score of each question over runs (seeds) of one system: {id: score}.

    runs: per run the rows of `Scores.questions`, or of a `--per_question` file. Raises
    InputError where the runs do not score the same questions.
    """
    tables = [{str(row["id"]): float(row[metric]) for row in run} for run in runs]
    if not tables:
        raise InputError("no run to average; give the per-question rows of at least one seed")
    for number, table in enumerate(tables):
        _same_questions(tables[0], table, f"run {number}")
    return {key: mean([table[key] for table in tables]) for key in tables[0]}


def paired_scores(
    first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[list[float], list[float]]:
    """Two {id: score} tables as sequences in one order. Raises InputError for different ids."""
    _same_questions(first, second, "the second system")
    return list(first.values()), [second[key] for key in first]


def _same_questions(first: Mapping, second: Mapping, name: str) -> None:
    if different := sorted(first.keys() ^ second.keys()):
        raise InputError(
            f"{name} scores other questions than the first one: {len(different)} id(s) stand on "
            f"one side only, such as {different[0]!r}; score both on the same data"
        )


def _differences(first, second) -> np.ndarray:
    """[questions] first minus second, rounded so that equal differences are equal numbers."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            f"paired tests need two equally long score lists, got {first.shape}, {second.shape}"
        )
    return np.round(first - second, 12)


def _in_chunks(means_of: Callable[[int], np.ndarray], samples: int, width: int) -> np.ndarray:
    """[samples] resampled means, drawn in pieces that fit into memory."""
    step = max(1, _CELLS // width)
    sizes = [min(step, samples - start) for start in range(0, samples, step)]
    return np.concatenate([means_of(size) for size in sizes])


def _share(distances: np.ndarray, observed: float) -> float:
    """Share of distances that reach the observed one, which counts as one of them."""
    return float((np.sum(distances >= observed - _TIE) + 1) / (len(distances) + 1))
