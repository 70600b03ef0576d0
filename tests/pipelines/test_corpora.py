"""The corpus stage: whatever the source, the same files, and nothing of the test in training."""

import dataclasses
import json
import re

import pytest
from etils import epath

from clmrc_jax.data.passage_names import by_id, by_id_or_text
from clmrc_jax.data.squad_corpus import fact_id
from clmrc_jax.files import InputError, read_jsonl, write_json, write_jsonl
from clmrc_jax.pipelines.corpora import Corpus, CorpusSettings, check_inputs, prepare

FILES = [
    "annotated.jsonl",
    "dev.jsonl",
    "links.sqlite",
    "passages.array_record",
    "passages.array_record.languages.npy",
    "passages.array_record.sqlite",
    "questions.dev.jsonl",
    "questions.test.jsonl",
    "questions.train.jsonl",
]


def made(folder, **settings):
    counts = prepare(CorpusSettings(**settings), epath.Path(folder))
    return Corpus.open(folder), counts


def test_world_facts_writes_every_file_and_counts_them(smoke_corpus):
    assert sorted(path.name for path in smoke_corpus.folder.iterdir()) == FILES
    ids = [passage.id for passage in smoke_corpus.store]
    assert len(ids) == len(set(ids)) == len(smoke_corpus.store) > 500
    assert len(smoke_corpus.store.language_counts()) == 13
    train, dev, test = (smoke_corpus.questions(x) for x in ("train", "dev", "test"))
    assert {q.lang for q in train} == set("ar bn en fi ja ko ru te".split())
    assert len({q.lang for q in test}) == 26
    facts = [{fact_id(question) for question in split} for split in (train, dev, test)]
    assert not (facts[0] & facts[1] or facts[0] & facts[2] or facts[1] & facts[2])
    assert {row["q_id"] for row in smoke_corpus.rows("annotated")} <= {q.id for q in train}


def test_linked_article_is_one_name_across_languages(smoke_corpus):
    passages = [p for p in smoke_corpus.store if p.article_id.startswith("C:")][:40]
    for passage in passages:
        name = smoke_corpus.linked_article(dataclasses.asdict(passage))
        assert name == passage.article_id.split("/")[0]
    unknown = {"lang": "en", "title": "No such page", "article_id": "x/7"}
    assert smoke_corpus.linked_article(unknown) == "x/7"
    assert smoke_corpus.linked_article({"lang": "en", "title": ""}) == ""


def test_max_questions_is_per_language_and_seeded(tmp_path):
    settings = {"size": "smoke", "max_questions": 3}
    corpus, counts = made(tmp_path / "a", **settings)
    languages = [question.lang for question in corpus.questions("test")]
    assert counts["test questions"] == len(languages) == 3 * 26
    assert all(languages.count(lang) == 3 for lang in languages)
    same, _ = made(tmp_path / "b", **settings)
    other, _ = made(tmp_path / "c", **settings, seed=1)
    assert same.questions("test") == corpus.questions("test") != other.questions("test")


def squad(folder, lang, articles=20, questions=3):
    """A parallel SQuAD-style file: the same question ids in every language."""
    data = [
        {
            "title": f"{lang} title {a}",
            "paragraphs": [
                {
                    "context": f"{lang} paragraph {a}",
                    "qas": [
                        {
                            "id": f"q{a}-{q}",
                            "question": f"{lang} question {a} {q}?",
                            "answers": [{"text": f"paragraph {a}", "answer_start": 3}],
                        }
                        for q in range(questions)
                    ],
                }
            ],
        }
        for a in range(articles)
    ]
    write_json(folder / f"{lang}.json", {"data": data})
    return str(folder / f"{lang}.json"), lang


