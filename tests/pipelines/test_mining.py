"""Cross-lingual mining (CORA 2.2.2): candidates, labels, rows, and their union."""

import pytest
from etils import epath

from clmrc_jax.data import language_links
from clmrc_jax.data.passage_names import by_id_or_text
from clmrc_jax.data.passages import Passage, PassageStore, write_passage_store
from clmrc_jax.data.world_facts.corpus import load_world_facts
from clmrc_jax.pipelines import mining
from clmrc_jax.pipelines.mining import MATCHED, NEGATIVE, POSITIVE, Candidate, MiningRules

RULES = MiningRules()


def ctx(number, text="nothing", title="T"):
    return {"id": f"p{number}", "lang": "ja", "article_id": "a", "title": title, "text": text}


def candidate(context, q_id="q", answers=("Tokyo",), lang="en", origin="retrieved"):
    return Candidate(q_id, "where?", lang, tuple(answers), lang, context, origin)


def test_retrieved_candidates_are_the_best_of_every_question_in_rank_order():
    base = {"question": "q?", "lang": "fi", "answers": ["x", "y"]}
    run = [base | {"q_id": f"q{i}", "ctxs": [ctx(10 * i + j) for j in range(5)]} for i in range(2)]
    found = list(mining.retrieved_candidates(run, MiningRules(retrieved=3)))
    assert [(c.q_id, c.ctx["id"]) for c in found] == [
        (f"q{i}", f"p{10 * i + j}") for i in range(2) for j in range(3)
    ]
    assert {(c.lang, c.answer_lang, c.answers, c.origin) for c in found} == {
        ("fi", "fi", ("x", "y"), "retrieved")
    }
    assert not list(mining.retrieved_candidates(run, MiningRules(retrieved=0)))


def test_question_with_english_answers_is_read_in_english_and_searched_in_its_language():
    row = {"q_id": "q", "question": "q?", "lang": "ar", "answer_lang": "en", "answers": ["Ann"]}
    found = list(mining.retrieved_candidates([row | {"ctxs": [ctx(1)]}], RULES))
    assert (found[0].lang, found[0].answer_lang) == ("ar", "en")
    (mined,) = mining.mined_rows(found, ["ann"], RULES, 0)
    assert (mined["lang"], mined["answer_lang"]) == ("ar", "en")


@pytest.mark.parametrize(
    "prediction, text, rules, expected",
    [
        ("tokyo.", "x", {}, POSITIVE),
        ("tokyo.", "x", {"match": "exact"}, NEGATIVE),
        ("Tokyo", "x", {"match": "exact"}, POSITIVE),
        ("Kyoto", "in Tokyo today", {}, NEGATIVE),
        ("Kyoto", "in Tokyo today", {"unsure": "dropped"}, MATCHED),
        ("Kyoto", "in Osaka today", {"unsure": "dropped"}, NEGATIVE),
        ("", "Tokyo", {}, NEGATIVE),
        ("", "", {}, NEGATIVE),
    ],
)
def test_label_by_the_generated_answer(prediction, text, rules, expected):
    assert mining.label(candidate(ctx(1, text)), prediction, MiningRules(**rules)) == expected


def test_label_title_counts_as_text_and_yes_no_is_nothing_to_look_for():
    dropped = MiningRules(unsure="dropped")
    assert mining.label(candidate(ctx(1, "x", "Tokyo")), "Kyoto", dropped) == MATCHED
    asked = candidate(ctx(1, "there is no answer"), answers=("no",))
    assert mining.label(asked, "yes", dropped) == NEGATIVE


def test_mined_rows_group_by_question_cap_and_keep_audit_fields():
    rules = MiningRules(max_positives=2, max_negatives=1)
    candidates = [candidate(ctx(i)) for i in range(6)] + [candidate(ctx(7), q_id="other")]
    predictions = ["Tokyo", "no", "TOKYO", "tokyo", "nein", "-", "wrong"]
    (row,) = mining.mined_rows(candidates, predictions, rules, 3)
    assert row["q_id"] == "q" and row["question"] == "where?" and row["answers"] == ["Tokyo"]
    assert [c["id"] for c in row["positive_ctxs"]] == ["p0", "p2"], "the best-ranked stay"
    assert [c["id"] for c in row["hard_negative_ctxs"]] == ["p1"]
    audit = [{k: c[k] for k in ("prediction", "origin", "round")} for c in row["positive_ctxs"]]
    assert audit[1] == {"prediction": "TOKYO", "origin": "retrieved", "round": 3}
    assert "answer_lang" not in row


