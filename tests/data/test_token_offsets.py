"""Offsets of every kind of tokenizer: what a token covers is what it was made from."""

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from clmrc_jax.data import token_offsets
from clmrc_jax.data.char_split import CharSplitTokenizer
from clmrc_jax.data.token_offsets import tokenize
from clmrc_jax.data.tokenization import Tokenizer, load_tokenizer
from clmrc_jax.files import InputError

TEXTS = [
    "Hello  world,  日本の首都は ①ﬁn！",
    "  \u3000日本",
    "光荣和ω-force开发",
    "กรุงเทพ เป็นเมือง",
    "एक दो",
    "a\nb\t\tc ",
    "😀x Åland",
]


@pytest.fixture(scope="module", params=["sentencepiece", "unigram", "wordpiece", "char_split"])
def tokenizer(request, vocabulary, tmp_path_factory):
    if request.param == "sentencepiece":
        return load_tokenizer(str(vocabulary))
    characters = sorted(set("".join(TEXTS)) - set(" \n\t\u3000"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if request.param == "unigram":  # as the tokenizer of multilingual E5 is built
        pieces = [(x, 0.0) for x in ["<s>", "<pad>", "</s>", "<unk>"]]
        pieces += [("▁", -2.0), ("▁Hello", -3.0), ("日本", -3.0), ("▁a", -3.0), ("fin", -3.0)]
        pieces += [(x, -4.0) for x in characters]
        backend = Backend(models.Unigram(pieces, unk_id=3))
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        names = [*special, "Hello", "world", *characters, *("##" + x for x in characters)]
        numbers = {name: number for number, name in enumerate(names)}
        if request.param == "char_split":
            return CharSplitTokenizer(numbers)
        backend = Backend(models.WordPiece(numbers, unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=False)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    folder = tmp_path_factory.mktemp(request.param)
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(str(folder))


def test_ids_are_those_of_the_tokenizer_and_offsets_ascend(tokenizer):
    found = tokenize(tokenizer, TEXTS * 2)
    assert list(found) == TEXTS
    for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS)):
        tokens = found[text]
        assert tokens.ids.tolist() == ids and tokens.ids.dtype == np.int32
        assert tokens.offsets.shape == (len(ids), 2) and tokens.offsets.dtype == np.int32
        assert (np.diff(tokens.offsets, axis=0) >= 0).all()
        assert (tokens.offsets[:, 0] <= tokens.offsets[:, 1]).all()
        cuts = [text[start:end] for start, end in tokens.offsets]
        assert all(cut == cut.strip() for cut in cuts)
        whole = "".join(text.split())
        assert "".join(dict.fromkeys(c for cut in cuts for c in cut)) == "".join(
            dict.fromkeys(whole)
        ), "every character that is no space is covered"


def test_span_of_characters_covers_them_and_little_more(tokenizer):
    for text in TEXTS:
        tokens = tokenize(tokenizer, [text])[text]
        longest = max(end - start for start, end in tokens.offsets)
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                span = tokens.span(start, end)
                if not text[start:end].strip():
                    continue
                (first, _), (_, last) = (tokens.offsets[place] for place in span)
                assert text[start:end].strip() in text[first:last]
                assert start - first < longest and last - end < longest


def test_characters_that_no_token_covers_have_no_span(tokenizer):
    text = "a \n b"
    assert tokenize(tokenizer, [text])[text].span(1, 4) is None
    empty = tokenize(tokenizer, [" "])[" "]
    assert empty.span(0, 1) is None and empty.offsets.shape == (len(empty.ids), 2)


def test_space_mark_in_front_of_a_text_covers_nothing(vocabulary):
    """Otherwise an answer at the very beginning would start at a token without text."""
    tokens = tokenize(load_tokenizer(str(vocabulary)), ["Ω1"])["Ω1"]
    assert tokens.offsets[0].tolist() == [0, 0]
    assert tokens.span(0, 1)[0] > 0


def test_tokenizer_without_offsets_is_named():
    with pytest.raises(InputError, match="Tokenizer gives no character offsets"):
        tokenize(Tokenizer(), ["a"])


MARKED = {  # text -> what the tokens of an accent-stripping WordPiece cover
    "में में": ["में", "में"],
    "ที่ สี่": ["ที่", "สี่"],
    "cafe\u0301": ["cafe\u0301"],
    "cafe\u0301s, ที่.": ["cafe\u0301", "s", ",", "ที่", "."],
    "葛\U000e0100城": ["葛\U000e0100", "城"],
    "\u0301e e \u0301": ["e", "e"],
}


def wordpiece(folder, pieces, **normalizer):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces]
    backend = Backend(models.WordPiece({x: i for i, x in enumerate(names)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**normalizer)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(str(folder))


def test_marks_that_the_normalizer_drops_belong_to_the_token_before_them(tmp_path):
    pieces = ["म", "ท", "ส", "cafe", "##s", ",", ".", "葛", "城", "e"]
    found = tokenize(wordpiece(tmp_path / "plain", pieces, lowercase=True), list(MARKED))
    for text, expected in MARKED.items():
        offsets = found[text].offsets
        assert [text[start:end] for start, end in offsets] == expected
        assert offsets.dtype == np.int32 and (np.diff(offsets, axis=0) >= 0).all()
    assert found["ที่ สี่"].span(1, 2) == (0, 0), "an answer may begin at a mark"


def test_tokens_of_marks_keep_them_to_themselves(tmp_path):
    """As they do in a cased vocabulary, where the letter before is a token without its mark."""
    pieces = ["म", "##\u0947", "##\u0902", "cafe", "##\u0301", "##s"]
    cased = wordpiece(tmp_path / "cased", pieces, lowercase=False)
    found = tokenize(cased, ["में", "cafe\u0301s"])
    assert found["में"].offsets.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert found["cafe\u0301s"].offsets.tolist() == [[0, 4], [4, 5], [5, 6]]


def test_only_marks_that_no_token_covers_move_an_end():
    text = "ae\u0301\u0301 o\u0301"
    given = np.array([[0, 1], [1, 2], [1, 3], [3, 3], [5, 6], [6, 6]], np.int32)
    tidy = token_offsets._tidy(given, text)
    assert tidy.tolist() == [[0, 1], [1, 2], [1, 4], [4, 4], [5, 7], [7, 7]]
