"""One table of a sweep: mean and deviation over seeds, published numbers, significance.

Every run leaves `report.json`. Its numbers are those under "summary" where it has one, else the
macro averages of the last round, else every number of the report. A run may leave
`scores.jsonl`, rows `{"id", "em", "f1"}` and "set" where it answered several: where the compared
systems have them, the difference of each row of the table to the baseline is tested on paired
questions.
"""

import csv
import dataclasses
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from clmrc_jax.evaluate.significance import (
    approximate_randomization,
    paired_bootstrap,
    paired_scores,
    question_means,
)
from clmrc_jax.files import InputError, atomic_write, read_json, read_jsonl
from clmrc_jax.pipelines.sweep_points import Point, Sweep, short_keys, value_text

REPORT, SCORES = "report.json", "scores.jsonl"
NONE = "–"  # an absent number on paper, as in the reports
TESTED = ("em", "f1")
TESTS = {"bootstrap": paired_bootstrap, "randomization": approximate_randomization}
_NOT_METRICS = ("seed", "seconds", "corpus", "parameters", "config", "examples", "count")


@dataclasses.dataclass(frozen=True)
class Row:
    """One system: the runs that differ in seeds alone.

    labels: {column: text}.   runs: names of the finished ones, of `wanted`.   values: {metric:
    one number per run that has it}.   published: {metric: number}.   p: {"em", "f1" or "set f1":
    {test: p-value of the difference to the baseline}}, empty for the baseline itself.
    """

    labels: dict[str, str]
    runs: tuple[str, ...]
    wanted: int
    values: dict[str, tuple[float, ...]]
    published: dict[str, float]
    p: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def mean(self, metric: str) -> float | None:
        """Mean over the runs, None where none has the metric."""
        values = self.values.get(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over the runs (n - 1), None for fewer than two."""
        values = self.values.get(metric, ())
        return statistics.stdev(values) if len(values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Table:
    """rows in the sweep's order (or sorted).   metrics: names of the columns.

    baseline: name of the row that the others are tested against, "" without scores.
    """

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    baseline: str

    def to_json(self) -> dict:
        """Plain values: {"title", "baseline", "rows": [{labels, n, metrics, published, p}]}."""
        rows = [
            {
                "labels": row.labels,
                "runs": list(row.runs),
                "n": len(row.runs),
                "metrics": {
                    m: {"mean": row.mean(m), "std": row.deviation(m)} for m in self.metrics
                },
                "published": row.published,
                "p": row.p,
            }
            for row in self.rows
        ]
        return {"title": self.title, "baseline": self.baseline, "rows": rows}


def is_finished(workdir: str | os.PathLike, point: Point) -> bool:
    """Whether the point's run has written its report, the last thing a run does."""
    return (epath.Path(workdir) / point.name / REPORT).exists()


def collect(
    sweep: Sweep,
    workdir: str | os.PathLike,
    *,
    metrics: Sequence[str] = (),
    baseline: str = "",
    sort: str = "",
) -> Table:
    """The table of the finished runs in `workdir`.

    metrics: dotted names in the reports; default: the sweep's, else all that the reports
    declare.   baseline: the preset (or whole label) that others are tested against; default:
    the sweep's, else the first row.   sort: a metric, the largest mean first.
    Raises InputError: a metric that a finished run does not have, an unknown baseline.
    """
    metrics = tuple(metrics or sweep.metrics)
    folder = epath.Path(workdir)
    groups = _groups(sweep.points)
    rows = [_row(labels, points, folder, metrics) for labels, points in groups]
    if not metrics:
        metrics = tuple(dict.fromkeys(name for row in rows for name in row.values))
    rows, baseline = _tested(rows, baseline or sweep.baseline, folder)
    if sort:
        if sort not in metrics:
            raise InputError(f"--sort={sort}: not a column; choose one of {', '.join(metrics)}")
        means = {id(row): row.mean(sort) for row in rows}
        rows.sort(key=lambda row: math.inf if means[id(row)] is None else -means[id(row)])
    return Table(sweep.name, tuple(rows), metrics, baseline)


def _groups(points: Sequence[Point]) -> list[tuple[dict[str, str], list[Point]]]:
    """(labels, points) of the points that differ in seeds alone, in the order of the first."""
    names = {k: short for k, short in short_keys(points).items() if not _is_seed(k)}
    groups: dict[tuple, list[Point]] = {}
    for point in points:
        cells = {short: value_text(point.config.get(key, "")) for key, short in names.items()}
        labels = {"system": point.preset} | cells
        groups.setdefault(tuple(labels.items()), []).append(point)
    return [(dict(labels), members) for labels, members in groups.items()]


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _row(labels, points, folder, metrics) -> Row:
    done = [point for point in points if is_finished(folder, point)]
    values: dict[str, list[float]] = {}
    for point in done:
        report = read_json(folder / point.name / REPORT)
        found = run_metrics(report)
        for name in metrics or found:
            number = found.get(name, _at(report, name))
            if number is None and metrics:
                known = ", ".join(found) or "none"
                raise InputError(
                    f"{folder / point.name / REPORT}: no number {name!r}; known: {known}"
                )
            values.setdefault(name, []).append(number)
    return Row(
        labels,
        tuple(point.name for point in done),
        len(points),
        {name: tuple(numbers) for name, numbers in values.items()},
        points[0].published,
    )


def run_metrics(report: Mapping) -> dict[str, float]:
    """{dotted name: number} that a run reports of itself; see the module."""
    if report.get("summary"):
        return dict(_numbers(report["summary"]))
    if report.get("rounds"):
        last = report["rounds"][-1]
        macros = {name: part["macro"] for name, part in last.items() if _has_macro(part)}
        plain = {name: part for name, part in last.items() if isinstance(part, float)}
        return dict(_numbers(macros | plain))
    return dict(_numbers(report))


def _has_macro(part) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("macro"), Mapping)


