"""Pre-training of the tiny models: what the exercises become, and that both parts train."""

import jax
import ml_collections
import numpy as np
import pytest

from clmrc_jax import sharding
from clmrc_jax.data.generator_features import GeneratorFormat
from clmrc_jax.data.pipeline import row_generators
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.data.vocabulary import train_vocabulary
from clmrc_jax.data.world_facts.cldr import load_world_facts
from clmrc_jax.data.world_facts.exercises import Exercises
from clmrc_jax.files import InputError, read_json
from clmrc_jax.pipelines import pretrain
from clmrc_jax.train import pretrained

FORMAT = GeneratorFormat(passages=3, source_buckets=(256, 512), target_length=24)


@pytest.fixture(scope="module")
def exercises():
    return Exercises(load_world_facts("smoke"), seed=0)


@pytest.fixture(scope="module")
def folder(exercises, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    train_vocabulary(pretrain.vocabulary_texts(exercises, 300), folder, vocab_size=2000)
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_masked_texts_and_exercises_share_a_batch(exercises, tokenizer):
    format = RetrieverFormat(question_buckets=(128,), passage_buckets=(256,))
    transform = pretrain.encoder_transform(tokenizer, exercises, format, contexts=3, predictions=40)
    batch = transform(range(6), row_generators(0, range(6)), 0)
    assert batch["passage_ids"].shape == (6, 3, 256) and batch["input_ids"].shape == (3, 256)
    restored = batch["input_ids"].copy()
    for i in range(3):
        at = batch["masked_positions"][i][batch["masked_weights"][i]]
        restored[i, at] = batch["masked_labels"][i][batch["masked_weights"][i]]
    texts = [exercises.statement(i)[1] for i in range(3)]
    packed = tokenizer.pack(texts, max_length=256)
    assert [row[mask].tolist() for row, mask in zip(restored, batch["attention_mask"])] == packed
    assert tokenizer.ids.mask in batch["input_ids"]


def test_reading_batches_hold_one_to_three_passages_and_the_answer(exercises, tokenizer):
    transform = pretrain.generator_transform(
        tokenizer, exercises, FORMAT, corrupted_share=0.0, naming_share=0.0, easy_examples=0
    )
    counts = set()
    for seed in range(12):
        batch = transform(range(4), row_generators(seed, range(4)), 0)
        sources = [
            tokenizer.decode(ids[mask])
            for ids, mask in zip(batch["encoder_input_tokens"], batch["encoder_mask"])
        ]
        targets = [tokenizer.decode(ids) for ids in batch["decoder_target_tokens"]]
        assert targets == [exercises.reading(i, passages=1)["answer"] for i in range(4)]
        assert all(source.startswith("<Q>:") for source in sources)
        counts.update("<2:" in source for source in sources)
    assert counts == {True, False}


def test_easy_exercises_come_first_and_have_one_passage(exercises, tokenizer):
    transform = pretrain.generator_transform(
        tokenizer, exercises, FORMAT, corrupted_share=1.0, naming_share=0.0, easy_examples=8
    )
    for seed in range(5):
        batch = transform(range(4, 8), row_generators(seed, range(4, 8)), 0)
        sources = [tokenizer.decode(ids) for ids in batch["encoder_input_tokens"]]
        assert all("<0:" in source and "<1:" not in source for source in sources)
    batch = transform(range(8, 12), row_generators(0, range(8, 12)), 0)
    assert np.isin(tokenizer.ids.sentinels[0], batch["encoder_input_tokens"])


def test_corrupted_batches_end_and_hold_sentinels(exercises, tokenizer):
    transform = pretrain.generator_transform(
        tokenizer, exercises, FORMAT, corrupted_share=1.0, naming_share=0.0, easy_examples=0
    )
    batch = transform(range(5), row_generators(0, range(5)), 0)
    assert (batch["decoder_target_tokens"][:, 0] == tokenizer.ids.sentinels[0]).all()
    assert np.isin(tokenizer.ids.sentinels[0], batch["encoder_input_tokens"])
    last = batch["encoder_mask"].sum(1) - 1
    assert (batch["encoder_input_tokens"][np.arange(5), last] == tokenizer.ids.eos).all()


def test_naming_batches_ask_for_a_name_in_the_language_of_the_tag(exercises, tokenizer):
    transform = pretrain.generator_transform(
        tokenizer, exercises, FORMAT, corrupted_share=0.0, naming_share=1.0, easy_examples=0
    )
    batch = transform(range(6), row_generators(0, range(6)), 0)
    for i, (ids, target) in enumerate(
        zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"])
    ):
        name, lang, answer = exercises.naming(i)
        assert tokenizer.decode(ids) == f"<Q>: {name} [{lang}]"
        assert tokenizer.decode(target) == answer


SHARED = {
    "seed": 1,
    "examples": 1000,
    "steps": 2,
    "batch_size": 4,
    "log_every": 1,
    "save_every": 100,
    "optimizer": {"learning_rate": 1e-3},
}


def test_both_parts_train(exercises, folder, tmp_path):
    bert = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert |= {"intermediate_size": 16, "max_position_embeddings": 256}
    encoder = {"bert": bert, "contexts": 2, "predictions": 40}
    encoder |= {"question_buckets": (128,), "passage_buckets": (256,)}
    mt5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2}
    generator = {"mt5": mt5 | {"num_layers": 1, "num_decoder_layers": 1}, "passages": 1}
    generator |= {
        "source_buckets": (256,),
        "target_length": 24,
        "corrupted_share": 0.0,
        "naming_share": 0.5,
        "easy_examples": 4,
    }
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    for train, config in (
        (pretrain.pretrain_encoder, encoder),
        (pretrain.pretrain_generator, generator),
    ):
        config = ml_collections.ConfigDict(SHARED | config)
        model, params = train(config, exercises, folder, tmp_path, mesh)
        assert model.vocab_size == 2000
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
        record = read_json(tmp_path / train.__name__.split("_")[1] / "finished.json")["config"]
        assert record["batch_size"] == 4 and "save_every" not in record, "what must not change"


def test_start_folder_is_gone_on_from_and_must_fit(exercises, folder, tmp_path):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "num_layers": 1}
    sizes |= {"num_decoder_layers": 1}
    config = ml_collections.ConfigDict({"mt5": sizes, "seed": 1, "steps": 0})
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    model, params = pretrain.pretrain_generator(config, exercises, folder, tmp_path, mesh)
    pretrained.save_mt5(
        tmp_path / "mt5", model, jax.device_get(params), (f"{folder}/spiece.model",)
    )
    start = str(tmp_path / "mt5")
    _, again = pretrain.pretrain_generator(config, exercises, folder, tmp_path, mesh, start)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    config.mt5.d_ff = 32
    with pytest.raises(InputError, match="mt5: is .*d_ff=16.*the config asks for .*d_ff=32"):
        pretrain.pretrain_generator(config, exercises, folder, tmp_path, mesh, start)
