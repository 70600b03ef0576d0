"""Values of config.corpus: files and data sets, with the language of what names none."""

import json

import pytest

from clmrc_jax.data import sources
from clmrc_jax.data.datasets import prepare
from clmrc_jax.data.qa_examples import Question, read_mkqa, read_questions, write_questions
from clmrc_jax.data.sources import Source, parse
from clmrc_jax.files import InputError, write_json, write_jsonl

QUESTIONS = [Question("1", "who?", "en", ("Ann",)), Question("2", "kuka?", "fi", ("Ann",))]
TSV = 'id\ttext\ttitle\n1\t"a ""text"""\tOne\n2\tanother\tTwo\n'
# A row as DPR publishes Natural Questions: nothing in it names a language.
NQ = {
    "question": "who sang it",
    "answers": ["Ann"],
    "positive_ctxs": [{"title": "Song", "text": "Ann sang it", "passage_id": "7"}],
    "negative_ctxs": [],
    "hard_negative_ctxs": [{"title": "Bob", "text": "Bob did not", "passage_id": "8"}],
}


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", ()),
        ((), ()),
        ("p.tsv", (Source("p.tsv"),)),
        (("p.tsv", "en"), (Source("p.tsv", "en", "en"),)),
        ("('p.tsv', 'zh-CN')", (Source("p.tsv", "zh_cn", "zh_cn"),)),
        ((("a", "en"), ("b", "ja")), (Source("a", "en", "en"), Source("b", "ja", "ja"))),
        ("[('a', 'en'), 'b']", (Source("a", "en", "en"), Source("b"))),
        (("d.json", "ja", "en"), (Source("d.json", "ja", "en"),)),
        (("d.json", "", "en"), (Source("d.json", None, "en"),)),
    ],
)
def test_a_value_is_a_path_a_pair_or_several(value, expected):
    assert parse(value, "corpus.annotated", training=True) == expected


@pytest.mark.parametrize(
    "value, message",
    [
        ("('p.tsv', 'en'", r"corpus.train .* is no Python tuple .*--config.corpus.train="),
        ((("p.tsv", "en"), 3), "corpus.train: 3 is neither a path nor"),
        (("p.tsv", "en", "en"), r"corpus.train: .* is not \(path, language\); give --config"),
        (("", "en"), r"corpus.train: .* is not \(path, language\)"),
        (("a.tsv", "b.tsv"), "corpus.train, a.tsv: unknown language code 'b.tsv'"),
    ],
)
def test_another_form_is_named_with_the_key_and_the_right_form(value, message):
    with pytest.raises(InputError, match=message):
        parse(value, "corpus.train")


def test_published_dpr_files_are_read_once_their_language_is_named(tmp_path):
    tsv, dpr = tmp_path / "psgs_w100.tsv", tmp_path / "biencoder-nq-train.json"
    tsv.write_text(TSV)
    write_json(dpr, [NQ])
    passages = list(sources.read_passages((str(tsv), "en"), "corpus.passages"))
    assert [(p.id, p.lang, p.title) for p in passages] == [("1", "en", "One"), ("2", "en", "Two")]
    (row,) = sources.read_examples((str(dpr), "en"), "corpus.annotated")
    assert row.question.lang == row.positive_ctxs[0].lang == "en"
    (row,) = sources.read_examples((str(dpr), "ja", "en"), "corpus.annotated")
    assert (row.question.lang, row.hard_negative_ctxs[0].lang) == ("ja", "en")


def test_unnamed_language_names_the_key_that_tells_it(tmp_path):
    tsv, dpr, questions = (tmp_path / name for name in ("p.tsv", "nq.json", "q.jsonl"))
    tsv.write_text(TSV)
    write_json(dpr, [NQ])
    write_jsonl(questions, [{"id": "1", "question": "who?"}])
    with pytest.raises(InputError, match=r"p.tsv, line 2: passage.*corpus.passages=\"\('.*p.tsv'"):
        list(sources.read_passages(str(tsv), "corpus.passages"))
    with pytest.raises(InputError, match=r"item 1: question without.*--config.corpus.annotated="):
        list(sources.read_examples(str(dpr), "corpus.annotated"))
    with pytest.raises(InputError, match=r"positive_ctxs\[0\]: passage without .*third entry"):
        list(sources.read_examples((str(dpr), "en", ""), "corpus.annotated"))
    with pytest.raises(InputError, match=r"line 1: question .*--config.corpus.test="):
        list(sources.read_questions(str(questions), "corpus.test"))
    with pytest.raises(InputError, match=r"corpus.squads: .*nq.json does not name its language"):
        sources.read_squads((str(dpr),), "corpus.squads")


