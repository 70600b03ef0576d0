"""The words of the `fixed` reading comprehension scorers."""

import pytest

from clmrc_jax.evaluate.mrc_words import fixed_words


@pytest.mark.parametrize(
    ("lang", "text", "words"),
    [
        ("zh", "光荣和ω-Force（1,234.5万）", "光 荣 和 ω force 1234.5 万"),
        ("zh_tw", "《鄧小平》·傳", "鄧 小 平 傳"),
        ("ja", "スーパーボウル50", "ス ー パ ー ボ ウ ル 50"),
        ("en", "The U.S. dollar's $1,000", "u s dollars 1000"),
        ("en", "rock 'n' roll", "rock n roll"),
        ("it", "dell'Arte", "arte"),
        ("ru", "«Мир» — мир", "мир мир"),
        ("ko", "1989년 2월 15일", "1989년 2월 15일"),
        ("th", "กรุงเทพมหานคร abc", "กรุงเทพมหานคร abc"),
    ],
)
def test_words_without_marks_and_articles(lang, text, words):
    assert fixed_words(text, lang) == tuple(words.split())


@pytest.mark.parametrize("lang", ["en", "zh", "th"])
def test_only_blank_text_has_no_words(lang):
    assert fixed_words(" \u3000\n", lang) == fixed_words("", lang) == ()
    for text in ("。", "?!", "'", "the"):
        assert fixed_words(text, lang), text
