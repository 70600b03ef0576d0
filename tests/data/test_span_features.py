"""Features of whole examples: pairs of windows, batches, and the official mode, bit by bit."""

import collections
import importlib.util
import pathlib

import numpy as np
import pytest

from clmrc_jax.data.char_split import CharSplitTokenizer, split_words
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide, pair_parallel, read_mrc
from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.data.span_features import (
    dual_batches,
    dual_windows,
    padded_lengths,
    pair_windows,
    size_of,
    source_windows,
    span_batches,
    span_windows,
    target_windows,
)
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.files import InputError

REFERENCE = pathlib.Path(__file__).with_name("official_reference.py")
spec = importlib.util.spec_from_file_location("official_reference", REFERENCE)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer_of(*texts):
    """A WordPiece vocabulary with unknown words, whole words and pieces of two characters."""
    names = dict.fromkeys(SPECIAL)
    for word in (word for text in texts for word in split_words(text)):
        if len(word) % 5 == 0:
            names[word] = None
        else:
            names.update(
                dict.fromkeys([word[:2], *("##" + word[i : i + 2] for i in range(2, 9, 2))])
            )
    return CharSplitTokenizer({name: number for number, name in enumerate(names)})


def example(number=1, context="a b c d e f g h", answer="e", source=None, **fields):
    answers = (Answer(answer, context.find(answer)),) if answer else ()
    fields = {"answers": answers, "source": source} | fields
    return MrcExample(f"q{number}", "zh", "T", "w ?", context, **fields)


def side(context="A B C D E F G H", answer="E"):
    found = Answer(answer, context.find(answer)) if answer else None
    return SourceSide("en", "W ?", context, found)


LETTERS = tokenizer_of("a b c d e f g h i j A B C D E F G H w W ?")
# Windows of four passage tokens, two apart.
SHORT = SpanFormat(max_length=9, source_length=9, doc_stride=2)


def names(window):
    pieces = {number: name for name, number in LETTERS.vocabulary.items()}
    return "".join(pieces[int(i)] for i in window.tokens[window.first : -1])


def test_windows_of_many_examples_equal_those_of_each():
    examples = [example(n, answer=letter, source=side()) for n, letter in enumerate("aeh")]
    together = span_windows(examples, LETTERS, SHORT, training=True)
    alone = [w for n, x in enumerate(examples) for w in target_windows(x, LETTERS, SHORT, number=n)]
    assert len(together) == len(alone) == 9
    for a, b in zip(together, alone):
        assert (a.example, a.index, a.start, a.end) == (b.example, b.index, b.start, b.end)
        np.testing.assert_array_equal(a.tokens, b.tokens)
    assert together[0].offsets.base is not None, "one tokenization, shared by all questions"


def test_gold_answers_are_not_needed_to_predict():
    labelled = [example(answer="e", source=side()), example(2, answer="zz", source=side())]
    bare = [example(answer="", source=side(answer="")), example(2, answer="", source=side("A"))]
    for make in (span_windows, dual_windows):
        found, other = (make(x, LETTERS, SHORT, training=False) for x in (labelled[:1], bare[:1]))
        assert len(found) == len(other) == 3
        for a, b in zip(found, other):
            for one, two in zip(*((x if isinstance(x, tuple) else (x,)) for x in (a, b))):
                np.testing.assert_array_equal(one.tokens, two.tokens)
                assert one.start == two.start == one.end == 0
    assert {w.example for w in span_windows(labelled, LETTERS, SHORT, training=False)} == {0, 1}


def test_examples_without_label_are_left_out_of_training_and_counted(caplog):
    examples = [
        example(0),
        example(1, answer="zz"),
        example(2, answer="", impossible=True),
        example(3, answer=""),
    ]
    counts = collections.Counter()
    windows = span_windows(examples, LETTERS, SHORT, training=True, counts=counts)
    assert {window.example for window in windows} == {0, 2}
    assert not any(window.start for window in windows if window.example == 2)
    assert +counts == {"unlabelled": 2}
    assert "left out 2 of 4 questions: they have no answer with a position" in caplog.text
    with pytest.raises(InputError, match="none of 1 questions gives a window: 1 have no answer"):
        span_windows(examples[3:], LETTERS, SHORT, training=True)
    with pytest.raises(InputError, match="no question given"):
        span_windows([], LETTERS, SHORT, training=False)


def test_question_without_translation_is_left_out_or_refused():
    examples = [example(0, source=side()), example(1)]
    counts = collections.Counter()
    pairs = dual_windows(examples, LETTERS, SHORT, training=True, counts=counts)
    assert {target.example for target, _ in pairs} == {0} and counts["untranslated"] == 1
    with pytest.raises(InputError, match="'q1' has no translation; translate"):
        dual_windows(examples, LETTERS, SHORT, training=False)


