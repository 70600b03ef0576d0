"""Published names <-> our tree: exact both ways, and errors that name every tensor at fault."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from clmrc_jax.models import bert, mt5, weight_maps

BERT = bert.BertConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=20,
)
MT5 = mt5.Mt5Config(
    vocab_size=48,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=4,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
)


@pytest.fixture
def bert_tensors(repository):
    return load_file(repository / "tests/golden/bert_wide/model.safetensors")


@pytest.fixture
def mt5_tensors(repository):
    return load_file(repository / "tests/golden/mt5_square/model.safetensors")


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


def test_bert_there_and_back_is_exact_and_fits_the_module(bert_tensors):
    params = weight_maps.bert_from_published(BERT, bert_tensors)
    expected = jax.eval_shape(lambda: bert.init(BERT, jax.random.key(0)))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, expected)
    assert_same(weight_maps.bert_to_published(BERT, params), bert_tensors)


def test_mt5_there_and_back_is_exact_and_fits_the_module(mt5_tensors):
    params = weight_maps.mt5_from_published(MT5, mt5_tensors)
    expected = jax.eval_shape(lambda: mt5.init(MT5, jax.random.key(0)))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, expected)
    assert_same(weight_maps.mt5_to_published(MT5, params), mt5_tensors)


def test_bert_prefix_old_norm_names_and_unused_parts_are_understood(bert_tensors):
    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")

    tensors = {old(name): tensor for name, tensor in bert_tensors.items()}
    tensors["bert.pooler.dense.weight"] = np.zeros((32, 32))
    tensors["bert.embeddings.position_ids"] = np.arange(20)[None]
    tensors["cls.predictions.bias"] = np.zeros(97)
    params = weight_maps.bert_from_published(BERT, tensors)
    assert_same(weight_maps.bert_to_published(BERT, params), bert_tensors)


def test_t5_copies_of_the_shared_table_are_ignored_and_a_missing_head_shares_it(mt5_tensors):
    shared = mt5_tensors["shared.weight"]
    copies = {f"{stack}.embed_tokens.weight": shared for stack in ("encoder", "decoder")}
    params = weight_maps.mt5_from_published(MT5, {**mt5_tensors, **copies})
    assert_same(weight_maps.mt5_to_published(MT5, params), mt5_tensors)
    del mt5_tensors["lm_head.weight"]
    params = weight_maps.mt5_from_published(MT5, mt5_tensors)
    np.testing.assert_array_equal(params["lm_head"]["kernel"], shared.T)


def test_tied_config_with_a_head_of_its_own_is_refused(mt5_tensors):
    tied = mt5.Mt5Config(**{**MT5.__dict__, "tie_word_embeddings": True})
    with pytest.raises(ValueError, match="set tie_word_embeddings to false"):
        weight_maps.mt5_from_published(tied, mt5_tensors)
    mt5_tensors["lm_head.weight"] = mt5_tensors["shared.weight"].copy()
    assert "lm_head" not in weight_maps.mt5_from_published(tied, mt5_tensors)


def test_dpr_checkpoint_gives_each_tower(bert_tensors):
    both = {f"question_model.{name}": tensor for name, tensor in bert_tensors.items()}
    both |= {f"ctx_model.{name}": tensor + 1 for name, tensor in bert_tensors.items()}
    assert_same(weight_maps.dpr_tower(both, "question_model"), bert_tensors)
    passage = weight_maps.bert_from_published(BERT, weight_maps.dpr_tower(both, "ctx_model"))
    ours = weight_maps.bert_to_published(BERT, passage)
    assert_same(ours, {name: tensor + 1 for name, tensor in bert_tensors.items()})
    with pytest.raises(ValueError, match="no weight starts with 'ctx_model'"):
        weight_maps.dpr_tower(bert_tensors, "ctx_model")
    with pytest.raises(ValueError, match="not one of question_model, ctx_model"):
        weight_maps.dpr_tower(both, "passage_model")


def test_every_wrong_weight_is_named_with_both_shapes(bert_tensors):
    del bert_tensors["encoder.layer.1.attention.self.query.weight"]
    bert_tensors["encoder.layer.0.output.dense.weight"] = np.zeros((32, 65), np.float32)
    bert_tensors["classifier.weight"] = np.zeros((2, 32), np.float32)
    with pytest.raises(ValueError) as error:
        weight_maps.bert_from_published(BERT, bert_tensors)
    message = str(error.value)
    assert "missing    encoder.layer.1.attention.self.query.weight [32, 32]" in message
    assert "encoder.layer.0.output.dense.weight: expected [32, 64], found [32, 65]" in message
    assert "unexpected classifier.weight [2, 32]" in message
    assert "config.json" in message


def test_parameters_of_another_config_are_not_exported(mt5_tensors):
    params = weight_maps.mt5_from_published(MT5, mt5_tensors)
    other = mt5.Mt5Config(**{**MT5.__dict__, "num_decoder_layers": 1, "d_ff": 50})
    with pytest.raises(ValueError) as error:
        weight_maps.mt5_to_published(other, params)
    assert "unexpected decoder/layers_1/mlp/wo/kernel" in str(error.value)
    assert "encoder/layers_0/mlp/wo/kernel: expected [50, 32], found [48, 32]" in str(error.value)


def test_flax_layout_there_and_back_is_exact(bert_tensors, mt5_tensors):
    for weights, tensors in (
        (weight_maps.bert_weights(BERT), bert_tensors),
        (weight_maps.mt5_weights(MT5), mt5_tensors),
    ):
        tree = weight_maps.published_to_flax(weights, tensors)
        assert_same(weight_maps.flax_to_published(tree), tensors)


def test_flax_layout_has_the_names_of_the_published_flax_models(bert_tensors, mt5_tensors):
    tree = weight_maps.published_to_flax(weight_maps.bert_weights(BERT), bert_tensors)
    layer = tree["encoder"]["layer"]["0"]
    assert set(tree["embeddings"]["word_embeddings"]) == {"embedding"}
    assert set(layer["attention"]["output"]["LayerNorm"]) == {"scale", "bias"}
    assert layer["intermediate"]["dense"]["kernel"].shape == (32, 64)
    tree = weight_maps.published_to_flax(weight_maps.mt5_weights(MT5), mt5_tensors)
    layer = tree["decoder"]["block"]["0"]["layer"]
    assert set(layer["0"]["layer_norm"]) == {"weight"} == set(tree["decoder"]["final_layer_norm"])
    assert set(layer["0"]["SelfAttention"]["relative_attention_bias"]) == {"embedding"}
    assert tree["lm_head"]["kernel"].shape == (32, 48)


def test_full_size_configs_list_the_published_weights():
    names = {row.name: row for row in weight_maps.mt5_weights(mt5.Mt5Config())}
    assert len(names) == 1 + 12 * 9 + 1 + 1 + 12 * 14 + 1 + 1 + 1
    assert names["lm_head.weight"].published_shape == (250112, 768)
    assert names["decoder.block.11.layer.1.EncDecAttention.o.weight"].shape == (12, 64, 768)
    rows = weight_maps.bert_weights(bert.BertConfig())
    assert sum(int(np.prod(row.shape)) for row in rows) == 166_765_824  # mBERT uncased, no pooler
    assert not any("position_ids" in row.name for row in rows)
    json.dumps([row.published_shape for row in rows])
