"""The report of a run: `report.json`, `report.md`, `figures/*.png`, and the table at its end.

Shares and scores are percent.
"""

import contextlib
import json
from collections.abc import Mapping
from os import PathLike

from etils import epath
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clmrc_jax.data.languages import CATEGORIES, MDPR_SEEN, MGEN_SEEN, OTHER, SEEN, UNSEEN, language
from clmrc_jax.evaluate.figures import (
    CLOSED_BOOK,
    MACRO,
    language_matrix,
    metrics_over_rounds,
    role_order,
)
from clmrc_jax.evaluate.report_data import (
    EMPTY,
    NONE,
    Column,
    clock,
    complete,
    headline_columns,
    mark,
    number,
    of_language,
    present,
    recall_depth,
    score_columns,
    source_line,
    value,
)
from clmrc_jax.evaluate.report_markdown import markdown
from clmrc_jax.files import atomic_write

_SPOKEN = 3  # examples at the end of a run on the terminal
_BAR = 14  # characters of a full bar
_TERMINAL = {
    SEEN: "blue",
    MDPR_SEEN: "cyan",
    MGEN_SEEN: "yellow",
    UNSEEN: "magenta",
    OTHER: "white",
}


def write_report(folder: str | PathLike, report: Mapping) -> None:
    """Writes report.json, report.md and figures/*.png into a folder, all of them or none.

    report: {"title", "config", "seed", "scorer" (of the answers), "split", "rounds"} and, where
    known, "notes" [str], "corpus" {"passages", "articles", "questions" {split: n}, "languages"
    {code: passages}}, "seconds" {stage: s}, "parameters" {model: n}, "retrieval_scorer", and
    "examples" [{"question", "lang", "answers", "prediction", "closed_book", "ctxs": [{"lang",
    "title", "text", "score"}]}]. A round is {"round": i} and, where known, "training_rows",
    "survived" (passages that fit the source), "index_recall" (0 to 1), "mining" {field: n},
    "matrix" {question language: {passage language: percent}}, and the sections "answers",
    "closed_book", "retrieval" and "language_rate", each {"languages": {code: {metric: percent,
    "count": n}}, "macro": {metric: percent}}.

    report.json is the report with the means of every category added to every round; written
    again, it gives the same files. It is renamed into place last: where it is, all are.
    Raises ValueError for a missing field, a value that is not JSON, or a matrix not in percent.
    """
    report = complete(report)
    pictures = _draw(report)
    files = {
        "report.json": json.dumps(report, ensure_ascii=False, indent=1).encode() + b"\n",
        "report.md": markdown(report, pictures).encode(),
        **{f"figures/{name}": picture for name, picture in pictures.items()},
    }
    folder = epath.Path(folder)
    with contextlib.ExitStack() as stack:  # renames in reverse order, once all is on disk
        for name, content in files.items():
            file = stack.enter_context(atomic_write(folder / name, "wb"))
            file.write(content)
            file.flush()


def summary_table(report: Mapping) -> RenderableType:
    """The end of a run on a terminal of 80 columns: rounds, languages, some answers, the time."""
    report = complete(report)
    first, last = report["rounds"][0], report["rounds"][-1]
    columns = [x for x in headline_columns(report) if present(report, x)]
    rounds = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    rounds.add_column("round")
    for column in columns:
        rounds.add_column(_short(column.title), justify="right", min_width=5)
    for row in report["rounds"]:
        cells = [number(value(row, column)) for column in columns]
        rounds.add_row(str(row["round"]), *cells, style="bold" if row is last else "")
    if first is not last:
        gains = [_gain(value(first, column), value(last, column)) for column in columns]
        rounds.add_section()
        rounds.add_row("gain", *gains)
    title = Text.assemble((report["title"], "bold cyan"), "\n", (source_line(report), "dim"))
    parts = [Text(), title, rounds, _language_bars(report), *_spoken_examples(report)]
    if report.get("seconds"):
        parts.append(Text(f"total {clock(sum(report['seconds'].values()))}", style="dim"))
    return Group(*parts)


def print_summary(report: Mapping, console: Console | None = None) -> None:
    """Prints `summary_table` to a console, standard output by default."""
    (console or Console()).print(summary_table(report))


