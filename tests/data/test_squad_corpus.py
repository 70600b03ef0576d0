import gzip
import json
import logging
import zipfile

import pytest

from clmrc_jax.data.datasets import load_squads as read_squads
from clmrc_jax.data.qa_examples import Question
from clmrc_jax.data.squad_corpus import (
    fact_id,
    overlapping_questions,
    read_squad,
)
from clmrc_jax.files import InputError


def squad(*articles):
    """A SQuAD document of (title, [(context, [(id, question, answer)])]) articles."""
    return {
        "data": [
            {
                "title": title,
                "paragraphs": [
                    {
                        "context": context,
                        "qas": [
                            {"id": key, "question": question, "answers": [{"text": answer}]}
                            for key, question, answer in qas
                        ],
                    }
                    for context, qas in paragraphs
                ],
            }
            for title, paragraphs in articles
        ]
    }


def save(path, document):
    path.write_text(json.dumps(document, ensure_ascii=False))
    return path


def test_squad_file_gives_paragraphs_with_their_questions(tmp_path):
    document = squad(("A_title", [("Text.", [("1", "q?", "a")]), ("More.", [])]))
    first, second = read_squad(save(tmp_path / "f.json", document), "en")
    assert (first.title, first.text, first.article) == ("A title", "Text.", 0)
    assert first.questions == (Question("1", "q?", "en", ("a",)),)
    assert second.questions == ()


@pytest.mark.parametrize("suffix", [".json.gz", ".zip"])
def test_squad_file_may_be_compressed(tmp_path, suffix):
    text = json.dumps(squad(("T", [("Text.", [(7, "q?", "a")])])))
    path = tmp_path / f"f{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner/f.json", text)
    else:
        path.write_bytes(gzip.compress(text.encode()))
    (paragraph,) = read_squad(path, "en")
    assert paragraph.questions[0].id == "7"


def test_cmrc_own_form_and_flat_rows(tmp_path):
    cmrc = {"context_id": "D0", "context_text": "文。", "title": "题", "qas": []}
    cmrc["qas"].append({"query_id": "D0_0", "query_text": "谁？", "answers": ["甲", "甲", "乙"]})
    (paragraph,) = read_squad(save(tmp_path / "c.json", [cmrc]), "zh_cn")
    assert paragraph.questions == (Question("D0_0", "谁？", "zh_cn", ("甲", "乙")),)
    flat = {"id": "1", "context": "C", "question": "q", "answers": {"text": ["x"]}}
    (paragraph,) = read_squad(save(tmp_path / "f.json", [flat]), "de")
    assert paragraph.questions == (Question("1", "q", "de", ("x",)),)


def test_unanswerable_questions_are_left_out_and_counted(tmp_path, caplog):
    document = squad(("T", [("Text.", [("1", "q", "a"), ("2", "q", " "), ("3", "q", "b")])]))
    document["data"][0]["paragraphs"][0]["qas"][2]["is_impossible"] = True
    corpus = read_squads([(save(tmp_path / "f.json", document), "en")])
    assert [question.id for question in corpus.questions] == ["1_en"]
    assert "left out 2 questions without an answer" in caplog.text


@pytest.mark.parametrize(
    "document, message",
    [
        ({"rows": []}, "f.json: not a SQuAD-style file"),
        ({"data": []}, "f.json: no paragraph in the file"),
        ({"data": [5]}, "f.json: field 'data' must be a list of JSON objects"),
        ({"data": [{"title": "t"}]}, r"data\[0\]: field 'paragraphs' is missing"),
        ({"data": [{"title": 3, "paragraphs": [{}]}]}, r"data\[0\]: field 'title' is 3"),
        (
            {"data": [{"paragraphs": [{"qas": []}]}]},
            r"data\[0\].paragraphs\[0\]: field 'context' is missing",
        ),
        (
            {"data": [{"paragraphs": [{"context": "c"}]}]},
            r"paragraphs\[0\]: field 'qas' is missing",
        ),
        (
            {"data": [{"paragraphs": [{"context": "c", "qas": [{"id": 1, "question": "q"}]}]}]},
            r"paragraphs\[0\].qas\[0\]: field 'answers' is missing .*--unlabelled",
        ),
        (squad(("t", [("c", [("1", "", "a")])])), r"qas\[0\]: field 'question' is empty"),
        (squad(("t", [("c", [("1", "q", 5)])])), r"qas\[0\].answers\[0\]: no text"),
        ([{"context_text": "c", "qas": [{}]}], r"\[0\].qas\[0\]: field 'answers'"),
    ],
)
def test_bad_squad_file_names_the_json_path(tmp_path, document, message):
    with pytest.raises(InputError, match=message):
        list(read_squad(save(tmp_path / "f.json", document), "en"))


def test_missing_file_wrong_language_and_empty_zip_are_named(tmp_path):
    save(tmp_path / "f.json", squad())
    with pytest.raises(InputError, match="f.json: unknown language code 'xx'"):
        list(read_squad(tmp_path / "f.json", "xx"))
    for name in ("none.json", "none.zip"):
        with pytest.raises(InputError, match=f"{name}: no such file"):
            list(read_squad(tmp_path / name, "en"))
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(InputError, match="e.zip: no .json file in the archive"):
        list(read_squad(tmp_path / "e.zip", "en"))
    with pytest.raises(InputError, match="no SQuAD-style file was given"):
        read_squads([])


