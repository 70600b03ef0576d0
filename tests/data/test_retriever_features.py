"""mDPR's formatter and training batches (spec 3.1, 3.2)."""

import collections
import itertools

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from clmrc_jax.data.passage_names import by_id_or_text
from clmrc_jax.data.pipeline import row_generators
from clmrc_jax.data.retriever_features import RetrieverFormat, contrastive_batches, stable_key
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError

FORMAT = RetrieverFormat(question_buckets=(16, 24), passage_buckets=(24, 32))


@pytest.fixture(scope="module")
def tokenizer(vocabulary):
    return load_tokenizer(str(vocabulary))


def ctx(number, article="", title="Japan", text=None):
    text = text or f"text number {number}"
    return {"id": f"p{number}", "lang": "en", "article_id": article, "title": title, "text": text}


def row(positives, negatives=(), question="where?", lang="en"):
    return {
        "q_id": "q",
        "question": question,
        "lang": lang,
        "positive_ctxs": list(positives),
        "hard_negative_ctxs": list(negatives),
    }


def rngs(rows, seed=0):
    return row_generators(seed, range(rows))


def test_question_text_is_tagged_once_prefixed_and_stripped():
    assert RetrieverFormat().question_text(" 東京は？\n", "ja") == "東京は？ [ja]"
    assert RetrieverFormat(tag_language=False).question_text("who?", "en") == "who?"
    legacy = RetrieverFormat(strip_question_mark=True)
    assert legacy.question_text("who??", "en") == "who? [en]", "one mark, as the reference does"
    assert legacy.question_text("من؟", "ar") == "من؟ [ar]", "ASCII marks only"
    e5 = RetrieverFormat(tag_language=False, query_prefix="query: ")
    assert e5.question_text("who?", "en") == "query: who?"


@pytest.mark.parametrize("question", ["", " \n\t", "?"])
def test_empty_question_is_refused(question):
    with pytest.raises(InputError, match="empty question"):
        RetrieverFormat(strip_question_mark=True).question_text(question, "en")


def test_passages_are_pairs_of_title_and_text(tokenizer):
    cls, sep = tokenizer.ids.cls, tokenizer.ids.sep
    (title,), (text,) = tokenizer.encode_batch(["Japan"]), tokenizer.encode_batch(["some text"])
    both, alone = FORMAT.passages(tokenizer, [("Japan", "some text"), ("", "some text")])
    assert both == [cls, *title, sep, *text, sep] and alone == [cls, *text, sep]
    assert FORMAT.passages(tokenizer, []) == []
    (cut,) = FORMAT.passages(tokenizer, [("Japan", "some text " * 50)])
    assert len(cut) == 32 and cut[-1] == sep and cut[: len(title) + 2] == both[: len(title) + 2]


def test_prefixed_passages_do_not_depend_on_their_neighbours(tokenizer):
    e5 = RetrieverFormat(passage_prefix="passage: ", passage_buckets=(64,))
    pair, alone = ("Japan", "some text"), ("", "some text")
    expected = tokenizer.pack(["passage: Japan some text", "passage: some text"], max_length=64)
    assert e5.passages(tokenizer, [pair, alone]) == expected
    assert [e5.passages(tokenizer, [x])[0] for x in (pair, alone)] == expected


def test_batch_has_the_shapes_and_masks_of_the_contract(tokenizer):
    transform = contrastive_batches(tokenizer, FORMAT, hard_negatives=2)
    rows = [row([ctx(1, "a")], [ctx(2, "a"), ctx(3, "b"), ctx(4)]), row([ctx(5)], [ctx(6, "b")])]
    batch = transform(rows, rngs(len(rows)), 0)
    assert batch["question_ids"].shape == (2, 16) and batch["passage_ids"].shape == (2, 3, 24)
    for name in ("question_ids", "passage_ids", "passage_key", "article_key"):
        assert batch[name].dtype == np.int32, name
    for name in ("question_mask", "passage_mask", "passage_valid"):
        assert batch[name].dtype == bool, name
    np.testing.assert_array_equal(batch["passage_valid"], [[True] * 3, [True, True, False]])
    assert batch["passage_key"][1].tolist()[:2] == [stable_key("p5"), stable_key("p6")]
    assert batch["article_key"][0, 0] == stable_key("a") and batch["article_key"][1, 0] == -1
    unmasked = batch["passage_ids"][batch["passage_mask"]]
    assert tokenizer.ids.pad not in unmasked
    assert (batch["passage_ids"][~batch["passage_mask"]] == tokenizer.ids.pad).all()


