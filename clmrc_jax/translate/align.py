"""SimpleMatch: the piece of a passage that is most like a translated answer (spec 6.2).

Compared are lower-cased units: characters in languages written without spaces, elsewhere words and
single punctuation marks. (The one published alignment is the optimum over such tokens, and not the
optimum over characters.)
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clmrc_jax.data.languages import language


@dataclasses.dataclass(frozen=True)
class Match:
    """Where an answer was found.

    text: the passage's own words; the answer itself where nothing of it is in the passage.
    start: character offset in the passage, -1 where nothing was found.
    score: F1 of the two bags of units, 0 to 1.
    """

    text: str
    start: int
    score: float


def simple_match(answer: str, passage: str, lang: str, delta: int = 5) -> Match:
    """The window of the passage with the highest F1 against the answer.

    Windows are as long as the answer plus or minus `delta` units, at least one unit, and at most
    the passage. Ties: the larger overlap, then the length nearer to the answer's, then the
    earlier. Nothing in common, or one of the texts blank: the answer itself, start -1, score 0.
    lang: language of both texts.
    """
    if delta < 0:
        raise ValueError(f"delta is {delta}; it must be at least 0")
    answer = answer.strip()
    found = units(passage, lang)
    begin, length, score = best_window(units(answer, lang).texts, found.texts, delta)
    if not score:
        return Match(answer, -1, 0.0)
    start, end = found.starts[begin], found.ends[begin + length - 1]
    return Match(passage[start:end], start, score)


def overlap_f1(prediction: str, reference: str, lang: str) -> float:
    """F1 of two texts as bags of units, 0 to 1: the score that `simple_match` maximises."""
    wanted, other = (units(text.strip(), lang).texts for text in (reference, prediction))
    if not wanted or not other:
        return 0.0
    overlap = sum(min(wanted.count(unit), other.count(unit)) for unit in set(wanted))
    return 2 * overlap / (len(wanted) + len(other))


class Units(NamedTuple):
    """The lower-cased units of a text, and where each starts and ends (offsets in characters)."""

    texts: Sequence[str]
    starts: Sequence[int]
    ends: Sequence[int]


@functools.lru_cache(maxsize=64)  # the questions of one passage follow each other
def units(text: str, lang: str) -> Units:
    """Cuts a text into what is compared in its language (see the module)."""
    if not language(lang).spaced:
        ends = range(1, len(text) + 1)
        return Units([char.lower() for char in text], range(len(text)), ends)
    found = list(_token().finditer(text))
    return Units(
        [token.group().lower() for token in found],
        [token.start() for token in found],
        [token.end() for token in found],
    )


@functools.cache
def _token() -> re.Pattern:
    """A word, with its combining marks and joiners (vowel signs of Hindi), or one other sign."""
    # All marks lie below U+20000, but for variation selectors, which join words as well.
    points = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
    marks = "".join(chr(point) for point in points if unicodedata.category(chr(point))[0] == "M")
    return re.compile(rf"[^\W_](?:[^\W_]|[{marks}\u200c\u200d\u00ad])*|\S")


def best_window(wanted: Sequence[str], units: Sequence[str], delta: int) -> tuple[int, int, float]:
    """(first unit, length, F1) of the best window of `units`; (0, 0, 0.0) if nothing is common.

    One prefix count per distinct wanted unit gives the overlap of every window of one length in
    one subtraction: [distinct, windows].
    """
    size, total = len(wanted), len(units)
    if not size or not total:
        return 0, 0, 0.0
    rows = {unit: row for row, unit in enumerate(dict.fromkeys(wanted))}
    needed = np.bincount([rows[unit] for unit in wanted])[:, None]
    seen = np.array([rows.get(unit, -1) for unit in units], np.int32)
    counts = np.zeros((len(rows), total + 1), np.int32)
    np.cumsum(seen == np.arange(len(rows))[:, None], axis=1, out=counts[:, 1:])
    best, window = (0.0, 0), (0, 0)
    shortest, longest = min(max(1, size - delta), total), min(size + delta, total)
    for length in sorted(range(shortest, longest + 1), key=lambda x: abs(x - size)):
        if 2 * min(size, length) / (size + length) < best[0]:
            continue  # not even a window of wanted units only could win
        inside = counts[:, length:] - counts[:, :-length]
        overlaps = np.minimum(inside, needed).sum(axis=0)
        begin = int(overlaps.argmax())  # the earliest of equals
        overlap = int(overlaps[begin])
        # Equal F1 and overlap imply equal lengths: the later rules have nothing left to decide.
        if (score := (2 * overlap / (size + length), overlap)) > best:
            best, window = score, (begin, length)
    return *window, best[0]
