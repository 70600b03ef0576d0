"""A passage cut into overlapping windows behind its question (spec 2.4)."""

import functools
from dataclasses import dataclass

import numpy as np

from clmrc_jax.data.char_split import SplitText
from clmrc_jax.data.token_offsets import TokenizedText
from clmrc_jax.files import InputError

MODES = ("paper", "official")


@dataclass(frozen=True)
class SpanFormat:
    """How questions and passages become windows.

    max_length: tokens of a target window, special ones included.   source_length: of a source one;
    the official code has one length for both.   doc_stride: tokens between window starts.
    max_query_length: longer questions are cut.   mode: see the module.
    """

    max_length: int = 512
    source_length: int = 512
    doc_stride: int = 128
    max_query_length: int = 64
    mode: str = "paper"

    def __post_init__(self):
        if self.mode not in MODES:
            raise InputError(f"mode {self.mode!r}: choose one of {', '.join(MODES)}")
        for name in ("max_length", "source_length", "doc_stride", "max_query_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.mode == "official" and self.source_length != self.max_length:
            raise InputError(
                f"max_length {self.max_length} and source_length {self.source_length} differ; the "
                "official mode needs one length for both sides"
            )


@dataclass(frozen=True, eq=False)
class Window:
    """A question with a piece of its passage.

    example: number of its example.   index: number of the window among those of the example.
    tokens: [length] int32, the whole input.   first: position of the first passage token.
    begin: number of that token in the passage.
    offsets: [passage tokens, 2] int32, character offsets into the passage.
    max_context: [passage tokens] bool, no other window shows more text around the token.
    start, end: gold positions in `tokens`; 0, 0 ([CLS]) without an answer here, or without label.
    split: the whole passage in words and pieces, for the official text; None otherwise.
    """

    example: int
    index: int
    tokens: np.ndarray
    first: int
    begin: int
    offsets: np.ndarray
    max_context: np.ndarray
    start: int = 0
    end: int = 0
    split: SplitText | None = None

    @property
    def count(self) -> int:
        """Passage tokens in the window."""
        return len(self.offsets)


@functools.lru_cache(maxsize=4096)
def window_bounds(tokens: int, room: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """First token and length of every window, each [windows], of a passage of `tokens` tokens.

    room: passage tokens that fit into a window.
    """
    step = min(room, stride)
    windows = 1 + max(0, -(-(tokens - room) // step))
    starts = np.arange(windows) * step
    return starts, np.minimum(room, tokens - starts)


@functools.lru_cache(maxsize=4096)
def max_contexts(tokens: int, room: int, stride: int) -> np.ndarray:
    """[tokens] the number of the window in which each token has most context.

    That is the smaller of the contexts to the left and right, plus 0.01 times the length of the
    window; of equal windows the first.
    """
    starts, lengths = (x[:, None] for x in window_bounds(tokens, room, stride))
    left = np.arange(tokens) - starts
    right = starts + lengths - 1 - np.arange(tokens)
    inside = (left >= 0) & (right >= 0)
    score = np.where(inside, np.minimum(left, right) + 0.01 * lengths, -np.inf)
    return np.argmax(score, axis=0)


def cut_windows(
    text: TokenizedText,
    question: list[int],
    special: tuple[int, int],
    *,
    example: int,
    room: int,
    stride: int,
    span: tuple[int, int] | None,
) -> list[Window]:
    """The windows of one question.

    text: its passage.   question: token ids.   special: ids of [CLS] and [SEP].
    room: passage tokens of a window.
    span: first and last passage token of the answer; None without one. A window that does not hold
    all of it has the label (0, 0).
    """
    cls, sep = special
    first = len(question) + 2
    before, last = np.array([cls, *question, sep], np.int32), np.array([sep], np.int32)
    best = max_contexts(len(text.ids), room, stride)
    windows = []
    for index, (begin, length) in enumerate(zip(*window_bounds(len(text.ids), room, stride))):
        begin, end = int(begin), int(begin + length)
        here = span is not None and span[0] >= begin and span[1] < end
        windows.append(
            Window(
                example=example,
                index=index,
                tokens=np.concatenate([before, text.ids[begin:end], last]),
                first=first,
                begin=begin,
                offsets=text.offsets[begin:end],
                max_context=best[begin:end] == index,
                start=span[0] - begin + first if here else 0,
                end=span[1] - begin + first if here else 0,
                split=text.split,
            )
        )
    return windows
