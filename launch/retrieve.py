#!/usr/bin/env python3
"""Finds passages for questions with any BERT encoder and writes a retrieval run.

python launch/retrieve.py --encoder=intfloat/multilingual-e5-small --pooling=mean --normalize \\
    --query_prefix="query: " --passage_prefix="passage: " \\
    --passages=passages.jsonl --questions=questions.jsonl --top_k=10 --output=run.jsonl

passages: JSONL {id, lang, title, text} or TSV (id, text, title, lang; --passages_lang for DPR's
three columns); questions: JSONL {id, question, lang, answers}; the run: JSONL {q_id, ctxs: [{id, lang, title, text, score}]}.
Score it with launch/evaluate.py --task=retrieval (--top_k: not more than here).
"""

import argparse
import dataclasses
import json
import sys

from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.huge_pages import use_huge_pages
from clmrc_jax.pipelines.retrieve import RetrieveOptions, retrieve
from clmrc_jax.rendezvous import require_one_process

_HELP = {
    "encoder": "folder or hub id of the passage (and question) encoder",
    "passages": "passage file, .jsonl or .tsv (.gz)",
    "questions": "question file, .jsonl (.gz), native MKQA too",
    "output": "run file to write, JSONL, or .trec for trec_eval",
    "passages_lang": "language of passages that do not name theirs, e.g. of DPR's TSV",
    "questions_lang": "language of questions that do not name theirs; of native MKQA, the one wanted",
    "top_k": "passages per question",
    "question_encoder": "encoder of the questions, where it is another one",
    "pooling": "cls (DPR, CORA) or mean (E5)",
    "normalize": "unit-length vectors (E5)",
    "query_prefix": 'text before every question, e.g. "query: "',
    "passage_prefix": 'text before every passage, e.g. "passage: "',
    "tag_language": "append the language tag to questions, as CORA's mDPR expects",
    "index": "exact, scann (approximate, large corpora) or numpy",
    "max_rows_on_device": "embeddings that exact search keeps on each device; more are streamed",
    "batch_size": "passages of max_length tokens per batch; shorter ones pack more",
    "max_length": "most tokens of a passage or question",
    "workdir": "folder that keeps store, embeddings and index between runs",
    "embeddings": "float16, float32 or int8 on disk",
    "workers": "processes that tokenise; 0 = a thread",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    flags = vars(_parser().parse_args(arguments))
    as_json = flags.pop("json")
    try:
        require_one_process("launch/retrieve.py")
        summary = retrieve(RetrieveOptions(**flags))
    except (InputError, ImportError, OSError) as error:
        print(f"retrieve: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        print(
            "{questions} questions, {passages} passages, top {top_k} by {index} search: "
            "{output} ({seconds} s, {encode_seconds} s of it encoding passages)".format(**summary)
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in dataclasses.fields(RetrieveOptions):
        name, text = f"--{field.name}", _HELP[field.name]
        if field.type is bool:
            parser.add_argument(name, action="store_true", help=text)
        elif field.default is dataclasses.MISSING:
            parser.add_argument(name, required=True, help=text)
        else:
            shown = f"{text} (default {field.default!r})"
            parser.add_argument(name, type=field.type, default=field.default, help=shown)
    parser.add_argument("--json", action="store_true", help="print a JSON summary")
    return parser


if __name__ == "__main__":
    use_huge_pages()
    skip_absent_tpu()
    sys.exit(main())
