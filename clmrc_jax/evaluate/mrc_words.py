"""The words by which the `fixed` scorers of reading comprehension compare answers.

One rule for every language, after MLQA's: Unicode folding, no punctuation, no articles of the
language, characters as words where words are not separated by spaces. Unlike there, marks
separate words instead of vanishing between them, and articles are whole words (see
`normalize.mkqa_tokens`), so the numbers are not those of MLQA's script.
"""

import functools
import re
import string
import unicodedata

from clmrc_jax.evaluate import segment
from clmrc_jax.evaluate.normalize import fold, mkqa_tokens

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇", "'"))
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# A point or comma within a number, and an apostrophe within a word, separate nothing.
_INNER = re.compile(r"(?<=\d)[.,](?=\d)|(?<=\w)'(?=\w)")
_BY_SEGMENTER = ("th", "km")


@functools.lru_cache(maxsize=1 << 16)
def fixed_words(text: str, lang: str) -> tuple[str, ...]:
    """Words of an answer under the `fixed` rules, () only for blank text.

    Chinese and Japanese: each Han character or kana, Latin words and numbers whole. Thai and
    Khmer: words of the segmenters (extra `segment`, ImportError without). Elsewhere: words
    between blanks, articles of the language dropped. Text that consists of nothing but marks or
    articles keeps them, so that it does not become equal to "".
    """
    plain = _without_punctuation(text)
    if not segment.needs_segmenter(lang):
        words = mkqa_tokens(plain, lang, "fixed")
    else:
        cut = segment.words if lang in _BY_SEGMENTER else segment.light_words
        words = tuple(cut(plain.replace("'", ""), lang))
    return words or tuple(plain.replace("'", " ").split()) or tuple(fold(text).split())


def _without_punctuation(text: str) -> str:
    """Folded text: marks are blanks, `1,000` is `1000`, invisible characters are gone."""
    # Full-width marks are judged before NFKC makes them ASCII: 1998，2002 is a list, not a number.
    text = "".join(map(_visible, text.translate(_APOSTROPHES)))
    text = _THOUSANDS.sub("", fold(text))
    kept = {found.start() for found in _INNER.finditer(text)}
    return "".join(x if i in kept else _blank(x) for i, x in enumerate(text))


@functools.cache
def _visible(character: str) -> str:
    """A blank for a mark outside ASCII, nothing for a format character, else the character."""
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category[0] == "P" and not character.isascii() else character


def _blank(character: str) -> str:
    """A blank for an ASCII mark and for what NFKC may have turned up, else the character."""
    mark = character in string.punctuation or unicodedata.category(character)[0] == "P"
    return " " if mark else character
