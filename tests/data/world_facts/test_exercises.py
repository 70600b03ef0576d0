"""Pre-training exercises: endless, seeded, and never true."""

import random

import pytest

from clmrc_jax.data.languages import CORPUS_LANGUAGES, SEEN, in_category
from clmrc_jax.data.passages import Passage
from clmrc_jax.data.world_facts import corpus
from clmrc_jax.data.world_facts.cldr import QUESTION_LANGUAGES, Fact, load_world_facts
from clmrc_jax.data.world_facts.exercises import Exercises, name_pieces


@pytest.fixture(scope="module")
def full():
    return load_world_facts("full")


@pytest.fixture(scope="module")
def full_corpus(full):
    return corpus.Corpus(full)


@pytest.fixture(scope="module")
def exercises(full):
    return Exercises(full, seed=3)


def test_exercises_depend_on_seed_and_index_alone(full, exercises):
    again = Exercises(full, seed=3)
    assert [again.reading(i) for i in (7, 2)] == [exercises.reading(i) for i in (7, 2)]
    assert again.statement(5) == exercises.statement(5)
    other = Exercises(full, seed=4)
    assert [other.statement(i) for i in range(9)] != [exercises.statement(i) for i in range(9)]


def test_passages_are_in_the_languages_asked_for(full):
    asked, told = ("es", "ja", "tr"), ("en", "ja")
    exercises = Exercises(full, 3, asked, told)
    found = [exercises.reading(i, passages=4, positives=2) for i in range(200)]
    assert {x["lang"] for x in found} == set(asked)
    assert {p.lang for x in found for p in (*x["positives"], *x["negatives"])} == set(told)
    japanese = [x["positives"][0].lang == "ja" for x in found if x["lang"] == "ja"]
    assert 0.6 < sum(japanese) / len(japanese) < 0.9  # the question's language, or either


def test_statements_cover_all_languages_and_glossaries(exercises):
    rows = [exercises.statement(i) for i in range(2000)]
    assert {lang for lang, _ in rows} == set(QUESTION_LANGUAGES)
    glossaries = [text for _, text in rows if " = " in text]
    assert 0.15 < len(glossaries) / len(rows) < 0.25
    assert all(4 <= len(x.split(" = ")) <= 6 for x in glossaries)
    assert not any("{" in text for _, text in rows)


def _pairs_told(texts, full):
    """(relation, subject) of true facts whose statement, in any paraphrase, is among the texts."""
    templates = corpus.sentence_templates()["relations"]
    for fact in full.facts:
        for lang in CORPUS_LANGUAGES:
            name, answer = full.entities[fact.subject].names[lang], full.answers(fact, lang)[0]
            for template in templates[fact.relation][lang]:
                text = template.replace("{x}", name).replace("{y}", answer)
                if text in texts:
                    yield fact, lang


def test_exercises_never_state_a_true_fact(full, exercises):
    texts = [exercises.statement(i)[1] for i in range(300)]
    for i in range(60):
        row = exercises.reading(i)
        texts += [x.text for x in (*row["positives"], *row["negatives"])]
    assert not list(_pairs_told("\n".join(texts), full))


def test_true_pairs_are_found_by_the_check_above(full, full_corpus):
    stated = full_corpus.stating(Fact("currency", "T:JP", "C:JPY"), "ja")
    stated = stated or full_corpus.stating(Fact("currency", "T:JP", "C:JPY"), "en")
    assert list(_pairs_told(stated.text, full))


def test_untrue_object_is_never_joined_to_the_subject_by_any_fact(full, exercises):
    joined = {frozenset((x.subject, x.object)) for x in full.facts}
    rng = random.Random(0)
    for fact in full.facts:
        for _ in range(50):
            value = exercises._untrue_object(rng, fact.relation, fact.subject)
            assert frozenset((fact.subject, value)) not in joined


def test_reading_exercise_has_one_answering_passage(exercises, full):
    names = {n: x for x in full.entities.values() for n in x.names.values()}
    cross_lingual = invented = 0
    for i in range(400):
        row = exercises.reading(i, passages=5)
        (positive,) = row["positives"]
        assert row["lang"] in in_category(SEEN) and len(row["negatives"]) == 4
        assert all(isinstance(x, Passage) and x.title in x.text for x in row["negatives"])
        assert len({x.id for x in (positive, *row["negatives"])}) == 5
        if positive.lang == row["lang"]:
            assert row["answer"] in positive.text
            assert positive.title in row["question"]
        else:
            cross_lingual += 1
        if positive.title not in names:
            invented += 1
            assert positive.title in row["question"]
    assert 120 < cross_lingual < 260 and 70 < invented < 200


def test_reading_exercise_with_several_positives_tells_one_answer(exercises):
    languages = set()
    for i in range(200):
        row = exercises.reading(i, passages=5, positives=3)
        assert (len(row["positives"]), len(row["negatives"])) == (3, 2)
        languages.add(len({x.lang for x in row["positives"]}))
        for passage in row["positives"]:
            if passage.lang == row["lang"]:
                assert row["answer"] in passage.text and passage.title in row["question"]
    assert languages == {1, 2, 3}


def test_negatives_of_reading_exercises_tell_apart_relation_subject_and_similar_names(exercises):
    same, similar, others = 0, 0, 0
    for i in range(300):
        row = exercises.reading(i, passages=3)
        (positive,) = row["positives"]
        for passage in row["negatives"]:
            if passage.lang != positive.lang:
                continue
            others += 1
            same += passage.title == positive.title
            similar += passage.title != positive.title and _shares_three(passage, positive)
    assert 0.2 < same / others < 0.5 and 0.15 < similar / others < 0.6


def _shares_three(a, b) -> bool:
    pieces = {a.title[i : i + 3] for i in range(len(a.title) - 2)}
    return any(piece in b.title for piece in pieces)


def test_naming_exercises_give_the_same_entity_in_the_language_asked_for(exercises, full):
    asked = set()
    for i in range(300):
        name, lang, answer = exercises.naming(i)
        asked.add(lang)
        known = [x.names for x in full.entities.values() if x.names[lang] == answer]
        assert any(name in names.values() for names in known)
    assert asked == set(QUESTION_LANGUAGES)


def test_reading_exercise_without_negatives_is_possible(exercises):
    assert exercises.reading(0, passages=1)["negatives"] == []


@pytest.mark.parametrize(
    "name, pieces",
    [
        ("Japan", ["Jap", "an"]),
        ("ประเทศไทย", ["ประ", "เทศ", "ไทย"]),
        ("日本国", ["日本", "国"]),
        ("বাংলাদেশ", ["বাংলা", "দেশ"]),
    ],
)
def test_name_pieces_respect_the_script(name, pieces):
    assert "".join(name_pieces(name)) == name
    assert name_pieces(name) == pieces
