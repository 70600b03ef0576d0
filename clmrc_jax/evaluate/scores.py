"""What every scorer returns: numbers per language, their macro average, and what was odd."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Scores:
    """Scores of one prediction file, in percent.

    languages: {code: {metric: percent, "count": questions}}.   macro: {metric: percent}, the
    unweighted mean over languages with count > 0.   questions: one dict per scored question,
    metrics in [0, 1].   missing: questions without a prediction (they score 0).
    foreign: predictions of no question.   skipped: questions outside the metric.
    extras: further tables (such as the language matrix), printed with `--json`.
    """

    languages: dict[str, dict[str, float]]
    macro: dict[str, float]
    questions: list[dict] = field(default_factory=list)
    missing: int = 0
    foreign: int = 0
    skipped: int = 0
    extras: dict = field(default_factory=dict)

    def tables(self) -> dict:
        """`languages` and `macro` alone, as the report reads them."""
        return {"languages": self.languages, "macro": self.macro}

    def to_json(self) -> dict:
        """A JSON-ready dictionary, without the rows per question."""
        return {
            **self.tables(),
            "missing": self.missing,
            "foreign": self.foreign,
            "skipped": self.skipped,
            **self.extras,
        }


def average(rows: Iterable[dict], metrics: Sequence[str]) -> tuple[dict, dict]:
    """Means per language and their macro average, in percent.

    rows: dicts with `lang` and every metric in [0, 1]; languages keep the order of the rows.
    """
    by_language: dict[str, list[dict]] = {}
    for row in rows:
        by_language.setdefault(row["lang"], []).append(row)
    languages = {
        lang: {metric: 100 * mean([row[metric] for row in group]) for metric in metrics}
        | {"count": len(group)}
        for lang, group in by_language.items()
    }
    return languages, macro_average(languages, metrics)


def macro_average(languages: dict[str, dict], metrics: Sequence[str]) -> dict[str, float]:
    """Unweighted mean over languages, `count` = number of questions; zeros when there are none."""
    scored = [row for row in languages.values() if row["count"]]
    macro = {metric: mean([row[metric] for row in scored]) for metric in metrics}
    return macro | {"count": sum(row["count"] for row in scored)}


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0
