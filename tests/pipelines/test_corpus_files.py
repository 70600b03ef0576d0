"""What has to agree between prepared files: ids, evaluated questions, English answers."""

import dataclasses

import pytest
from etils import epath

from clmrc_jax.files import InputError, write_json, write_jsonl
from clmrc_jax.pipelines import corpora
from clmrc_jax.pipelines.corpora import Corpus, CorpusSettings, prepare
from clmrc_jax.pipelines.mining import MiningRules, merge

PASSAGES = [{"id": str(i), "lang": "en", "title": f"T{i}", "text": f"text {i}"} for i in range(3)]


def question(id, text, lang="en", **more):
    return {"id": id, "question": text, "lang": lang, "answers": ["a"]} | more


def dpr(text, passage=0, **more):
    return {"question": text, "answers": ["a"], "positive_ctxs": [PASSAGES[passage]]} | more


@pytest.fixture
def corpus_of(tmp_path):
    """corpus_of(train=rows, ...) -> the prepared corpus of files with these rows."""

    def make(**rows):
        given = {"passages": PASSAGES, "train": [question("nq-1", "who wrote x?")]} | rows
        settings = {"kind": "files"}
        for name, value in given.items():
            if not isinstance(value, list):
                settings[name] = value
                continue
            path = tmp_path / f"{name}.jsonl"
            write_jsonl(path, value)
            settings[name] = (str(path), "en") if name.endswith("annotated") else str(path)
        prepare(CorpusSettings(**settings), epath.Path(tmp_path / "corpus"))
        return Corpus.open(tmp_path / "corpus")

    return make


def ids(rows):
    return [row["q_id"] for row in rows]


def test_annotated_rows_get_the_id_of_their_training_question(corpus_of, caplog):
    """DPR's files have no ids; the same words with other case and punctuation are one question."""
    corpus = corpus_of(annotated=[dpr("Who wrote X"), dpr("something else", 1)])
    known, other = ids(corpus.rows("annotated"))
    assert known == "nq-1" and other.startswith("dpr-")
    assert "1 of 2 rows are of questions that corpus.train has not" in caplog.text
    mined = {"q_id": "nq-1", "positive_ctxs": [PASSAGES[2]], "hard_negative_ctxs": [PASSAGES[0]]}
    united, _ = merge(corpus.rows("annotated"), [mined], MiningRules())
    assert [ctx["id"] for ctx in united["positive_ctxs"]] == ["0", "2"]
    assert united["hard_negative_ctxs"] == []  # the annotated passage is no negative


def test_rows_without_ids_of_several_files_do_not_share_one(corpus_of, tmp_path):
    write_json(tmp_path / "a.json", [dpr("question a"), dpr("question a", 1)])
    write_json(tmp_path / "b.json", [dpr("question b")])
    files = tuple((str(tmp_path / name), "en") for name in ("a.json", "b.json"))
    first, again, other = ids(corpus_of(annotated=files).rows("annotated"))
    assert first == again != other


def test_one_id_for_two_questions_is_refused(corpus_of):
    with pytest.raises(InputError, match="annotated.jsonl: the id '1' is that of another question"):
        corpus_of(annotated=[dpr("question a", q_id="1"), dpr("question b", q_id="1")])


@pytest.mark.parametrize("split", ["dev", "test"])
def test_evaluated_questions_are_not_trained_on(corpus_of, caplog, split):
    rows = {
        "train": [question("1", "Who wrote x?"), question("2", "who sang y"), question("3", "z")],
        "annotated": [dpr("who sang Y?"), dpr("z")],
        split: [question("m1", "who sang y"), question("m2", "who wrote x", lang="fi")],
    }
    corpus = corpus_of(**rows)
    assert [q.id for q in corpus.questions("train")] == ["1", "3"]  # m2 is in another language
    assert ids(corpus.rows("annotated")) == ["3"]
    assert "corpus.train: left out 1 of 3 questions" in caplog.text
    assert "corpus.annotated: left out 1 of 2 questions" in caplog.text
    corpus = corpus_of(**rows, keep_evaluated=True)
    assert [q.id for q in corpus.questions("train")] == ["1", "2", "3"]
    assert len(corpus.rows("annotated")) == 2


def test_nothing_left_to_train_on_is_an_error(corpus_of):
    with pytest.raises(InputError, match="corpus.train has no question that is not in"):
        corpus_of(annotated=[dpr("z")], test=[question("m1", "who wrote x")])


def test_the_published_list_marks_the_questions_with_english_answers(corpus_of):
    train = [question("x1", "kuka?", "fi"), question("x2", "missä?", "fi")]
    listed = [question("x2", "missä?", "fi")]
    corpus = corpus_of(train=train, annotated=[dpr("z")], english_answers=listed)
    assert [(q.lang, q.answer_lang) for q in corpus.questions("train")] == [
        ("fi", "fi"),
        ("fi", "en"),
    ]
    with pytest.raises(InputError, match="none of its 1 ids is that of a question in corpus.train"):
        corpus_of(train=train, annotated=[dpr("z")], english_answers=[question("q9", "z")])


def test_the_published_list_of_xor_tydi(shared_data, corpus_of):
    listed = str(shared_data / "xor_tydi" / "xor_train_retrieve_eng_span.jsonl.gz")
    corpus = corpus_of(train=listed, annotated=[dpr("z")], english_answers=listed)
    found = corpus.questions("train")
    assert len(found) > 15_000 and {q.answer_lang for q in found} == {"en"}
    assert len({q.lang for q in found}) == 7


@pytest.mark.parametrize("key", ["dev_annotated", "test", "english_answers", "links"])
def test_files_that_are_not_there_are_named_before_anything_is_read(
    corpus_of, tmp_path, monkeypatch, key
):
    monkeypatch.setattr(corpora.passages, "write_passage_store", lambda *_: pytest.fail("written"))
    missing = str(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match=r"missing.jsonl: no such file"):
        corpus_of(annotated=[dpr("z")], **{key: missing})


def test_a_mistake_in_another_file_is_found_before_the_passages_are_stored(corpus_of, monkeypatch):
    monkeypatch.setattr(corpora.passages, "write_passage_store", lambda *_: pytest.fail("written"))
    with pytest.raises(InputError, match="links.jsonl, line 1: needs the fields"):
        corpus_of(annotated=[dpr("z")], links=[{"id": "Q1"}])


def test_every_setting_of_files_is_in_the_config(repository):
    text = (repository / "configs" / "cora.py").read_text()
    assert all(f'"{field.name}":' in text for field in dataclasses.fields(CorpusSettings))