def test_squads_dev_shares_no_question_with_training_in_any_language(tmp_path):
    files = tuple(squad(tmp_path, lang) for lang in ("en", "ar", "th"))
    corpus, counts = made(tmp_path / "corpus", kind="squads", squads=files)
    assert set(counts["inputs"]) == {path for path, _ in files}
    train, dev, test = (corpus.questions(x) for x in ("train", "dev", "test"))
    assert len(dev) == (len(train) + len(dev)) // 3 // 10 * 3 > 0
    facts = [{fact_id(question) for question in split} for split in (train, dev, test)]
    assert not (facts[0] & facts[1] or facts[0] & facts[2] or facts[1] & facts[2])
    for side in facts:
        assert all(sum(fact_id(q) == x for q in [*train, *dev, *test]) == 3 for x in side)
    assert [row["q_id"] for row in corpus.rows("dev")] == [q.id for q in dev]
    assert [row["q_id"] for row in corpus.rows("annotated")] == [q.id for q in train]
    assert counts["passages"] == 60, "test passages are in the corpus, too"


def test_squads_of_real_files_keep_articles_apart(shared_data, tmp_path):
    files = tuple((str(shared_data / f"xquad/xquad.{x}.json.gz"), x) for x in ("en", "ru"))
    corpus, counts = made(tmp_path, kind="squads", squads=files)
    assert counts["passages"] == 480
    assert sum(counts[f"{x} questions"] for x in ("train", "dev", "test")) == 2380
    articles = {p.id: p.article_id for p in corpus.store}
    gold = {row["q_id"]: row["positive_ctxs"][0]["id"] for row in corpus.rows("annotated")}
    trained = {articles[passage] for passage in gold.values()}
    facts = {fact_id(question) for question in corpus.questions("test")}
    assert not facts & {fact_id(question) for question in corpus.questions("train")}
    assert 25 <= len(trained) <= 40 and len(set(articles.values())) == 48


PASSAGES = [
    {"id": f"p{i}", "lang": "ja" if i % 2 else "en", "title": f"T{i}", "text": f"text {i}"}
    for i in range(6)
]
QUESTION = {"id": "q1", "question": "who?", "lang": "en", "answers": ["Ann"]}
TRAINING = {"q_id": "q1", "question": "who?", "lang": "en", "answers": ["Ann"]}


def own_files(folder, **changes):
    """Settings of kind "files" with real files; a change is rows for a name, or None for none."""
    rows = {
        "passages": PASSAGES,
        "train": [QUESTION],
        "annotated": [TRAINING | {"positive_ctxs": PASSAGES[:1], "hard_negative_ctxs": []}],
    }
    settings = {"kind": "files"}
    for name, content in (rows | changes).items():
        if content is not None:
            write_jsonl(folder / f"{name}.jsonl", content)
            settings[name] = str(folder / f"{name}.jsonl")
    return settings


def test_own_files_need_neither_dev_nor_test_nor_links(tmp_path):
    corpus, counts = made(tmp_path / "c", **own_files(tmp_path))
    assert counts["passages"] == 6 and counts["train questions"] == 1
    assert (
        corpus.questions("dev") == corpus.questions("test") == [] and len(corpus.rows("dev")) == 0
    )
    assert corpus.links.translate("T1", "en", "ja") is None
    assert [row["q_id"] for row in corpus.rows("annotated")] == ["q1"]


def test_own_files_with_links_and_test(tmp_path):
    links = [{"id": "Q1", "titles": {"en": "T0", "ja": "T1"}}]
    settings = own_files(
        tmp_path, links=links, test=[QUESTION | {"id": "q9", "question": "whose?"}]
    )
    corpus, _ = made(tmp_path / "c", **settings)
    assert corpus.links.translate("T0", "en", "ja") == "T1"
    assert [question.id for question in corpus.questions("test")] == ["q9"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"passages": None}, "corpus.passages is empty: kind 'files' needs the path"),
        ({"annotated": None}, "corpus.annotated is empty"),
        ({"passages": []}, r"passages.jsonl: no passage in the file"),
        ({"train": []}, r"train.jsonl: no question in the file"),
        ({"train": [QUESTION | {"answers": []}]}, "line 1: field 'answers' is empty"),
        ({"train": [QUESTION | {"question": " "}]}, "train.jsonl, line 1: .*'question'"),
        ({"train": [QUESTION | {"lang": "xx"}]}, "train.jsonl, line 1: .*'xx'"),
        ({"passages": [{"id": "1", "title": "", "text": "t"}]}, "passages.jsonl, line 1: .*'lang'"),
        ({"annotated": [TRAINING | {"positive_ctxs": []}]}, "no annotated training row"),
        ({"links": [{"id": "Q1"}]}, "links.jsonl, line 1: needs the fields 'id' and 'titles'"),
    ],
)
def test_bad_own_files_are_named_with_line_and_field(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path / "c", **own_files(tmp_path, **changes))


