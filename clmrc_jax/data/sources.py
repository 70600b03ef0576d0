"""Corpus values of a config: files and data sets, with the language of what does not name its own.

A value is a path (or "tfds:NAME[/CONFIG]/SPLIT"), a pair (path, language), or a tuple of those;
training rows take (path, question language, passage language) too. On the command line a value is
text, so one that begins with a bracket is read as such a tuple:
`--config.corpus.passages="(('en.tsv', 'en'), ('ja.tsv', 'ja'))"`.
"""

import ast
import dataclasses
import logging
from collections.abc import Iterable, Iterator

from etils import epath

from clmrc_jax.data import datasets, qa_examples, squad_corpus
from clmrc_jax.data.fields import NoLanguage, known_language
from clmrc_jax.data.passages import Passage
from clmrc_jax.data.qa_examples import Question, RetrieverExample
from clmrc_jax.files import InputError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """One file or data set.

    lang: of rows that do not name theirs (of a prepared set, the one wanted); None: they all do.
    passage_lang: the same of the passages in training rows.
    """

    path: str
    lang: str | None = None
    passage_lang: str | None = None


def parse(value: str | tuple, key: str, *, training: bool = False) -> tuple[Source, ...]:
    """The sources of a config value; none for an empty one.

    key: its name in the config, for messages.   training: passages may have a language of their
    own. Raises InputError for another form and for an unknown language.
    """
    if isinstance(value, str) and value.lstrip().startswith(("(", "[")):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError) as error:
            raise InputError(
                f"{key} {value!r} is no Python tuple ({error}); {form(key)}"
            ) from error
    if not value:
        return ()
    several = isinstance(value, tuple | list) and isinstance(value[0], tuple | list)
    return tuple(_source(x, key, training) for x in (value if several else (value,)))


def parse_squads(value: str | tuple, key: str) -> tuple[Source, ...]:
    """As `parse`, of SQuAD-style files: they never name their language, data sets do."""
    found = parse(value, key)
    for source in found:
        if source.lang is None and datasets.is_raw(source.path):
            raise InputError(
                f"{key}: {source.path} does not name its language; {form(key, source.path)}"
            )
    return found


def form(key: str, path: str = "FILE") -> str:
    """What a value with a language looks like: the remedy in messages."""
    return f"give --config.{key}=\"('{path}', 'en')\", or (('{path}', 'en'), ...) for several"


def _source(entry, key: str, training: bool) -> Source:
    parts = (entry,) if isinstance(entry, str) else entry
    if not isinstance(parts, tuple | list) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"{key}: {entry!r} is neither a path nor (path, language); {form(key)}")
    if not (1 <= len(parts) <= 2 + training) or not parts[0]:
        more = " or (path, question language, passage language)" if training else ""
        raise InputError(f"{key}: {entry!r} is not (path, language){more}; {form(key)}")
    path, *langs = parts
    codes = [known_language(code, f"{key}, {path}") if code else None for code in langs]
    return Source(path, codes[0] if codes else None, codes[-1] if codes else None)


def read_passages(value: str | tuple, key: str) -> Iterator[Passage]:
    """The passages of all sources, in order. Raises InputError naming file and row, or the key."""
    for source in parse(value, key):
        yield from _named(_load(source, "passages"), source, key)


def read_questions(
    value: str | tuple, key: str, *, need_answers: bool = False
) -> Iterator[Question]:
    """The questions of all sources; one that several hold is kept once.

    Raises InputError naming file and row, also for an id that two different questions share.
    """
    known, repeated = {}, 0
    for source in parse(value, key):
        rows = _load(source, "questions", need_answers=need_answers)
        for question in _named(rows, source, key):
            if known.setdefault(question.id, question) is question:
                yield question
                continue
            repeated += 1
            if known[question.id] != question:
                raise InputError(
                    f"{key}, {source.path}: the id {question.id!r} is that of another question "
                    f"({known[question.id].question!r}); ids must be unique in all files together"
                )
    if repeated:
        _log.warning("%s: %d questions stand there more than once; kept once", key, repeated)


def read_examples(value: str | tuple, key: str) -> Iterator[RetrieverExample]:
    """Retriever training rows: DPR files, and data sets of questions on a paragraph.

    Rows may share a question; raises InputError for an id that two different questions share.
    """
    known: dict[str, int] = {}
    for source in parse(value, key, training=True):
        if datasets.is_raw(existing(source.path)):
            rows = qa_examples.read_dpr(source.path, source.lang, source.passage_lang)
        else:
            rows = datasets.load_squads([(source.path, source.lang)]).examples()
        for example in _named(rows, source, key, training=True):
            text = hash(example.question.question)
            if known.setdefault(example.question.id, text) != text:
                raise InputError(
                    f"{key}, {source.path}: the id {example.question.id!r} is that of another "
                    "question in these files; give every question an id of its own, or none at all"
                )
            yield example


def read_squads(value: str | tuple, key: str) -> squad_corpus.SquadCorpus:
    """SQuAD-style files and data sets of questions on a paragraph as one corpus."""
    found = parse_squads(value, key)
    return datasets.load_squads([(existing(source.path), source.lang) for source in found])


def _load(source: Source, kind: str, **options) -> Iterator:
    return datasets.load(existing(source.path), kind, lang=source.lang, **options)


def existing(path: str) -> str:
    """The path. Raises InputError where nothing is: a typing error must download no data set."""
    if not path.startswith(datasets.TFDS) and not epath.Path(path).exists():
        raise InputError(f"{path}: no such file; a data set's name needs {datasets.TFDS} before it")
    return path


def _named(rows: Iterable, source: Source, key: str, *, training: bool = False) -> Iterator:
    """The rows; one without language names the key that can tell it."""
    try:
        yield from rows
    except NoLanguage as error:
        more = " (or with a third entry, the language of the passages)" if training else ""
        raise InputError(f"{error}: {form(key, source.path)}{more}") from error
