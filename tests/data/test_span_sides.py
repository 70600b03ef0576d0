"""Labels by character offset, and what cannot become windows."""

import collections

import pytest

from clmrc_jax.data.char_split import CharSplitTokenizer
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide
from clmrc_jax.data.span_sides import SideRow, side_windows, source_row, target_row
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"歐洲在北方。大很,x"]
TOKENIZER = CharSplitTokenizer({name: number for number, name in enumerate(NAMES)})
CONTEXT = "歐洲在北方。 歐洲很大。"


def row(answer, context=CONTEXT, question="x, x"):
    return SideRow(3, "q1", question, context, answer)


def windows(rows, tokenizer=TOKENIZER, source=False, **options):
    format = SpanFormat(**{"max_length": 30, "source_length": 30} | options)
    counts = collections.Counter()
    return side_windows(rows, tokenizer, format, source=source, counts=counts), counts


@pytest.mark.parametrize("start", [0, 7])
def test_label_stands_at_the_offset_not_at_the_first_occurrence(start):
    ((window,),), counts = windows([row(Answer("歐洲", start))])
    first, last = window.offsets[[window.start - window.first, window.end - window.first]]
    assert (first[0], last[1]) == (start, start + 2) and not +counts
    assert window.example == 3


def test_spaces_around_an_answer_do_not_move_its_label():
    ((window,),), _ = windows([row(Answer(" 歐洲", 6))])
    assert window.offsets[window.start - window.first].tolist() == [7, 8]


def test_sentencepiece_labels_cover_the_answer(vocabulary):
    tokenizer = load_tokenizer(str(vocabulary))
    context = "The currency of Japan is the yen, since 1871."
    for text in ("Japan", "yen", "1871", "The", "currency of Japan"):
        answer = Answer(text, context.index(text))
        ((window,),), _ = windows([row(answer, context)], tokenizer, max_length=100)
        ids = window.tokens[window.start : window.end + 1]
        assert text in tokenizer.decode(ids) and len(tokenizer.decode(ids)) < len(text) + 8


def test_passage_is_cut_the_same_for_both_sides_but_for_the_length():
    ((target,), (source,)) = (
        windows([row(None)], source=side, max_length=30, source_length=14)[0][0][:1]
        for side in (False, True)
    )
    assert len(target.tokens) == 3 + 3 + 11 and len(source.tokens) == 14


def test_no_label_is_counted_on_the_target_and_allowed_on_the_source():
    outside = row(Answer("\u3000", 6), "歐洲在北方。\u3000歐洲")
    found, counts = windows([outside, row(None)])
    assert found[0] is None and found[1] and counts == {"uncovered": 1}
    ((window,),), counts = windows([outside], source=True)
    assert (window.start, window.end) == (0, 0) and not +counts


def test_official_check_drops_the_example_on_either_side():
    names = TOKENIZER.vocabulary | {"y": 90}
    context = "x\u00a0y x"
    answer = Answer("x\u00a0y", 0)
    options = {"mode": "official"}
    found, counts = windows(
        [row(answer, context)], CharSplitTokenizer(names), source=True, **options
    )
    assert found == [None] and counts == {"mismatched": 1}


@pytest.mark.parametrize(
    "bad, message",
    [
        (row(None, context=" "), "question 'q1': its passage is empty"),
        (row(None, question="\n"), "question 'q1': its question is empty"),
    ],
)
def test_empty_text_is_refused(bad, message):
    with pytest.raises(InputError, match=message):
        windows([bad])
    with pytest.raises(InputError, match="translated"):
        windows([bad], source=True)


def test_question_as_long_as_the_sequence_is_refused_or_cut():
    long = row(None, question="x " * 40)
    with pytest.raises(InputError, match="'q1' has 40 tokens, and a window holds 30: no room"):
        windows([long])
    ((*_, last),), _ = windows([long], max_query_length=26)
    assert len(last.tokens) == 30 and last.index == 10, "one passage token per window"


def example(**fields):
    return MrcExample("q1", "zh", "T", "x", CONTEXT, **fields)


def test_answer_of_the_target_side_by_mode():
    answers = (Answer("y", -1), Answer("大", 10))
    paper, official = SpanFormat(), SpanFormat(mode="official")
    assert target_row(0, example(answers=answers), True, paper).answer == answers[1]
    assert target_row(0, example(answers=answers), True, official).answer == answers[0]
    assert target_row(0, example(answers=answers), False, official).answer is None
    impossible = example(answers=answers, impossible=True)
    assert target_row(0, impossible, True, paper).answer is None


@pytest.mark.parametrize(
    "source, message",
    [
        (None, "question 'q1' has no translation"),
        (SourceSide("en", "q", " ", None), "'q1': its translated passage is empty"),
        (SourceSide("en", "", "c", None), "'q1': its translated question is empty"),
    ],
)
def test_missing_translation_is_named(source, message):
    with pytest.raises(InputError, match=message):
        source_row(0, example(answers=(), source=source), True)


def test_source_answer_without_position_is_no_label():
    source = SourceSide("en", "q", "c", Answer("x", -1))
    assert source_row(0, example(answers=(), source=source), True).answer is None
    source = SourceSide("en", "q", "c", Answer("c", 0))
    assert source_row(0, example(answers=(), source=source), True).answer == Answer("c", 0)
    assert source_row(0, example(answers=(), source=source), False).answer is None
