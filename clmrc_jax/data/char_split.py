"""The official character-level split and WordPiece of Cross-Lingual MRC (spec 2.1-2.3).

Chinese characters, punctuation and control characters are words of their own, runs of anything else
stay whole, and every word is cut into WordPiece pieces. Unlike BERT's own tokenizer nothing is
deleted: a zero-width space becomes an `[UNK]`, and "￥3" stays one word. Here every word and piece
also knows its characters, which the official code recovers by walking through the text.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clmrc_jax.data.tokenization import FastTokenizer, SpecialIds, Tokenizer
from clmrc_jax.files import InputError

MAX_WORD_CHARS = 200
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
# The English reader's separators: no-break space U+00A0 is not one of them (spec 1.4).
_WHITESPACE_WORD = re.compile("[^ \t\r\n\u202f]+")


@functools.lru_cache(maxsize=1 << 16)
def _alone(char: str) -> bool:
    """Whether a character is a word of its own."""
    code, category = ord(char), unicodedata.category(char)
    cjk = any(low <= code <= high for low, high in _CJK)
    symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return cjk or symbol or category[0] == "P" or (category[0] == "C" and char not in "\t\n\r")


def word_spans(text: str) -> list[tuple[int, int]]:
    """(first, behind last) character of every word of the character-level split (spec 2.1)."""
    spans = []
    start = -1  # of the run being read
    for place, char in enumerate(text):
        space = char.isspace()
        if space or _alone(char):
            if start >= 0:
                spans.append((start, place))
                start = -1
            if not space:
                spans.append((place, place + 1))
        elif start < 0:
            start = place
    if start >= 0:
        spans.append((start, len(text)))
    return spans


def split_words(text: str) -> list[str]:
    """The words of the character-level split (spec 2.1)."""
    return [text[start:end] for start, end in word_spans(text)]


@dataclass(frozen=True, eq=False)
class SplitText:
    """A text as words and their pieces.

    words: as in the text, lower-cased if the tokenizer does so.
    word_starts: [words] int32, the first character of each.
    pieces: WordPiece strings.   ids: [pieces] int32.   word_of: [pieces] int32.
    offsets: [pieces, 2] int32, first and behind last character; `[UNK]` covers its whole word.
    lower: the tokenizer lower-cases.
    """

    words: list[str]
    word_starts: np.ndarray
    pieces: list[str]
    ids: np.ndarray
    word_of: np.ndarray
    offsets: np.ndarray
    lower: bool = False

    def word_at(self, place: int) -> int:
        """The word of a character; of a space the word before it, -1 before the first word."""
        return int(np.searchsorted(self.word_starts, place, side="right")) - 1

    def first_piece(self, word: int) -> int:
        """The first piece of a word; negative numbers count from the end, as the official code's."""
        return int(np.searchsorted(self.word_of, word % len(self.words)))


class CharSplitTokenizer(Tokenizer):
    """Character-level split and greedy longest-match-first WordPiece (spec 2.1, 2.2)."""

    def __init__(self, vocabulary: Mapping[str, int], lower: bool = False):
        """vocabulary: piece -> id.   lower: lower-case first (accents stay, as officially).

        Raises InputError for a vocabulary without `[UNK]`, `[CLS]` or `[SEP]`.
        """
        missing = [name for name in ("[UNK]", "[CLS]", "[SEP]") if name not in vocabulary]
        if missing:
            raise InputError(
                f"no WordPiece vocabulary of BERT: {', '.join(missing)} missing; the official "
                "tokenisation needs the vocab.txt of a BERT model"
            )
        self.vocabulary, self.lower = dict(vocabulary), lower
        self.vocab_size = max(self.vocabulary.values()) + 1
        self.ids = SpecialIds(
            pad=self.vocabulary.get("[PAD]", 0),
            unk=self.vocabulary["[UNK]"],
            eos=self.vocabulary["[SEP]"],
            cls=self.vocabulary["[CLS]"],
            sep=self.vocabulary["[SEP]"],
            mask=self.vocabulary.get("[MASK]", -1),
        )
        self._names = {number: piece for piece, number in self.vocabulary.items()}
        self.word_pieces = functools.lru_cache(maxsize=1 << 17)(self._word_pieces)

    def _word_pieces(self, word: str) -> tuple[tuple[str, int], ...]:
        """(piece, characters of the word that it covers), or one `[UNK]` for the whole word."""
        text = word.lower() if self.lower else word
        unknown = (("[UNK]", len(word)),)
        if len(text) > MAX_WORD_CHARS:
            return unknown
        pieces, start = [], 0
        while start < len(text):
            for end in range(len(text), start, -1):
                piece = ("##" if start else "") + text[start:end]
                if piece in self.vocabulary:
                    pieces.append((piece, end - start))
                    break
            else:
                return unknown
            start += pieces[-1][1]
        return tuple(pieces)

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text, as strings."""
        return [piece for word in split_words(text) for piece, _ in self.word_pieces(word)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [[self.vocabulary[piece] for piece in self.pieces(text)] for text in texts]

    def decode(self, ids):
        """Text of token ids, pieces joined by spaces; special tokens are left out."""
        special = {self.ids.pad, self.ids.cls, self.ids.sep, self.ids.mask}
        names = [self._names[int(i)] for i in ids if int(i) not in special]
        return " ".join(names).replace(" ##", "")

    def split(self, text: str, *, by_space: bool = False) -> SplitText:
        """A text with its words and pieces.

        by_space: words are what stands between spaces, cut further only into pieces; the official
        reader of the source language. Otherwise words are those of `word_spans`.
        """
        if by_space:
            spans = [match.span() for match in _WHITESPACE_WORD.finditer(text)]
        else:
            spans = word_spans(text)
        words = [text[begin:end] for begin, end in spans]
        pieces, word_of, offsets = [], [], []
        for number, (begin, end) in enumerate(spans):
            word = words[number]
            inner = word_spans(word) if by_space else ((0, end - begin),)
            for first, behind in inner:
                place, last = begin + first, begin + behind
                for piece, length in self.word_pieces(word[first:behind]):
                    pieces.append(piece)
                    word_of.append(number)
                    # Lower-casing may lengthen a word ("İ"): never run beyond its end.
                    offsets.append((min(place, last), min(place + length, last)))
                    place += length
        if self.lower and not by_space:  # officially the text is lower-cased before it is split
            words = [word.lower() for word in words]
        return SplitText(
            words=words,
            word_starts=np.array([begin for begin, _ in spans], np.int32),
            pieces=pieces,
            ids=np.array([self.vocabulary[piece] for piece in pieces], np.int32),
            word_of=np.array(word_of, np.int32),
            offsets=np.array(offsets, np.int32).reshape(-1, 2),
            lower=self.lower,
        )


@functools.lru_cache(maxsize=8)
def char_split_tokenizer(tokenizer: Tokenizer) -> CharSplitTokenizer:
    """The official tokenisation with the vocabulary of a loaded BERT tokenizer.

    Raises InputError if its vocabulary is not WordPiece.
    """
    if isinstance(tokenizer, CharSplitTokenizer):
        return tokenizer
    backend = tokenizer.backend if isinstance(tokenizer, FastTokenizer) else None
    if type(getattr(backend, "model", None)).__name__ != "WordPiece":
        raise InputError(
            "the official mode needs the WordPiece vocabulary of a BERT model (vocab.txt); this "
            "model has another: use mode='paper'"
        )
    lower = bool(getattr(backend.normalizer, "lowercase", False))
    return CharSplitTokenizer(backend.get_vocab(), lower)
