"""Cutting text at the ends of sentences."""

import pytest

from clmrc_jax.data.sentences import split_in_two, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        [
            "It rains. ",
            "Where is Dr. Smith? ",
            "He said: “No!” ",
            "J. S. Bach died in 1750. ",
            "Yes",
        ],
        ["他说：“好。”", "你去哪里？", "我不知道！"],
        ["東京は日本の首都です。", "人口は？"],
        ["أين المحطة؟ ", "إنها هنا."],
        ["वह घर गया। ", "फिर सो गया।"],
        ["El 3. puesto fue suyo... ", "¿Y tú? ", "Nada."],
        ["First line\n", "second line\n\n", "Third. ", "Fourth."],
        ["Version 3.5 costs 1.000 euros. ", "It is e.g. good, etc. and so on."],
    ],
)
def test_sentences_are_cut_at_their_ends_and_join_to_the_text(sentences):
    assert split_sentences("".join(sentences)) == sentences


def test_nothing_to_cut():
    assert split_sentences("") == [] and split_sentences("ประเทศไทย") == ["ประเทศไทย"]


@pytest.mark.parametrize(
    "text, first",
    [
        ("one two three, four five six seven", "one two three, "),
        ("aaaaaaaaaa bbbbbbbbbb cc", "aaaaaaaaaa "),
        ("今天天气很好，我们去公园", "今天天气很好，"),
        ("今天天气很好我们", "今天天气"),
    ],
)
def test_long_sentence_is_cut_near_its_middle(text, first):
    parts = split_in_two(text)
    assert parts[0] == first and "".join(parts) == text


def test_single_character_cannot_be_cut():
    with pytest.raises(ValueError, match="cannot be cut"):
        split_in_two("a")
