"""Questions as windows of tokens: `[CLS] question [SEP] piece of the passage [SEP]`.

A passage is tokenized once, whatever the number of its questions, and cut into windows that overlap
(doc stride). A window knows the characters of its tokens, so an answer is cut out of the
passage, never put together from tokens. In training it knows its label too.

mode "paper": any tokenizer; labels by character offset; windows of target and source paired by
content. mode "official": the released code, bit by bit (spec 2.1-2.5): its tokenisation, labels and
pairing by index. For its answers by first occurrence read with `read_mrc(..., locate="first")`.
"""

import bisect
import collections
import logging
from collections.abc import Sequence

import numpy as np

from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.data.pipeline import pad_to_bucket
from clmrc_jax.data.span_sides import SideRow, side_windows, source_row, target_row
from clmrc_jax.data.span_windows import SpanFormat, Window
from clmrc_jax.data.tokenization import Tokenizer
from clmrc_jax.files import InputError

_log = logging.getLogger(__name__)


def target_windows(
    example: MrcExample,
    tokenizer: Tokenizer,
    format: SpanFormat,
    *,
    number: int = 0,
    labelled: bool = True,
) -> list[Window]:
    """The windows of one example; of many at once, `span_windows` is faster.

    labelled: label them with the answer, if the example has one. Raises InputError: see there.
    """
    row = target_row(number, example, labelled, format)
    return side_windows([row], tokenizer, format, source=False)[0] or []


def source_windows(
    example: MrcExample,
    tokenizer: Tokenizer,
    format: SpanFormat,
    *,
    number: int = 0,
    labelled: bool = True,
) -> list[Window]:
    """The windows of the source side of one example. Raises InputError if it has none."""
    row = source_row(number, example, labelled)
    return side_windows([row], tokenizer, format, source=True)[0] or []


def span_windows(
    examples: Sequence[MrcExample],
    tokenizer: Tokenizer,
    format: SpanFormat,
    *,
    training: bool,
    counts: collections.Counter | None = None,
) -> list[Window]:
    """The windows of all examples, in order; `Window.example` counts from 0.

    training: label the windows, and leave out examples that cannot be labelled, counted in
    `counts` and logged: `unlabelled` (no answer with a position), `uncovered` (no token touches
    it), `mismatched` (official check). Otherwise no answer is looked at and none is left out.
    Raises InputError naming the question: no token in question or passage, a question that leaves
    the passage no room; and when no example is left.
    """
    left_out = collections.Counter()
    rows = _target_rows(examples, format, training, left_out)
    found = side_windows(rows, tokenizer, format, source=False, counts=left_out)
    windows = [window for part in found for window in part or ()]
    _report(left_out, counts, len(examples), len(windows))
    return windows


def dual_windows(
    examples: Sequence[MrcExample],
    tokenizer: Tokenizer,
    format: SpanFormat,
    *,
    training: bool,
    counts: collections.Counter | None = None,
) -> list[tuple[Window, Window]]:
    """(target, source) windows of all examples, in order; see `pair_windows`.

    training: see `span_windows`; examples without translation are left out, counted as
    `untranslated`. At prediction one without translation is an InputError: it needs an answer.
    A source side whose aligned answer is unknown gets the label (0, 0), as officially.
    """
    left_out = collections.Counter()
    rows = _target_rows(examples, format, training, left_out)
    if training:
        translated = [row for row in rows if examples[row.number].source is not None]
        left_out["untranslated"] += len(rows) - len(translated)
        rows = translated
    targets = side_windows(rows, tokenizer, format, source=False, counts=left_out)
    rows = [source_row(row.number, examples[row.number], training) for row in rows]
    sources = side_windows(rows, tokenizer, format, source=True, counts=left_out)
    pairs = [
        pair
        for target, source in zip(targets, sources)
        if target and source
        for pair in pair_windows(target, source, format)
    ]
    _report(left_out, counts, len(examples), len(pairs))
    return pairs


def pair_windows(
    targets: Sequence[Window], sources: Sequence[Window], format: SpanFormat
) -> list[tuple[Window, Window]]:
    """Every target window of an example with one of its source windows.

    "paper": a target window labelled with the answer takes a source window that holds the aligned
    one; else, and always at prediction, the one whose middle lies nearest, relative to the
    passage. "official": source window i, or the last one. Raises InputError for no source window.
    """
    if not sources:
        raise InputError("no source window to pair with; is the translated passage empty?")
    if format.mode == "official":
        return [(x, sources[min(number, len(sources) - 1)]) for number, x in enumerate(targets)]
    middles = _middles(sources)
    holders = [number for number, window in enumerate(sources) if window.start]
    pairs = []
    for window, middle in zip(targets, _middles(targets)):
        choice = holders if window.start and holders else range(len(sources))
        nearest = min(choice, key=lambda number: abs(middles[number] - middle))
        pairs.append((window, sources[nearest]))
    return pairs


