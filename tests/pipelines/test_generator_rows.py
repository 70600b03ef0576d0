"""Which passages, answers and language tags train mGEN."""

import numpy as np
import pytest

from clmrc_jax.pipelines.generator import GeneratorTraining
from clmrc_jax.pipelines.generator_rows import GeneratorRows
from clmrc_jax.pipelines.mining import MiningRules


@pytest.fixture
def rows_for(smoke_corpus):
    """rows_for(round, run) -> GeneratorRows over the real links of the smoke corpus."""

    def make(round, run=(), languages=("th",), **training):
        return GeneratorRows(
            run,
            smoke_corpus.links,
            MiningRules(),
            GeneratorTraining(**{"synthetic_share": 1.0, **training}),
            languages,
            4,
            round=round,
            seed=0,
        )

    return make


def row(answer="Japan", lang="en", answering=(), count=8, synthetic=None, **more):
    ctxs = [
        {"id": i, "title": "T", "text": f"{answer} here" if i in answering else "nothing"}
        for i in range(count)
    ]
    return (
        {"question": "q?", "lang": lang, "answers": [answer], "ctxs": ctxs}
        | {"synthetic": synthetic}
        | more
    )


def test_at_most_three_answering_passages_filled_up_in_rank_order(rows_for):
    rows = rows_for(0)
    draws = [
        rows.passages(row(answering=(1, 2, 4, 5, 6)), np.random.default_rng(i)) for i in range(40)
    ]
    for ctxs in draws:
        chosen = {ctx["id"] for ctx in ctxs}
        assert len(chosen) == 4 and len(chosen & {1, 2, 4, 5, 6}) == 3 and chosen & {0, 3, 7} == {0}
    assert set.union(*({ctx["id"] for ctx in x} for x in draws)) == {0, 1, 2, 4, 5, 6}
    assert len({tuple(ctx["id"] for ctx in x) for x in draws}) > 20, "shuffled"


def test_question_without_any_answering_passage_keeps_the_best_ranked(rows_for):
    ctxs = rows_for(0).passages(row(), np.random.default_rng(0))
    assert {ctx["id"] for ctx in ctxs} == {0, 1, 2, 3}


def test_yes_is_in_no_passage(rows_for):
    ctxs = rows_for(0).passages(row("yes", answering=(5, 6, 7)), np.random.default_rng(0))
    assert {ctx["id"] for ctx in ctxs} == {0, 1, 2, 3}


def chosen(rows, i, epoch):
    """Language tag and answer of row i in an epoch."""
    return rows.choose(rows[i], np.random.default_rng(0), epoch)[1::2]


@pytest.fixture
def names(smoke_corpus):
    """An English title of the corpus and its Thai and Danish translations."""
    title = next(p.title for p in smoke_corpus.store if p.lang == "en")
    translate = smoke_corpus.links.translate
    return title, translate(title, "en", "th"), translate(title, "en", "da")


def test_every_translatable_english_row_has_a_synthetic_row_per_language(rows_for, names):
    run = [row(names[0]), row(names[0], lang="fi"), row("no such page"), row("1871")]
    rows = rows_for(1, run, ("th", "da"))
    assert len(rows) == 4 + 2 + 2
    assert [chosen(rows, i, 0) for i in range(8)] == [
        ("en", names[0]),
        ("fi", names[0]),
        ("en", "no such page"),
        ("en", "1871"),
        ("th", names[1]),
        ("da", names[2]),
        ("th", "1871"),
        ("da", "1871"),
    ]


def test_half_of_the_synthetic_rows_exist_at_the_published_share(rows_for, names):
    count = len(rows_for(1, [row(names[0])] * 400, ("th", "da"), synthetic_share=0.5)) - 400
    assert 330 < count < 470
    assert len(rows_for(1, [row(names[0])], synthetic_share=0.0)) == 1


def test_synthetic_answers_wait_for_the_third_epoch_of_round_0_alone(rows_for, names):
    run = [row(names[0])]
    assert chosen(rows_for(0, run), 1, 2) == ("en", names[0])
    assert chosen(rows_for(0, run), 1, 3) == ("th", names[1])
    assert chosen(rows_for(1, run), 1, 0) == ("th", names[1])


def test_english_answer_of_another_language_is_tagged_english(rows_for):
    run = [row("Ann", lang="ar", answer_lang="en")]
    assert chosen(rows_for(0, run), 0, 0) == ("en", "Ann")


def test_no_synthetic_row_comes_from_another_languages_question(rows_for, names):
    english, foreign = row(names[0]), row(names[0], lang="bn", answer_lang="en")
    rows = rows_for(0, [english, foreign])
    assert [rows[i]["synthetic"] for i in range(len(rows))] == [None, None, "th"]
    assert rows[2]["lang"] == "en"


def test_expected_lengths_are_the_mean_of_the_sources_drawn(rows_for):
    run = [row(answering=(1, 2, 4, 5, 6)), row(), row(answering=(0,)), row(answering=(), count=0)]
    rows = rows_for(1, run, synthetic_share=0.0)
    for other in run:  # passages of different lengths
        for i, ctx in enumerate(other["ctxs"]):
            ctx["text"] += " more" * i**2

    def count(question, lang, ctxs):
        assert (question, lang) == ("q?", "en")
        return [7, *(len(ctx["text"]) for ctx in ctxs)]

    draws = [
        [7 + sum(len(c["text"]) for c in rows.passages(r, np.random.default_rng(i))) for r in run]
        for i in range(2000)
    ]
    assert np.std(draws, axis=0)[0] > 10, "the first row's sources differ"
    np.testing.assert_allclose(rows.expected_lengths(count), np.mean(draws, axis=0), atol=3)


def test_a_synthetic_row_is_as_long_as_its_question(rows_for, names):
    rows = rows_for(1, [row(), row(names[0], count=3)], ("th", "da"))
    lengths = rows.expected_lengths(lambda question, lang, ctxs: [1] * (1 + len(ctxs)))
    assert lengths.tolist() == [5, 4, 4, 4] and len(rows) == 4
