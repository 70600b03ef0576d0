import numpy as np
import pytest

from clmrc_jax.data.span_windows import SpanFormat, cut_windows, max_contexts, window_bounds
from clmrc_jax.data.token_offsets import TokenizedText
from clmrc_jax.files import InputError


def text(tokens):
    ids = np.arange(100, 100 + tokens, dtype=np.int32)
    return TokenizedText(ids, np.stack([2 * ids, 2 * ids + 1], axis=1))


def cut(tokens, room, stride, span=None, question=(7, 8)):
    options = {"example": 5, "room": room, "stride": stride, "span": span}
    return cut_windows(text(tokens), list(question), (1, 2), **options)


@pytest.mark.parametrize("stride", [1, 3, 7, 50])
@pytest.mark.parametrize("room", [1, 4, 10])
@pytest.mark.parametrize("tokens", [1, 4, 9, 10, 11, 31])
def test_windows_are_those_of_the_step_by_step_rule(tokens, room, stride):
    expected, start = [], 0
    while start < tokens:
        length = min(tokens - start, room)
        expected.append((start, length))
        if start + length == tokens:
            break
        start += min(length, stride)
    assert list(zip(*window_bounds(tokens, room, stride))) == expected
    for place, chosen in enumerate(max_contexts(tokens, room, stride)):
        scores = [
            min(place - first, first + length - 1 - place) + 0.01 * length
            for first, length in expected
            if first <= place < first + length
        ]
        inside = [n for n, (a, b) in enumerate(expected) if a <= place < a + b]
        assert chosen == inside[scores.index(max(scores))]


def test_window_holds_question_passage_and_what_they_cover():
    first, second = cut(10, room=6, stride=4)
    assert first.tokens.tolist() == [1, 7, 8, 2, 100, 101, 102, 103, 104, 105, 2]
    assert second.tokens.tolist() == [1, 7, 8, 2, 104, 105, 106, 107, 108, 109, 2]
    assert (first.example, first.index, first.first, first.begin, first.count) == (5, 0, 4, 0, 6)
    assert (second.index, second.begin) == (1, 4)
    assert second.offsets.tolist() == [[2 * i, 2 * i + 1] for i in range(104, 110)]
    shown = [
        (window.begin + place)
        for window in (first, second)
        for place in window.max_context.nonzero()[0]
    ]
    assert sorted(shown) == list(range(10)), "every token has most context in exactly one window"


@pytest.mark.parametrize(
    "span, labels",
    [((4, 5), [(8, 9), (4, 5)]), ((3, 4), [(7, 8), (0, 0)]), ((5, 6), [(0, 0), (5, 6)])]
    + [((2, 8), [(0, 0), (0, 0)]), (None, [(0, 0), (0, 0)])],
)
def test_label_is_the_span_where_all_of_it_lies_in_the_window(span, labels):
    windows = cut(10, room=6, stride=4, span=span)
    assert [(window.start, window.end) for window in windows] == labels


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "best"}, "mode 'best': choose one of paper, official"),
        ({"doc_stride": 0}, "doc_stride is 0; it must be at least 1"),
        ({"max_length": 0}, "max_length is 0"),
        ({"mode": "official", "source_length": 256}, "one length for both sides"),
    ],
)
def test_bad_format_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        SpanFormat(**options)
