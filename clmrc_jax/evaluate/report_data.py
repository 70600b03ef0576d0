"""What the parts of a report share: the checked report, category means, columns and formats.

The rule for absent numbers: they are None here and `–` on paper, never 0.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from clmrc_jax.data.languages import CATEGORIES, OTHER, language
from clmrc_jax.evaluate.figures import LABELS, MACRO, role_order
from clmrc_jax.evaluate.normalize import normalized_match
from clmrc_jax.evaluate.scores import mean

NONE = "–"
EMPTY = {"languages": {}}  # stands for a section that was not measured
SECTIONS = ("answers", "closed_book", "retrieval", "language_rate")
_REQUIRED = ("title", "config", "seed", "scorer", "split", "rounds")
_COUNTS = {"count", "neutral", "empty"}


class Column(NamedTuple):
    """One number per round: `metric` of a section, for a category or all languages (MACRO)."""

    title: str
    section: str
    metric: str
    category: str = MACRO


def complete(report: Mapping) -> dict:
    """A checked copy of a report with `categories` {section: {category: means}} in each round.

    Raises ValueError as `write_report` does.
    """
    missing = [name for name in _REQUIRED if name not in report]
    if missing or not report["rounds"]:
        raise ValueError(f"a report needs {', '.join(missing) or 'at least one round'}")
    try:
        report = json.loads(json.dumps(report, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"report: every value must be plain, finite JSON ({error})") from error
    for row in report["rounds"]:
        for asked, shares in (row.get("matrix") or {}).items():
            if shares and abs(sum(shares.values()) - 100) > 0.5:
                total = sum(shares.values())
                where = f"matrix of round {row['round']}, row {asked!r}"
                raise ValueError(f"{where}: shares sum to {total:g}, must be percent (100)")
        row["categories"] = {
            name: _category_rows(row[name]["languages"]) for name in SECTIONS if row.get(name)
        }
    return report


def by_category(languages: Mapping[str, Mapping], metric: str) -> dict[str, float]:
    """Means of a metric over the languages of each category: {category: percent}.

    languages: {code: {metric: percent, "count": n}}; those with count 0 or without the metric
    do not count, and a category without any is absent. Order: seen, mdpr_seen, mgen_seen,
    unseen, other.
    """
    members = _members(languages)
    values = {
        category: [row[metric] for row in rows if metric in row]
        for category, rows in members.items()
    }
    return {category: mean(x) for category, x in values.items() if x}


def headline_columns(report: Mapping) -> list[Column]:
    """The columns of the headline table; k of R^L@k is the run's own, 10 without retrieval."""
    k = recall_depth(report)
    categories = [*CATEGORIES]
    if any(OTHER in means for row in report["rounds"] for means in row["categories"].values()):
        categories.append(OTHER)
    return [
        Column("F1", "answers", "f1"),
        *(Column(LABELS[name], "answers", "f1", name) for name in categories),
        Column("closed-book F1", "closed_book", "f1"),
        Column(f"R^L@{k}", "retrieval", f"r_l@{k}"),
        Column(f"R^multi@{k}", "retrieval", f"r_multi@{k}"),
        Column("correct language", "language_rate", "correct_language"),
    ]


def value(row: Mapping, column: Column) -> float | None:
    """The number of a column in one round of a completed report; None where there is none."""
    section = row.get(column.section)
    if not section:
        return None
    if column.category == MACRO:
        macro = section["macro"]
        return macro.get(column.metric) if macro.get("count", 1) else None
    means = row["categories"][column.section].get(column.category, {})
    return means.get(column.metric)


def score_columns(report: Mapping, category: str = MACRO) -> list[Column]:
    """All measured metrics of one category."""
    k = recall_depth(report)
    columns = (
        ("F1", "answers", "f1"),
        ("EM", "answers", "em"),
        ("BLEU", "answers", "bleu"),
        ("closed-book F1", "closed_book", "f1"),
        (f"R^L@{k}", "retrieval", f"r_l@{k}"),
        (f"R^multi@{k}", "retrieval", f"r_multi@{k}"),
        (f"MRR^L@{k}", "retrieval", f"mrr_l@{k}"),
        (f"MRR^multi@{k}", "retrieval", f"mrr_multi@{k}"),
        ("correct language", "language_rate", "correct_language"),
    )
    columns = [Column(*column, category) for column in columns]
    return [x for x in columns if present(report, x._replace(category=MACRO))]


def of_language(row: Mapping, column: Column, code: str) -> float | None:
    """The number of one language in one round."""
    found = (row.get(column.section) or EMPTY)["languages"].get(code, {})
    return found.get(column.metric) if found.get("count", 1) else None


def recall_depth(report: Mapping) -> int:
    """k of the run's R^L@k, from the names of its metrics; 10 for a run without retrieval."""
    for row in report["rounds"]:
        for name in (row.get("retrieval") or {}).get("macro", ()):
            if name.startswith("r_l@"):
                return int(name.removeprefix("r_l@"))
    return 10


def present(report: Mapping, column: Column) -> bool:
    """Whether the column has a number in any round."""
    return any(value(row, column) is not None for row in report["rounds"])


def source_line(report: Mapping) -> str:
    """Split and scorers, the words that go with every table and figure of scores."""
    retrieval = report.get("retrieval_scorer", "retrieval (fixed)")
    parts = [f"{report['split']} split"]
    if any(row.get("answers") for row in report["rounds"]):
        parts += [f"answers: {report['scorer']}"]
    if any(row.get("retrieval") for row in report["rounds"]):
        parts += [f"recall: {retrieval}"]
    if any(row.get("language_rate") for row in report["rounds"]):
        parts += ["correct language: language (fixed)"]
    return " · ".join(parts)


def mark(example: Mapping) -> str:
    """✓ if the prediction equals an expected answer after normalisation, else ✗."""
    right = normalized_match(example["prediction"], example["answers"], example["lang"])
    return "✓" if right else "✗"


def number(x: float | None, digits: int = 1) -> str:
    """A number with a fixed number of digits, `–` for None."""
    return NONE if x is None else f"{x:.{digits}f}"


def clock(seconds: float) -> str:
    """Seconds as a person reads them: 4.2 s below a minute, then h:mm:ss."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _members(languages: Mapping[str, Mapping]) -> dict[str, list[Mapping]]:
    """{category: rows of its languages that have questions}, categories in their order."""
    found: dict[str, list[Mapping]] = {}
    for code in role_order(languages):
        if languages[code].get("count", 1):
            found.setdefault(language(code).category, []).append(languages[code])
    return found


def _category_rows(languages: Mapping[str, Mapping]) -> dict[str, dict]:
    """{category: {metric: mean, "count": questions, "languages": n}}"""
    metrics = {name for row in languages.values() for name in row}
    means = {name: by_category(languages, name) for name in sorted(metrics - _COUNTS)}
    return {
        category: {name: found[category] for name, found in means.items() if category in found}
        | {"count": sum(row.get("count", 0) for row in rows), "languages": len(rows)}
        for category, rows in _members(languages).items()
    }
