#!/usr/bin/env python3
"""Answers the questions of a SQuAD-style file with a span reader.

python launch/read.py --model=runs/reading/cascade/train/model \\
    --data=cmrc2018_dev.json --lang=zh_cn --output=predictions.json

data: SQuAD 1.1/2.0, CMRC 2018, DRCD, XQuAD ... or an aligned file (Dual BERT). Writes
{id: answer}, and n-best lists with probabilities and character offsets beside it. Score with
launch/evaluate.py --task=cmrc2018|drcd|squad|squad2|xquad. SQuAD 2.0:

python launch/read.py --model=M --data=dev-v2.0.json --lang=en --output=p.json --null_threshold=inf
python launch/evaluate.py --task=squad2 --data=dev-v2.0.json --predictions=p.json \\
    --null_scores=p.null_scores.json      tells the best threshold, which read.py then takes
"""

import argparse
import dataclasses
import json
import sys

from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.huge_pages import use_huge_pages
from clmrc_jax.pipelines.read import ReadOptions, read
from clmrc_jax.rendezvous import require_one_process

_HELP = {
    "model": "folder of a trained reader, or a BertForQuestionAnswering folder or hub id",
    "data": "questions with passages; gold answers are not looked at",
    "lang": "language code of the file, e.g. zh_cn",
    "output": "prediction file to write, JSON",
    "source_data": "the same questions in the source language, for Dual BERT",
    "source_lang": "language code of the source side",
    "max_length": "tokens of a window; 0 = as trained",
    "doc_stride": "tokens between windows; 0 = as trained",
    "max_query_length": "tokens of a question; 0 = as trained",
    "n_best": "answers kept per question; 0 = as trained",
    "max_answer_length": "tokens of an answer; 0 = as trained",
    "text": "offsets (cut from the passage) or official (as the published code)",
    "null_threshold": 'SQuAD 2.0: answer "" where no answer scores so much more than the best '
    "span; also writes OUTPUT.null_scores.json. inf never answers so, to find the best threshold",
    "batch_size": "windows at a time",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    flags = vars(_parser().parse_args(arguments))
    as_json = flags.pop("json")
    try:
        require_one_process("launch/read.py")
        summary = read(ReadOptions(**flags))
    except (InputError, ImportError, OSError) as error:
        print(f"read: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        files = ", ".join(summary[x] for x in ("output", "nbest", "null_scores") if x in summary)
        print(f"{summary['questions']} questions: {files} ({summary['seconds']} s)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in dataclasses.fields(ReadOptions):
        name, text = f"--{field.name}", _HELP[field.name]
        if field.default is dataclasses.MISSING:
            parser.add_argument(name, required=True, help=text)
        else:
            kind = float if field.default is None else field.type
            parser.add_argument(name, type=kind, default=field.default, help=text)
    parser.add_argument("--json", action="store_true", help="print a JSON summary")
    return parser


if __name__ == "__main__":
    use_huge_pages()
    skip_absent_tpu()
    sys.exit(main())
