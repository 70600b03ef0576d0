import collections
import json
import zipfile

import pytest

from clmrc_jax.data import qa_examples
from clmrc_jax.data.passages import Passage
from clmrc_jax.data.qa_examples import (
    Question,
    RetrieverExample,
    dpr_row,
    read_dpr,
    read_mkqa,
    read_questions,
    with_english_answers,
    write_questions,
)
from clmrc_jax.files import InputError, write_json, write_jsonl

ROW = {"id": "1", "question": "どこ？", "lang": "ja", "answers": ["東京"]}
CTX = {"id": "p", "lang": "en", "title": "Tokyo", "text": "A city."}


def read_rows(tmp_path, *rows, name="q.jsonl", **options):
    write_jsonl(tmp_path / name, rows)
    return list(read_questions(tmp_path / name, **options))


def test_questions_round_trip(tmp_path):
    questions = [
        Question("a", "q?", "ja", ("x", "y"), "en", "xor-tydi"),
        Question("b", "q\u2028?", "zh_cn"),
    ]
    assert write_questions(tmp_path / "q.jsonl", questions) == 2
    assert list(read_questions(tmp_path / "q.jsonl")) == questions
    rows = [json.loads(line) for line in open(tmp_path / "q.jsonl", newline="\n")]
    assert rows[1] == {"id": "b", "question": "q\u2028?", "lang": "zh_cn", "answers": []}


def test_mia_rows_with_english_answers_say_so(tmp_path):
    mia = {**ROW, "has_eng_answer_only": True, "source": "xor-tydi", "split": "train"}
    assert read_rows(tmp_path, mia) == [Question("1", "どこ？", "ja", ("東京",), "en", "xor-tydi")]


def test_cora_mkqa_integer_ids_get_their_language(tmp_path):
    row = {"id": -3, "question": "dov'è?", "answers": ["Roma"], "type": "entity"}
    (question,) = read_rows(tmp_path, row, name="input_it.jsonl")
    assert (question.id, question.lang) == ("-3_it", "it")
    (question,) = read_rows(tmp_path, {**row, "id": "-3_it"}, name="input_it.jsonl")
    assert question.id == "-3_it"


def test_english_answer_list_marks_its_ids():
    marked = with_english_answers([Question("1", "q", "ar"), Question("2", "q", "ar")], {"2"})
    assert [question.answer_lang for question in marked] == ["ar", "en"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"question": "  "}, "field 'question' is empty"),
        ({"question": 7}, "field 'question' is 7"),
        ({"answers": "Tokyo"}, "field 'answers' is 'Tokyo'"),
        ({"answers": [None]}, "field 'answers', entry 0 is None"),
        ({"lang": "jp"}, "unknown language code 'jp'"),
        ({"lang": None}, "question without language"),
        ({"id": None}, "field 'id' is None"),
        ({}, "field 'id' '1' is already used in line 1"),
    ],
)
def test_bad_question_names_file_line_and_field(tmp_path, change, message):
    with pytest.raises(InputError, match=f"q.jsonl, line 2: {message}"):
        read_rows(tmp_path, ROW, {**ROW, **change})


def test_question_without_answers_is_an_error_only_where_needed(tmp_path):
    row = {"id": "1", "question": "q", "lang": "en"}
    assert read_rows(tmp_path, row)[0].answers == ()
    with pytest.raises(InputError, match="line 1: field 'answers' is empty"):
        read_rows(tmp_path, row, need_answers=True)


def test_empty_question_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="q.jsonl: no question"):
        read_rows(tmp_path)


def test_xor_dev_has_the_published_counts(shared_data):
    questions = list(
        read_questions(shared_data / "mia2022" / "mia_2022_dev_xorqa.jsonl.gz", need_answers=True)
    )
    counts = collections.Counter(question.lang for question in questions)
    assert counts == dict(ar=1387, ru=1018, fi=974, ja=693, te=564, bn=490, ko=473)
    assert sum(bool({"yes", "no"} & set(question.answers)) for question in questions) == 633


def test_xor_training_list_has_15250_ids(shared_data):
    path = shared_data / "xor_tydi" / "xor_train_retrieve_eng_span.jsonl.gz"
    assert len(list(read_questions(path))) == 15_250


def test_mkqa_dev_of_mia_is_parallel(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "mia2022" / "mkqa_dev.zip") as archive:
        archive.extractall(tmp_path)
    facts = []
    for lang in ("ja", "zh_cn"):
        questions = read_questions(tmp_path / "mkqa_dev" / f"mkqa-{lang}.jsonl", need_answers=True)
        facts.append({question.id.removesuffix(f"_{lang}") for question in questions})
    assert facts[0] == facts[1] and len(facts[0]) == 1758


def test_mkqa_native_records_convert_as_in_cora(shared_data):
    path = shared_data / "format_samples" / "mkqa_test_mkqa.jsonl.gz"
    questions = list(read_mkqa(path))
    assert len(questions) == 3 * 26  # six records, three with a short answer
    assert questions[0].id == "36228854473990432_en"
    assert questions[0].question == "when did help me help you come out"
    assert questions[0].answers[:4] == ("2017", "2017", "2017-05-18", "2017-05-18")
    kept = list(read_mkqa(path, ["en", "zh-CN"], keep_unanswerable=True))
    assert len(kept) == 12 and {question.lang for question in kept} == {"en", "zh_cn"}
    assert sum(question.answers == ("NoAns",) for question in kept) == 6