def test_source_window_with_the_aligned_answer_goes_with_the_target_window_that_has_it():
    pairs = dual_windows(
        [example(answer="a", source=side(answer="H"))], LETTERS, SHORT, training=True
    )
    assert [(names(a), names(b)) for a, b in pairs] == [
        ("abcd", "EFGH"),  # labelled: it takes the window with H
        ("cdef", "CDEF"),  # else the window at the same place of the passage
        ("efgh", "EFGH"),
    ]
    assert [bool(target.start) for target, _ in pairs] == [True, False, False]


def test_windows_are_paired_by_place_when_the_answer_is_unknown():
    long = example(context="a b c d e f g h i j", answer="j", source=side("A B C D E F"))
    pairs = dual_windows([long], LETTERS, SHORT, training=False)
    assert [(names(a), names(b)) for a, b in pairs] == [
        ("abcd", "ABCD"),
        ("cdef", "ABCD"),
        ("efgh", "CDEF"),
        ("ghij", "CDEF"),
    ]
    unaligned = example(answer="a", source=side(answer=""))
    pairs = dual_windows([unaligned], LETTERS, SHORT, training=True)
    assert names(pairs[0][1]) == "ABCD" and not any(source.start for _, source in pairs)


def test_official_mode_pairs_by_index_and_repeats_the_last_source_window():
    official = SpanFormat(max_length=9, source_length=9, doc_stride=2, mode="official")
    short = example(answer="a", source=side("A B C D E F", answer="F"))
    found = target_windows(short, LETTERS, official), source_windows(short, LETTERS, official)
    pairs = pair_windows(*found, official)
    assert [(names(a), names(b)) for a, b in pairs] == [
        ("abcd", "ABCD"),
        ("cdef", "CDEF"),
        ("efgh", "CDEF"),
    ]
    with pytest.raises(InputError, match="no source window"):
        pair_windows(found[0], [], SHORT)


def test_batch_arrays_have_the_shapes_and_masks_of_the_contract():
    windows = span_windows([example()], LETTERS, SHORT, training=True)
    batch = span_batches(LETTERS, SpanFormat(max_length=12))([*windows, None], None, 0)
    assert {name: (x.shape, str(x.dtype)) for name, x in batch.items()} == {
        "input_ids": ((4, 12), "int32"),
        "attention_mask": ((4, 12), "bool"),
        "token_type_ids": ((4, 12), "int32"),
        "span_mask": ((4, 12), "bool"),
        "start": ((4,), "int32"),
        "end": ((4,), "int32"),
        "valid": ((4,), "bool"),
    }
    # [CLS] w ? [SEP] four tokens [SEP], three of padding
    assert batch["input_ids"][0].tolist() == [*windows[0].tokens, 0, 0, 0]
    assert batch["attention_mask"][0].tolist() == [True] * 9 + [False] * 3
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 5 + [0] * 3
    assert batch["span_mask"][0].tolist() == [True] + [False] * 3 + [True] * 4 + [False] * 4
    assert batch["start"].tolist() == batch["end"].tolist() == [0, 6, 4, 0]
    assert batch["valid"].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(batch["input_ids"][3], batch["input_ids"][0])
    with pytest.raises(InputError, match="at least one row must be real"):
        span_batches(LETTERS, SHORT)([None], None, 0)


def test_dual_batch_has_both_sides_at_their_own_lengths():
    format = SpanFormat(max_length=9, source_length=11, doc_stride=2)
    pairs = dual_windows([example(source=side())], LETTERS, format, training=True)
    batch = dual_batches(LETTERS, format)([*pairs, None], None, 0)
    assert batch["input_ids"].shape == (4, 9) and batch["source_input_ids"].shape == (4, 11)
    assert batch["source_span_mask"].sum(axis=1).tolist() == [1 + 6] * 4
    for row, (target, source) in enumerate(pairs):
        assert (batch["start"][row], batch["end"][row]) == (target.start, target.end)
        assert (batch["source_start"][row], batch["source_end"][row]) == (source.start, source.end)
    assert {name for name in batch if name.startswith("source_")} == {
        f"source_{name}" for name in batch if name != "valid" and not name.startswith("source_")
    }


def test_shortest_length_that_holds_a_batch_is_taken():
    windows = span_windows([example()], LETTERS, SHORT, training=False)
    transform = span_batches(LETTERS, SHORT, lengths=(8, 16, 32))
    assert transform(windows, None, 0)["input_ids"].shape == (3, 16)


def test_padded_lengths_are_evenly_spread_and_end_at_the_longest():
    assert padded_lengths(384, 6) == (64, 128, 192, 256, 320, 384)
    assert padded_lengths(100, 3) == (34, 67, 100) and padded_lengths(512, 1) == (512,)


