"""Readers of reading-comprehension files, on hand-made files and on the published sets."""

import collections
import json

import pytest

from clmrc_jax.data.mrc_examples import (
    Answer,
    MrcExample,
    SourceSide,
    pair_parallel,
    read_mrc,
    write_aligned,
    write_squad,
)
from clmrc_jax.files import InputError

CONTEXT = "歐洲在北方。歐洲很大，歐洲。"


def document(*answers, context=CONTEXT, **fields):
    row = {"id": "1", "question": "誰？", "answers": list(answers)} | fields
    return {"data": [{"title": "A_b", "paragraphs": [{"context": context, "qas": [row]}]}]}


def read(tmp_path, content, **options):
    (tmp_path / "f.json").write_text(json.dumps(content))
    return read_mrc(tmp_path / "f.json", "zh_tw", **options)


@pytest.mark.parametrize(
    "start, found, counted",
    [(0, 0, ""), (6, 6, ""), (5, 6, "relocated"), (8, 6, "relocated"), (9, 11, "relocated")]
    + [(99, 11, "relocated"), (-1, 0, "relocated"), (None, 0, "")],
)
def test_answer_stands_at_its_offset_or_at_the_nearest_occurrence(tmp_path, start, found, counted):
    counts = collections.Counter()
    content = document({"text": "歐洲", "answer_start": start})
    (example,) = read(tmp_path, content, counts=counts)
    assert example.answers == (Answer("歐洲", found),)
    assert +counts == ({counted: 1} if counted else {})
    assert CONTEXT[found : found + 2] == "歐洲"


def test_of_two_equally_near_occurrences_the_earlier_is_taken(tmp_path):
    (example,) = read(tmp_path, document({"text": "歐", "answer_start": 3}, context="歐xxxxx歐"))
    assert example.gold().start == 0


def test_official_rule_takes_the_first_occurrence_whatever_the_offset(tmp_path):
    content = document({"text": "歐洲", "answer_start": 6})
    (example,) = read(tmp_path, content, locate="first")
    assert example.gold() == Answer("歐洲", 0)


def test_answer_that_does_not_occur_is_kept_without_position_and_counted(tmp_path, caplog):
    content = document({"text": "亞洲", "answer_start": 0}, {"text": "北方", "answer_start": 3})
    (example,) = read(tmp_path, content)
    assert example.answers == (Answer("亞洲", -1), Answer("北方", 3))
    assert example.gold() == Answer("北方", 3)
    assert "f.json: 1 answers do not occur in their passage" in caplog.text


def test_unanswerable_blank_and_unlabelled_questions(tmp_path):
    counts = collections.Counter()
    (example,) = read(tmp_path, document(is_impossible=True), counts=counts)
    assert example.impossible and example.answers == () and not +counts
    (example,) = read(tmp_path, document({"text": " "}), counts=counts)
    assert not example.impossible and example.gold() is None and counts["blank"] == 1
    (example,) = read(tmp_path, document({"text": "歐洲"}), labelled=False)
    assert not example.impossible and example.answers == ()


def test_bad_input_is_named(tmp_path):
    twice = document({"text": "歐洲"})
    twice["data"] *= 2
    with pytest.raises(InputError, match=r"data\[1\].*id '1' came before, at .*data\[0\]"):
        read(tmp_path, twice)
    with pytest.raises(InputError, match="field 'context' is empty"):
        read(tmp_path, document(context=""))
    with pytest.raises(InputError, match="field 'question' is empty"):
        read(tmp_path, document(question=" "))
    with pytest.raises(InputError, match="locate 'last': choose one of offset, first"):
        read(tmp_path, document(), locate="last")
    with pytest.raises(InputError, match="no question in the file"):
        read(tmp_path, {"data": [{"paragraphs": [{"context": "c", "qas": []}]}]})
    with pytest.raises(InputError, match="unknown language code 'xx'"):
        read_mrc(tmp_path / "f.json", "xx")


def aligned(start=10, text="Europe", context="There is Europe, and Europe.", **fields):
    answer = {"text": "歐洲", "answer_start": 6, "trans_text": "Europa"}
    answer |= {"trans_aligned_text": text, "trans_aligned_start": start}
    content = document(answer, trans_question="Who?", **fields)
    content["data"][0]["paragraphs"][0]["trans_context"] = context
    return content


def test_aligned_file_gives_the_source_side(tmp_path):
    (example,) = read(tmp_path, aligned(start=21))
    assert example.gold() == Answer("歐洲", 6)
    assert example.source == SourceSide(
        "en", "Who?", "There is Europe, and Europe.", Answer("Europe", 21), "Europa"
    )
    (example,) = read(tmp_path, aligned(start=21), locate="first")
    assert (example.gold().start, example.source.answer.start) == (0, 9)
    (example,) = read(tmp_path, aligned(start=21), labelled=False)
    assert example.source.answer is None and example.source.translated_answer == ""


@pytest.mark.parametrize(
    "options, counted",
    [
        ({"start": 8}, "source_relocated"),
        ({"text": "Asia"}, "source_absent"),
        ({"text": "Europe", "context": "Eur"}, "source_absent"),  # shorter than the answer
        ({"text": ""}, "source_absent"),
    ],
)
def test_defects_of_the_alignment_are_counted(tmp_path, options, counted):
    counts = collections.Counter()
    (example,) = read(tmp_path, aligned(**options), counts=counts)
    assert counts[counted] == 1
    answer = example.source.answer
    assert (answer is not None and answer.start >= 0) == (counted == "source_relocated")


