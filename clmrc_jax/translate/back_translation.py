"""Data side of the back-translation systems, rows 1 to 5 of Table 2 (spec 6, Figure 1).

    target P, Q --forward--> source P, Q --reader--> source answer --backward--> A_trans
    #1, #2   A_trans is the answer
    #3       SimpleMatch: the most similar piece of P
    #4       Answer Aligner: a span model reads `[CLS] A_trans [SEP] P`
    #5       Answer Verifier: a span model reads `[CLS] A_trans # Q [SEP] P`
The reader, the Aligner and the Verifier are span models like any other; here are their rows.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.files import InputError
from clmrc_jax.translate.align import Match, simple_match
from clmrc_jax.translate.aligned import translate_all, translate_texts
from clmrc_jax.translate.translator import Translator, prepare

_log = logging.getLogger(__name__)
SEPARATOR = "#"  # drawn as a sharp sign in Figure 1; its token is not published

# Source-language examples without answers -> {id: answer}.
Reader = Callable[[list[MrcExample]], Mapping[str, str]]


def back_translate(
    examples: Sequence[MrcExample],
    forward: Translator,
    reader: Reader,
    backward: Translator,
    source_lang: str = "en",
) -> dict[str, str]:
    """{id: A_trans} of target-language examples: the answers of systems #1 and #2.

    forward, backward: translators into and out of `source_lang`, which the reader reads.
    Raises InputError when the reader leaves out a question.
    """
    asked = source_examples(examples, forward, source_lang)
    return target_answers(examples, reader(asked), backward, source_lang)


def source_examples(
    examples: Iterable[MrcExample], forward: Translator, source_lang: str = "en"
) -> list[MrcExample]:
    """The examples in the reader's language, without answers; ids stay.

    A text whose translation is blank is left untranslated, counted in the log: a span model cannot
    read an empty passage or question.
    """
    examples = list(examples)
    texts = ((x.lang, text) for x in examples for text in (x.context, x.question))
    into = translate_all(forward, texts, source_lang)
    blank = [key for key, translation in into.items() if not translation.strip()]
    if blank:
        _log.warning("%d texts have a blank translation and stay as they are", len(blank))
    into |= {(lang, text): text for lang, text in blank}
    return [
        dataclasses.replace(
            example,
            lang=source_lang,
            question=into[example.lang, example.question],
            context=into[example.lang, example.context],
            answers=(),
            source=None,
        )
        for example in examples
    ]


def target_answers(
    examples: Iterable[MrcExample],
    answers: Mapping[str, str],
    backward: Translator,
    source_lang: str = "en",
) -> dict[str, str]:
    """{id: A_trans}: the reader's answers translated into each example's own language.

    The translator is told all texts first, so that what they cost is shown before any is sent.
    Raises InputError when questions have no answer (an empty one is an answer).
    """
    examples = list(examples)
    _require_all(examples, answers, "the reader answered")
    texts: dict[str, dict[str, None]] = {}
    for x in examples:
        asked = texts.setdefault(x.lang, {})
        asked |= {answers[x.id]: None} if answers[x.id].strip() else {}
    for lang, asked in texts.items():
        prepare(backward, list(asked), source_lang, lang)
    into = {
        lang: translate_texts(backward, list(asked), source_lang, lang)
        for lang, asked in texts.items()
    }
    return {x.id: into[x.lang].get(answers[x.id], "").strip() for x in examples}


def match_answers(
    examples: Iterable[MrcExample], translated: Mapping[str, str], delta: int = 5
) -> dict[str, Match]:
    """{id: SimpleMatch of A_trans in the passage}: the answers of system #3."""
    examples = list(examples)
    _require_all(examples, translated, "there are translated answers for")
    return {x.id: simple_match(translated[x.id], x.context, x.lang, delta) for x in examples}


def aligner_examples(
    examples: Iterable[MrcExample], translated: Mapping[str, str]
) -> list[MrcExample]:
    """Rows of the Answer Aligner (#4): A_trans stands in the question's place.

    A blank A_trans becomes the separator alone. Gold answers stay, to train on and to score.
    """
    return _asking(examples, translated, lambda answer, _: answer or SEPARATOR)


def verifier_examples(
    examples: Iterable[MrcExample], translated: Mapping[str, str]
) -> list[MrcExample]:
    """Rows of the Answer Verifier (#5): `A_trans # question`."""
    return _asking(examples, translated, lambda x, asked: f"{x} {SEPARATOR} {asked}".strip())


def _asking(
    examples: Iterable[MrcExample],
    translated: Mapping[str, str],
    question: Callable[[str, str], str],
) -> list[MrcExample]:
    examples = list(examples)
    _require_all(examples, translated, "there are translated answers for")
    return [
        dataclasses.replace(x, question=question(translated[x.id].strip(), x.question))
        for x in examples
    ]


def _require_all(examples: list[MrcExample], by_id: Mapping[str, str], what: str) -> None:
    missing = [example.id for example in examples if example.id not in by_id]
    if missing:
        raise InputError(
            f"{what} {len(examples) - len(missing)} of {len(examples)} questions; the first "
            f"without is {missing[0]!r}. Answer all of them (with '' where there is no answer)"
        )
