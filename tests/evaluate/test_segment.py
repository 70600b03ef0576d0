"""Word segmentation by the official libraries, and what happens without them."""

import sys

import pytest

from clmrc_jax.evaluate import segment


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("ja", "1954年から1955年", ["1954", "年", "から", "1955", "年"]),
        ("zh_cn", "我来到北京 清华大学", ["我", "来到", "北京", "清华大学"]),
        ("zh_tw", "美国人", ["美国", "人"]),
        ("th", "กรุงเทพมหานคร abc", ["กรุงเทพมหานคร", "abc"]),
        ("km", "នេះគឺជាផ្លែប៉ោមមួយទៀត", ["នេះ", "គឺជា", "ផ្លែ", "ប៉ោម", "មួយ", "ទៀត"]),
        ("fi", " kaksi  sanaa ", ["kaksi", "sanaa"]),
    ],
)
def test_words_are_those_of_the_official_segmenter(lang, text, expected):
    assert segment.words(text, lang) == expected
    assert segment.words("", lang) == []


def test_light_words_cut_characters_but_keep_latin_words_and_numbers():
    assert segment.light_words("東京 Tower 1,234.5年", "ja") == [
        "東",
        "京",
        "Tower",
        "1,234.5",
        "年",
    ]
    assert segment.light_words("東京 Tower", "fi") == ["東京", "Tower"]


@pytest.mark.parametrize(
    ("module", "lang"),
    [("MeCab", "ja"), ("jieba", "zh_cn"), ("pythainlp", "th"), ("khmernltk", "km")],
)
def test_missing_segmenter_is_an_error_that_names_the_extra(monkeypatch, module, lang):
    monkeypatch.setitem(sys.modules, module, None)  # makes `import module` fail
    segment._segmenter.cache_clear()
    segment._mecab.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "clmrc_jax\[segment\]"'):
        segment.words("文字", lang)
    assert segment.words("two words", "en") == ["two", "words"]
    assert segment.light_words("文字", lang) == ["文", "字"]


def test_missing_sentence_model_says_how_to_get_it(monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(ImportError, match="nltk.downloader punkt_tab"):
        segment.english_tokens("One. Two.")
