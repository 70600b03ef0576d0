"""Real and hand-made sets through tensorflow-datasets, in a Python without TensorFlow."""

import gzip
import importlib.util
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
import tensorflow_datasets.question_answering  # noqa: F401  (registers the standard sets)

from clmrc_jax.data.datasets import data_source, load, load_squads, prepare
from clmrc_jax.data.mrc_examples import Answer, MrcExample, write_squad
from clmrc_jax.data.passages import (
    Passage,
    PassageStore,
    read_passages,
    write_passage_store,
    write_passages_tsv,
)
from clmrc_jax.data.qa_examples import Question, read_mkqa, read_questions, write_questions
from clmrc_jax.files import InputError, write_json, write_jsonl

QUESTIONS = [
    Question("1", "どこ？", "ja", ("東京", "江戸"), "en", "xor-tydi"),
    Question("2", "Missä?", "fi", ()),
    Question("3", "だれ？", "ja", ("私",)),
]


@pytest.fixture
def question_file(tmp_path):
    write_questions(tmp_path / "q.jsonl", QUESTIONS)
    return tmp_path / "q.jsonl"


def test_tensorflow_is_not_imported_to_prepare_and_read(question_file, tmp_path):
    script = """
import sys
from clmrc_jax.data.datasets import load, prepare
folder = prepare("xor_tydi", {"dev": [sys.argv[1]]}, sys.argv[2])
print(len(list(load(folder, "questions"))), "tensorflow" in sys.modules, "jax" in sys.modules)
"""
    command = [sys.executable, "-c", script, str(question_file), str(tmp_path / "data")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "3 False False", result.stderr
    if importlib.util.find_spec("tensorflow") is None:
        assert "tensorflow" not in sys.modules


def test_questions_come_back_as_written_from_file_and_set(question_file, tmp_path):
    folder = prepare("xor_tydi", {"dev": [question_file]}, tmp_path / "data")
    assert list(load(folder, "questions")) == QUESTIONS
    assert list(load(question_file, "questions")) == QUESTIONS
    assert list(load(folder, "questions", lang="ja")) == [QUESTIONS[0], QUESTIONS[2]]
    source = data_source(folder)
    assert len(source) == 3 and source[2]["id"] == b"3"
    assert all(".tfrecord" not in path.name for path in folder.iterdir())


def test_changed_file_is_prepared_anew_and_an_unchanged_one_is_not(question_file, tmp_path):
    first = prepare("xor_tydi", {"dev": [question_file]}, tmp_path / "data")
    assert prepare("xor_tydi", {"dev": [question_file]}, tmp_path / "data") == first
    write_questions(question_file, QUESTIONS[:1])
    second = prepare("xor_tydi", {"dev": [question_file]}, tmp_path / "data")
    assert second != first
    assert list(load(second, "questions")) == QUESTIONS[:1]


def test_real_xor_and_mkqa_sets_equal_their_files(shared_data, tmp_path):
    xor = shared_data / "mia2022" / "mia_2022_dev_xorqa.jsonl.gz"
    tamil = shared_data / "mia2022" / "mia2022_test_surprise_tamil_without_answers.jsonl.gz"
    folder = prepare("xor_tydi", {"dev": [xor], "test": [tamil]}, tmp_path)
    assert list(load(folder, "questions", split="dev")) == list(read_questions(xor))
    assert len(data_source(folder, "test")) == 350
    mkqa = shared_data / "format_samples" / "mkqa_test_mkqa.jsonl.gz"
    folder = prepare("mkqa", {"dev": [mkqa]}, tmp_path, langs=("ja", "zh_hk"))
    assert list(load(folder, "questions")) == list(read_mkqa(mkqa, ["ja", "zh_hk"]))


def test_passage_set_keeps_order_and_feeds_the_store(tmp_path):
    passages = [Passage(str(i), "ja", f"ja:t{i // 4}", f"t{i // 4}", f"行 {i}") for i in range(40)]
    write_passages_tsv(tmp_path / "p.tsv", passages, language_column=False)
    folder = prepare("passages", {"train": [(tmp_path / "p.tsv", "ja")]}, tmp_path / "data")
    assert (
        list(load(folder, "passages")) == passages == list(read_passages(tmp_path / "p.tsv", "ja"))
    )
    write_passage_store(tmp_path / "store", load(folder, "passages"))
    assert PassageStore(tmp_path / "store").article_rows("ja", "t3") == range(12, 16)


def test_standard_xquad_is_prepared_from_its_real_file(shared_data, tmp_path):
    (tmp_path / "files").mkdir()
    raw = shared_data / "xquad" / "xquad.en.json.gz"
    (tmp_path / "files" / "xquad.en.json").write_bytes(gzip.decompress(raw.read_bytes()))
    options = {"data_dir": tmp_path / "data", "downloads": tmp_path / "files"}
    corpus = load_squads([("xquad/en", None)], **options)
    expected = load_squads([(raw, "en")])
    assert {q.id: q for q in corpus.questions} == {q.id: q for q in expected.questions}
    assert set(corpus.passages) == set(expected.passages) and corpus.gold == expected.gold
    assert len(data_source("xquad/en", **options)) == 1190
    paragraphs = load("xquad/en", "questions", lang="en", **options)
    assert next(iter(paragraphs)).id in {question.id[:-3] for question in expected.questions}


def prepared_like(name, rows, data_dir):
    """A folder as tensorflow-datasets prepares the standard set `name`, of hand-made rows."""
    standard = tfds.builder(name, data_dir=data_dir, file_format="array_record")

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=standard.info.features)

    members = {
        "name": standard.name,
        "VERSION": standard.version,
        "_info": info,
        "_split_generators": lambda self, _: {"train": iter(enumerate(rows))},
        "_generate_examples": None,
    }
    kind = type("Copy", (tfds.core.GeneratorBasedBuilder,), members, skip_registration=True)
    config = standard.builder_config and tfds.core.BuilderConfig(name=standard.builder_config.name)
    builder = kind(config=config, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def squad_like(key, context="C"):
    answers = {"text": ["a", "a"], "answer_start": [0, 0]}
    return {"id": key, "title": "A_T", "context": context, "question": "q", "answers": answers}


def test_tydi_rows_take_their_language_from_the_id(tmp_path, caplog):
    keys = ["arabic-1-1", "klingon-2-1", "telugu-3-1"]
    folder = prepared_like("tydi_qa", map(squad_like, keys), tmp_path)
    paragraphs = {p.questions[0].id: p for p in load(folder, "paragraphs")}
    assert {key: p.lang for key, p in paragraphs.items()} == {
        "arabic-1-1": "ar",
        "telugu-3-1": "te",
    }
    assert paragraphs["arabic-1-1"].title == "A T"
    assert paragraphs["arabic-1-1"].questions[0].answers == ("a",)
    assert "left out 1 rows" in caplog.text
    assert [q.lang for q in load(folder, "questions", lang="te")] == ["te"]


def test_squad_rows_of_one_context_become_one_passage(tmp_path):
    folder = prepared_like("squad", [squad_like(str(i)) for i in range(3)], tmp_path)
    corpus = load_squads([(folder, None)])
    assert (len(corpus.passages), len(corpus.questions)) == (1, 3)


def natural_question(key, span, shorts, label):
    tokens = ["<P>", "Paris", "is", "big", "</P>", "tail"]
    long_answer = {
        "start_byte": 0,
        "end_byte": 0,
        "start_token": span[0],
        "end_token": span[1],
    }
    blank = {name: 0 for name in ("start_byte", "end_byte", "start_token", "end_token")}
    short_answers = [{**blank, "text": text} for text in shorts]
    note = {
        "id": "1",
        "long_answer": long_answer,
        "short_answers": short_answers,
        "yes_no_answer": label,
    }
    return {
        "id": key,
        "question": {"text": "is paris big", "tokens": []},
        "document": {
            "html": "",
            "title": "Paris",
            "url": "",
            "tokens": [{"token": t, "is_html": t.startswith("<")} for t in tokens],
        },
        "annotations": [note],
    }


def test_reading_examples_come_from_files_and_sets_alike(tmp_path):
    examples = [MrcExample("1", "zh_tw", "題", "誰？", "甲乙", (Answer("乙", 1),), article="題")]
    write_squad(tmp_path / "d.json", examples)
    folder = prepare("drcd", {"dev": [tmp_path / "d.json"]}, tmp_path / "data")
    assert list(load(tmp_path / "d.json", "examples", lang="zh_tw")) == examples
    assert list(load(f"tfds:{folder}/dev", "examples", lang="zh_tw")) == examples
    with pytest.raises(InputError, match="no examples in it in language 'ja'"):
        list(load(folder, "examples", lang="ja"))


def test_natural_questions_rows_give_long_answer_and_short_answers(tmp_path, monkeypatch):
    # Writing nested sequences asks for a TensorFlow dtype; a machine that prepares this set has it.
    monkeypatch.setattr(tfds.features.TensorInfo, "dtype", property(lambda self: self.np_dtype))
    rows = [
        natural_question("1", (0, 5), ["Paris", "big"], -1),
        natural_question("2", (0, 5), [], 1),
        natural_question("3", (-1, -1), [], -1),
    ]
    folder = prepared_like("natural_questions", rows, tmp_path)
    paragraphs = {p.questions[0].id: p for p in load(folder, "paragraphs")}
    assert {key: p.questions[0].answers for key, p in paragraphs.items()} == {
        "1": ("Paris", "big"),
        "2": ("yes",),
    }
    assert paragraphs["1"].text == "Paris is big"
    assert sorted(question.id for question in load(folder, "questions")) == ["1", "2"]


def test_open_natural_questions_rows_get_stable_ids(tmp_path):
    rows = [{"question": "who", "answer": ["me", "I"]}]
    folder = prepared_like("natural_questions_open", rows, tmp_path)
    (question,) = load(folder, "questions")
    assert question == Question("nq-b7adf77905f54024", "who", "en", ("me", "I"), "en", "nq")


def test_bad_file_leaves_no_prepared_set(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"id": "1", "question": "", "lang": "ja"}])
    with pytest.raises(InputError, match="q.jsonl, line 1: field 'question' is empty"):
        prepare("xor_tydi", {"dev": [tmp_path / "q.jsonl"]}, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "no file to prepare"),
        ({"dev": []}, "no file to prepare"),
        ({"dev": ["nowhere.jsonl"]}, "nowhere.jsonl: no such file"),
    ],
)
def test_prepare_without_files_is_refused(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        prepare("xor_tydi", files, tmp_path)
    with pytest.raises(InputError, match="no builder 'squad'; ours are"):
        prepare("squad", files, tmp_path)


@pytest.mark.parametrize(
    "source, kind, message",
    [
        ("no_such_set", "questions", "'no_such_set' is neither a file"),
        ("nowhere.jsonl", "questions", "nowhere.jsonl: no such file"),
        ("nowhere.json", "paragraphs", "does not name its language"),
        ("squad", "answers", "kind 'answers': it must be one of questions, passages, paragraphs"),
    ],
)
def test_unknown_source_or_kind_is_named(tmp_path, source, kind, message):
    with pytest.raises(InputError, match=message):
        list(load(source, kind, data_dir=tmp_path))


def test_wrong_kind_split_or_language_of_a_set_is_named(question_file, tmp_path):
    files = {"dev": [question_file], "test": [question_file]}
    folder = prepare("xor_tydi", files, tmp_path / "data")
    with pytest.raises(InputError, match="holds no passages"):
        list(load(folder, "passages", split="dev"))
    with pytest.raises(InputError, match="split None is not one of dev, test"):
        list(load(folder, "questions"))
    with pytest.raises(InputError, match="no questions in it in language 'ko'"):
        list(load(folder, "questions", split="dev", lang="ko"))


def test_standard_set_that_cannot_be_prepared_says_what_to_do(tmp_path):
    write_json(tmp_path / "xquad.en.json", {})  # not the published file: the checksum differs
    with pytest.raises(
        InputError, match="(?s)xquad/en/.* cannot be prepared .*pass that as downloads="
    ):
        list(load("xquad/en", "paragraphs", data_dir=tmp_path / "data", downloads=tmp_path))
