#!/usr/bin/env python3
"""Scores one prediction file.

python launch/evaluate.py --task=xor_full --mode=fixed --data=dev.jsonl --predictions=answers.json
python launch/evaluate.py --task=retrieval --predictions=run.jsonl [--data=questions.jsonl]
python launch/evaluate.py --task=cmrc2018 --data=cmrc2018_dev.json --predictions=answers.json
"""

import argparse
import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from clmrc_jax.evaluate.scores import Scores
from clmrc_jax.evaluate.tasks import DEPTH, TASKS, Request, Task, evaluate
from clmrc_jax.files import InputError, write_jsonl


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    options = _parser().parse_args(arguments)
    mode = options.mode or TASKS[options.task].modes[0]
    request = Request(
        mode, options.predictions, options.data, options.lang, options.top_k, options.null_scores
    )
    try:
        scores = evaluate(options.task, request)
        if options.per_question:
            write_jsonl(options.per_question, scores.questions)
    except (InputError, ImportError, OSError, EOFError, UnicodeError) as error:
        print(f"evaluate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    _warn(scores)
    if options.json:
        print(json.dumps({"task": options.task, "mode": mode} | scores.to_json(), indent=1))
    else:
        _show(scores, f"{options.task}, {mode} rules, percent")
    return 0


def _parser() -> argparse.ArgumentParser:
    tasks = "\n".join(f"  {name:14} {_in_words(row)}" for name, row in TASKS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\ntasks, their modes (the default first) and the options they "
        f"take:\n{tasks}\n\n"
        "legacy: the official scorer to the bit.  fixed: its defects mended.\n"
        "portable: needs no word segmenter; not comparable with published numbers.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", required=True, choices=TASKS, help="what to compute")
    parser.add_argument("--mode", help="variant of the rules (see above)")
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="questions: JSON lines id, lang, answers; a SQuAD or CMRC 2018 file for reading "
        "comprehension; .gz too",
    )
    parser.add_argument(
        "--predictions",
        required=True,
        metavar="FILE",
        help="JSON {id: answer}; a run (JSON lines) for retrieval; MKQA's JSON lines too",
    )
    parser.add_argument("--per_question", metavar="OUT.jsonl", help="write one row per question")
    parser.add_argument(
        "--lang",
        help="keep one language of MKQA's native file; the language of a SQuAD-like file "
        "(squad: en; xquad, squad_ja_fr: told by the file's name)",
    )
    parser.add_argument(
        "--null_scores",
        metavar="FILE",
        help='JSON {id: score of "no answer"}: squad2 then looks for the best threshold',
    )
    parser.add_argument(
        "--top_k", type=_positive, help=f"depth of the recall of retrieval (default {DEPTH})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _in_words(task: Task) -> str:
    """One line of the help: what a task computes, its modes, its options."""
    options = "".join(f" --{name}" for name in task.options)
    return f"{task.help} ({', '.join(task.modes)}){options}"


def _positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return int(text)


def _warn(scores: Scores) -> None:
    """Says on stderr what the numbers alone would hide."""
    for count, what in (
        (scores.missing, "question(s) have no prediction"),
        (scores.foreign, "prediction(s) belong to no question of the data and are ignored"),
        (scores.skipped, "question(s) lie outside the metric and are skipped"),
    ):
        if count:
            print(f"evaluate: warning: {count} {what}", file=sys.stderr)


def _show(scores: Scores, title: str) -> None:
    """Prints the scores per language, their macro average, and the language matrix if any."""
    metrics = list(scores.macro)
    table = Table("language", box=box.SIMPLE_HEAD)
    for metric in metrics:
        table.add_column(metric, justify="right")
    for lang, row in scores.languages.items():
        table.add_row(lang, *(f"{row[x]:.1f}" if x != "count" else str(row[x]) for x in metrics))
    table.add_section()
    macro = (f"{scores.macro[x]:.1f}" if x != "count" else str(scores.macro[x]) for x in metrics)
    table.add_row("macro", *macro, style="bold")
    console = Console()
    for name, row in scores.extras.get("parts", {}).items():
        table.add_row(name, *(f"{row[x]:.1f}" if x != "count" else str(row[x]) for x in metrics))
    console.print(title, table)
    for name in ("average", "best_em", "best_f1"):
        if name in scores.extras:
            console.print(f"{name} {scores.extras[name]:.1f}{_at(scores.extras, name)}")
    if matrix := scores.extras.get("matrix"):
        console.print("language of the retrieved passages, percent", _matrix_table(matrix))


def _at(extras: dict, name: str) -> str:
    """The threshold of a best score, in words."""
    threshold = extras.get(f"{name}_threshold")
    return "" if threshold is None else f" with silence above a null score of {threshold:g}"


def _matrix_table(matrix: dict[str, dict[str, float]]) -> Table:
    """One row per question language, one column per passage language."""
    passages = sorted({lang for row in matrix.values() for lang in row})
    table = Table("question", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for lang in passages:
        table.add_column(lang, justify="right", no_wrap=True)
    for lang, row in matrix.items():
        table.add_row(lang, *(f"{row.get(passage, 0.0):.0f}" for passage in passages))
    return table


if __name__ == "__main__":
    sys.exit(main())