def test_both_sides_of_a_pair_have_the_size_of_the_larger():
    format = SpanFormat(max_length=9, source_length=12, doc_stride=2)
    (pair, *_) = dual_windows([example(source=side())], LETTERS, format, training=True)
    lengths = padded_lengths(9, 3), padded_lengths(12, 3)
    target, source = (len(window.tokens) for window in pair)
    assert (target, source) == (9, 12)
    assert size_of(pair[0], lengths[0]) == size_of(pair, *lengths) == 2
    assert size_of(pair, (9, 18), (4, 12)) == 1, "the source side needs the second"
    batch = dual_batches(LETTERS, format, (9, 18), (11, 12))([pair], None, 0, 1)
    assert batch["input_ids"].shape == (1, 18) and batch["source_input_ids"].shape == (1, 12)


def test_windows_feed_the_training_pipeline():
    windows = span_windows([example(n) for n in range(3)], LETTERS, SHORT, training=True)
    batches = make_dataset(windows, batch_size=4, seed=1, transform=span_batches(LETTERS, SHORT))
    np.testing.assert_array_equal(batches[0]["input_ids"], batches[0]["input_ids"])
    assert batches[2]["input_ids"].shape == (4, 9) and batches[2]["valid"].all()


TEXTS = [
    ("《战国无双3》由光荣和ω-force开发，售￥3。Beijing（1895-1943）。", "光荣和ω-force"),
    ("《战国无双3》由光荣和ω-force开发，售￥3。Beijing（1895-1943）。", "1943"),
    ("　歐洲 is\u200b big: 欧洲！ カタカナ語、50％", "欧洲"),
    ("a\u00a0b 歐洲\u00a0Duck，end", "a\u00a0b"),
    ("a\u00a0b 歐洲\u00a0Duck，end", "missing"),
    ("歐洲歐洲歐洲 word 歐洲", "歐洲"),
    (" 歐洲 leading", " 歐"),
]


@pytest.mark.parametrize("length", [24, 60])
@pytest.mark.parametrize("context, answer", TEXTS)
@pytest.mark.parametrize("source", [False, True])
def test_official_windows_equal_the_literal_reference(context, answer, source, length):
    question = "谁 wrote《战国》?"
    tokenizer = tokenizer_of(context[::2], question, "歐洲 end Duck")
    found = Answer(answer, context.find(answer))
    translation = SourceSide("en", question, context, found) if source else None
    made = MrcExample("1", "zh", "", question, context, (found,), source=translation)
    format = SpanFormat(length, length, doc_stride=5, max_query_length=6, mode="official")
    windows = (source_windows if source else target_windows)(made, tokenizer, format)
    sizes = {"length": length, "stride": 5, "query": 6}
    expected = reference.example_windows(
        question, context, answer, tokenizer.vocabulary, source=source, **sizes
    )
    check_windows(windows, expected, tokenizer)


def check_windows(windows, expected, tokenizer):
    if expected == "drop":
        assert windows == []
        return
    assert len(windows) == len(expected)
    batch = span_batches(tokenizer, SpanFormat(max_length=512))(windows, None, 0)
    for row, (tokens, segments, mask, start, end, flags) in enumerate(expected):
        ids = [tokenizer.vocabulary[name] for name in tokens]
        assert windows[row].tokens.tolist() == ids
        assert batch["token_type_ids"][row, : len(ids)].tolist() == segments
        assert batch["span_mask"][row, : len(ids)].tolist() == [bool(x) for x in mask]
        assert not batch["span_mask"][row, len(ids) :].any()
        assert (windows[row].start, windows[row].end) == (start, end)
        assert windows[row].max_context.tolist() == flags


def test_official_windows_of_real_parallel_passages_equal_the_reference(shared_data):
    zh, en = (
        read_mrc(shared_data / "xquad" / f"xquad.{code}.json.gz", code, locate="first")[:60]
        for code in ("zh", "en")
    )
    pairs = pair_parallel(zh, en)
    tokenizer = tokenizer_of(*(x.context for x in pairs), *(x.source.context for x in pairs[::2]))
    format = SpanFormat(128, 128, doc_stride=48, max_query_length=20, mode="official")
    sizes = {"length": 128, "stride": 48, "query": 20}
    for pair in pairs:
        answers = pair.gold().text, pair.source.answer.text
        texts = (pair.question, pair.context), (pair.source.question, pair.source.context)
        for source, make in enumerate((target_windows, source_windows)):
            expected = reference.example_windows(
                *texts[source], answers[source], tokenizer.vocabulary, bool(source), **sizes
            )
            check_windows(make(pair, tokenizer, format), expected, tokenizer)
