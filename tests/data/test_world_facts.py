"""The embedded corpus: facts of CLDR, articles and questions."""

import os
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
from babel import Locale

from clmrc_jax.data.languages import CORPUS_LANGUAGES, SEEN, in_category
from clmrc_jax.data.qa_examples import read_dpr, read_questions, write_questions
from clmrc_jax.data.world_facts import corpus
from clmrc_jax.data.world_facts.cldr import (
    KINDS,
    QUESTION_LANGUAGES,
    RELATIONS,
    SIZES,
    Fact,
    load_world_facts,
    stable_fraction,
)
from clmrc_jax.files import InputError, write_jsonl


@pytest.fixture(scope="module")
def worlds():
    return {size: load_world_facts(size) for size in SIZES}


@pytest.fixture(scope="module")
def full(worlds):
    return worlds["full"]


@pytest.fixture(scope="module")
def full_corpus(full):
    return corpus.Corpus(full)


def test_import_leaves_babel_and_jax_unloaded():
    code = (
        "import sys, clmrc_jax.data.world_facts.corpus, clmrc_jax.data.world_facts.exercises\n"
        "print(sorted({'babel', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_full_world_has_the_expected_breadth(full):
    kinds = Counter(x.kind for x in full.entities.values())
    assert kinds["T"] >= 200 and kinds["C"] >= 120 and kinds["L"] >= 120 and kinds["S"] >= 25
    relations = Counter(x.relation for x in full.facts)
    assert set(relations) == set(RELATIONS) and min(relations.values()) >= 100


def test_sizes_grow_and_contain_each_other(worlds):
    smoke, demo, full = (set(worlds[x].facts) for x in ("smoke", "demo", "full"))
    assert smoke < full and demo < full and len(smoke) < len(demo) < len(full)
    assert 0.35 < len(demo) / len(full) < 0.55
    assert sum(x.startswith("T:") for x in worlds["smoke"].entities) == 24


@pytest.mark.parametrize("size", SIZES)
def test_world_is_connected_and_every_entity_has_a_fact(worlds, size):
    world = worlds[size]
    joined = set()
    for fact in world.facts:
        assert fact.subject[0] == RELATIONS[fact.relation][0]
        assert fact.subject in world.entities
        if RELATIONS[fact.relation][1]:
            assert world.entities[fact.object].kind == RELATIONS[fact.relation][1]
        joined |= {fact.subject, fact.object}
    assert world.entities.keys() <= joined
    assert len({(x.relation, x.subject) for x in world.facts}) == len(world.facts)


def test_demo_territory_keeps_its_currency_and_main_language(worlds):
    kept = set(worlds["demo"].facts)
    for fact in worlds["full"].facts:
        if fact.subject in worlds["demo"].entities and fact.subject.startswith("T:"):
            assert fact in kept


def test_known_facts_are_there(full):
    known = {
        Fact("currency", "T:JP", "C:JPY"),
        Fact("currency_since", "T:JP", "1871"),
        Fact("main_language", "T:JP", "L:ja"),
        Fact("currency_country", "C:JPY", "T:JP"),
        Fact("currency_code", "C:SEK", "SEK"),
        Fact("script", "L:el", "S:Grek"),
        Fact("script", "L:th", "S:Thai"),
        Fact("homeland", "L:fi", "T:FI"),
        Fact("currency", "T:FI", "C:EUR"),
        Fact("currency_since", "T:FI", "1999"),
    }
    assert known <= set(full.facts)


def test_facts_with_several_answers_are_left_out(full):
    told = {(x.relation, x.subject) for x in full.facts}
    assert ("currency_country", "C:EUR") not in told
    assert ("currency_country", "C:USD") not in told
    assert ("currency", "T:ZW") not in told  # two legal tenders
    assert ("homeland", "L:en") not in told


def test_names_come_from_cldr_and_are_unambiguous(full):
    assert full.entities["T:JP"].names["en"] == "Japan"
    assert full.entities["C:JPY"].names["de"] == "Japanischer Yen"
    assert full.entities["L:ja"].names["ja"] == Locale("ja").languages["ja"]
    assert full.entities["T:FI"].names["no"] == Locale("nb").territories["FI"]
    for kind in KINDS:
        for lang in QUESTION_LANGUAGES:
            names = [x.names[lang] for x in full.entities.values() if x.kind == kind]
            assert all(names) and len(set(names)) == len(names), (kind, lang)


def test_answers_offer_the_full_name_behind_a_shortened_one(full):
    fact = Fact("homeland", "L:my", "T:MM")
    assert fact in full.facts
    assert full.answers(fact, "en") == ("Myanmar", "Myanmar (Burma)")
    assert full.answers(Fact("currency_since", "T:JP", "1871"), "ja") == ("1871",)


def test_unknown_size_is_refused_with_the_choices():
    with pytest.raises(InputError, match="'large'; choose one of full, demo, smoke"):
        load_world_facts("large")


def test_stable_fraction_never_changes():
    # printf 'split|currency|T:JP' | sha256sum | cut -c1-16, divided by 2^64
    assert stable_fraction("split|currency|T:JP") == pytest.approx(0.69787946331607, abs=1e-14)


def test_statement_templates_are_complete_in_13_languages():
    templates = corpus.sentence_templates()
    assert set(templates["relations"]) == set(RELATIONS)
    for name, languages in (templates["relations"] | templates["articles_only"]).items():
        assert set(languages) == set(CORPUS_LANGUAGES)
        for lang, options in languages.items():
            assert len(set(options)) == len(options) >= 2
            for text in options:
                assert text.count("{x}") == text.count("{y}") == 1, (name, lang, text)
    for kind in KINDS:
        assert set(templates["intro"][kind]) == set(CORPUS_LANGUAGES)
        assert all("{x}" in x for row in templates["intro"][kind].values() for x in row)
        assert all(len(set(x)) == 4 for x in templates["filler"][kind].values())


def test_question_templates_are_complete_in_26_languages():
    templates = corpus.question_templates()
    assert set(templates) == set(RELATIONS) and len(QUESTION_LANGUAGES) == 26
    for languages in templates.values():
        assert set(languages) >= set(QUESTION_LANGUAGES)
        assert all(x.count("{x}") == 1 for row in languages.values() for x in row)


def test_articles_have_two_or_three_filled_passages(full, full_corpus):
    articles = defaultdict(list)
    for passage in corpus.passages(full):
        assert "{" not in passage.text and passage.lang in CORPUS_LANGUAGES
        articles[passage.article_id].append(passage)
    assert set(map(len, articles.values())) == {2, 3}
    for article_id, rows in articles.items():
        entity, lang = article_id.split("/")
        assert [x.id for x in rows] == [f"{article_id}/{i}" for i in range(len(rows))]
        assert {x.title for x in rows} == {full.entities[entity].names[lang]}
        assert all(x.title in x.text for x in rows)
    coverage = Counter(x.split("/")[1] for x in articles)
    assert 0.80 < coverage["en"] / len(full.entities) < 0.90
    assert all(0.5 < coverage[x] / len(full.entities) < 0.7 for x in CORPUS_LANGUAGES if x != "en")


def test_every_fact_is_stated_in_two_languages_and_some_never_in_english(full, full_corpus):
    not_english = 0
    for fact in full.facts:
        stated = {x: full_corpus.stating(fact, x) for x in CORPUS_LANGUAGES}
        stated = {x: passage for x, passage in stated.items() if passage}
        assert len(stated) >= 2
        not_english += "en" not in stated
        for lang, passage in stated.items():
            assert full.answers(fact, lang)[0] in passage.text
    assert 0.1 < not_english / len(full.facts) < 0.4


def test_different_facts_of_an_entity_sit_in_different_passages(full, full_corpus):
    places = [full_corpus.stating(x, y) for x in full.facts for y in CORPUS_LANGUAGES]
    ids = [x.id for x in places if x]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("size", SIZES)
def test_splits_share_no_fact_in_any_language(worlds, size):
    facts = {}
    for split in corpus.SPLITS:
        rows = corpus.questions(worlds[size], split)
        facts[split] = {x.id.removesuffix(f"_{x.lang}") for x in rows}
        assert rows and len({x.id for x in rows}) == len(rows)
    assert not facts["train"] & facts["test"] and not facts["train"] & facts["dev"]
    assert not facts["dev"] & facts["test"]
    assert sum(map(len, facts.values())) == len(worlds[size].facts)


def test_questions_cover_the_promised_languages(full):
    train = corpus.questions(full, "train")
    by_language = Counter(x.lang for x in train)
    assert set(by_language) == set(in_category(SEEN))
    others = [by_language[x] / by_language["en"] for x in by_language if x != "en"]
    assert all(0.4 < x < 0.6 for x in others)
    test = Counter(x.lang for x in corpus.questions(full, "test"))
    assert set(test) == set(QUESTION_LANGUAGES) and len(set(test.values())) == 1
    share = test["en"] / len(full.facts)
    assert 0.16 < share < 0.24
    assert {x.lang for x in corpus.questions(full, "dev", ["sv", "zh_cn"])} == {"sv", "zh_cn"}


def test_question_rows_are_accepted_by_the_reader(full, tmp_path):
    rows = corpus.questions(full, "dev")
    write_questions(tmp_path / "dev.jsonl", rows)
    assert list(read_questions(tmp_path / "dev.jsonl", need_answers=True)) == rows


def test_questions_of_unknown_split_or_language_are_refused(full):
    with pytest.raises(InputError, match="unknown split 'validation'"):
        corpus.questions(full, "validation")
    with pytest.raises(InputError, match="no questions in km, zz"):
        corpus.questions(full, "test", ["en", "zz", "km"])


def test_annotated_rows_have_a_gold_positive_and_negatives_without_the_fact(full, tmp_path):
    rows = list(corpus.annotated_rows(full))
    train = {x.id: x for x in corpus.questions(full, "train")}
    facts = {f"{x.relation}-{x.subject.replace(':', '.')}": x for x in full.facts}
    assert 0.8 < len(rows) / len(train) <= 1
    for row in rows:
        question, (positive,) = train[row["q_id"]], row["positive_ctxs"]
        fact = facts[question.id.removesuffix(f"_{question.lang}")]
        assert positive["lang"] in (question.lang, "en")
        assert full.answers(fact, positive["lang"])[0] in positive["text"]
        negatives = [x["id"] for x in row["hard_negative_ctxs"]]
        assert positive["id"] not in negatives and 1 <= len(set(negatives)) == len(negatives) <= 4
    write_jsonl(tmp_path / "train.jsonl", rows[:50])
    examples = list(read_dpr(tmp_path / "train.jsonl"))
    assert [x.question.id for x in examples] == [x["q_id"] for x in rows[:50]]


def test_language_links_give_a_title_in_every_question_language(full):
    rows = {x["id"]: x["titles"] for x in corpus.language_link_rows(full)}
    assert rows.keys() == full.entities.keys()
    assert rows["T:JP"]["en"] == "Japan" and set(rows["T:JP"]) == set(QUESTION_LANGUAGES)


def test_corpus_and_exercises_are_the_same_in_every_process():
    code = """
import hashlib, json
from clmrc_jax.data.world_facts import corpus, exercises
world = corpus.load_world_facts("demo")
rows = [vars(x) for x in corpus.passages(world)] + list(corpus.annotated_rows(world))
rows += [vars(x) for split in corpus.SPLITS for x in corpus.questions(world, split)]
invented = exercises.Exercises(world, seed=1)
rows += [invented.statement(i) for i in range(50)]
rows += [repr(invented.reading(i, passages=6, positives=2)) for i in range(50)]
rows += [invented.naming(i) for i in range(50)]
print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
