"""Checked reading of JSON fields: every error names the file, the place in it, and the field."""

from clmrc_jax.data.languages import LANGUAGES, language
from clmrc_jax.files import InputError, whole_text


class NoLanguage(InputError):
    """A row does not say its language; who reads the file knows how to name that of the whole."""


def text_field(row: dict, name: str, where: str, *, blank: bool = False) -> str:
    """The string `row[name]`; it may be blank only where `blank` says so.

    where: "FILE, line 3", put in front of every message. Raises InputError when the field is
    missing, not a string, or blank.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise InputError(f"{where}: field {name!r} {_problem(row, name)}; a string is needed")
    if not blank and not value.strip():
        raise InputError(f"{where}: field {name!r} is empty; write its text or drop the row")
    return whole_text(value, f"{where}: field {name!r}")


def id_field(row: dict, name: str, where: str) -> str:
    """The id `row[name]` as a string; integers (CORA's MKQA files) become their digits."""
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(
            f"{where}: field {name!r} {_problem(row, name)}; a string or an integer is needed"
        )
    if not value.strip():
        raise InputError(f"{where}: field {name!r} is empty; every row needs an id of its own")
    return whole_text(value, f"{where}: field {name!r}")


def strings_field(row: dict, name: str, where: str) -> tuple[str, ...]:
    """The list of non-blank strings `row[name]`; empty when the field is absent (test files)."""
    values = row.get(name, [])
    if not isinstance(values, list):
        raise InputError(f"{where}: field {name!r} {_problem(row, name)}; a list is needed")
    for number, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise InputError(
                f"{where}: field {name!r}, entry {number} is {value!r:.60}; "
                "a string with text is needed"
            )
        whole_text(value, f"{where}: field {name!r}, entry {number}")
    return tuple(values)


def rows_field(row: dict, name: str, where: str) -> list[dict]:
    """The list of JSON objects `row[name]`; empty when the field is absent."""
    values = row.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InputError(f"{where}: field {name!r} must be a list of JSON objects")
    return values


def language_field(
    row: dict, name: str, where: str, default: str | None = None, *, of: str = "row"
) -> str:
    """The language code `row[name]` as `languages.py` spells it (`zh-CN` becomes `zh_cn`).

    default: the code of rows without the field; None makes such a row an error.
    of: what lacks its language, for the message ("passage", "question"); then `NoLanguage`.
    """
    value = row.get(name)
    if value is None or value == "":
        if default is None:
            raise NoLanguage(
                f"{where}: {of} without language; add the field {name!r} "
                "(a code such as 'en' or 'ja'), or name the language of the whole file"
            )
        value = default
    if not isinstance(value, str):
        raise InputError(f"{where}: field {name!r} {_problem(row, name)}; a string is needed")
    return known_language(value, where)


def known_language(code: str, where: str) -> str:
    """`code` as `languages.py` spells it. Raises InputError for a code it does not have."""
    if code in LANGUAGES:
        return code
    try:
        return language(code.strip()).code  # XOR-TyDi's training file has a row with " ar"
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _problem(row: dict, name: str) -> str:
    if name not in row:
        return f"is missing (fields present: {', '.join(map(str, row)) or 'none'})"
    return f"is {row[name]!r:.60} ({type(row[name]).__name__})"
