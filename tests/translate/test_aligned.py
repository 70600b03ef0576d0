import logging

import pytest

from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide
from clmrc_jax.files import InputError
from clmrc_jax.translate.aligned import alignment_score, translate_examples
from clmrc_jax.translate.cache import CachedTranslator
from clmrc_jax.translate.translator import Batch, TranslationError

WORDS = {
    "La casa roja está en Lima.": "The red house is in Lima.",
    "¿Dónde?": "Where?",
    "la casa roja": "the house red",
    "Lima": "Lime",
    "vacío": " ",
}


class Dictionary:
    """Knows a few texts; leaves the others as they are."""

    name = "dictionary"

    def __init__(self):
        self.calls = []

    def translate(self, texts, source, target):
        self.calls.append((list(texts), source, target))
        return [WORDS.get(text, text) for text in texts]


def example(key, answers=("la casa roja",), lang="es", question="¿Dónde?", **fields):
    context = fields.pop("context", "La casa roja está en Lima.")
    found = tuple(Answer(text, context.find(text)) for text in answers)
    return MrcExample(key, lang, "T", question, context, found, **fields)


def test_translate_examples_source_side_is_a_piece_of_the_translated_passage():
    (done,) = translate_examples([example("1", ("la casa roja", "Lima"))], Dictionary(), "en")
    assert done.source == SourceSide(
        "en", "Where?", "The red house is in Lima.", Answer("The red house", 0), "the house red"
    )
    assert done.answers == example("1", ("la casa roja", "Lima")).answers
    assert alignment_score(done.source) == 1.0  # as bags of words


def test_translate_examples_what_cannot_be_aligned_or_translated_is_counted(caplog):
    examples = [
        example("zero", ("Lima",)),  # "Lime" is nowhere
        example("no question", question="vacío"),
        example("no passage", context="vacío"),
        example("no answer", (), impossible=True),
    ]
    with caplog.at_level(logging.WARNING):
        zero, question, passage, nothing = translate_examples(examples, Dictionary(), "en")
    assert zero.source.answer is None and zero.source.translated_answer == "Lime"
    assert alignment_score(zero.source) == 0.0
    assert question.source is None and passage.source is None
    assert nothing.source.answer is None and nothing.source.translated_answer == ""
    assert alignment_score(nothing.source) is None
    assert "2 of 4 questions have a blank translation" in caplog.text
    assert "1 of 4 questions: nothing of the translated answer" in caplog.text


def test_translate_examples_questions_of_a_passage_share_one_call_and_one_translation(shouting):
    examples = [example(str(i), context=f"passage {i // 3}") for i in range(9)]
    inner = shouting()
    done = list(translate_examples(iter(examples), inner, "en", examples_per_call=4))
    assert [x.id for x in done] == [x.id for x in examples]
    assert [x.source.context for x in done] == [x.context.upper() for x in examples]
    assert [sum("passage" in text for text in call) for call in inner.calls] == [2, 1]


def test_translate_examples_equal_texts_of_two_languages_are_not_mixed_up():
    inner = Dictionary()
    list(translate_examples([example("1"), example("2", lang="fr")], inner, "en"))
    assert [source for _, source, _ in inner.calls] == ["es", "fr"]
    with pytest.raises(InputError, match="texts in 'en' cannot be translated into 'en'"):
        list(translate_examples([example("1", lang="en")], inner, "en"))


def test_translate_examples_failure_comes_after_what_was_finished_and_continues(tmp_path, shouting):
    examples = [example(str(i), (), question=f"q{i}", context=f"c{i}") for i in range(5)]
    failing = CachedTranslator(shouting(Batch(texts=2), poison="c3"), tmp_path)
    done = []
    with pytest.raises(TranslationError, match="cannot say 'c3'"):
        for finished in translate_examples(examples, failing, "en", examples_per_call=1):
            done.append(finished.id)
    assert done == ["0", "1", "2"]
    inner = shouting()
    mended = CachedTranslator(inner, tmp_path)
    assert len(list(translate_examples(examples, mended, "en", examples_per_call=1))) == 5
    assert inner.texts == ["c3", "q3", "c4", "q4"]


def test_translate_examples_too_few_translations_are_an_error(shouting):
    class Forgetful(shouting):
        def translate(self, texts, source, target):
            return super().translate(texts, source, target)[:-1]

    with pytest.raises(TranslationError, match="shouting: 2 translations for 3 texts"):
        list(translate_examples([example("1")], Forgetful(), "en"))