def _middles(windows: Sequence[Window]) -> list[float]:
    """The middle of each window, as a share of its passage."""
    total = max(window.begin + window.count for window in windows)
    return [(window.begin + window.count / 2) / total for window in windows]


def _target_rows(examples, format: SpanFormat, training: bool, counts) -> list[SideRow]:
    """The target sides; in training without the examples that have no usable label."""
    rows = [target_row(n, example, training, format) for n, example in enumerate(examples)]
    if not training:
        return rows
    kept = [row for row in rows if row.answer is not None or examples[row.number].impossible]
    counts["unlabelled"] += len(rows) - len(kept)
    return kept


_LEFT_OUT = {
    "unlabelled": "have no answer with a position in the passage",
    "untranslated": "have no translation",
    "uncovered": "have an answer that no token covers",
    "mismatched": "have an answer that their words do not contain (official check)",
}


def _report(
    left_out: collections.Counter, counts: collections.Counter | None, examples: int, windows: int
) -> None:
    """Logs what was left out, adds it to the caller's counts, and refuses an empty result."""
    if counts is not None:
        counts.update(left_out)
    for name, text in _LEFT_OUT.items():
        if left_out[name]:
            _log.warning("left out %d of %d questions: they %s", left_out[name], examples, text)
    if not windows:
        why = ", ".join(
            f"{left_out[name]} {text}" for name, text in _LEFT_OUT.items() if left_out[name]
        )
        raise InputError(
            f"none of {examples} questions gives a window: {why or 'no question given'}"
        )


def span_batches(tokenizer: Tokenizer, format: SpanFormat, lengths: Sequence[int] = ()):
    """`transform(rows, rngs, epoch, size) -> batch` of the plain reader.

    rows: windows; None is a padding row: a copy of the first window with valid false.
    lengths: padded lengths, ascending; default `max_length` alone.
    size: which of them to take; default the smallest that holds the rows.
    batch: input_ids [batch, length] int32, attention_mask [batch, length] bool, token_type_ids
    [batch, length] int32, span_mask [batch, length] bool, start, end [batch] int32, valid [batch]
    bool.
    """
    lengths = tuple(lengths) or (format.max_length,)

    def transform(rows, rngs, epoch, size=None):
        del rngs, epoch
        windows, valid = _filled(rows)
        return _side(windows, lengths, size, tokenizer.ids.pad, "") | {"valid": valid}

    return transform


def dual_batches(
    tokenizer: Tokenizer,
    format: SpanFormat,
    lengths: Sequence[int] = (),
    source_lengths: Sequence[int] = (),
):
    """`transform(rows, rngs, epoch, size) -> batch` of Dual BERT.

    rows: (target, source) windows, or None; see `span_batches`.   size: of both sides.
    batch: that of `span_batches`, and source_input_ids ... source_end for the source side.
    """
    lengths = tuple(lengths) or (format.max_length,)
    source_lengths = tuple(source_lengths) or (format.source_length,)

    def transform(rows, rngs, epoch, size=None):
        del rngs, epoch
        pairs, valid = _filled(rows)
        targets, sources = zip(*pairs)
        batch = _side(targets, lengths, size, tokenizer.ids.pad, "")
        batch |= _side(sources, source_lengths, size, tokenizer.ids.pad, "source_")
        return batch | {"valid": valid}

    return transform


def padded_lengths(longest: int, count: int) -> tuple[int, ...]:
    """`count` lengths up to `longest`, evenly spread."""
    return tuple(-(-longest * number // count) for number in range(1, count + 1))


def size_of(row, lengths: Sequence[int], source_lengths: Sequence[int] = ()) -> int:
    """Number of the smallest of `lengths` that holds a window; of a pair, that holds both sides.

    row: a window, or (target, source).
    """
    sides = zip(row, (lengths, source_lengths)) if isinstance(row, tuple) else [(row, lengths)]
    return max(bisect.bisect_left(known, len(window.tokens)) for window, known in sides)


def _filled(rows: Sequence) -> tuple[list, np.ndarray]:
    """Rows with the first real one in place of None, and which rows are real, [batch] bool."""
    valid = np.array([row is not None for row in rows])
    if not valid.any():
        raise InputError("a batch without any window; at least one row must be real")
    filler = rows[int(np.argmax(valid))]
    return [filler if row is None else row for row in rows], valid


def _side(windows: Sequence[Window], lengths, size, pad_id, prefix) -> dict[str, np.ndarray]:
    """The arrays of one side."""
    lengths = lengths if size is None else lengths[size : size + 1]
    ids, mask = pad_to_bucket([window.tokens for window in windows], lengths, pad_id)
    place = np.arange(ids.shape[1])
    first, last = (
        np.array(numbers)[:, None]
        for numbers in zip(*((window.first, window.first + window.count) for window in windows))
    )
    passage = (place >= first) & (place < last)
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": ((place >= first) & mask).astype(np.int32),
        "span_mask": passage | (place == 0),
        "start": np.array([window.start for window in windows], np.int32),
        "end": np.array([window.end for window in windows], np.int32),
    }
    return {prefix + name: values for name, values in batch.items()}
