#!/usr/bin/env python3
"""Translates a SQuAD-style file and aligns its answers: the training data of Dual BERT.

python launch/translate.py --data=xquad.es.json --lang=es --to=en --output=xquad.es_aligned.json \\
    --translator="command:apertium -u spa-eng"

It works on one machine; of a slice's hosts start it on one. Stopped or failed, the same command
continues where it was: finished translations are kept in the folder --cache. Translators:
command:'PROGRAM ARGUMENTS' reads a line and writes a line (also {source} and {target}),
marian:FOLDER, opus (the published Marian model of the two languages, from the hub), file:PATH of
finished translations, and google, which costs money and therefore shows
an estimate and asks for --consent_to_pay first.
"""

import argparse
import json
import logging
import sys

from clmrc_jax.backends import skip_absent_tpu
from clmrc_jax.files import InputError
from clmrc_jax.translate.aligned_file import TranslateOptions, translate_file


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    logging.basicConfig(level=logging.INFO, format="translate: %(message)s")
    flags = vars(_parser().parse_args(arguments))
    as_json = flags.pop("json")
    try:
        summary = translate_file(TranslateOptions(**flags))
    except (InputError, ImportError, OSError) as error:
        print(f"translate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("translate: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        print(
            "{output}: {questions} questions, {texts} texts ({characters} characters); {aligned} of "
            "{answers} answers aligned, {exact} exactly, mean score {mean_score} "
            "({seconds} s)".format(**summary)
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, help="SQuAD-style file, .json, .json.gz or .zip")
    add("--lang", required=True, help="its language")
    add("--to", "--source_lang", default="en", help="language to translate into (default en)")
    add("--translator", required=True, help="command:..., marian:FOLDER, opus, file:PATH or google")
    add("--output", required=True, help="aligned file to write, .json")
    add(
        "--cache",
        default="",
        help="folder of finished translations (default: translations/ beside the output)",
    )
    add(
        "--delta",
        type=int,
        default=5,
        help="SimpleMatch tries lengths up to this far off (default 5)",
    )
    add("--paragraphs", type=int, default=0, help="only the first so many (default 0: all)")
    add("--unlabelled", action="store_true", help="the file has no answers, or leave them out")
    add("--consent_to_pay", action="store_true", help="google: yes, send it and bill me")
    add("--google_project", default="", help="google: project (default: that of the credentials)")
    add("--json", action="store_true", help="print a JSON summary")
    return parser


if __name__ == "__main__":
    skip_absent_tpu()
    sys.exit(main())
