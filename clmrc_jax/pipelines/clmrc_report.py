"""The end of a reading run: report.json, report.md, scores.jsonl, and the table on the terminal."""

import itertools
import json

from rich import box
from rich.console import Console
from rich.table import Table

from clmrc_jax.evaluate.mrc_published import by_metric, published
from clmrc_jax.evaluate.report_data import NONE
from clmrc_jax.evaluate.report_markdown import escape, table
from clmrc_jax.evaluate.significance import approximate_randomization, paired_bootstrap
from clmrc_jax.files import atomic_write, read_json, read_jsonl, write_json, write_jsonl

EXAMPLES = 6
SCORES = "scores.jsonl"
METRICS = ("em", "f1", "average")
BEST = ("best_em", "best_f1")  # of SQuAD 2.0, with the threshold of silence that serves best


def finish(clmrc, seconds: float, *, as_json: bool = False) -> dict:
    """Writes the report of a `pipelines.clmrc.Clmrc` into its workdir and prints the table.

    as_json: print the systems' scores as one JSON object instead.
    """
    report = build_report(clmrc, seconds)
    _write_question_scores(clmrc)
    with atomic_write(clmrc.run.path("report.md")) as file:
        file.write(markdown(report))
    write_json(clmrc.run.path("report.json"), report)
    if as_json:
        print(json.dumps(report["systems"], ensure_ascii=False))
    else:
        print_summary(report)
        print(f"\nreport: {clmrc.run.path('report.md')}")
    return report


def build_report(clmrc, seconds: float) -> dict:
    """Everything the report shows, as plain JSON values.

    `summary` is what a sweep collects: "<set> <metric>" of the run's system, or
    "<system> <set> <metric>" where it has several. `published`: {set: {metric: number}} that the
    paper prints for the preset. `mended`: what was wrong in the files, by set.
    """
    s, systems = clmrc.settings, clmrc.scores()
    return {
        "title": s.name,
        "config": s.name,
        "seed": s.seed,
        "scorer": s.scorer,
        "training": {
            name: len(getattr(clmrc.sets, name)) for name in ("source", "target", "bilingual")
        },
        "mended": clmrc.sets.mended,
        "systems": systems,
        "published": published(s.name.partition(":")[2]),
        "summary": _summary(systems),
        "significance": significance(clmrc),
        "seconds": clmrc.run.seconds | {"total": seconds},
        "examples": examples(clmrc),
    }


def _summary(systems: dict) -> dict[str, float]:
    parts = {}
    for system, sets in systems.items():
        found = by_metric(
            {name: {m: row[m] for m in METRICS + BEST if m in row} for name, row in sets.items()}
        )
        prefix = f"{system} " if len(systems) > 1 else ""
        parts |= {f"{prefix}{name}": value for name, value in found.items()}
    return parts


def _write_question_scores(clmrc) -> None:
    """scores.jsonl: id, em, f1 of every question, which lets a sweep test its rows in pairs.

    With several evaluation sets also "set": a sweep tests each by itself.
    Only of a run with one system; with several, the report itself tests them.
    """
    path, systems = clmrc.run.path(SCORES), list(clmrc.scores())
    if len(systems) > 1:
        path.unlink(missing_ok=True)
        return
    names = [evaluation.name for evaluation in clmrc.sets.evaluation]
    rows = (
        {"id": f"{name}/{row['id']}", "em": row["em"], "f1": row["f1"]}
        | ({"set": name} if len(names) > 1 else {})
        for name in names
        for row in _question_rows(clmrc, systems[0], name)
    )
    write_jsonl(path, rows)


def _question_rows(clmrc, system: str, name: str) -> list[dict]:
    path = clmrc.run.path(system, "read", f"{name}.scores.jsonl")
    return [row for _, row in read_jsonl(path)]


def significance(clmrc) -> list[dict]:
    """Every pair of systems on every set: difference in F1, its interval, and two paired tests."""
    rows = []
    for evaluation in clmrc.sets.evaluation:
        f1 = {
            system: [row["f1"] for row in _question_rows(clmrc, system, evaluation.name)]
            for system in clmrc.scores()
        }
        for a, b in itertools.combinations(f1, 2):
            bootstrap = paired_bootstrap(f1[a], f1[b], seed=0)
            shuffled = approximate_randomization(f1[a], f1[b], seed=0)
            rows.append(
                {
                    "set": evaluation.name,
                    "systems": [a, b],
                    "f1 difference": 100 * bootstrap.difference,
                    "interval": [100 * bootstrap.low, 100 * bootstrap.high],
                    "p bootstrap": bootstrap.p_value,
                    "p randomization": shuffled.p_value,
                }
            )
    return rows