def _numbers(values: Mapping, prefix: str = "") -> Iterable[tuple[str, float]]:
    for key, value in values.items():
        if key in _NOT_METRICS:
            continue
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _at(report, name: str) -> float | None:
    """The number at a dotted path of a report; list positions are numbers, -1 the last."""
    for part in name.split("."):
        try:
            report = report[int(part)] if isinstance(report, list) else report[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    good = isinstance(report, int | float) and not isinstance(report, bool)
    return float(report) if good else None


def _tested(rows: list[Row], baseline: str, folder) -> tuple[list[Row], str]:
    """The rows with p-values against the baseline, and its label."""
    names = {row_name(row): row for row in rows}
    systems = {row.labels["system"]: row for row in reversed(rows)}
    if baseline and not (row := names.get(baseline) or systems.get(baseline)):
        raise InputError(f"baseline {baseline!r} is no row; choose one of {', '.join(names)}")
    base = row if baseline else rows[0]
    tested = [
        row if row is base else dataclasses.replace(row, p=_p_values(row, base, folder))
        for row in rows
    ]
    return tested, row_name(base) if any(row.p for row in tested) else ""


def row_name(row: Row) -> str:
    """What a row is called in the text: its labels."""
    system, *rest = row.labels.items()
    return ", ".join([system[1], *(f"{key}={value}" for key, value in rest)])


def _p_values(row: Row, base: Row, folder) -> dict[str, dict[str, float]]:
    """{metric: {test: p}} of row against base; {} unless all their runs left scores."""
    theirs, ours = _scores(base, folder), _scores(row, folder)
    found = {}
    for key in ours:
        if key not in theirs:
            continue
        metric = key[1]
        try:
            pairs = paired_scores(
                question_means(ours[key], metric), question_means(theirs[key], metric)
            )
        except InputError as error:
            both = f"{row_name(row)} and {row_name(base)}"
            raise InputError(f"{SCORES} of {both}: {error}") from error
        name = " ".join(filter(None, key))
        found[name] = {test: call(*pairs).p_value for test, call in TESTS.items()}
    return found


def _scores(row: Row, folder) -> dict[tuple[str, str], list[list[dict]]]:
    """{(set, "em" or "f1"): per run of the row its scored questions}, of what every run has."""
    files = [epath.Path(folder) / name / SCORES for name in row.runs]
    if not files or not all(path.exists() for path in files):
        return {}
    runs: list[dict] = []
    for path in files:
        runs.append({})
        for _, line in read_jsonl(path):
            for metric in TESTED:
                if metric in line:
                    runs[-1].setdefault((line.get("set", ""), metric), []).append(line)
    return {key: [run[key] for run in runs] for key in runs[0] if all(key in run for run in runs)}


def write_table(folder: str | os.PathLike, table: Table, command: str = "") -> str:
    """Writes table.csv and table.md into a folder; returns the Markdown.

    command: the one that made the table, named in the Markdown.
    """
    folder = epath.Path(folder)
    text = markdown(table, command)
    with atomic_write(folder / "table.csv") as file:
        csv.writer(file, lineterminator="\n").writerows(csv_rows(table))
    with atomic_write(folder / "table.md") as file:
        file.write(text)
    return text


def csv_rows(table: Table) -> list[list]:
    """Header and rows for a program: full precision, an empty cell where there is no number."""
    labels = list(table.rows[0].labels)
    published, tested = _published(table), _tested_fields(table)
    header = [*labels, "n", "wanted"]
    header += [f"{m} {kind}" for m in table.metrics for kind in ("mean", "std")]
    header += [f"{m} published" for m in published]
    header += [f"p {field} {test}" for field, test in tested]
    rows = [header]
    for row in table.rows:
        cells = [*row.labels.values(), len(row.runs), row.wanted]
        cells += [x for m in table.metrics for x in (row.mean(m), row.deviation(m))]
        cells += [row.published.get(m) for m in published]
        cells += [row.p.get(field, {}).get(test) for field, test in tested]
        rows.append(["" if cell is None else cell for cell in cells])
    return rows


def markdown(table: Table, command: str = "") -> str:
    """The table for a person, with what the numbers mean below it."""
    published, tested = _published(table), _tested_fields(table)
    columns = [[name, *(row.labels[name] for row in table.rows)] for name in _shown(table)]
    columns.append(["n", *(_count(row) for row in table.rows)])
    for metric in dict.fromkeys([*table.metrics, *published]):
        if metric in table.metrics:
            columns.append([metric, *_mean_cells(table, metric)])
        if metric in published:
            numbers = [row.published.get(metric) for row in table.rows]
            columns.append([f"{metric} published", *(_number(x, 2) for x in numbers)])
    for field in dict.fromkeys(field for field, _ in tested):
        columns.append([f"p {field}", *(_p_cell(row, field) for row in table.rows)])
    lines = [f"# {table.title}", "", *_aligned(columns), "", *_notes(table, command)]
    return "\n".join(lines) + "\n"


def _published(table: Table) -> list[str]:
    return list(dict.fromkeys(name for row in table.rows for name in row.published))


def _tested_fields(table: Table) -> list[tuple[str, str]]:
    pairs = [(field, test) for row in table.rows for field in row.p for test in row.p[field]]
    return list(dict.fromkeys(pairs))


def _shown(table: Table) -> list[str]:
    """Label columns: the system, and what differs between rows."""
    system, *rest = table.rows[0].labels
    return [system, *(x for x in rest if len({row.labels[x] for row in table.rows}) > 1)]


def _count(row: Row) -> str:
    return str(len(row.runs)) if len(row.runs) == row.wanted else f"{len(row.runs)} of {row.wanted}"


def _mean_cells(table: Table, metric: str) -> list[str]:
    means = [row.mean(metric) for row in table.rows]
    digits = 2 if max((abs(x) for x in means if x is not None), default=0) >= 1 else 4
    cells = []
    for row, mean in zip(table.rows, means):
        deviation = row.deviation(metric)
        around = "" if deviation is None else f" ± {deviation:.{digits}f}"
        cells.append(_number(mean, digits) + around)
    return cells


def _number(x: float | None, digits: int) -> str:
    return NONE if x is None else f"{x:.{digits}f}"


def _p_cell(row: Row, field: str) -> str:
    return " / ".join(f"{p:.4f}" for p in row.p[field].values()) if field in row.p else NONE


def _aligned(columns: list[list[str]]) -> list[str]:
    """Lines of a Markdown table with equal widths; the numbers stand right of their column."""
    widths = [max(3, *(len(cell) for cell in column)) for column in columns]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in zip(*columns)
    ]
    return [rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]]


def _notes(table: Table, command: str) -> list[str]:
    notes = ["Mean ± standard deviation over the runs (seeds) of a row; n is their number."]
    if table.baseline:
        notes.append(
            f"p: two-sided paired test of the difference to {table.baseline} over the questions, "
            "each scored by its mean over the runs: bootstrap / approximate randomisation."
        )
    if command:
        notes += ["", f"    {command}"]
    return notes
