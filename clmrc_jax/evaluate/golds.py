"""Question files and prediction files as the scorers want them, with errors that name the line."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike

from clmrc_jax.data.languages import language
from clmrc_jax.files import InputError, read_json, read_jsonl, whole_text

YES_NO = frozenset(("yes", "no"))
NO_ANSWER_MARKS = ("", "NoAns", "No Answer")  # first answer of an MKQA question without one


@dataclass(frozen=True)
class Gold:
    """One question to score. Every scorer takes any object with these three fields.

    id: unique in its file.   lang: code of languages.py.   answers: accepted strings, may be empty.
    """

    id: str
    lang: str
    answers: tuple[str, ...]


def read_golds(path: str | PathLike) -> list[Gold]:
    """Reads question rows `id, lang, answers` (JSON lines, `.gz` too); integer ids become strings.

    Raises InputError for a missing or wrong field, an unknown language and a repeated id.
    """
    golds = [gold_of(row, f"{path}, line {line}") for line, row in read_jsonl(path)]
    return unique(golds, path)


def unique(golds: list[Gold], path: str | PathLike) -> list[Gold]:
    """Returns `golds`; raises InputError where there are none or two share an id."""
    if not golds:
        raise InputError(f"{path}: holds no question; expected one JSON object per line")
    seen = Counter(gold.id for gold in golds)
    if len(seen) < len(golds):
        repeated = next(identifier for identifier, count in seen.items() if count > 1)
        raise InputError(
            f"{path}: id {repeated!r} stands on {seen[repeated]} lines, so its prediction would be "
            "ambiguous; score one language per file, or make ids unique (such as ID_LANG)"
        )
    return golds


def gold_of(row: Mapping, where: str, id_field: str = "id") -> Gold:
    """Checks one row. where: file and line, for the error.   id_field: `q_id` in run files."""
    identifier = row.get(id_field)
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int)) or identifier == "":
        raise InputError(f"{where}: field {id_field!r} must be a string or integer id")
    answers = row.get("answers")
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not all(isinstance(x, str) for x in answers):
        raise InputError(f"{where}: field 'answers' must be a list of strings, got {answers!r:.60}")
    return Gold(str(identifier), language_code(row.get("lang"), where), tuple(answers))


def language_code(code, where: str) -> str:
    """The canonical code of a `lang` field; InputError when it is missing or unknown."""
    if not isinstance(code, str) or not code:
        raise InputError(f"{where}: field 'lang' must be a language code, got {code!r:.60}")
    try:
        return language(code).code
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def read_predictions(path: str | PathLike) -> dict[str, str]:
    """Reads one JSON object {id: answer}; null is an empty answer. Raises InputError."""
    document = read_json(path, unique=True)
    if not isinstance(document, dict):
        raise InputError(
            f"{path}: expected one JSON object {{id: answer}}, got a {type(document).__name__}"
        )
    return {key: answer_text(value, f"{path}, id {key!r}") for key, value in document.items()}


def answer_text(value, where: str) -> str:
    """The text of a predicted answer: a string, a number, or null for "no answer"."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{where}: an answer must be a string, got {value!r:.60}")
    return whole_text(str(value), where)


def foreign_ids(golds: Iterable[Gold], predictions: Mapping[str, object]) -> list[str]:
    """Prediction ids that belong to no question, in file order."""
    known = {str(gold.id) for gold in golds}
    return [key for key in predictions if str(key) not in known]


def string_keys(predictions: Mapping) -> dict[str, object]:
    """The same predictions with string ids: integer ids of a data set must match JSON keys."""
    return {str(key): value for key, value in predictions.items()}


def fact_id(identifier: str, lang: str) -> str:
    """What parallel questions share: the id without its "_" + lang ending, if it has one."""
    return str(identifier).removesuffix(f"_{lang}")


def answers_by_fact(golds: Iterable[Gold]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Answer strings of parallel questions: {fact: {lang: answers}}."""
    facts: dict[str, dict[str, tuple[str, ...]]] = {}
    for gold in golds:
        by_language = facts.setdefault(fact_id(gold.id, gold.lang), {})
        known = by_language.get(gold.lang, ())
        by_language[gold.lang] = tuple(dict.fromkeys((*known, *gold.answers)))
    return facts