def examples(clmrc) -> list[dict]:
    """Some questions of the first set, with the answer of every system."""
    evaluation = clmrc.sets.evaluation[0]
    answers = {
        system: read_json(clmrc.run.path(system, "read", f"{evaluation.name}.json"))
        for system in clmrc.scores()
    }
    step = max(1, len(evaluation.examples) // EXAMPLES)
    return [
        {
            "question": example.question,
            "lang": example.lang,
            "answers": [answer.text for answer in example.answers],
            "predictions": {system: found[example.id] for system, found in answers.items()},
        }
        for example in evaluation.examples[::step][:EXAMPLES]
    ]


def markdown(report: dict) -> str:
    """The report as a page."""
    counts = ", ".join(f"{n} {name}" for name, n in report["training"].items())
    parts = [
        f"# {escape(report['title'])}",
        f"Seed {report['seed']}; scorer mode `{report['scorer']}`; training questions: {counts}.",
        *_mended_part(report["mended"]),
        _score_part(report),
        *_threshold_part(report["systems"]),
        *_significance_part(report["significance"]),
        "## Questions",
        *map(_example_part, report["examples"]),
        "## Time",
        table(["stage", "seconds"], ([k, f"{v:.1f}"] for k, v in report["seconds"].items())),
    ]
    return "\n\n".join(parts) + "\n"


def _score_part(report: dict) -> str:
    """Scores per system and set, beside the published ones where there are any."""
    header = ["system", "set", "questions", "EM", "F1"]
    printed = any(
        name in report["published"] for sets in report["systems"].values() for name in sets
    )
    header += ["published EM", "published F1"] if printed else []
    rows = []
    for system, sets in report["systems"].items():
        for name, row in sets.items():
            cells = [system, name, str(row["count"]), f"{row['em']:.1f}", f"{row['f1']:.1f}"]
            paper = report["published"].get(name, {})
            if printed:
                cells += [f"{paper[m]:.1f}" if m in paper else NONE for m in ("em", "f1")]
            rows.append([escape(cell) for cell in cells])
    return table(header, rows, left=2)


def _mended_part(mended: dict) -> list[str]:
    """What was mended or is missing in the files, where there was something."""
    found = (
        f"{escape(name)}: " + ", ".join(f"{count} {what}" for what, count in counts.items())
        for name, counts in mended.items()
        if counts
    )
    text = "; ".join(found)
    return [f"Mended or missing in the files (data/mrc_examples.py): {text}."] if text else []


def _threshold_part(systems: dict) -> list[str]:
    """SQuAD 2.0: the scores with the best thresholds of "no answer"."""
    rows = [
        [escape(system), escape(name)]
        + [
            f"{row[key]:.{digits}f}"
            for m in BEST
            for key, digits in ((m, 1), (f"{m}_threshold", 2))
        ]
        for system, sets in systems.items()
        for name, row in sets.items()
        if "best_em" in row
    ]
    if not rows:
        return []
    header = ["system", "set", "best EM", "null threshold", "best F1", "null threshold"]
    return ['With the best threshold of "no answer":', table(header, rows, left=2)]


def _significance_part(rows: list[dict]) -> list[str]:
    if not rows:
        return []
    header = ["set", "systems", "F1 difference", "95% interval", "p (bootstrap)"]
    lines = (
        [
            escape(row["set"]),
            escape(" - ".join(row["systems"])),
            f"{row['f1 difference']:+.1f}",
            "{:+.1f} to {:+.1f}".format(*row["interval"]),
            f"{row['p bootstrap']:.3f}",
            f"{row['p randomization']:.3f}",
        ]
        for row in rows
    )
    return ["## Differences", table([*header, "p (randomization)"], lines, left=2)]


def _example_part(example: dict) -> str:
    """A question, its references, and what every system answered."""
    references = " / ".join(map(escape, example["answers"])) or "(no answer)"
    lines = [f"**{escape(example['question'])}** ({example['lang']}): {references}", ""]
    answers = example["predictions"].items()
    return "\n".join([*lines, *(f"* {escape(k)}: {escape(text) or NONE}" for k, text in answers)])


def print_summary(report: dict, console: Console | None = None) -> None:
    """The systems side by side on a terminal; the best of each set stands out."""
    shown = Table(title=report["title"], box=box.SIMPLE_HEAD, header_style="bold")
    for name in ("system", "set", "questions", "EM", "F1"):
        shown.add_column(name, justify="left" if name in ("system", "set") else "right")
    rows = [(s, name, row) for s, sets in report["systems"].items() for name, row in sets.items()]
    best = {name: max(row["f1"] for _, other, row in rows if other == name) for _, name, _ in rows}
    for system, name, row in rows:
        style = "bold cyan" if row["f1"] == best[name] else ""
        cells = (str(row["count"]), f"{row['em']:.1f}", f"{row['f1']:.1f}")
        shown.add_row(system, name, *cells, style=style)
    (console or Console()).print(shown)
