#!/usr/bin/env python3
"""Asks a finished run a question, in any of its languages.

python launch/ask.py --workdir=runs/demo --question="アイスランドの通貨は何ですか？"
python launch/ask.py --workdir=runs/demo --question="Mikä on Japanin rahayksikkö?" --lang=fi
python launch/ask.py --workdir=runs/demo                       # asks for questions, one a line

The answer comes in the language of the question, with the passages it was read from.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.huge_pages import use_huge_pages
from clmrc_jax.rendezvous import require_one_process


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    options = _parser().parse_args(arguments)
    interactive = options.question is None
    try:
        require_one_process("launch/ask.py")
        from clmrc_jax.pipelines.ask import Asker

        _cache_programs(options.workdir)
        asker = Asker(options.workdir)
        if interactive:
            asker.warm_up(options.top_k)
        for question in _questions() if interactive else [options.question]:
            _ask(asker, question, options, forgiving=interactive)
    except (InputError, ImportError, OSError) as error:
        _complain(error)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--question", help="one question; without it, questions are read by line")
    parser.add_argument("--lang", default="", help="its language (default: guessed by script)")
    parser.add_argument(
        "--top_k", type=_positive, default=0, help="passages to read (default: as in training)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per question")
    return parser


def _positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return int(text)


def _cache_programs(workdir: str) -> None:
    """Lets the run's compiled programs serve, where there is a run at all."""
    from clmrc_jax.pipelines.train import use_compilation_cache

    if os.path.isdir(workdir):
        use_compilation_cache(os.path.join(workdir, "compilation_cache"))


def _questions() -> Iterator[str]:
    """Lines of the user or of a pipe, until the end of input; empty lines are passed over."""
    prompt = "question (Ctrl-D ends): " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            return
        if line.strip():
            yield line


def _ask(asker, question: str, options, *, forgiving: bool) -> None:
    """Answers one question; a bad one ends an interactive session only in a complaint."""
    try:
        answer = asker(question, options.lang, options.top_k)
    except InputError as error:
        if not forgiving:
            raise
        _complain(error)
        return
    if answer.note:
        print(answer.note, file=sys.stderr)
    if options.json:
        print(json.dumps(dataclasses.asdict(answer), ensure_ascii=False), flush=True)
    else:
        _show(answer)


def _show(answer) -> None:
    console = Console()
    if answer.answer is None:
        console.print("\n  [dim]the run has no generator: passages only[/dim]")
    else:
        console.print(f"\n  [bold]{escape(answer.answer) or '(empty answer)'}[/bold]")
    table = Table(box=box.SIMPLE_HEAD, caption=f"{answer.seconds:.2f} s", caption_justify="left")
    table.add_column("score", justify="right")
    table.add_column("lang")
    # Folded, since a text without spaces is one word, and would end in an ellipsis.
    table.add_column("title", overflow="fold")
    table.add_column("text", overflow="fold")
    for passage in answer.passages:
        text = passage["text"] if passage["whole"] else f"{passage['text']} (cut off)"
        cells = (passage["lang"], passage["title"], text)
        style = "" if passage["whole"] else "dim"
        table.add_row(f"{passage['score']:.2f}", *map(escape, cells), style=style)
    console.print(table)


def _complain(error: Exception) -> None:
    print(f"ask: {' '.join(str(error).split())}", file=sys.stderr)


if __name__ == "__main__":
    use_huge_pages()
    skip_absent_tpu()
    sys.exit(main())