def test_mined_rows_of_a_passage_found_twice_have_it_once():
    twice = [candidate(ctx(1)), candidate(ctx(1), origin="language_link")]
    (row,) = mining.mined_rows(twice, ["Tokyo", "wrong"], RULES, 0)
    assert len(row["positive_ctxs"]) == 1 and not row["hard_negative_ctxs"]


def test_unsure_passages_are_dropped_unless_nothing_else_is_positive():
    rules = MiningRules(unsure="dropped")
    held = [candidate(ctx(i, "in Tokyo")) for i in (1, 2)]
    (row,) = mining.mined_rows([candidate(ctx(0)), *held], ["x", "y", "z"], rules, 0)
    assert [c["id"] for c in row["positive_ctxs"]] == ["p1"]
    assert [c["id"] for c in row["hard_negative_ctxs"]] == ["p0"]
    (row,) = mining.mined_rows([*held, candidate(ctx(0))], ["y", "z", "Tokyo"], rules, 0)
    assert [c["id"] for c in row["positive_ctxs"]] == ["p0"] and not row["hard_negative_ctxs"]


def test_predictions_must_fit_the_candidates():
    with pytest.raises(ValueError):
        list(mining.mined_rows([candidate(ctx(1))], [], RULES, 0))


def dpr(q_id, positives, negatives):
    return {
        "q_id": q_id,
        "question": "q",
        "positive_ctxs": [ctx(i) for i in positives],
        "hard_negative_ctxs": [ctx(i) for i in negatives],
    }


def ids(row):
    return [[c["id"] for c in row[f"{x}_ctxs"]] for x in ("positive", "hard_negative")]


FOREIGN = {"id": "11828866", "lang": "en", "article_id": "", "title": "T", "text": "The  text ."}
COPY = FOREIGN | {"id": "1", "text": "The text."}


def test_gold_passage_with_a_foreign_id_never_becomes_its_own_negative():
    (new,) = mining.mined_rows(
        [candidate(COPY), candidate(ctx(1))], ["wrong", "Tokyo"], RULES, 0, by_id_or_text
    )
    old = dpr("q", [], []) | {"positive_ctxs": [FOREIGN]}
    (row,) = mining.merge([old], [new], RULES, by_id_or_text)
    assert [ids(row), row["positive_ctxs"][0]] == [[["11828866", "p1"], []], FOREIGN]
    (row,) = mining.merge([old], [new], RULES)
    assert ids(row)[1] == ["1"], "in one collection another id is another passage"


def test_copies_of_a_passage_are_mined_once_where_ids_may_be_foreign():
    copies = [candidate(FOREIGN), candidate(COPY)]
    (row,) = mining.mined_rows(copies, ["Tokyo", "wrong"], RULES, 0, by_id_or_text)
    assert ids(row) == [["11828866"], []]
    (row,) = mining.mined_rows(copies, ["Tokyo", "wrong"], RULES, 0)
    assert ids(row) == [["11828866"], ["1"]]


def test_merge_unites_rows_of_one_question_and_appends_new_ones():
    old = [dpr("a", [1], [2, 3]), dpr("b", [5], [6])]
    new = [dpr("c", [9], []), dpr("a", [2, 1], [4, 3])]
    rows = list(mining.merge(old, new, RULES))
    assert [row["q_id"] for row in rows] == ["a", "b", "c"]
    assert ids(rows[0]) == [["p1", "p2"], ["p4", "p3"]], "p2 answers: no longer a negative"
    assert rows[1] == old[1] and rows[2] == new[0]


def test_merge_keeps_the_annotated_positive_and_the_newest_negatives_within_the_caps():
    rules = MiningRules(max_positives=2, max_negatives=2)
    (row,) = mining.merge([dpr("a", [1], [7, 8])], [dpr("a", [2, 3], [1, 4])], rules)
    assert ids(row) == [["p1", "p2"], ["p4", "p7"]], "the gold passage is never a negative"


