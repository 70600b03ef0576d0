"""Official labels and predicted texts on hand-made cases; features as a whole: test_span_features."""

import pytest

from clmrc_jax.data.char_split import CharSplitTokenizer
from clmrc_jax.data.mrc_examples import Answer
from clmrc_jax.data.official_spans import (
    basic_text,
    holds_answer,
    piece_span,
    predicted_text,
    word_span,
)

PIECES = "[UNK] [CLS] [SEP] 1895 1943 Bei ##jing Peking Duck 吃 在 。 ( - ) . , 3 ##4 4 个 is"
TOKENIZER = CharSplitTokenizer({x: i for i, x in enumerate(PIECES.split())})


def label(text, answer, by_space=False):
    """(piece strings of the label, does the official code keep the example)."""
    split = TOKENIZER.split(text, by_space=by_space)
    found = Answer(answer, text.find(answer))
    words = word_span(split, found)
    start, end = piece_span(split, words, found, TOKENIZER)
    return split.pieces[start : end + 1], holds_answer(split, words, found)


@pytest.mark.parametrize(
    "text, answer, by_space, pieces",
    [
        ("(1895-1943). is", "1895", True, ["1895"]),  # inside of a word between spaces
        ("在 Beijing。", "Bei", False, ["Bei"]),
        ("在 Beijing。", "jing", False, ["Bei", "##jing"]),  # no piece fits: the whole word
        ("34个", "4个", False, ["3", "##4", "个"]),
        ("吃 Peking Duck。", "Peking Duck", False, ["Peking", "Duck"]),
        ("吃 Peking, Duck.", "Duck", True, ["Duck"]),
    ],
)
def test_label_is_improved_where_the_pieces_of_the_answer_occur(text, answer, by_space, pieces):
    assert label(text, answer, by_space) == (pieces, True)


def test_answer_with_a_no_break_space_is_dropped_on_the_source_side():
    """Defect B5: the reader's word keeps the space, the answer it looks for has lost it."""
    assert label("Peking\u00a0Duck is", "Peking\u00a0Duck", by_space=True)[1] is False
    assert label("Peking\u00a0Duck 吃", "Peking\u00a0Duck")[1] is True


def test_missing_target_answer_has_the_official_meaningless_label():
    """Defect B3: from the first piece of the last word to the piece before the first."""
    split = TOKENIZER.split("在 1895 Beijing")
    missing = Answer("", -1)
    assert word_span(split, missing) == (-1, -1)
    assert piece_span(split, (-1, -1), missing, TOKENIZER) == (2, -1)
    assert holds_answer(split, (-1, -1), missing)


def test_empty_source_answer_is_the_whole_passage():
    """Defect B4."""
    split = TOKENIZER.split("Peking Duck is", by_space=True)
    words = word_span(split, Answer("", 0))
    assert words == (0, 2)
    assert piece_span(split, words, Answer("", 0), TOKENIZER) == (0, 2)


@pytest.mark.parametrize(
    "text, start, end, expected",
    [
        ("吃 Peking Duck。", 1, 2, "PekingDuck"),  # defect B14: spaces are gone
        ("在 Beijing。", 1, 1, "Bei"),
        ("在 Beijing。", 2, 2, "jing"),
        ("34个", 1, 2, "4个"),
        ("在 unknown word", 1, 2, "unknownword"),  # [UNK]: all the words
        ("吃 un\u200bknown", 1, 3, "un\u200bknown"),
    ],
)
def test_predicted_text_is_projected_onto_the_words_without_spaces(text, start, end, expected):
    assert predicted_text(TOKENIZER.split(text), start, end) == expected


def test_predicted_text_that_cannot_be_mapped_is_all_the_words():
    """The basic tokenisation deletes U+200B, so the characters do not count up."""
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "\u200b": 5, "##b": 6}
    split = CharSplitTokenizer(vocabulary).split("ab \u200b b")
    assert split.pieces == ["a", "##b", "\u200b", "b"]
    assert predicted_text(split, 1, 3) == "ab\u200bb"


def test_lower_cased_prediction_loses_case_and_accents_of_the_comparison_only():
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "cafe": 3, "caf": 4, "##e": 5, "bar": 6}
    split = CharSplitTokenizer(vocabulary, lower=True).split("Cafe Bar")
    assert predicted_text(split, 0, 1) == "cafebar"
    assert basic_text("Café\u0000 BAR漢", lower=True) == "cafe bar 漢"
    assert basic_text("Café\u0000 BAR漢", lower=False) == "Café BAR 漢"