def test_question_without_hard_negatives_has_one_valid_context(tokenizer):
    batch = contrastive_batches(tokenizer, FORMAT, hard_negatives=1)([row([ctx(1)])], rngs(1), 0)
    np.testing.assert_array_equal(batch["passage_valid"], [[True, False]])
    batch = contrastive_batches(tokenizer, FORMAT, hard_negatives=0)([row([ctx(1)])], rngs(1), 0)
    assert batch["passage_ids"].shape[1] == 1


def picked(tokenizer, positives, draws=60):
    transform = contrastive_batches(tokenizer, FORMAT, positives=positives)
    rows = [row([ctx(1), ctx(2), ctx(3)], [ctx(8), ctx(9)])]
    batches = [transform(rows, rngs(len(rows), seed), 0) for seed in range(draws)]
    return [batch["passage_key"][0].tolist() for batch in batches]


def test_uniform_positives_vary_and_first_does_not(tokenizer):
    names = {stable_key(f"p{i}"): i for i in range(10)}
    uniform = collections.Counter(names[keys[0]] for keys in picked(tokenizer, "uniform"))
    assert set(uniform) == {1, 2, 3} and min(uniform.values()) >= 10
    first = picked(tokenizer, "first")
    assert {names[keys[0]] for keys in first} == {1}
    assert {names[keys[1]] for keys in first} == {8, 9}, "negatives are shuffled in both"


def test_same_seed_gives_the_same_batch(tokenizer):
    transform = contrastive_batches(tokenizer, FORMAT)
    rows = [row([ctx(i), ctx(i + 1)], [ctx(i + 2), ctx(i + 3)]) for i in range(0, 40, 4)]
    first, second = transform(rows, rngs(len(rows), 3), 0), transform(rows, rngs(len(rows), 3), 5)
    assert all((first[name] == second[name]).all() for name in first)


def test_article_key_can_join_articles_across_languages(tokenizer):
    entity = {"a-en": "Q1", "a-ja": "Q1"}
    transform = contrastive_batches(
        tokenizer, FORMAT, article_key=lambda c: entity.get(c["article_id"], "")
    )
    batch = transform([row([ctx(1, "a-en")], [ctx(2, "a-ja")]), row([ctx(3)])], rngs(2), 0)
    assert batch["article_key"].tolist() == [[stable_key("Q1")] * 2, [-1, -1]]


def test_row_without_positive_and_unknown_choice_are_refused(tokenizer):
    with pytest.raises(InputError, match="question 'q' has no positive passage"):
        contrastive_batches(tokenizer, FORMAT)([row([])], rngs(1), 0)
    with pytest.raises(InputError, match="positives 'all': choose one of uniform, first"):
        contrastive_batches(tokenizer, FORMAT, positives="all")


def test_stable_key_is_the_same_in_every_process():
    assert stable_key("123456789") == 0xCBF43926 & 0x7FFFFFFF  # the CRC-32 check value
    assert all(0 <= stable_key(f"{i}日") < 2**31 for i in range(1000))


def test_padding_of_a_vocabulary_whose_pad_is_not_zero(tmp_path):
    """XLM-R: <s> is 0 and pad is 1; the reference masked <s> and attended to padding."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "where", "is", "it", "here", "japan", "[en]"]
    backend = Tokenizer(models.WordLevel(dict(zip(words, itertools.count())), "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    xlmr = load_tokenizer(str(tmp_path))
    assert (xlmr.ids.cls, xlmr.ids.pad, xlmr.ids.sep) == (0, 1, 2)
    rows = [row([ctx(1, title="japan", text="it is here")], question="where is it")]
    batch = contrastive_batches(xlmr, FORMAT, hard_negatives=0)(rows, rngs(len(rows)), 0)
    assert batch["question_ids"].tolist() == [[0, 4, 5, 6, 9, 2] + [1] * 10]
    assert batch["question_mask"].tolist() == [[True] * 6 + [False] * 10]
    assert batch["passage_ids"][0, 0].tolist() == [0, 8, 2, 6, 5, 7, 2] + [1] * 17
    assert batch["passage_mask"][0, 0].tolist() == [True] * 7 + [False] * 17


def test_copies_with_foreign_ids_share_a_key_where_asked(tokenizer):
    copy = ctx(2, text="Text: number 1!")
    rows = [row([ctx(1)], [ctx(3)]), row([copy], [ctx(1)])]
    by_id, by_text = (
        contrastive_batches(tokenizer, FORMAT, **options)(rows, rngs(2), 0)["passage_key"]
        for options in ({}, {"passage_names": by_id_or_text})
    )
    assert by_id[0, 0] != by_id[1, 0] and by_id[0, 0] == by_id[1, 1]
    assert by_text[0, 0] == by_text[1, 0] == by_text[1, 1] != by_text[0, 1]
