"""Parsing of `--config=FILE:PRESET --config.KEY=VALUE`, with a plain line for every mistake in it."""

import itertools
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import app, flags, logging


def run(main) -> None:
    """Runs a command under absl, without the libraries' notes unless --verbosity asks for them.

    For a flag that is missing or has a wrong value, a config file that cannot be read, a preset or
    a key that it does not have, the error names it and what is known; exit status 2.
    """
    app.run(main, flags_parser=_parse)


def _parse(argv):
    given = _given(argv[1:])
    config = _load(given["config"]) if "config" in given else {}
    for path in (name.split(".")[1:] for name in given if name.startswith("config.")):
        _check_key(config, path)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _end(f"{' '.join(str(error).split())} (--help lists the flags)")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING
    return rest


def _given(arguments: Sequence[str]) -> dict[str, str]:
    """Names and values of the flags, from `--name=value` and `--name value`."""
    found = {}
    for this, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if this.startswith("-"):
            name, equals, value = this.lstrip("-").partition("=")
            found[name] = value if equals else following
    return found


def _load(path: str):
    """The config before its overrides; its parser hands back an unreadable file as an object."""
    try:
        config = flags.FLAGS["config"].parser.parse(path)
        len(config.keys())
    except (ValueError, OSError) as error:
        # A preset's own error, or the reasons of ml_collections, the last one being the file's.
        _end(f"--config={path}: {str(error).strip().splitlines()[-1].strip()}")
    except Exception as error:  # the file is a program of the user's
        _end(f"--config={path}: {type(error).__name__}: {error}")
    return config


def _check_key(config, path) -> None:
    where = "config"
    for name in path:
        known = list(config) if hasattr(config, "keys") else ["nothing"]
        if name not in known:
            _end(f"{where}.{name} does not exist; known: {', '.join(known)}")
        where, config = f"{where}.{name}", config[name]


def _end(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
