"""Answers as the official code of Cross-Lingual MRC labels them, and the text of its predictions.

spec 1.4 (character -> word), 2.3 (word -> piece, improved), 5.1 (pieces -> text), with its defects:
an answer that is missing from its target passage gets a meaningless label (B3), and predictions
lose their spaces (B14). Only `mode="official"` comes here.
"""

import functools
import unicodedata
from collections.abc import Sequence

from clmrc_jax.data.char_split import CharSplitTokenizer, SplitText, split_words
from clmrc_jax.data.mrc_examples import Answer


def word_span(text: SplitText, answer: Answer) -> tuple[int, int]:
    """First and last word of an answer, (-1, -1) if it has no position.

    An empty answer ends at the last word: its last character has number -1 (defect B4).
    """
    if answer.start < 0:
        return -1, -1
    last = answer.start + len(answer.text) - 1
    return text.word_at(answer.start), text.word_at(last) if last >= 0 else len(text.words) - 1


def holds_answer(text: SplitText, words: tuple[int, int], answer: Answer) -> bool:
    """Whether the words contain the answer, spaces aside; the official code drops it if not."""
    if answer.start < 0:
        return True
    found = "".join(text.words[words[0] : words[1] + 1])
    return "".join(answer.text.split()) in found


def piece_span(
    text: SplitText, words: tuple[int, int], answer: Answer, tokenizer: CharSplitTokenizer
) -> tuple[int, int]:
    """First and last piece of an answer that begins and ends at these words (spec 2.3).

    For the words (-1, -1) this is (first piece of the last word, -1), as in the official code.
    """
    start, behind = text.first_piece(words[0]), words[1] + 1
    end = text.first_piece(behind) - 1 if behind < len(text.words) else len(text.pieces) - 1
    # The official search compares pieces joined by spaces: equal only for equally many pieces.
    wanted = tokenizer.pieces(answer.text) if answer.start >= 0 else []
    for place in range(start, end - len(wanted) + 2) if wanted else ():
        if text.pieces[place : place + len(wanted)] == wanted:
            return place, place + len(wanted) - 1
    return start, end


def predicted_text(text: SplitText, start: int, end: int) -> str:
    """The text of the predicted pieces start to end, without any ASCII space (spec 5.1)."""
    joined = " ".join(text.pieces[start : end + 1]).replace(" ##", "").replace("##", "")
    words = text.words[text.word_of[start] : text.word_of[end] + 1]
    return _projected(" ".join(joined.split()), " ".join(words), text.lower).replace(" ", "")


def _projected(pieces: str, words: str, lower: bool) -> str:
    """The part of `words` that `pieces` stand for; all of it where the two cannot be matched."""
    basic = basic_text(words, lower)
    start = basic.find(pieces)
    if start < 0 or not pieces:
        return words
    kept = [place for place, char in enumerate(words) if char != " "]
    basic_kept = [place for place, char in enumerate(basic) if char != " "]
    if len(kept) != len(basic_kept):
        return words
    back = dict(zip(basic_kept, kept))
    return words[back[start] : back[start + len(pieces) - 1] + 1]


def basic_text(text: str, lower: bool) -> str:
    """BERT's basic tokenisation, its tokens joined by spaces: control characters are deleted."""
    kept = (
        " " if char.isspace() else char
        for char in text
        if char in "\t\n\r" or not (_category(char)[0] == "C" or char == "\ufffd")
    )
    tokens: Sequence[str] = split_words("".join(kept))
    if lower:
        tokens = [token for word in tokens for token in split_words(_without_accents(word.lower()))]
    return " ".join(tokens)


@functools.lru_cache(maxsize=1 << 16)
def _category(char: str) -> str:
    return unicodedata.category(char)


def _without_accents(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if _category(c) != "Mn")