def test_language_links_reach_every_passage_of_the_linked_articles(smoke_corpus):
    """Against the world itself: entities, their names and their articles."""
    world = load_world_facts("smoke")
    facts = {f"{f.relation}-{f.subject.replace(':', '.')}_en": f for f in world.facts}
    articles = {}
    for passage in smoke_corpus.store:
        articles.setdefault((passage.lang, passage.title), []).append(passage.id)
    rows = [row for row in smoke_corpus.rows("annotated") if row["lang"] in ("en", "ja")][:60]
    rules = MiningRules(passages_per_article=2)
    found = {}
    for c in mining.linked_candidates(rows, smoke_corpus.store, smoke_corpus.links, rules):
        assert c.origin == "language_link" and c.lang == c.answer_lang == c.ctx["lang"] != "en"
        q_id, target = c.q_id.split(">")
        assert target == c.lang
        found.setdefault((q_id, target), []).append(c)
    expected = {}
    for row in rows:
        entity = row["positive_ctxs"][0]["article_id"].split("/")[0]
        for target in smoke_corpus.store.language_counts():
            article = target, world.entities[entity].names[target]
            if row["lang"] == "en" and target != "en" and article in articles:
                expected[row["q_id"], target] = articles[article][:2]
    assert expected and {key[1] for key in expected} >= {"es", "he", "id", "sv", "th"}
    literal = {key for key in expected if key[0].startswith("currency_code")}
    assert set(found) | literal == set(expected), "codes are no entities and no numbers"
    for (q_id, target), candidates in found.items():
        assert [c.ctx["id"] for c in candidates] == expected[q_id, target]
        names = world.answers(facts[q_id], target)
        assert {c.answers for c in candidates} <= {(name,) for name in names}
        assert candidates[0].question == next(r["question"] for r in rows if r["q_id"] == q_id)


def test_link_languages_narrow_the_targets(smoke_corpus):
    rows = [row for row in smoke_corpus.rows("annotated") if row["lang"] == "en"][:20]
    rules = MiningRules(link_languages=("th", "sv"))
    found = mining.linked_candidates(rows, smoke_corpus.store, smoke_corpus.links, rules)
    assert {c.lang for c in found} == {"th", "sv"}


@pytest.fixture
def chinese(tmp_path):
    """A store with articles in zh_cn, and links that call the language zh, as Wikipedia does."""
    passages = [
        Passage("e", "en", "a", "Japan", "text"),
        Passage("z0", "zh_cn", "b", "日本", "本文一"),
        Passage("z1", "zh_cn", "b", "日本", "本文二"),
    ]
    write_passage_store(tmp_path, passages)
    titles = [{"en": "Japan", "zh": "日本"}, {"en": "Tokyo", "zh": "东京"}]
    titles += [{"en": "Titanic", "zh": "泰坦尼克号 (电影)"}]
    rows = [{"id": f"Q{i}", "titles": x} for i, x in enumerate(titles)]
    language_links.build_language_links(tmp_path / "links.sqlite", rows)
    links = language_links.LanguageLinks(tmp_path / "links.sqlite")
    return PassageStore(epath.Path(tmp_path)), links


def english(answers, lang="en", title="Japan"):
    gold = {"id": "e", "lang": "en", "article_id": "a", "title": title, "text": "text"}
    row = {"q_id": "q", "question": "capital?", "lang": lang, "answers": answers}
    return row | {"positive_ctxs": [gold] if title else []}


def test_links_by_wikipedia_code_serve_our_language_code(chinese):
    found = list(mining.linked_candidates([english(["Tokyo"])], *chinese, RULES))
    assert [(c.q_id, c.lang, c.ctx["id"]) for c in found] == [
        ("q>zh_cn", "zh_cn", "z0"),
        ("q>zh_cn", "zh_cn", "z1"),
    ]
    assert {c.answers for c in found} == {("东京",)} and found[0].question == "capital?"


@pytest.mark.parametrize(
    "row, rules, answers",
    [
        (english(["1871"]), {}, [("1871",)] * 2),
        (english(["1871"]), {"copy_numbers": False}, []),
        (english(["Titanic"]), {}, [("泰坦尼克号",)] * 2),
        (english(["titanic"]), {}, [("泰坦尼克号",)] * 2),
        (english(["Titanic"]), {"strip_disambiguation": False}, [("泰坦尼克号 (电影)",)] * 2),
        (english(["a phrase"]), {}, []),
        (english(["Tokyo"], lang="ja"), {}, []),
        (english([]), {}, []),
        (english(["Tokyo"], title=""), {}, []),
        (english(["Tokyo"], title="Unlinked"), {}, []),
        (english(["Tokyo"]), {"passages_per_article": 1}, [("东京",)]),
    ],
    ids=[
        "number",
        "no copies",
        "title",
        "small letter",
        "title as it is",
        "phrase",
        "not English",
        "no answer",
        "no gold",
        "unlinked",
        "cap",
    ],
)
def test_which_rows_the_links_expand(chinese, row, rules, answers):
    found = mining.linked_candidates([row], *chinese, MiningRules(**rules))
    assert [c.answers for c in found] == answers


@pytest.mark.parametrize("name, value", [("match", "fuzzy"), ("unsure", "kept")])
def test_unknown_rule_is_refused(name, value):
    with pytest.raises(ValueError, match=f"mining.{name} must be one of .*, got '{value}'"):
        MiningRules(**{name: value})
