"""Cuts text at the ends of sentences, in every script of the language table.

No text is lost: the parts, joined, are the text. Thai writes no full stop; there a long text is
cut at spaces, by `split_in_two`.
"""

import re

# Signs that end a sentence where a space follows: Latin, Greek, Arabic, Devanagari, Khmer, Ethiopic.
_SPACED_ENDS = ".!?…؟۔।॥។៕።"
_UNSPACED_ENDS = "。！？｡"
_CLOSING = "\"'”’»›)\\]」』）】"
_END = re.compile(
    rf"[{_UNSPACED_ENDS}]+[{_CLOSING}]*\s*|[{_SPACED_ENDS}]+[{_CLOSING}]*\s+|\s*\n\s*"
)
# A full stop behind these ends no sentence; neither does one behind a single letter
# or one or two digits.
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr vs etc no vol fig inc ltd co gen col lt sgt capt rev gov sen rep "
    "bzw ca evtl ggf nr usw sog bsp z.b d.h u.a cf p.ex av mme mlle m ex sra srta dña ud uds pág "
    "núm t.ex bl.a im i.e e.g a.m p.m u.s u.k".split()
)
_CLAUSE = re.compile(r"[,;:，、；：،؛–—]\s*|\s+")


def split_sentences(text: str) -> list[str]:
    """Sentences with the white space behind them; `"".join` of them is `text`.

    A new line ends a sentence, too. A full stop does not where a lower-case letter follows, nor
    behind an abbreviation, an initial or an ordinal ("Dr. No", "J. Smith", "3. Liga").
    """
    sentences, start = [], 0
    for found in _END.finditer(text):
        if _ends_sentence(text, start, found):
            sentences.append(text[start : found.end()])
            start = found.end()
    return sentences + ([text[start:]] if start < len(text) else [])


def _ends_sentence(text: str, start: int, found: re.Match) -> bool:
    sign, following = found.group(), text[found.end() : found.end() + 1]
    if "\n" in sign or found.end() == len(text):
        return True
    if not sign.startswith("."):
        return not following.islower()
    words = text[start : found.start()].split()
    last = words[-1].lstrip("(\"'“‘«").lower() if words else ""
    if following.islower() or last in _ABBREVIATIONS:
        return False
    return len(last) > 1 and not (last.isdigit() and len(last) < 3)


def split_in_two(text: str) -> tuple[str, str]:
    """Cuts near the middle: behind a clause or a word, or anywhere in text without either.

    Both parts together are `text`, and neither is empty. Raises ValueError below two characters.
    """
    if len(text) < 2:
        raise ValueError(f"{text!r} cannot be cut in two")
    middle, quarter = len(text) / 2, len(text) / 4
    places = [m.end() for m in _CLAUSE.finditer(text) if 0 < m.end() < len(text)]
    near = [place for place in places if abs(place - middle) <= quarter]
    # A clause within the middle half, else the word nearest to the middle, else the middle.
    clauses = [place for place in near if not text[place - 1].isspace() or _is_clause(text, place)]
    best = min(clauses or near or places or [len(text) // 2], key=lambda p: abs(p - middle))
    return text[:best], text[best:]


def _is_clause(text: str, place: int) -> bool:
    """Whether the white space before `place` stands behind a sign."""
    before = text[:place].rstrip()
    return bool(before) and not before[-1].isalnum()
