"""Does a passage contain an answer? DPR's token rule, and one that works in every language.

THE RULE `substring` (the one our retrieval numbers are published with): answer and passage are
folded (Unicode NFKC, then case folding) and runs of white space become one blank (in ja, zh*, th,
km only between Latin letters or digits, elsewhere none); the passage contains the answer if it contains that string. Two kinds of
answers must in addition not continue into a neighbouring Latin letter or digit:
  * numbers (an edge that is a digit also not into ",5" or ".5"): 12 is not in 2012, 12,500 or B12,
    but 1954 is in 1954年;
  * short Latin answers (up to `SHORT` characters): `no` is not in `know`, `EUR` not in `Europe`.
Longer answers may be inflected or compounded (Pariisi in Pariisissa). An empty answer is in
nothing. `yes` and `no` are no strings to look for: callers leave them out (`searchable`).

`dpr` is the published token rule, kept for comparison: it fails wherever words are not separated
by spaces or are inflected, and an empty answer is in everything.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable
from itertools import groupby

from clmrc_jax.data.languages import language
from clmrc_jax.evaluate.golds import NO_ANSWER_MARKS, YES_NO
from clmrc_jax.evaluate.normalize import fold

MODES = ("substring", "dpr")
SHORT = 4
_LATIN = r"\da-z\u00df-\u024f\u1e00-\u1eff"  # letters after case folding, and digits
_NEEDLESS_BLANK = re.compile(rf"(?<![{_LATIN}]) | (?![{_LATIN}])")
_LATIN_ANSWER = re.compile(rf"[{_LATIN}\W_]+")


def contains_answer(answers: Iterable[str], text: str, lang: str, mode: str = "substring") -> bool:
    """Whether `text` contains one of `answers` (see the module for the two rules).

    answers: accepted strings in language `lang`.   text: a passage, best "title text".
    mode: `substring` or `dpr` (which takes no notice of `lang`).
    """
    if mode == "dpr":
        line = _dpr_line(text)
        return any(_dpr_line(answer) in line for answer in answers)
    if mode != "substring":
        raise ValueError(f"unknown matching mode {mode!r}; known: {', '.join(MODES)}")
    spaced = language(lang).spaced
    folded = folded_text(text, spaced)
    return any(_finds(answer, spaced, folded) for answer in answers)


def searchable(answers: Iterable[str]) -> tuple[str, ...]:
    """The answers a passage can be searched for: neither blank, nor the words yes and no, nor the
    marks of a question without answer."""
    kept = (x for x in answers if x.strip() not in NO_ANSWER_MARKS)
    return tuple(x for x in kept if x.strip().casefold() not in YES_NO)


@functools.lru_cache(maxsize=1 << 14)
def folded_text(text: str, spaced: bool) -> str:
    """Folded text with single blanks, or with the fewest possible for unspaced languages."""
    folded = " ".join(fold(text).split())
    return folded if spaced else _NEEDLESS_BLANK.sub("", folded)


def dpr_tokens(text: str) -> tuple[str, ...]:
    """DPR's tokens: NFD, lower case, runs of letters, numbers and marks, or one other visible
    character."""
    tokens: list[str] = []
    for kind, run in groupby(unicodedata.normalize("NFD", text), key=_kind):
        if kind == "word":
            tokens.append("".join(run).lower())
        elif kind == "mark":
            tokens.extend(x.lower() for x in run)
    return tuple(tokens)


@functools.cache
def _kind(character: str) -> str:
    """`word`, `mark` (visible, alone) or `gap` by Unicode category."""
    category = unicodedata.category(character)[0]
    return "word" if category in "LNM" else "gap" if category in "ZC" else "mark"


@functools.lru_cache(maxsize=1 << 14)
def _dpr_line(text: str) -> str:
    """The tokens between NULs (never part of one), so that "contiguously in" is a substring test."""
    return "\0" + "".join(token + "\0" for token in dpr_tokens(text))


def _finds(answer: str, spaced: bool, folded: str) -> bool:
    needle, pattern = _needle(answer, spaced)
    if not needle or needle not in folded:
        return False
    return pattern is None or pattern.search(folded) is not None


@functools.lru_cache(maxsize=1 << 16)
def _needle(answer: str, spaced: bool) -> tuple[str, re.Pattern | None]:
    """The folded answer, and the pattern with its boundaries if the rule asks for them."""
    needle = folded_text.__wrapped__(answer, spaced)  # cached here, not among the passages
    short = len(needle) <= SHORT and _LATIN_ANSWER.fullmatch(needle) is not None
    before = after = ""
    if short or needle[:1].isdigit():
        before = rf"(?<![{_LATIN}])" + (r"(?<!\d[.,])" if needle[:1].isdigit() else "")
    if short or needle[-1:].isdigit():
        after = rf"(?![{_LATIN}])" + (r"(?![.,]\d)" if needle[-1:].isdigit() else "")
    if not before and not after:
        return needle, None
    return needle, re.compile(before + re.escape(needle) + after)
