"""report.md: the parts of a completed report as Markdown.

A column without any number is left out and named below its table.
"""

import re
from collections.abc import Iterable, Mapping

from clmrc_jax.data.languages import CATEGORIES, OTHER, language
from clmrc_jax.evaluate.figures import LABELS, MACRO, role_order
from clmrc_jax.evaluate.report_data import (
    EMPTY,
    NONE,
    clock,
    headline_columns,
    mark,
    number,
    of_language,
    present,
    score_columns,
    source_line,
    value,
)

_EXCERPT = 280  # characters of a passage in an example


def markdown(report: Mapping, pictures: Iterable[str] = ()) -> str:
    """The text of report.md for a completed report; pictures: file names within figures/."""
    parts = [
        f"# {escape(report['title'])}",
        _facts(report),
        *_headline_part(report),
        *(f"![{name.split('.')[0].replace('_', ' ')}](figures/{name})" for name in pictures),
        *_category_part(report),
        *_language_part(report),
        *_gold_part(report),
        *_mining_part(report),
        *_example_part(report),
        *_time_part(report),
    ]
    if report.get("notes"):
        parts += ["## Notes", "\n".join(f"* {escape(note)}" for note in report["notes"])]
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Text on one line in which Markdown finds nothing to interpret, not even in a table."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))


