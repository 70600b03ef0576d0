"""Finished translations in a file: for translations bought or made elsewhere.

`.jsonl`: {"text", "translation"} and, where a file holds several directions, "source" and "target"
(language codes). `.tsv`: text, tab, translation; a line break, tab or backslash inside them is
written \\n, \\t, \\\\. Both also gzipped.
"""

import os
import re
from collections.abc import Iterator, Sequence

from etils import epath

from clmrc_jax.data.fields import text_field
from clmrc_jax.files import InputError, open_text, read_jsonl, write_jsonl
from clmrc_jax.translate.translator import TranslationError

_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}
_SHOWN = 5


class FileTranslator:
    """Looks texts up in a file of translations; blank texts are returned as they are.

    An entry with a blank translation counts as missing. Raises InputError for a file that gives one
    text two translations.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = epath.Path(path)
        self.name = f"file:{os.fspath(path)}"
        self._entries: dict[tuple[str, str, str], str] = {}
        for where, source, target, text, translation in _read(self.path):
            if not translation.strip():
                continue
            known = self._entries.setdefault((source, target, text), translation)
            if known != translation:
                raise InputError(
                    f"{where}: {text!r:.60} was translated differently further up; keep one line"
                )

    def missing(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The distinct texts that the file does not translate, in order."""
        distinct = dict.fromkeys(text for text in texts if text.strip())
        return [text for text in distinct if self._find(text, source, target) is None]

    def prepare(self, texts: Sequence[str], source: str, target: str) -> None:
        """Raises InputError when translations are missing, after listing them all in a file.

        That file, `<path>.missing.jsonl`, has the form of a translation file: fill it in.
        """
        missing = self.missing(texts, source, target)
        if not missing:
            return
        listed = f"{os.fspath(self.path)}.missing.jsonl"
        write_jsonl(
            listed,
            ({"source": source, "target": target, "text": x, "translation": ""} for x in missing),
        )
        raise InputError(
            f"{self._missing_message(missing, len(texts))}; all are listed in {listed}: fill in "
            "their translations and add them to the file"
        )

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text. Raises TranslationError that lists the first missing ones."""
        missing = self.missing(texts, source, target)
        found = [self._find(text, source, target) if text.strip() else text for text in texts]
        if missing:
            raise TranslationError(
                self._missing_message(missing, len(texts)), found[: found.index(None)]
            )
        return found

    def _find(self, text: str, source: str, target: str) -> str | None:
        exact = self._entries.get((source, target, text))
        return exact if exact is not None else self._entries.get(("", "", text))

    def _missing_message(self, missing: list[str], total: int) -> str:
        shown = ", ".join(f"{text!r:.60}" for text in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return (
            f"{self.path}: has no translation of {len(missing)} of the {total} texts: {shown}{more}"
        )


def _read(path: epath.Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields (where, source, target, text, translation)."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        for number, row in read_jsonl(path):
            where = f"{path}, line {number}"
            source, target = (
                text_field(row, key, where) if key in row else "" for key in ("source", "target")
            )
            if bool(source) != bool(target):
                raise InputError(f"{where}: give both 'source' and 'target', or neither")
            text = text_field(row, "text", where)
            yield where, source, target, text, text_field(row, "translation", where, blank=True)
    elif name.endswith(".tsv"):
        yield from _read_tsv(path)
    else:
        raise InputError(f"{path}: translations must be a .jsonl or a .tsv file (or .gz of one)")


def _read_tsv(path: epath.Path) -> Iterator[tuple[str, str, str, str, str]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 2:
                raise InputError(
                    f"{where}: expected text, tab, translation; found {len(fields)} fields"
                )
            text, translation = (re.sub(r"\\[ntr\\]", _unescape, field) for field in fields)
            yield where, "", "", text, translation


def _unescape(match: re.Match) -> str:
    return _ESCAPES[match.group()]