def test_english_answers_of_other_questions_stay_marked(tmp_path):
    """XOR-Full's training set: an Arabic question whose only answer is English."""
    xor = QUESTION | {"lang": "ar", "has_eng_answer_only": True}
    corpus, _ = made(tmp_path / "c", **own_files(tmp_path, train=[xor]))
    (question,) = corpus.questions("train")
    assert (question.lang, question.answer_lang) == ("ar", "en")


def test_published_dpr_files_feed_the_corpus_from_the_command_line(tmp_path):
    """Values are text there: psgs_w100.tsv and DPR's NQ name no language anywhere."""
    (tmp_path / "p.tsv").write_text("id\ttext\ttitle\n1\tAnn sang\tSong\n")
    ctx = {"title": "Song", "text": "Ann sang", "passage_id": "1"}
    write_json(
        tmp_path / "nq.json", [{"question": "who?", "answers": ["Ann"], "positive_ctxs": [ctx]}]
    )
    settings = own_files(tmp_path, passages=None, annotated=None)
    settings["passages"] = f"('{tmp_path / 'p.tsv'}', 'en')"
    settings["annotated"] = settings["dev_annotated"] = f"(('{tmp_path / 'nq.json'}', 'en'),)"
    corpus, counts = made(tmp_path / "c", **settings)
    assert [passage.lang for passage in corpus.store] == ["en"]
    for name in ("annotated", "dev"):
        (row,) = corpus.rows(name)
        assert row["lang"] == row["positive_ctxs"][0]["lang"] == "en"
    assert counts["dev"] == 1


def test_wrong_sources_are_named_before_any_work():
    for name in ("passages", "train", "dev", "test", "annotated", "dev_annotated", "squads"):
        with pytest.raises(InputError, match=f"corpus.{name}, f: unknown language code 'xx'"):
            CorpusSettings(**{name: ("f", "xx")})


def test_unknown_kind_and_empty_squads_are_refused(tmp_path):
    with pytest.raises(InputError, match="corpus.kind 'tydi': choose one of world_facts"):
        CorpusSettings(kind="tydi")
    with pytest.raises(InputError, match=re.escape("(('FILE.json', 'en'), ...)")):
        made(tmp_path, kind="squads")
    with pytest.raises(InputError, match=r"corpus.squads: .*f.json does not name its language"):
        (tmp_path / "f.json").write_text("{}")
        made(tmp_path, kind="squads", squads=(str(tmp_path / "f.json"),))


def test_files_hold_one_json_object_a_line(smoke_corpus):
    for name in ("annotated", "dev", "questions.test"):
        path = smoke_corpus.folder / f"{name}.jsonl"
        rows = [row for _, row in read_jsonl(path)]
        assert rows == [json.loads(line) for line in path.read_text().split("\n") if line]


def test_ids_of_gold_passages_may_be_foreign_in_files_alone():
    assert CorpusSettings().passage_names is by_id
    assert CorpusSettings(kind="squads").passage_names is by_id
    assert CorpusSettings(kind="files").passage_names is by_id_or_text


def test_a_file_that_changed_since_is_refused_and_one_that_is_gone_is_not_missed(tmp_path):
    _, counts = made(tmp_path / "corpus", **own_files(tmp_path))
    names = ("passages", "train", "annotated")
    sizes = {str(path): path.stat().st_size for path in (tmp_path / f"{x}.jsonl" for x in names)}
    assert counts["inputs"] == sizes
    check_inputs(sizes, tmp_path / "corpus")
    file = tmp_path / "train.jsonl"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match=r"train.jsonl has .* bytes, and had .* when .*corpus was"):
        check_inputs(sizes, tmp_path / "corpus")
    file.unlink()
    check_inputs(sizes, tmp_path / "corpus")