def table(header: list[str], rows: Iterable[list[str]], left: int = 1) -> str:
    """A Markdown table of ready cells; the first `left` columns are flush left."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _facts(report: Mapping) -> str:
    """Config, seed, corpus and models, one bullet each."""
    corpus, lines = report.get("corpus") or {}, []
    lines.append(f"* config `{report['config']}`, seed {report['seed']}")
    if "passages" in corpus:
        articles = f" of {corpus['articles']:,} articles" if corpus.get("articles") else ""
        languages = corpus.get("languages") or {}
        shares = ", ".join(f"{code} {languages[code]:,}" for code in role_order(languages))
        shares = f" ({shares})" if shares else ""
        lines.append(f"* corpus: {corpus['passages']:,} passages{articles}{shares}")
    if corpus.get("questions"):
        splits = ", ".join(f"{name} {count:,}" for name, count in corpus["questions"].items())
        lines.append(f"* questions: {splits}")
    if report.get("parameters"):
        sizes = ", ".join(f"{name} {n:,}" for name, n in report["parameters"].items())
        lines.append(f"* parameters: {sizes}")
    lines.append(f"* every score is in percent; {source_line(report)}")
    return "\n".join(lines)


def _headline_part(report: Mapping) -> list[str]:
    """The rounds, one line each."""
    columns = headline_columns(report)
    shown = [column for column in columns if present(report, column)]
    absent = [column.title for column in columns if column not in shown]
    rows = [
        [str(row["round"]), *(number(value(row, column)) for column in shown)]
        for row in report["rounds"]
    ]
    text = f"Macro averages over languages; the categories are of F1. {source_line(report)}."
    parts = ["## Rounds", text, table(["round", *(column.title for column in shown)], rows)]
    return parts + ([f"Not measured in this run: {', '.join(absent)}."] if absent else [])


def _category_part(report: Mapping) -> list[str]:
    """Every metric by round and category."""
    header = ["round", "category", *(column.title for column in score_columns(report))]
    rows = []
    for row in report["rounds"]:
        known = {name for means in row["categories"].values() for name in means}
        for name in (MACRO, *(x for x in (*CATEGORIES, OTHER) if x in known)):
            cells = [number(value(row, column)) for column in score_columns(report, name)]
            rows.append([str(row["round"]), LABELS[name], *cells])
    return ["## Categories of languages", f"{source_line(report)}.", table(header, rows, 2)]


def _language_part(report: Mapping) -> list[str]:
    """Every language: the last round, beside it the first one where mining should show."""
    first, last = report["rounds"][0], report["rounds"][-1]
    names = {
        code for key in ("answers", "retrieval") for code in (last.get(key) or EMPTY)["languages"]
    }
    header, pairs = ["language", "name", "category", "questions"], []
    columns = [x for x in score_columns(report) if not x.metric.startswith("mrr")]
    for column in columns:
        compared = first is not last and column.metric not in ("em", "bleu")
        compared = compared and column.section != "closed_book"
        for row in (first, last) if compared else (last,):
            header.append(f"{column.title}, round {row['round']}" if compared else column.title)
            pairs.append((row, column))
    rows = []
    for code in role_order(names):
        entry = language(code)
        cells = [number(of_language(row, column, code)) for row, column in pairs]
        counts = [
            (last.get(key) or EMPTY)["languages"].get(code, {}) for key in ("answers", "retrieval")
        ]
        count = next((row["count"] for row in counts if "count" in row), NONE)
        rows.append([code, entry.name, LABELS[entry.category], str(count), *cells])
    title = f"## Languages, round {last['round']}"
    return [title, f"{source_line(report)}.", table(header, rows, 3)]


def _gold_part(report: Mapping) -> list[str]:
    """Recall of gold paragraphs before training and after the last round, where known."""
    last = report["rounds"][-1]
    before, after = last.get("gold_before"), last.get("gold")
    if not before or not after:
        return []
    metrics = [name for name in after["macro"] if name != "count"]
    header = ["", *(f"{name} {when}" for name in metrics for when in ("before", "after"))]

    def cells(a: Mapping, b: Mapping) -> list[str]:
        return [number(x.get(name)) for name in metrics for x in (a, b)]

    rows = [
        [code, *cells(before["languages"][code], after["languages"][code])]
        for code in role_order(after["languages"])
    ]
    rows.append(["mean", *cells(before["macro"], after["macro"])])
    text = (
        "Share of questions whose paragraph, in any language, is among the first k of all "
        "passages (R), or whose English paragraph is among the first k English ones (R_en); "
        f"percent, {report['split']} questions."
    )
    return ["## Gold paragraphs", text, table(header, rows)]


def _mining_part(report: Mapping) -> list[str]:
    """What each round was trained on, what its generator saw, what was mined after it."""
    rounds = report["rounds"]
    fields = {"training rows": [row.get("training_rows") for row in rounds]}
    fields["passages that fit the source (mean)"] = [row.get("survived") for row in rounds]
    fields["index recall against exact search (0 to 1)"] = [
        row.get("index_recall") for row in rounds
    ]
    mined = [dict(_flat(row.get("mining") or {})) for row in rounds]
    for name in dict.fromkeys(name for row in mined for name in row):
        fields[f"mined: {name}"] = [row.get(name) for row in mined]
    rows = [
        [escape(name), *map(_cell, values)]
        for name, values in fields.items()
        if any(x is not None for x in values)
    ]
    header = ["", *(f"round {row['round']}" for row in rounds)]
    return ["## Training rows and mining", table(header, rows)] if rows else []


def _example_part(report: Mapping) -> list[str]:
    """Questions with answer, closed-book answer and evidence."""
    parts = []
    for example in report.get("examples") or ():
        golds = " / ".join(escape(answer) for answer in example["answers"])
        lines = [
            f"* `{example['lang']}` expected: {golds}",
            f"* answer: **{escape(example['prediction']) or NONE}** {mark(example)}",
        ]
        if example.get("closed_book") is not None:
            lines.append(f"* without passages: {escape(example['closed_book']) or NONE}")
        for ctx in example["ctxs"]:
            text = escape(_excerpt(ctx["text"], example["answers"]))
            lines.append(f"* `{ctx['lang']}` {ctx['score']:.2f} *{escape(ctx['title'])}*: {text}")
        parts += [f"### {escape(example['question'])}", "\n".join(lines)]
    rule = "✓ marks an answer equal to an expected one (case, width, punctuation aside)"
    intro = f"From the {report['split']} split, last round; {rule}."
    return ["## Examples", intro, *parts] if parts else []


def _time_part(report: Mapping) -> list[str]:
    """Seconds per stage and their sum."""
    seconds = report.get("seconds")
    if not seconds:
        return []
    total = sum(seconds.values())
    rows = [
        [escape(name), f"{x:.1f}", clock(x), f"{100 * x / total if total else 0:.1f}"]
        for name, x in seconds.items()
    ]
    rows.append(["total", f"{total:.1f}", clock(total), "100.0"])
    return ["## Time", table(["stage", "seconds", "time", "percent"], rows)]


def _excerpt(text: str, answers: Iterable[str]) -> str:
    """At most `_EXCERPT` characters of a passage, round the first answer in it if there is one."""
    text = " ".join(text.split())
    found = [place for answer in answers if answer and (place := text.find(answer)) >= 0]
    start = max(0, min(min(found, default=0) - _EXCERPT // 3, len(text) - _EXCERPT))
    cut = text[start : start + _EXCERPT]
    return ("… " if start else "") + cut + (" …" if start + _EXCERPT < len(text) else "")


def _flat(counts: Mapping, prefix: str = "") -> Iterable[tuple[str, object]]:
    """Leaves of nested counts with dotted names."""
    for name, x in counts.items():
        if isinstance(x, Mapping):
            yield from _flat(x, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", x


def _cell(x: object) -> str:
    """A table cell of any JSON value: counts with thousands marks, shares with three digits."""
    if x is None:
        return NONE
    if isinstance(x, int) and not isinstance(x, bool):
        return f"{x:,}"
    return f"{x:.3f}" if isinstance(x, float) else escape(x)