def test_files_of_several_languages_join_and_keep_a_repeated_question_once(tmp_path, caplog):
    write_questions(tmp_path / "a.jsonl", QUESTIONS)
    write_questions(tmp_path / "b.jsonl", QUESTIONS[1:])
    value = ((str(tmp_path / "a.jsonl"),), (str(tmp_path / "b.jsonl"),))
    assert list(sources.read_questions(value, "corpus.dev")) == QUESTIONS
    assert "corpus.dev: 1 questions stand there more than once" in caplog.text
    write_questions(tmp_path / "b.jsonl", [Question("2", "toinen?", "fi")])
    with pytest.raises(InputError, match=r"corpus.dev, .*b.jsonl: the id '2' is that of another"):
        list(sources.read_questions(value, "corpus.dev"))


def test_data_sets_are_opened_by_name_and_split_or_folder(tmp_path):
    write_questions(tmp_path / "q.jsonl", QUESTIONS)
    (tmp_path / "p.tsv").write_text(TSV)
    files = {"dev": [tmp_path / "q.jsonl"], "test": [tmp_path / "q.jsonl"]}
    folder = prepare("xor_tydi", files, tmp_path / "data")
    assert list(sources.read_questions(f"tfds:{folder}/dev", "corpus.dev")) == QUESTIONS
    finnish = (f"tfds:{folder}/test", "fi")
    assert list(sources.read_questions(finnish, "corpus.test")) == QUESTIONS[1:]
    with pytest.raises(InputError, match="split 'train' is not one of dev, test"):
        list(sources.read_questions(f"tfds:{folder}/train", "corpus.train"))
    folder = prepare("passages", {"train": [(tmp_path / "p.tsv", "en")]}, tmp_path / "data")
    assert [p.id for p in sources.read_passages(str(folder), "corpus.passages")] == ["1", "2"]


def test_training_needs_answers_from_data_sets_too(tmp_path):
    write_questions(tmp_path / "q.jsonl", [Question("7", "who?", "en")])
    folder = prepare("xor_tydi", {"train": [tmp_path / "q.jsonl"]}, tmp_path / "data")
    with pytest.raises(InputError, match="question '7' has no answers"):
        list(sources.read_questions(str(folder), "corpus.train", need_answers=True))


def squad_rows(tmp_path):
    paragraphs = [
        {
            "context": f"text {i}",
            "qas": [
                {"id": f"q{i}", "question": "?", "answers": [{"text": "t", "answer_start": 0}]}
            ],
        }
        for i in range(3)
    ]
    document = {"data": [{"title": "T", "paragraphs": paragraphs}]}
    (tmp_path / "drcd.json").write_text(json.dumps(document))
    return tmp_path / "drcd.json"


def test_sets_of_questions_on_a_paragraph_give_training_rows_and_squads(tmp_path):
    folder = prepare("drcd", {"train": [squad_rows(tmp_path)]}, tmp_path / "data")
    rows = list(sources.read_examples(f"tfds:{folder}/train", "corpus.annotated"))
    assert [row.positive_ctxs[0].text for row in rows] == ["text 0", "text 1", "text 2"]
    corpus = sources.read_squads((f"tfds:{folder}/train",), "corpus.squads")
    assert [q.lang for q in corpus.questions] == ["zh_tw"] * 3


@pytest.mark.parametrize(
    "value, message",
    [
        ("nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("squad", "squad: no such file; a data set's name needs tfds: before it"),
        ("tfds:squad", r"tfds:squad: a set's name and its split are needed, tfds:NAME"),
        ("tfds:no_such_set/train", "'no_such_set' is neither a file"),
    ],
)
def test_a_wrong_name_is_an_error_and_downloads_nothing(value, message):
    with pytest.raises(InputError, match=message):
        list(sources.read_questions(value, "corpus.test"))


def test_native_mkqa_and_xor_files_are_told_from_their_rows(shared_data):
    mkqa = str(shared_data / "format_samples" / "mkqa_test_mkqa.jsonl.gz")
    every = list(sources.read_questions(mkqa, "corpus.test"))
    assert every == list(read_mkqa(mkqa)) and len({q.lang for q in every}) > 20
    thai = list(sources.read_questions((mkqa, "th"), "corpus.test"))
    assert thai == list(read_mkqa(mkqa, ["th"])) and {q.lang for q in thai} == {"th"}
    xor = str(shared_data / "mia2022" / "mia_2022_dev_xorqa.jsonl.gz")
    assert list(sources.read_questions(xor, "corpus.test")) == list(read_questions(xor))
