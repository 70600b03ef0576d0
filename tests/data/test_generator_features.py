"""mGEN's source string, to the character (spec 1.7), and its batches."""

import numpy as np
import pytest

from clmrc_jax.data.generator_features import (
    GeneratorFormat,
    count_tokens,
    encode_sources,
    encode_targets,
    pad_sources,
    seq2seq_batches,
)
from clmrc_jax.data.pipeline import row_generators
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError

CTXS = [
    {"title": "Tokyo", "text": "Tokyo is the capital."},
    {"title": "東京", "text": "東京は日本の首都。"},
    {"title": "", "text": "Untitled words."},
]


@pytest.fixture(scope="module")
def tokenizer(vocabulary):
    return load_tokenizer(str(vocabulary))


def source(format, question="首都は？", lang="ja", ctxs=CTXS):
    return " ".join(format.parts(question, lang, ctxs))


@pytest.mark.parametrize(
    "tag, expected",
    [
        (
            "single",
            "<Q>: 首都は？ [ja] <P>:<0: Tokyo> Tokyo is the capital. <1: 東京> 東京は日本の首都。",
        ),
        (
            "double",
            "<Q>: 首都は？ [ja] [ja] <P>:<0: Tokyo> Tokyo is the capital. <1: 東京> 東京は日本の首都。",
        ),
        ("none", "<Q>: 首都は？ <P>:<0: Tokyo> Tokyo is the capital. <1: 東京> 東京は日本の首都。"),
    ],
)
def test_source_string_is_that_of_the_released_code(tag, expected):
    assert source(GeneratorFormat(tag=tag), ctxs=CTXS[:2]) == expected


def test_source_without_passages_is_the_closed_book_format():
    assert source(GeneratorFormat(), ctxs=[]) == "<Q>: 首都は？ [ja]"
    assert source(GeneratorFormat(tag="double"), ctxs=[]) == "<Q>: 首都は？ [ja] [ja]"


def test_source_without_title_keeps_the_marker():
    assert source(GeneratorFormat(), "q", "en", CTXS[2:]) == "<Q>: q [en] <P>:<0: > Untitled words."


def test_source_is_one_line_and_newlines_separate_words():
    """The reference deletes newlines and so glues words; we put a space there."""
    ctx = {"title": "A\nB", "text": "one\r\ntwo\n\nthree\u2028four\t five"}
    expected = "<Q>: who ? [en] <P>:<0: A B> one two three four five"
    assert source(GeneratorFormat(), " who\n?", "en", [ctx]) == expected


def test_fusion_repeats_the_question_before_every_passage():
    parts = GeneratorFormat(fusion=True).parts("who?", "en", CTXS[:2])
    assert parts == [
        "<Q>: who? [en] <P>:<0: Tokyo> Tokyo is the capital.",
        "<Q>: who? [en] <P>:<1: 東京> 東京は日本の首都。",
    ]


def test_empty_question_and_unknown_tag_are_refused():
    with pytest.raises(InputError, match="empty question"):
        GeneratorFormat().head(" \n", "en")
    with pytest.raises(InputError, match="tag must be one of single, double, none; got 'triple'"):
        GeneratorFormat(tag="triple")


def test_encoding_parts_equals_encoding_the_whole_string(tokenizer, many_sentences):
    """What the claim rests on: no piece of the vocabulary crosses a space."""
    format = GeneratorFormat(source_buckets=(2000,), passages=5)
    rng = np.random.default_rng(0)
    for _ in range(40):
        texts = rng.choice(many_sentences, 9).tolist()
        ctxs = [{"title": x, "text": y} for x, y in zip(texts[1::2], texts[2::2])]
        (ids,), (survived,) = encode_sources(tokenizer, format, [(texts[0], "ja", ctxs)])
        (whole,) = tokenizer.encode_batch([source(format, texts[0], "ja", ctxs)])
        assert ids == [*whole, tokenizer.ids.eos] and survived == 4


def test_survived_counts_whole_passages_at_every_limit(tokenizer):
    long = GeneratorFormat(source_buckets=(2000,))
    lengths = []
    for count in (1, 2, 3):
        (ids,), _ = encode_sources(tokenizer, long, [("who?", "en", CTXS[:count])])
        lengths.append(len(ids))
    full = encode_sources(tokenizer, long, [("who?", "en", CTXS)])[0][0]
    for limit in range(4, lengths[-1] + 3):
        format = GeneratorFormat(source_buckets=(limit,))
        (ids,), (survived,) = encode_sources(tokenizer, format, [("who?", "en", CTXS)])
        assert survived == sum(length <= limit for length in lengths)
        assert len(ids) == min(limit, lengths[-1]) and ids[-1] == tokenizer.ids.eos
        assert ids[:-1] == full[: len(ids) - 1], "cut at the right"


