"""The reader as one object: where a phase starts from, its windows, its operations."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from clmrc_jax import sharding
from clmrc_jax.data import span_features
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide
from clmrc_jax.data.span_features import SpanFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError, read_jsonl
from clmrc_jax.models import bert, dual_bert, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.pipelines import flops
from clmrc_jax.pipelines.clmrc_settings import Decoding, ReaderTraining
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.pipelines.reader import Reader, forward_flops
from clmrc_jax.train.span_recipe import Recipe

FOLDER = builtin_folder("bert")
BERT = BertConfig(
    vocab_size=load_tokenizer(FOLDER).vocab_size,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=40,
)
DUAL = dual_bert.paper(BERT)
FORMAT = SpanFormat(32, 32, doc_stride=8, max_query_length=12)


def make(format=FORMAT, training=None, bert=BERT, **decoding):
    mesh, rules = sharding.make_mesh(), sharding.DEFAULT_RULES
    settings = (ReaderTraining(**{"predict_batch": 4} | (training or {})), Decoding(**decoding))
    return Reader(bert, dual_bert.paper(bert), format, *settings, FOLDER, mesh, rules)


def example(number: int, words: int) -> MrcExample:
    context = " ".join(f"word{i}" for i in range(words)) + f" answer{number}."
    answer = Answer(f"answer{number}", context.index("answer"))
    side = SourceSide("en", "which one?", context, answer)
    return MrcExample(f"q{number}", "en", "", "which?", context, (answer,), source=side)


@pytest.fixture(scope="module")
def encoder():
    return {"bert": jax.device_get(jax.jit(bert.init, static_argnums=0)(BERT, jax.random.key(0)))}


@pytest.fixture(scope="module")
def reader():
    return make()


def test_plain_phases_inherit_the_head_and_dual_bert_the_encoder_alone(reader, encoder):
    first = reader.init(BERT, 1, encoder)
    chex.assert_trees_all_equal(first["bert"], encoder["bert"])
    assert reader.init(BERT, 2, first) is first
    dual = reader.init(DUAL, 2, first)
    assert set(dual) == {"bert", "fusion", "target_head", "source_head"}
    chex.assert_trees_all_equal(dual["bert"], encoder["bert"])
    other = reader.init(BERT, 2, encoder)
    assert not np.array_equal(other["head"]["kernel"], first["head"]["kernel"]), "its own seed"
    kinds = {type(leaf) for leaf in jax.tree.leaves((first, dual))}
    assert kinds == {np.ndarray}, "they rest on the host, and an update has the devices for itself"


def test_dual_bert_with_inherited_heads_begins_as_the_source_reader(encoder):
    source = make().init(BERT, 1, encoder)
    reader = make(training={"dual_heads": "inherited"})
    params = reader.init(DUAL, 2, source)
    for name in ("target_head", "source_head"):
        np.testing.assert_array_equal(params[name]["kernel"][:8], source["head"]["kernel"])
        np.testing.assert_array_equal(params[name]["bias"], source["head"]["bias"])
    fresh = make().init(DUAL, 2, source)
    np.testing.assert_array_equal(
        params["target_head"]["kernel"][8:], fresh["target_head"]["kernel"][8:]
    )
    chex.assert_trees_all_equal(params["fusion"], fresh["fusion"])
    examples = [example(n, words) for n, words in enumerate((3, 30))]
    ours, theirs = reader.read(DUAL, params, examples), reader.read(BERT, source, examples)
    near = [np.subtract(a["start_logit"], b["start_logit"]) for a, b in zip(*first(ours, theirs))]
    assert np.abs(near).max() < 0.2, "F's half of the head is small"
    without = reader.init(DUAL, 2, encoder)
    chex.assert_trees_all_equal(without, make().init(DUAL, 2, encoder))


def first(*answers):
    return [[entries[0] for entries in found.values()] for found in answers]


def test_padded_lengths_save_padding_and_operations(encoder, tmp_path):
    examples = [example(n, n % 2 * 4) for n in range(40)]
    recipe, lines = Recipe(learning_rate=1e-3, batch_size=8, epochs=1.0), {}
    for count in (1, 2):
        reader, workdir = make(training={"lengths": count, "log_every": 1}), tmp_path / str(count)
        params = reader.init(BERT, 1, encoder)
        _, counts = reader.train(BERT, params, examples, recipe, seed=0, workdir=workdir)
        lines[count] = [row for _, row in read_jsonl(workdir / "reader/metrics.jsonl")]
        assert counts["questions"] == 40 and len(lines[count]) == counts["steps"]
    waste = {n: np.mean([x["padding_waste"] for x in rows[1:]]) for n, rows in lines.items()}
    assert waste[2] < waste[1] - 0.1
    windows = reader._windows(examples, dual=False, training=True)
    lengths = reader._lengths(BERT, 2)
    sizes = [span_features.size_of(row, *lengths) for row in windows]
    assert len(set(sizes)) > 1
    mean, whole = reader._mean_flops(BERT, lengths, sizes), forward_flops(BERT, FORMAT, 1)
    assert 0.5 * whole < mean < 0.9 * whole


def test_official_dual_bert_is_padded_to_one_length_always(reader):
    official = dual_bert.official(BERT)
    assert reader._lengths(official, 4) == [(32,), (32,)]
    assert reader._lengths(DUAL, 4) == [(8, 16, 24, 32)] * 2
    assert reader._lengths(BERT, 4) == [(8, 16, 24, 32)]


def test_answers_do_not_depend_on_the_batch_or_on_the_labels(reader, encoder):
    params = reader.init(BERT, 1, encoder)
    examples = [example(n, words) for n, words in enumerate((3, 30, 12, 1, 7))]
    together = reader.read(BERT, params, examples)
    assert list(together) == [x.id for x in examples]
    blind = [dataclasses.replace(x, answers=()) for x in examples]
    backwards = reader.read(BERT, params, blind[::-1])
    for x in examples:
        ours, theirs = together[x.id], backwards[x.id]
        assert [e["text"] for e in ours] == [e["text"] for e in theirs]
        assert [e["start_logit"] for e in ours] == pytest.approx([e["start_logit"] for e in theirs])
        assert all(x.context[e["start"] : e["end"]] == e["text"] for e in ours)


def test_windows_longer_than_the_encoder_are_refused():
    with pytest.raises(
        InputError, match="source_length 48 is more than the encoder's 40 positions"
    ):
        make(SpanFormat(32, 48))


def test_official_text_needs_official_windows():
    with pytest.raises(InputError, match="needs windows of format.mode 'official'"):
        make(text="official")


SIZED = dataclasses.replace(BERT, hidden_size=32, intermediate_size=64, vocab_size=50)


def counted(model, format, rows):
    """Operations in the traced prediction, and for Dual BERT in the loss's span vectors."""
    dual = isinstance(model, dual_bert.DualBertConfig)
    owner, batch = (dual_bert, {}) if dual else (span_head, {})
    lengths = {"": format.max_length, "source_": format.source_length}
    for side in ("", "source_") if dual else ("",):
        shape = (rows, lengths[side])
        for name in ("input_ids", "attention_mask", "token_type_ids", "span_mask"):
            batch[side + name] = jax.ShapeDtypeStruct(shape, np.int32)
        for name in ("start", "end") if dual else ():
            batch[side + name] = jax.ShapeDtypeStruct((rows,), np.int32)
    if dual:
        batch["valid"] = jax.ShapeDtypeStruct((rows,), bool)
    params = jax.eval_shape(lambda key: owner.init(model, key), jax.random.key(0))
    traced = jax.make_jaxpr(lambda p, b: owner.forward(model, p, b))(params, batch)
    return flops.count(traced.jaxpr).flops


@pytest.mark.parametrize(
    "model", [SIZED, dual_bert.paper(SIZED), dual_bert.paper(SIZED, adaptive=False)]
)
def test_operations_by_formula_are_those_of_the_traced_model(model):
    ours, theirs = forward_flops(model, FORMAT, 4), counted(model, FORMAT, 4)
    assert ours == pytest.approx(theirs, rel=0.04), "heads and one-hot products are left out"


def test_tokenizer_of_another_model_is_refused():
    """Its tokens beyond the model's would have embeddings of NaN."""
    small = dataclasses.replace(BERT, vocab_size=BERT.vocab_size - 1)
    message = f"the tokenizer has {BERT.vocab_size} tokens, the model only {small.vocab_size}"
    with pytest.raises(InputError, match=f"{FOLDER}: {message}.*that the model was trained with"):
        make(bert=small)