def test_empty_aligned_answer_stands_officially_everywhere(tmp_path):
    """Defect B4 of the official code; `data.official_spans` takes it from there."""
    (example,) = read(tmp_path, aligned(text=""), locate="first")
    assert example.source.answer == Answer("", 0)


@pytest.mark.parametrize("field", ["trans_question", "trans_context"])
def test_question_without_translation_is_counted(tmp_path, field, caplog):
    content = aligned()
    paragraph = content["data"][0]["paragraphs"][0]
    (paragraph if field == "trans_context" else paragraph["qas"][0])[field] = " "
    (example,) = read(tmp_path, content)
    assert example.source is None
    assert "1 questions or their passages have no translation" in caplog.text


def example(number, lang="zh", **fields):
    fields = {"title": "T", "article": "T", "context": f"context of {lang}"} | fields
    answers = fields.pop("answers", (Answer("of", 8),))
    return MrcExample(f"q{number}", lang, question=f"{lang}?", answers=answers, **fields)


def test_parallel_files_are_paired_by_id(caplog):
    targets = [example(number) for number in range(3)]
    pairs = pair_parallel(targets, [example(number, "en") for number in (2, 0)])
    side = SourceSide("en", "en?", "context of en", Answer("of", 8), "of")
    assert [pair.source for pair in pairs] == [side, None, side]
    assert [pair.context for pair in pairs] == ["context of zh"] * 3
    assert "1 of 3 questions have no translation (q1 ...)" in caplog.text
    with pytest.raises(InputError, match="none of 3 target questions"):
        pair_parallel(targets, [example(9, "en")])
    with pytest.raises(InputError, match="'q1' comes twice"):
        pair_parallel(targets, [example(1, "en"), example(1, "de")])


def test_written_files_are_read_back_equal(tmp_path):
    examples = [
        example(0),
        example(1, answers=(Answer("of", 8), Answer("text", 3))),
        example(2, context="another", answers=(), impossible=True),
        example(3, title="", article="#1"),
    ]
    assert write_squad(tmp_path / "s.json", examples) == 4
    assert read_mrc(tmp_path / "s.json", "zh") == examples
    side = SourceSide("de", "de?", "context of de", Answer("of", 8), "von")
    paired = [MrcExample(**vars(examples[number]) | {"source": side}) for number in (0, 1, 3)]
    assert write_aligned(tmp_path / "a.json", paired) == 3
    assert read_mrc(tmp_path / "a.json", "zh") == paired
    with pytest.raises(InputError, match="question 'q0' has no translation"):
        write_aligned(tmp_path / "b.json", examples)
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    "name, lang, count, counted, first_differs",
    [
        ("cmrc2018/cmrc2018_dev.json.gz", "zh_cn", 3219, {"absent": 193, "relocated": 7}, 0),
        ("drcd/DRCD_dev.json.gz", "zh_tw", 3524, {}, 504),  # both counts: spec, defect B1
        ("drcd/DRCD_test.json.gz", "zh_tw", 3493, {}, 469),
        ("xquad/xquad.th.json.gz", "th", 1190, {}, None),
        ("jaquad/dev/jaquad_dev_0000.json.gz", "ja", 1029, {}, None),
        ("korquad/KorQuAD_v1.0_dev.json.gz", "ko", 5774, {}, None),
        ("squad_ja_fr_test/squad_japanese_test.json.gz", "ja", 327, {"absent": 3}, None),
        ("squad_ja_fr_test/squad_french_test.json.gz", "fr", 327, {}, None),
    ],
)
def test_published_sets(shared_data, name, lang, count, counted, first_differs):
    counts = collections.Counter()
    examples = read_mrc(shared_data / name, lang, counts=counts)
    assert len(examples) == count and +counts == counted
    for x in examples:
        for answer in x.answers:
            assert answer.start < 0 or x.context.startswith(answer.text, answer.start)
    if first_differs is not None:
        first = read_mrc(shared_data / name, lang, locate="first")
        differ = sum(a.answers[0] != b.answers[0] for a, b in zip(examples, first))
        assert differ == first_differs


def test_published_training_set_and_squad_2(shared_data):
    counts = collections.Counter()
    path = shared_data / "cmrc2018" / "cmrc2018_train_expmrc-pseudo.json.zip"
    examples = read_mrc(path, "zh_cn", counts=counts)
    assert len(examples) == 10_142 and +counts == {"relocated": 21}
    squad2 = read_mrc(shared_data / "squad" / "squad_dev-v2.0_cs224n-dev.json.gz", "en")
    assert sum(x.impossible for x in squad2) == 3168
    xquad = [
        read_mrc(shared_data / "xquad" / f"xquad.{code}.json.gz", code) for code in ("zh", "en")
    ]
    pairs = pair_parallel(*xquad)
    assert all(pair.source and pair.source.answer.start >= 0 for pair in pairs)
    assert len({pair.article for pair in pairs}) == 48
