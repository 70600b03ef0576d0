"""Examples with their translation beside them: the source side that Dual BERT reads (spec 1.3).

Passage, question and first answer are translated as separate whole texts; the answer is then
looked up in the translated passage by SimpleMatch.
"""

import collections
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence

from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide
from clmrc_jax.files import InputError
from clmrc_jax.translate.align import overlap_f1, simple_match
from clmrc_jax.translate.translator import TranslationError, Translator

_log = logging.getLogger(__name__)
EXAMPLES_PER_CALL = 64  # what one call of the translator is asked for


def translate_examples(
    examples: Iterable[MrcExample],
    translator: Translator,
    source_lang: str,
    *,
    delta: int = 5,
    examples_per_call: int = EXAMPLES_PER_CALL,
) -> Iterator[MrcExample]:
    """Yields every example with its translation into `source_lang` as source side, in order.

    The source answer is None where nothing of the translated answer is in the translated passage;
    `alignment_score` gives the F1 of the others. A question or passage whose translation is blank
    keeps no source side. Both are counted in the log at the end.
    Raises TranslationError when the translator fails, after the examples finished before.
    """
    counts = collections.Counter()
    for part in _parts(examples, examples_per_call):
        into = translate_all(translator, _texts(part), source_lang)
        for example in part:
            source = _source(example, into, source_lang, delta)
            counts["all"] += 1
            counts["untranslated"] += source is None
            counts["unaligned"] += bool(source and example.answers and source.answer is None)
            yield dataclasses.replace(example, source=source)
    log_gaps(counts)


def alignment_score(side: SourceSide) -> float | None:
    """F1 (0 to 1) of an aligned answer against the translation of the answer alone.

    0 where no alignment was found, None where there was no answer to align.
    """
    if not side.translated_answer.strip():
        return None
    return overlap_f1(side.answer.text, side.translated_answer, side.lang) if side.answer else 0.0


def translate_all(
    translator: Translator, texts: Iterable[tuple[str, str]], target: str
) -> dict[tuple[str, str], str]:
    """(language, text) -> translation into `target`, with one call per language.

    Raises InputError for a text that is in the target language already.
    """
    by_lang: dict[str, dict[str, None]] = {}
    for lang, text in texts:
        by_lang.setdefault(lang, {})[text] = None
    if target in by_lang:
        raise InputError(
            f"texts in {target!r} cannot be translated into {target!r}; name another language"
        )
    into = {}
    for lang, own in by_lang.items():
        pairs = translate_texts(translator, list(own), lang, target).items()
        into |= {(lang, text): translation for text, translation in pairs}
    return into


def translate_texts(
    translator: Translator, texts: Sequence[str], source: str, target: str
) -> dict[str, str]:
    """Text -> translation; an empty mapping, without a call, for no texts.

    Raises TranslationError when the translator returns another number of texts than it got.
    """
    translated = translator.translate(texts, source, target) if texts else []
    if len(translated) != len(texts):
        raise TranslationError(
            f"{translator.name}: {len(translated)} translations for {len(texts)} texts; a "
            "translator must return one for each"
        )
    return dict(zip(texts, translated))


def log_gaps(counts: collections.Counter) -> None:
    """Warns of what has no translation (`untranslated`) or alignment (`unaligned`), of `all`."""
    if counts["untranslated"]:
        _log.warning(
            "%d of %d questions have a blank translation of the question or its passage",
            counts["untranslated"],
            counts["all"],
        )
    if counts["unaligned"]:
        _log.warning(
            "%d of %d questions: nothing of the translated answer is in the translated passage",
            counts["unaligned"],
            counts["all"],
        )


def _parts(examples: Iterable[MrcExample], size: int) -> Iterator[list[MrcExample]]:
    part: list[MrcExample] = []
    for example in examples:
        # A passage is never divided: its questions ask for one translation together.
        if len(part) >= size and example.context != part[-1].context:
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def _texts(examples: Iterable[MrcExample]) -> Iterator[tuple[str, str]]:
    for example in examples:
        for text in (example.context, example.question, *_first_answer(example)):
            yield example.lang, text


def _first_answer(example: MrcExample) -> list[str]:
    return [answer.text for answer in example.answers[:1]]


def _source(
    example: MrcExample, into: dict[tuple[str, str], str], lang: str, delta: int
) -> SourceSide | None:
    context, question = (into[example.lang, x] for x in (example.context, example.question))
    if not context.strip() or not question.strip():
        return None
    translated, answer = "", None
    for text in _first_answer(example):
        translated = into[example.lang, text]
        match = simple_match(translated, context, lang, delta)
        answer = Answer(match.text, match.start) if match.start >= 0 else None
    return SourceSide(lang, question, context, answer, translated)