def parallel_corpus(tmp_path, count=12):
    """`count` articles in English and Finnish with common question ids."""
    files = []
    for lang in ("en", "fi"):
        articles = [
            (f"{lang} title {i}", [(f"{lang} text {i}", [(f"q{i}", "q", "a")])])
            for i in range(count)
        ]
        files.append((save(tmp_path / f"{lang}.json", squad(*articles)), lang))
    return read_squads(files)


def test_parallel_questions_get_ids_by_language_and_a_common_group(tmp_path):
    corpus = parallel_corpus(tmp_path)
    assert [corpus.questions[i].id for i in (0, 12)] == ["q0_en", "q0_fi"]
    assert fact_id(corpus.questions[12]) == "q0"
    assert corpus.passages[0].article_id == corpus.passages[12].article_id == "en:en title 0"
    english, finnish = corpus.gold["q0_en"], corpus.gold["q0_fi"]
    assert corpus.parallel_gold()["q0_fi"] == (finnish, english)
    (example, *_) = corpus.examples()
    assert example.positive_ctxs == (corpus.passages[0],)


@pytest.mark.parametrize("by", ["hash", "first"])
def test_split_keeps_parallel_articles_together(tmp_path, by):
    corpus = parallel_corpus(tmp_path)
    train, test = corpus.split(2 / 3, by)
    assert len(train.passages) + len(test.passages) == 24
    assert len(train.questions) + len(test.questions) == 24
    assert overlapping_questions(train, test) == 0
    assert set(train.gold.values()) <= {passage.id for passage in train.passages}
    if by == "first":
        assert [p.title for p in test.passages[:4]] == [f"en title {i}" for i in range(8, 12)]


def test_split_by_hash_does_not_depend_on_the_other_files(tmp_path):
    corpus = parallel_corpus(tmp_path)
    english = read_squads([(tmp_path / "en.json", "en")])
    kept = {p.id for p in corpus.split(0.5)[0].passages if p.lang == "en"}
    assert kept == {p.id for p in english.split(0.5)[0].passages}


@pytest.mark.parametrize("share, by", [(0.0, "hash"), (1.0, "first"), (0.5, "random")])
def test_split_that_cannot_be_is_refused(tmp_path, share, by):
    with pytest.raises(InputError, match="share|split by"):
        parallel_corpus(tmp_path).split(share, by)


def test_same_language_overlap_is_kept_once_and_counted(tmp_path, caplog):
    old = squad(("T", [("Text.", [("1", "q", "a"), ("2", "q", "a")])]), ("U", [("Other.", [])]))
    new = squad(("T again", [("Text.", [("2", "q", "a"), ("3", "q", "a")])]))
    corpus = read_squads(
        [(save(tmp_path / "old.json", old), "en"), (save(tmp_path / "new.json", new), "en")]
    )
    assert [question.id for question in corpus.questions] == ["1_en", "2_en", "3_en"]
    assert [passage.text for passage in corpus.passages] == ["Text.", "Other."]
    assert "new.json: 1 questions were read before" in caplog.text


def test_real_xquad_lies_in_squad_dev(shared_data, caplog):
    caplog.set_level(logging.INFO)
    squad_files = [shared_data / "squad" / f"squad_dev-v1.1_part{i}.json.gz" for i in (1, 2)]
    xquad_files = [(shared_data / "xquad" / f"xquad.{x}.json.gz", x) for x in ("en", "ja", "th")]
    squad_dev = read_squads([(path, "en") for path in squad_files])
    xquad = read_squads([pair for pair in xquad_files if pair[1] != "ja"])
    assert (len(squad_dev.passages), len(squad_dev.questions)) == (2067, 10_570)
    assert (len(xquad.passages), len(xquad.questions)) == (480, 2380)
    assert "1190 questions exist in several languages" in caplog.text
    assert overlapping_questions(squad_dev, xquad) == 2380
    both = read_squads([(path, "en") for path in squad_files] + [xquad_files[2]])
    train, test = both.split(2 / 3)
    assert overlapping_questions(train, test) == 0
    assert {passage.lang for passage in test.passages} == {"en", "th"}


@pytest.mark.parametrize(
    "name, lang, passages, questions",
    [
        ("jaquad/dev/jaquad_dev_0000.json.gz", "ja", 407, 1029),
        ("drcd/DRCD_dev.json.gz", "zh_tw", 1000, 3524),
        ("cmrc2018/cmrc2018_dev.json.gz", "zh_cn", 848, 3219),
        ("cmrc2018/cmrc2018_train_expmrc-pseudo.json.zip", "zh_cn", 2403, 10_142),
        ("korquad/KorQuAD_v1.0_dev.json.gz", "ko", 961, 5774),  # 964 with 3 repeated texts
        ("idk_mrc/valid.json.gz", "id", 358, 382),
    ],
)
def test_real_sets_have_the_published_counts(shared_data, name, lang, passages, questions):
    corpus = read_squads([(shared_data / name, lang)])
    assert (len(corpus.passages), len(corpus.questions)) == (passages, questions)
