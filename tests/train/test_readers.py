"""Reader folders: what was saved comes back, and damaged or headless ones are named."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy

from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.models import bert, dual_bert, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.train import pretrained, readers

BERT = BertConfig(
    vocab_size=17,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=4,
    max_position_embeddings=12,
)
READING = {"format": {"max_length": 12, "mode": "paper"}, "decoding": {"n_best": 3}}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    file = tmp_path_factory.mktemp("vocabulary") / "spiece.model"
    file.write_bytes(b"pieces")
    return file


@pytest.fixture(scope="module")
def span_params():
    return jax.device_get(jax.jit(span_head.init, static_argnums=0)(BERT, jax.random.key(0)))


@pytest.fixture
def span_folder(tmp_path, vocabulary, span_params):
    readers.save_reader(tmp_path / "span", BERT, span_params, [vocabulary], READING)
    return tmp_path / "span"


def test_plain_reader_comes_back_with_tokenizer_and_settings(span_folder, span_params):
    saved = readers.load_reader(span_folder)
    assert saved.kind == "span" and saved.dual is None and saved.bert == BERT
    assert saved.reading == READING
    chex.assert_trees_all_equal(saved.params, span_params)
    assert (span_folder / "spiece.model").read_bytes() == b"pieces"


def test_saved_encoder_is_a_hugging_face_folder_of_its_own(span_folder, span_params):
    config, body = pretrained.load_bert(span_folder)
    assert config == BERT
    chex.assert_trees_all_equal(body, span_params["bert"])


def test_overrides_say_how_to_compute_not_what_was_stored(span_folder):
    saved = readers.load_reader(span_folder, dtype="bfloat16")
    assert saved.bert.dtype == "bfloat16"
    assert saved.params["head"]["kernel"].dtype == np.float32


def test_dual_bert_keeps_every_option(tmp_path, vocabulary):
    model = dual_bert.official(BERT, lambda_group_size=4, adaptive=False, fusion_dropout=0.0)
    params = jax.device_get(jax.jit(dual_bert.init, static_argnums=0)(model, jax.random.key(1)))
    readers.save_reader(tmp_path / "dual", model, params, [vocabulary], READING)
    saved = readers.load_reader(tmp_path / "dual")
    assert saved.kind == "dual" and saved.dual == model
    chex.assert_trees_all_equal(saved.params, params)
    kept = readers.load_reader(tmp_path / "dual", dtype="bfloat16").dual
    assert kept == dataclasses.replace(model, bert=dataclasses.replace(BERT, dtype="bfloat16"))


def test_encoder_without_a_head_is_named(tmp_path):
    params = jax.jit(bert.init, static_argnums=0)(BERT, jax.random.key(0))
    pretrained.save_bert(tmp_path / "encoder", BERT, jax.device_get(params))
    with pytest.raises(InputError, match="encoder: is an encoder without a span head.*qa_outputs"):
        readers.load_reader(tmp_path / "encoder")


def test_heads_file_that_is_gone_cut_or_foreign_is_named(span_folder):
    heads = span_folder / readers.HEADS
    whole = heads.read_bytes()
    heads.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"heads\.safetensors: cannot be read"):
        readers.load_reader(span_folder)
    heads.unlink()
    with pytest.raises(InputError, match=r"heads\.safetensors: cannot be read"):
        readers.load_reader(span_folder)
    heads.write_bytes(safetensors.numpy.save({"target_head/bias": np.zeros(2, np.float32)}))
    with pytest.raises(InputError, match="holds target_head, and this reader consists of head"):
        readers.load_reader(span_folder)


def test_description_of_another_kind_or_version_is_named(span_folder):
    path = span_folder / readers.DESCRIPTION
    description = read_json(path)
    write_json(path, description | {"kind": "triple"})
    with pytest.raises(InputError, match="kind 'triple'; known: span, dual"):
        readers.load_reader(span_folder)
    tensors = {f"{name}/bias": np.zeros(2, np.float32) for name in readers.KINDS["dual"]}
    (span_folder / readers.HEADS).write_bytes(safetensors.numpy.save(tensors))
    write_json(path, description | {"kind": "dual", "dual": {"melody": True}})
    with pytest.raises(InputError, match="melody.*another version"):
        readers.load_reader(span_folder)


@pytest.mark.parametrize(
    "description, message",
    [
        ([], r"holds \[\], no object"),
        ({"kind": ["span"]}, r"kind \['span'\]; known: span, dual"),
        ({"kind": "span", "reading": []}, r"reading is \[\], no object"),
        ({"kind": "dual", "reading": {}}, "dual is None, no object"),
    ],
)
def test_description_that_is_no_description_is_named(span_folder, description, message):
    write_json(span_folder / readers.DESCRIPTION, description)
    with pytest.raises(InputError, match=rf"span/reader\.json: {message}"):
        readers.load_reader(span_folder)