def _draw(report: Mapping) -> dict[str, bytes]:
    """{file name: PNG}: metrics over rounds, the matrix of the first and of the last round."""
    rows, source = report["rounds"], source_line(report)
    k, pictures = recall_depth(report), {}
    metrics = (
        ("F1", "answers", "f1"),
        (f"R^L@{k}", "retrieval", f"r_l@{k}"),
        (f"R^multi@{k}", "retrieval", f"r_multi@{k}"),
    )
    panels = {
        title: {
            key: [value(row, Column(title, section, metric, key)) for row in rows]
            for key in (MACRO, *CATEGORIES, OTHER)
        }
        for title, section, metric in metrics
    }
    closed = Column("closed-book F1", "closed_book", "f1")
    panels["F1"][CLOSED_BOOK] = [value(row, closed) for row in rows]
    if any(x is not None for lines in panels.values() for line in lines.values() for x in line):
        numbers = [row["round"] for row in rows]
        title = "Answers and retrieval over the rounds"
        pictures["metrics_over_rounds.png"] = metrics_over_rounds(numbers, panels, title, source)
    with_matrix = [row for row in rows if any((row.get("matrix") or {}).values())]
    for row in {row["round"]: row for row in with_matrix[:1] + with_matrix[-1:]}.values():
        matrix = {asked: shares for asked, shares in row["matrix"].items() if shares}
        pictures[f"language_matrix_round_{row['round']}.png"] = language_matrix(
            matrix,
            f"Languages of the retrieved passages, round {row['round']}",
            f"{report['split']} split · percent of the first {k} passages",
        )
    return pictures


def _language_bars(report: Mapping) -> Table:
    """One line per language of the last round: F1 (or recall) as a bar, the rest as numbers."""
    last = report["rounds"][-1]
    columns = [x for x in score_columns(report) if x.metric not in ("em", "bleu")]
    columns = [x for x in columns if not x.metric.startswith("mrr")]
    title = f"round {last['round']}"
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    grid.add_column(title, no_wrap=True)
    grid.add_column("", width=_BAR)
    for column in columns:
        grid.add_column(_short(column.title), justify="right", min_width=5)
    if not columns:
        return grid
    codes = role_order(last.get(columns[0].section, EMPTY)["languages"])
    for code, following in zip(codes, [*codes[1:], None]):
        values = [of_language(last, column, code) for column in columns]
        entry = language(code)
        bar = Text(_bar(values[0] or 0.0), style=_TERMINAL[entry.category])
        end = following is None or language(following).category != entry.category
        name = entry.name.partition(" (")[0]
        grid.add_row(f"{code:<5} {name}", bar, *map(number, values), end_section=end)
    return grid


def _spoken_examples(report: Mapping) -> list[Text]:
    """Some questions with answer and the languages of their evidence, for the terminal."""
    lines = []
    for example in (report.get("examples") or ())[:_SPOKEN]:
        languages = " ".join(dict.fromkeys(ctx["lang"] for ctx in example["ctxs"]))
        lines.append(Text(f"  {example['question']}"))
        answer = Text.assemble("  → ", (example["prediction"] or NONE, "bold"), " ")
        verdict = mark(example)
        answer.append(verdict, style="green" if verdict == "✓" else "red")
        answer.append(f"   evidence in {languages or 'no language'}", style="dim")
        lines += [answer, Text()]
    return lines


def _bar(percent: float, width: int = _BAR) -> str:
    """A bar of eighths of a character."""
    eighths = round(min(max(percent, 0), 100) / 100 * width * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def _gain(before: float | None, after: float | None) -> Text:
    """The signed difference, green up and red down."""
    if before is None or after is None:
        return Text(NONE)
    change = after - before
    style = "green" if change >= 0.05 else "red" if change <= -0.05 else "dim"
    return Text(f"{change:+.1f}", style=style)


def _short(title: str) -> str:
    """A column title on two short lines, so that ten columns fit a terminal."""
    for long, short in (("closed-book F1", "closed\nbook"), ("correct language", "right\nlang.")):
        title = title.replace(long, short)
    return title.replace("-", "-\n").replace("@", "\n@")
