import json

import numpy as np
import pytest

from clmrc_jax.data.char_split import CharSplitTokenizer, char_split_tokenizer, split_words
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] 光 荣 Bei ##jing ##- Bei ( ) 1895 1943 - . un ##known a ##b"
VOCABULARY = {piece: number for number, piece in enumerate(dict.fromkeys(WORDS.split()))}


@pytest.fixture(scope="module")
def tokenizer():
    return CharSplitTokenizer(VOCABULARY)


@pytest.mark.parametrize(
    "text, words",
    [
        ("光荣和ω-force开发", ["光", "荣", "和", "ω", "-", "force", "开", "发"]),
        ("￥3 50％²", ["￥3", "50", "％", "²"]),  # symbols stay glued, full-width % is punctuation
        ("カタカナ漢字ひら", ["カタカナ", "漢", "字", "ひら"]),
        ("a\u200bb\u00adc", ["a", "\u200b", "b", "\u00ad", "c"]),  # BERT would delete them
        ("a\u00a0b\u3000c\u2028d\x1ce\tf", list("abcdef")),
        ("Café, naïve", ["Café", ",", "naïve"]),
        ("𠀀x", ["𠀀", "x"]),
        (" \n", []),
    ],
)
def test_split_of_characters_and_runs(text, words):
    assert split_words(text) == words


def test_pieces_are_the_longest_first_and_an_unknown_tail_makes_the_word_unknown(tokenizer):
    assert tokenizer.pieces("Beijing unknown Beijin ab c") == [
        *("Bei", "##jing", "un", "##known"),
        *("[UNK]", "a", "##b", "[UNK]"),
    ]
    assert tokenizer.pieces("a" + "b" * 199) == ["a"] + ["##b"] * 199
    assert tokenizer.pieces("a" + "b" * 200) == ["[UNK]"]
    assert tokenizer.encode_batch(["光 荣", ""]) == [[VOCABULARY["光"], VOCABULARY["荣"]], []]
    assert tokenizer.decode([2, *tokenizer.encode_batch(["Beijing 光"])[0], 3]) == "Beijing 光"


def test_words_and_pieces_know_their_characters(tokenizer):
    text = " Beijing光 (1895-1943)."
    found = tokenizer.split(text)
    cut = [text[a:b] for a, b in found.offsets]
    assert cut == ["Bei", "jing", "光", "(", "1895", "-", "1943", ")", "."]
    assert found.words == ["Beijing", "光", "(", "1895", "-", "1943", ")", "."]
    assert found.word_of.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert [found.word_at(place) for place in (0, 1, 7, 8, 9, 10)] == [-1, 0, 0, 1, 1, 2]
    assert [found.first_piece(word) for word in (0, 1, -1)] == [0, 2, 8]
    assert found.ids.dtype == np.int32 and found.offsets.dtype == np.int32


def test_words_of_the_source_reader_end_at_spaces_only(tokenizer):
    text = "Beijing\u00a0光 (1895-1943).\u202fa"
    found = tokenizer.split(text, by_space=True)
    assert found.words == ["Beijing\u00a0光", "(1895-1943).", "a"]
    assert found.pieces == ["Bei", "##jing", "光", "(", "1895", "-", "1943", ")", ".", "a"]
    assert found.word_of.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2]
    assert [text[a:b] for a, b in found.offsets[:3]] == ["Bei", "jing", "光"]


def test_lower_casing_keeps_offsets_inside_the_word():
    lower = CharSplitTokenizer(VOCABULARY | {"i": 90, "##\u0307": 91}, lower=True)
    found = lower.split("A İ")
    assert found.pieces == ["a", "i", "##\u0307"] and found.words == ["a", "i\u0307"]
    assert found.offsets.tolist() == [[0, 1], [2, 3], [3, 3]]


def test_empty_text_has_no_piece(tokenizer):
    found = tokenizer.split(" ")
    assert found.offsets.shape == (0, 2) and found.words == [] and found.ids.shape == (0,)


def test_vocabulary_of_a_loaded_bert_tokenizer_is_taken(tmp_path, vocabulary):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    own = char_split_tokenizer(load_tokenizer(str(tmp_path)))
    assert own.vocabulary == VOCABULARY and not own.lower
    assert char_split_tokenizer(own) is own
    assert own.ids.cls == 2 and own.ids.sep == 3 and own.vocab_size == len(VOCABULARY)
    with pytest.raises(InputError, match="WordPiece vocabulary.*mode='paper'"):
        char_split_tokenizer(load_tokenizer(str(vocabulary)))
    with pytest.raises(InputError, match=r"\[UNK\], \[CLS\], \[SEP\] missing"):
        CharSplitTokenizer({"a": 0})
