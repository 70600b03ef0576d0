"""Gold answers out of any SQuAD-like file, for the reading comprehension scorers.

Accepted, plain, gzipped or in a zip: SQuAD 1.1 and 2.0 (`data` > `paragraphs` > `qas`), the original
CMRC 2018 list (`context_id`, `qas` with `query_id` and answers as strings), lists of paragraphs,
and flat question rows; answers as objects with `text`, as strings, or as {"text": [...]}.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import PurePath

from clmrc_jax.data.languages import LANGUAGES
from clmrc_jax.evaluate.golds import Gold, language_code
from clmrc_jax.files import InputError, read_json, read_json_documents

_ID_FIELDS = ("id", "query_id")
_NAMES = {"japanese": "ja", "french": "fr"}


def read_mrc_golds(path: str | PathLike, lang: str) -> list[Gold]:
    """Reads the questions of a file, every one with the language `lang`; integer ids become text.

    A question marked `is_impossible`, or without answers, gets answers (). Raises InputError for
    another structure, a missing id, a repeated id, and a file without any question.
    """
    lang = language_code(lang, "lang")
    documents = read_json_documents(path)
    golds = [
        _gold(row, place, lang)
        for where, document in documents
        for row, place in _questions(document, where)
    ]
    if not golds:
        raise InputError(f"{path}: holds no question; expected a SQuAD or CMRC 2018 file")
    identifier, count = Counter(gold.id for gold in golds).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{path}: id {identifier!r} belongs to {count} questions, so its prediction would be "
            "ambiguous; make the ids unique"
        )
    return golds


def language_of_file(path: str | PathLike, lang: str | None = None) -> str:
    """`lang` if given, else the one language code in the file's name (`xquad.zh.json.gz` -> zh).

    Raises InputError where the name holds none, or several.
    """
    if lang:
        return language_code(lang, "--lang")
    pieces = re.split(r"[._\-]", PurePath(fspath(path)).name.split(".json")[0].lower())
    found = {_NAMES.get(piece, piece) for piece in pieces} & (LANGUAGES.keys() | _NAMES.values())
    if len(found) != 1:
        raise InputError(
            f"{path}: cannot tell the language from the file's name; give it, such as --lang=zh"
        )
    return found.pop()


def read_null_scores(path: str | PathLike) -> dict[str, float]:
    """Reads a JSON object {id: score of "no answer"}, higher = rather none. Raises InputError."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected one JSON object {{id: number}}")
    for key, value in document.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{path}, id {key!r}: must be a number, got {value!r:.60}")
    return {key: float(value) for key, value in document.items()}


def _questions(document, where: str) -> Iterator[tuple[Mapping, str]]:
    """Every question of a document with its place in the file, for errors."""
    for field in ("data", "paragraphs", "qas"):
        if isinstance(document, Mapping) and field in document:
            yield from _questions(document[field], f"{where}, {field}")
            return
    if isinstance(document, list):
        for i, item in enumerate(document):
            yield from _questions(item, f"{where}[{i}]")
    elif isinstance(document, Mapping) and any(field in document for field in _ID_FIELDS):
        yield document, where
    else:
        raise InputError(
            f"{where}: expected questions with an id inside data > paragraphs > qas (SQuAD) or "
            f"qas (CMRC 2018), got {document!r:.60}"
        )


def _gold(row: Mapping, where: str, lang: str) -> Gold:
    """One question, checked."""
    identifier = next(row[field] for field in _ID_FIELDS if field in row)
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int)) or identifier == "":
        raise InputError(f"{where}: an id must be a string or an integer, got {identifier!r:.60}")
    answers = row.get("answers") or []
    if isinstance(answers, Mapping):
        answers = answers.get("text")
    texts = answers if isinstance(answers, list) else [None]
    texts = [x.get("text") if isinstance(x, Mapping) else x for x in texts]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"{where}, id {identifier!r}: answers must be strings or objects with 'text', "
            f"got {answers!r:.60}"
        )
    return Gold(str(identifier), lang, () if row.get("is_impossible") else tuple(texts))
