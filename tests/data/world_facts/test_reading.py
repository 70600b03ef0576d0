"""Reading comprehension over the embedded corpus: offsets, parallel sides, splits."""

import pytest

from clmrc_jax.data.world_facts.cldr import load_world_facts
from clmrc_jax.data.world_facts.corpus import split_of
from clmrc_jax.data.world_facts.reading import reading_examples
from clmrc_jax.files import InputError


@pytest.fixture(scope="module")
def demo():
    return load_world_facts("demo")


@pytest.mark.parametrize("lang", ["en", "ja", "ar", "th"])
def test_answers_stand_at_their_offset_beside_a_distractor_of_the_same_relation(demo, lang):
    examples = list(reading_examples(demo, "train", lang))
    assert len(examples) > 100 and len({x.id for x in examples}) == len(examples)
    for example in examples:
        (answer,) = example.answers
        assert example.context.startswith(answer.text, answer.start)
        assert example.title in example.context and example.title in example.question
        assert example.source is None and example.lang == lang


def test_bilingual_examples_ask_the_same_fact_on_both_sides(demo):
    pairs = list(reading_examples(demo, "train", "ja", source="en"))
    english = {x.id.removesuffix("_en"): x for x in reading_examples(demo, "train", "en")}
    assert 50 < len(pairs) < len(english)
    for pair in pairs:
        side = pair.source
        assert side.lang == "en" and side.context.startswith(side.answer.text, side.answer.start)
        alone = english[pair.id.removesuffix("_ja")]
        assert side.question == alone.question and side.answer.text == alone.answers[0].text


def test_paraphrases_add_questions_about_the_same_contexts(demo):
    once = list(reading_examples(demo, "test", "en"))
    often = list(reading_examples(demo, "test", "en", paraphrases=3))
    assert len(often) == 3 * len(once) and often[::3] == once
    assert len({x.question for x in often[:3]}) == 3
    assert len({(x.context, x.answers) for x in often[:3]}) == 1


def test_splits_share_no_fact_in_any_language(demo):
    facts = {(x.relation, x.subject): split_of(x) for x in demo.facts}
    for split in ("train", "dev", "test"):
        for example in reading_examples(demo, split, "fi"):
            relation = example.id.partition("-")[0]
            assert facts[relation, example.article] == split


def test_unknown_language_or_split_is_refused(demo):
    with pytest.raises(InputError, match="no articles in 'de'"):
        list(reading_examples(demo, "train", "de"))
    with pytest.raises(InputError, match="no articles in 'fr'"):
        list(reading_examples(demo, "train", "ja", source="fr"))
    with pytest.raises(InputError, match="unknown split 'all'"):
        list(reading_examples(demo, "all", "ja"))
