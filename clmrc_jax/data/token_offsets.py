"""Token ids together with the characters of the text that they cover, for every tokenizer."""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clmrc_jax.data.char_split import CharSplitTokenizer, SplitText
from clmrc_jax.data.tokenization import FastTokenizer, SentencePieceTokenizer, Tokenizer
from clmrc_jax.files import InputError

# Whether a code point is a space; the last one is U+3000, the entry behind it all later ones.
_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])
_BATCH = 512  # texts tokenized at once: their offsets are Python tuples for a moment


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """Tokens of one text, without special tokens.

    ids: [tokens] int32.   offsets: [tokens, 2] int32, first and behind last character of each,
    ascending, without spaces at the edges, with the marks (Unicode M) behind a token that a
    normalizer dropped: the accents of "café", the vowel signs of "ที่"; empty for a token of no
    character, such as a lone "▁".
    split: the words and pieces of the official tokenisation, None for other tokenizers.
    """

    ids: np.ndarray
    offsets: np.ndarray
    split: SplitText | None = None

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """First and last token that touch the characters start to end - 1; None if none does."""
        first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
        behind = int(np.searchsorted(self.offsets[:, 0], end, side="left"))
        starts, ends = self.offsets[first:behind].T
        touching = first + np.flatnonzero(starts < ends)
        return (int(touching[0]), int(touching[-1])) if len(touching) else None


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], *, by_space: bool = False
) -> dict[str, TokenizedText]:
    """The tokens of every different text.

    by_space: see `CharSplitTokenizer.split`; no other tokenizer knows it.
    """
    texts = list(dict.fromkeys(texts))
    if isinstance(tokenizer, CharSplitTokenizer):
        parts = [tokenizer.split(text, by_space=by_space) for text in texts]
        return {t: TokenizedText(part.ids, part.offsets, part) for t, part in zip(texts, parts)}
    found = {}
    for first in range(0, len(texts), _BATCH):
        batch = texts[first : first + _BATCH]
        for text, (ids, offsets) in zip(batch, _encode(tokenizer, batch)):
            ids = np.asarray(ids, np.int32)
            offsets = np.asarray(offsets, np.int32).reshape(-1, 2)
            found[text] = TokenizedText(ids, _tidy(offsets, text))
    return found


def _encode(tokenizer: Tokenizer, texts: list[str]):
    """Yields (ids, (start, end) in characters) of each text."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        for row in tokenizer.model.encode(texts, return_type="offset_mapping"):
            yield row["ids"], row["offsets"]
    elif isinstance(tokenizer, FastTokenizer):
        # A "▁" alone is the space before a text; the backend gives it the first character.
        mark = tokenizer.backend.token_to_id("▁")
        for row in tokenizer.backend.encode_batch(texts, add_special_tokens=False):
            offsets = row.offsets
            if row.ids and row.ids[0] == mark:
                offsets[0] = (offsets[0][0], offsets[0][0])
            yield row.ids, offsets
    else:
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets; use load_tokenizer or "
            "CharSplitTokenizer"
        )


def _tidy(offsets: np.ndarray, text: str) -> np.ndarray:
    """Offsets without the spaces at their edges, in ascending order."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    space, place = _SPACE[np.minimum(codes, len(_SPACE) - 1)], np.arange(len(codes))
    # The next character that is no space, from every place; and the end of the last one before.
    following = _following(space)
    preceding = np.insert(np.where(space, 0, place + 1), 0, 0)
    preceding = np.maximum.accumulate(preceding)
    starts = np.minimum(following[offsets[:, 0]], offsets[:, 1])
    ends = np.maximum(preceding[offsets[:, 1]], starts)
    both = np.stack([starts, ends], axis=1).astype(np.int32)
    both = np.maximum.accumulate(both, axis=0)
    return both if text.isascii() else _with_dropped_marks(both, codes)


def _with_dropped_marks(offsets: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Offsets that go on over the marks behind a token, where no token covers these.

    A normalizer that strips accents leaves them out, and an answer without them is another word.
    """
    starts, ends = offsets.T
    size = len(codes) + 1
    covering = np.bincount(starts, minlength=size) - np.bincount(ends, minlength=size)
    dropped = _marks()[np.minimum(codes, len(_marks()) - 1)] & (np.cumsum(covering)[:-1] == 0)
    if not dropped.any():
        return offsets
    full = starts < ends
    ends = np.maximum.accumulate(np.where(full, _following(dropped)[ends], ends))
    starts = np.where(full, starts, ends)  # a token of no character stays one
    return np.stack([starts, ends], axis=1).astype(np.int32)


def _following(skipped: np.ndarray) -> np.ndarray:
    """[characters + 1] the next place, from every place, that is not to be skipped."""
    size = len(skipped)
    places = np.append(np.where(skipped, size, np.arange(size)), size)
    return np.minimum.accumulate(places[::-1])[::-1]


@functools.cache
def _marks() -> np.ndarray:
    """Whether a code point is a combining mark; the entry behind the last one is all later ones'."""
    last = 0xE01EF  # of the variation selectors
    return np.array([unicodedata.category(chr(code))[0] == "M" for code in range(last + 2)])