def test_only_the_first_passages_are_offered_and_none_survives_closed_book(tokenizer):
    two = GeneratorFormat(passages=2, source_buckets=(500,))
    ids, survived = encode_sources(tokenizer, two, [("q", "en", CTXS), ("q", "en", CTXS[:2])])
    assert ids[0] == ids[1] and survived == [2, 2]
    closed = GeneratorFormat(passages=0, source_buckets=(500,))
    ids, survived = encode_sources(tokenizer, closed, [("q", "en", CTXS), ("q", "en", [])])
    assert ids[0] == ids[1] and survived == [0, 0]
    assert encode_sources(tokenizer, two, [("q", "en", [])])[1] == [0]


def test_training_and_evaluation_see_the_same_truncated_source(tokenizer):
    format = GeneratorFormat(source_buckets=(12, 20), target_length=4, passages=3)
    choose = lambda row, rng, epoch: (row["q"], "en", CTXS, "an answer of many tokens")  # noqa: E731
    batch = seq2seq_batches(tokenizer, format, choose)([{"q": "who?"}], row_generators(0, [0]), 0)
    (ids,), _ = encode_sources(tokenizer, format, [("who?", "en", CTXS)])
    assert batch["encoder_input_tokens"].tolist() == [ids] and len(ids) == 20


def test_batch_ends_in_eos_and_is_padded_and_masked(tokenizer):
    format = GeneratorFormat(source_buckets=(40,), target_length=6, passages=1)
    rows = [("who?", "en", CTXS[:1], "日本"), ("q", "en", [], "Tokyo\nis a very long answer " * 3)]
    transform = seq2seq_batches(tokenizer, format, lambda row, rng, epoch: row)
    batch = transform(rows, row_generators(0, range(len(rows))), 0)
    eos = tokenizer.ids.eos
    targets = encode_targets(tokenizer, format, [row[3] for row in rows])
    assert len(targets[1]) == 6 and targets[1][-1] == eos
    for name, ids in (("decoder_target_tokens", targets[0]), ("decoder_target_tokens", targets[1])):
        line = batch[name][targets.index(ids)]
        assert line.tolist() == ids + [0] * (6 - len(ids))
    assert batch["decoder_mask"].sum(1).tolist() == [len(targets[0]), 6]
    lengths = [len(ids) for ids in encode_sources(tokenizer, format, [r[:3] for r in rows])[0]]
    assert batch["encoder_mask"].sum(1).tolist() == lengths
    assert batch["encoder_input_tokens"].shape == (2, 40)
    assert tokenizer.decode(targets[0]) == "日本"


def test_choice_sees_row_rng_and_epoch(tokenizer):
    seen = []

    def choose(row, rng, epoch):
        seen.append((row, int(rng.integers(100)), epoch))
        return "q", "en", [], "a"

    transform = seq2seq_batches(tokenizer, GeneratorFormat(source_buckets=(9,)), choose)
    transform(["x", "y"], row_generators(7, [4, 5]), 3)
    draws = [int(rng.integers(100)) for rng in row_generators(7, [4, 5])]
    assert seen == [("x", draws[0], 3), ("y", draws[1], 3)]


@pytest.mark.parametrize("fusion", [False, True])
def test_counted_tokens_are_those_of_the_encoded_source(tokenizer, fusion):
    format = GeneratorFormat(source_buckets=(500,), fusion=fusion)
    count = count_tokens(tokenizer, format)
    (ids,), _ = encode_sources(tokenizer, format, [("who?", "en", CTXS)])
    head, *passages = count("who?", "en", CTXS)
    if fusion:
        assert [head + n + 1 for n in passages] == [len(x) for x in ids], "1: the end token"
    else:
        assert head + sum(passages) + 1 == len(ids)
    (alone,), _ = encode_sources(tokenizer, format, [("who?", "en", [])])
    assert count("who?", "en", []) == [len(alone[0] if fusion else alone) - 1] == [head]


def test_a_labelled_passage_takes_its_share_of_the_longest_source():
    format = GeneratorFormat(source_buckets=(48, 96, 112, 288), passages=3)
    assert format.labelling_length == 96
    assert GeneratorFormat(source_buckets=(256, 1000), passages=15).labelling_length == 256
    assert (
        GeneratorFormat(source_buckets=(64, 160), passages=3, fusion=True).labelling_length == 160
    )
    assert GeneratorFormat(source_buckets=(64, 160), passages=0).labelling_length == 160


def test_fusion_pads_passages_and_missing_ones(tokenizer):
    format = GeneratorFormat(source_buckets=(16, 60), passages=3, fusion=True)
    items = [("who?", "en", CTXS[:2]), ("who?", "en", [])]
    ids, survived = encode_sources(tokenizer, format, items)
    tokens, mask = pad_sources(format, ids, tokenizer.ids.pad)
    assert tokens.shape == mask.shape == (2, 3, 60) and survived == [2, 0]
    assert mask.sum(-1).tolist() == [[len(ids[0][0]), len(ids[0][1]), 0], [len(ids[1][0]), 0, 0]]
    assert tokens[0, 1, : len(ids[0][1])].tolist() == ids[0][1]
