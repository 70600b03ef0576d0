"""Our runs beside the published numbers of the Dual BERT paper (`mrc_published`), as Markdown.

Ours are means over seeds; published scores come from one run or from the best of several.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import mean, stdev

from clmrc_jax.evaluate.mrc_published import (
    BASELINES,
    DATA_SETS,
    FIGURE3,
    FIGURE3_SIZES,
    TABLES,
    Published,
)
from clmrc_jax.evaluate.report_data import NONE
from clmrc_jax.evaluate.report_markdown import escape, table
from clmrc_jax.evaluate.scores import Scores
from clmrc_jax.evaluate.significance import (
    Significance,
    approximate_randomization,
    paired_bootstrap,
    paired_scores,
    question_means,
)

METRICS = (("em", "EM"), ("f1", "F1"))


@dataclass(frozen=True)
class Run:
    """One seed of one system on one data set. em, f1: percent.

    questions: rows `id, em, f1` of the scorer; without them there is no significance test.
    """

    em: float
    f1: float
    questions: Sequence[Mapping] = ()

    @classmethod
    def of(cls, scores: Scores) -> "Run":
        """The run behind the scores of one prediction file."""
        return cls(scores.extras["em"], scores.extras["f1"], scores.questions)


def comparison(
    rows: Iterable[Published],
    runs: Mapping[str, Sequence[Run]],
    data_set: str,
    baseline: str | None = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> str:
    """One data set of a table as Markdown: ours (mean ± sd over seeds, n) beside published.

    rows: of `TABLES`, or own ones for systems that nobody published (scores {}).
    runs: {preset: one Run per seed}.   data_set: key of the published scores, such as `cmrc_dev`.
    baseline: preset that the others are tested against, question by question, each question
    averaged over the seeds. Without question rows of both systems the test is left out.
    samples, seed: of both tests. Raises InputError when two systems scored other questions.
    """
    rows = [row for row in rows if row.preset in runs or data_set in row.scores]
    header = ["preset", "system", "n", *(f"ours {title}" for _, title in METRICS)]
    header += [f"published {title}" for _, title in METRICS]
    tested = baseline is not None and any(run.questions for run in runs.get(baseline, ()))
    if tested:
        header += [f"Δ{x} [95 %], p boot / rand" for _, x in METRICS]
    lines = []
    for row in rows:
        own = runs.get(row.preset, ())
        cells = [f"`{row.preset}`", escape(row.system) + (" ♠" if row.zero_shot else "")]
        cells += [str(len(own)) if own else NONE]
        cells += [spread([getattr(run, metric) for run in own]) for metric, _ in METRICS]
        cells += [f"{x:.1f}" for x in row.scores.get(data_set, ())] or [NONE, NONE]
        if tested:
            against = () if row.preset == baseline else runs[baseline]
            cells += [_tested(own, against, metric, samples, seed) for metric, _ in METRICS]
        lines.append(cells)
    return table(header, lines, left=2)


def report(name: str, runs: Mapping[str, Mapping[str, Sequence[Run]]], **options) -> str:
    """A whole table as Markdown, one part per data set that we ran.

    name: `table2`, `table3` or `table4`.   runs: {data set: {preset: one Run per seed}}.
    options: of `comparison`; `baseline` is the table's own (`BASELINES`) by default.
    """
    options = {"baseline": BASELINES[name]} | options
    parts = [
        f"### {DATA_SETS.get(data_set, data_set)}\n\n"
        + comparison(TABLES[name], own, data_set, **options)
        for data_set, own in runs.items()
    ]
    notes = ["♠ zero-shot; scores in percent; ours: mean ± standard deviation over n seeds."]
    if any("Δ" in part for part in parts):
        notes.append(
            f"Δ: difference to `{options['baseline']}` with its 95 % bootstrap interval; p: paired "
            "bootstrap and approximate randomization over the questions, two-sided."
        )
    return "\n\n".join([*parts, " ".join(notes)]) + "\n"


def figure3(runs: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """Figure 3 as Markdown: rows are numbers of pre-training examples.

    runs: {"squad" | "drcd": {examples: (EM + F1) / 2 of each seed, in percent}}. Sizes that the
    paper does not have get rows of their own.
    """
    printed = {
        name: dict(zip_longest(FIGURE3_SIZES, points["mean"])) for name, points in FIGURE3.items()
    }
    names = {"squad": "English (SQuAD)", "drcd": "Traditional Chinese (DRCD)"}
    header = ["examples"]
    for title in names.values():
        header += [f"ours: {title}", "n", "published mean"]
    lines = []
    for size in sorted({*FIGURE3_SIZES, *(size for own in runs.values() for size in own)}):
        cells = [f"{size:,}"]
        for name in names:
            own, mean_of_paper = runs.get(name, {}).get(size, ()), printed[name].get(size)
            cells += [spread(own, 2), str(len(own)) if own else NONE]
            cells += [NONE if mean_of_paper is None else f"{mean_of_paper:.2f}"]
        lines.append(cells)
    return table(header, lines) + "\n"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± sample standard deviation; a single value alone; a dash for none."""
    if not values:
        return NONE
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def compare_runs(
    first: Sequence[Run], second: Sequence[Run], metric: str, samples: int = 10_000, seed: int = 0
) -> tuple[Significance, Significance]:
    """Both tests of one metric (bootstrap, randomization) between two systems, in percent points.

    Every question counts its mean over the seeds of a system. Raises InputError for runs on
    other questions, or without question rows.
    """
    means = [question_means((run.questions for run in runs), metric) for runs in (first, second)]
    pairs = [[100 * x for x in scores] for scores in paired_scores(*means)]
    options = {"samples": samples, "seed": seed}
    return paired_bootstrap(*pairs, **options), approximate_randomization(*pairs, **options)


def _tested(
    own: Sequence[Run], against: Sequence[Run], metric: str, samples: int, seed: int
) -> str:
    """The cell of a test, a dash where there is nothing to compare."""
    if not all(run.questions for run in (*own, *against)) or not own or not against:
        return NONE
    boot, rand = compare_runs(own, against, metric, samples, seed)
    interval = f"{boot.difference:+.1f} [{boot.low:+.1f}, {boot.high:+.1f}]"
    return f"{interval}, {_p(boot.p_value)} / {_p(rand.p_value)}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