def mkqa_record(**changes):
    answers = {"en": [{"type": "entity", "text": "Rome", "aliases": ["Roma"]}]}
    record = {"example_id": 5, "query": "where", "queries": {"it": "dove"}, "answers": answers}
    return record | changes


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"example_id": None}, "field 'example_id'"),
        ({"queries": []}, "fields 'queries' and 'answers' must be objects"),
        ({"answers": {"en": [{"type": "entity"}]}}, "'en': answer 0 has no field 'text'"),
        ({"answers": {"en": "Rome"}}, "'en': field 'en' must be a list"),
        ({"answers": {"it": []}}, "'en': field 'answers' has no such language"),
        ({"query": ""}, "'en': field 'en' is empty"),
    ],
)
def test_mkqa_bad_record_is_named(tmp_path, changes, message):
    write_jsonl(tmp_path / "m.jsonl", [mkqa_record(), mkqa_record(**changes)])
    with pytest.raises(InputError, match=f"m.jsonl, line 2.*{message}"):
        list(read_mkqa(tmp_path / "m.jsonl", ["en"]))


def test_dpr_rows_round_trip(tmp_path):
    passage = Passage("p", "en", "en:Tokyo", "Tokyo", "A city.")
    question = Question("7", "どこ？", "ja", ("東京",), "en")
    examples = [RetrieverExample(question, (passage, passage), (passage,))]
    write_jsonl(tmp_path / "t.jsonl", map(dpr_row, examples))
    assert list(read_dpr(tmp_path / "t.jsonl")) == examples


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_dpr_json_array_streams_in_chunks_of_any_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(qa_examples, "_CHUNK", chunk)
    rows = [
        {"question": f"what ], [{i}?", "answers": ["a"], "positive_ctxs": [CTX], "q_id": str(i)}
        for i in range(20)
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=2))
    examples = list(read_dpr(tmp_path / "t.json", "en"))
    assert [example.question.question for example in examples] == [row["question"] for row in rows]


def test_published_dpr_rows_without_ids_and_languages(tmp_path):
    ctx = {"title": "T", "text": "t", "score": 1.0}
    row = {"question": "who", "answers": ["me"], "positive_ctxs": [ctx], "negative_ctxs": [ctx]}
    other = {**row, "hard_negative_ctxs": [ctx, {**ctx, "passage_id": "9"}], "lang": "NONE"}
    write_json(tmp_path / "t.json", [row, other])
    first, second = read_dpr(tmp_path / "t.json", lang="en", passage_lang="en")
    assert first.question.id == second.question.id == "dpr-75077de59dbc4c5f"  # the same question
    assert first.positive_ctxs[0].article_id == "en:T"
    assert first.positive_ctxs[0].id == second.hard_negative_ctxs[0].id
    assert second.hard_negative_ctxs[1].id == "9"
    assert second.question.lang == "en"


def test_mined_rows_lose_their_language_tags(tmp_path):
    row = {"question": "どこ？ [ja] [ja]", "answers": [], "positive_ctxs": [CTX]}
    kept = {**row, "question": "what does [sic] mean [xx]", "lang": "en"}
    write_jsonl(tmp_path / "t.jsonl", [row, kept])
    first, second = read_dpr(tmp_path / "t.jsonl")
    assert (first.question.question, first.question.lang) == ("どこ？", "ja")
    assert second.question.question == "what does [sic] mean [xx]"


def test_dpr_rows_without_positive_are_left_out_and_counted(tmp_path, caplog):
    row = {"question": "who", "lang": "en", "positive_ctxs": []}
    write_jsonl(tmp_path / "t.jsonl", [row, {**row, "positive_ctxs": [CTX]}, row])
    (example,) = read_dpr(tmp_path / "t.jsonl")
    assert example.question.question == "who"
    assert "left out 2 of 3 rows" in caplog.text


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "no training row"),
        ("", "no training row"),
        ('[{"question": "a", "lang": "en"}, 5]', "item 2: expected a JSON object"),
        ('[{"question": "a"} {"question": "b"}]', "item 1: not valid JSON"),
        ('[{"question": "a", "lang": "en"}, {"ques', "item 2: not valid JSON, or cut off"),
        ('[{"lang": "en"}]', "item 1: field 'question' is missing"),
        ('[{"question": "a"}]', "item 1: question without language"),
        (
            '[{"question": "a", "lang": "en", "positive_ctxs": [{"title": "t", "text": "x"}]}]',
            r"item 1, positive_ctxs\[0\]: passage without language",
        ),
        ('{"question": "a", "lang": "en", "positive_ctxs": 3}', "line 1: field 'positive_ctxs'"),
    ],
)
def test_dpr_bad_file_names_row_and_field(tmp_path, content, message):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match=f"t.json.*{message}"):
        list(read_dpr(tmp_path / "t.json"))
