#!/usr/bin/env python3
"""Makes a corpus's files from Wikipedia's: passages of 100 words, and language links.

python launch/wikipedia.py passages --articles=extracted/ja --lang=ja --output=passages/ja.jsonl
python launch/wikipedia.py links --source=wikidata-all.json.gz --langs=en,ja,th --output=links.jsonl

passages: articles as WikiExtractor writes them with --json. Run again after a stop it goes on where
it was. Train with --config.corpus.passages="(('passages/ja.jsonl', 'ja'), ...)".
links: a Wikidata JSON dump, pairs of titles (.tsv, .csv) or a DBP15K archive (.tar.gz), whose two
languages --langs names. Train with --config.corpus.links=links.jsonl.
"""

import argparse
import json
import sys

from clmrc_jax.data.wikipedia import MODES
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.wikipedia_files import convert_links, cut_articles


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 2 for bad input (one line on stderr)."""
    flags = vars(_parser().parse_args(arguments))
    verb, as_json = flags.pop("verb"), flags.pop("json")
    try:
        summary = {"passages": cut_articles, "links": convert_links}[verb](**flags)
    except (InputError, ImportError, OSError) as error:
        print(f"wikipedia: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wikipedia: stopped; run the same command again", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(summary, indent=1))
    elif verb == "passages":
        print("{output}: {passages} passages from {files} files ({seconds} s)".format(**summary))
    else:
        print("{output}: {entities} entities ({seconds} s)".format(**summary))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="passages|links")
    cut = verbs.add_parser("passages", help="cut extracted articles into passages")
    cut.add_argument(
        "--articles",
        nargs="+",
        required=True,
        help="files of WikiExtractor --json (.gz too), patterns, or folders",
    )
    cut.add_argument("--lang", required=True, help="their language")
    cut.add_argument(
        "--mode",
        choices=MODES,
        default="fixed",
        help="legacy: as the published scripts cut them, defects included (default fixed)",
    )
    cut.add_argument("--headings", action="store_true", help="keep section headings")
    links = verbs.add_parser("links", help="convert language links")
    links.add_argument("--source", required=True, help="dump, pairs or archive")
    links.add_argument(
        "--langs",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=(),
        help="languages to keep of a dump (default all), or those of the pairs, in their order",
    )
    for verb in (cut, links):
        verb.add_argument("--output", required=True, help=".jsonl file to write")
        verb.add_argument("--json", action="store_true", help="print a JSON summary")
    return parser


if __name__ == "__main__":
    sys.exit(main())
