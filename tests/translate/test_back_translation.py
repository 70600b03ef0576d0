import logging

import pytest

from clmrc_jax.data.mrc_examples import Answer, MrcExample
from clmrc_jax.files import InputError
from clmrc_jax.translate.align import Match
from clmrc_jax.translate.back_translation import (
    aligner_examples,
    back_translate,
    match_answers,
    source_examples,
    target_answers,
    verifier_examples,
)


class Phrases:
    name = "phrases"

    def __init__(self, known):
        self.known, self.calls = known, []

    def translate(self, texts, source, target):
        self.calls.append((list(texts), source, target))
        return [self.known.get(text, "") for text in texts]


CONTEXT = "La casa roja está en Lima."
FORWARD = {CONTEXT: "The red house is in Lima.", "¿Qué?": "What?", "¿Dónde?": "Where?"}
BACKWARD = {"The red house": " la roja casa ", "Lima": "Lima"}


def examples():
    return [
        MrcExample("1", "es", "T", "¿Qué?", CONTEXT, (Answer("La casa roja", 0),)),
        MrcExample("2", "es", "T", "¿Dónde?", CONTEXT, (Answer("Lima", 21),)),
        MrcExample("3", "es", "T", "¿Dónde?", CONTEXT, (Answer("en Lima", 18),)),
    ]


def test_back_translation_goes_to_the_reader_and_back():
    read = []

    def reader(asked):
        read.extend(asked)
        return {"1": "The red house", "2": "Lima", "3": ""}

    forward, backward = Phrases(FORWARD), Phrases(BACKWARD)
    found = back_translate(examples(), forward, reader, backward)
    assert found == {"1": "la roja casa", "2": "Lima", "3": ""}
    assert [(x.id, x.lang, x.question, x.answers) for x in read] == [
        ("1", "en", "What?", ()),
        ("2", "en", "Where?", ()),
        ("3", "en", "Where?", ()),
    ]
    assert {x.context for x in read} == {"The red house is in Lima."}
    assert forward.calls == [([CONTEXT, "¿Qué?", "¿Dónde?"], "es", "en")]
    assert backward.calls == [(["The red house", "Lima"], "en", "es")]


def test_all_answers_are_told_before_the_first_is_translated():
    told = []

    class Telling(Phrases):
        def prepare(self, texts, source, target):
            assert not self.calls
            told.append((list(texts), source, target))

    asked = [*examples(), MrcExample("4", "de", "T", "Wo?", "In Lima.", ())]
    answers = {"1": "The red house", "2": "Lima", "3": "", "4": "Lima"}
    backward = Telling(BACKWARD)
    assert target_answers(asked, answers, backward)["4"] == "Lima"
    assert told == [(["The red house", "Lima"], "en", "es"), (["Lima"], "en", "de")]
    assert backward.calls == told


def test_back_translation_systems_3_to_5():
    translated = {"1": "la roja casa", "2": "Quito", "3": ""}
    matches = match_answers(examples(), translated)
    assert matches["1"] == Match("La casa roja", 0, 1.0)
    assert matches["2"] == Match("Quito", -1, 0.0) and matches["3"] == Match("", -1, 0.0)
    aligner = aligner_examples(examples(), translated)
    assert [x.question for x in aligner] == ["la roja casa", "Quito", "#"]
    verifier = verifier_examples(examples(), translated)
    asked = ["la roja casa # ¿Qué?", "Quito # ¿Dónde?", "# ¿Dónde?"]
    assert [x.question for x in verifier] == asked
    for rows in (aligner, verifier):
        kept = [(x.id, x.context, x.answers) for x in rows]
        assert kept == [(x.id, x.context, x.answers) for x in examples()]


def test_back_translation_blank_translation_leaves_the_text_as_it_is(caplog):
    with caplog.at_level(logging.WARNING):
        asked = source_examples(examples(), Phrases({CONTEXT: "P"}))
    assert [x.question for x in asked] == ["¿Qué?", "¿Dónde?", "¿Dónde?"]
    assert asked[0].context == "P"
    assert "2 texts have a blank translation" in caplog.text


def test_back_translation_missing_answers_are_an_error():
    message = "answered 1 of 3 questions; the first without is '2'"
    with pytest.raises(InputError, match=message):
        target_answers(examples(), {"1": "Lima"}, Phrases(BACKWARD))
    for rows in (match_answers, aligner_examples, verifier_examples):
        with pytest.raises(InputError, match="for 1 of 3 questions; the first without is '2'"):
            rows(examples(), {"1": "Lima"})
