"""Pretrained models in and out, as Hugging Face folders (`model_folders` reads and writes those)."""

import dataclasses
import json
from collections.abc import Iterable, Mapping

from clmrc_jax.files import InputError, read_json
from clmrc_jax.models import weight_maps
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.marian import MarianConfig, MarianSearch
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.train.model_folders import (
    MAX_SHARD_BYTES,
    Pathlike,
    named,
    read_config,
    read_tensors,
    require,
    resolve_folder,
    stored_as,
    weight_files,
    write_folder,
)

GENERATION_CONFIG = "generation_config.json"
_BERT_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
_MT5_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_MARIAN_SIZES = ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "pad_token_id")
# Config keys with one implemented value, which is also what a folder without the key means.
_MARIAN_FIXED = {
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "normalize_before": False,
    "normalize_embedding": False,
}


def load_bert(
    folder_or_id: Pathlike, *, tower: str | None = None, **overrides
) -> tuple[BertConfig, dict]:
    """Reads any Hugging Face `BertModel` (mBERT, multilingual-E5, ...).

    folder_or_id: a folder, or a hub id such as "intfloat/multilingual-e5-small"
    tower: "question_model" or "ctx_model" of a DPR/mDPR state dict stored as safetensors
    overrides: BertConfig fields, e.g. dtype="bfloat16"
    Returns the config and float32 NumPy parameters. Raises InputError naming folder and remedy.
    """
    folder = resolve_folder(folder_or_id)
    raw = read_config(folder, ("bert",), _BERT_SIZES)
    require(folder, raw, "hidden_act", "gelu", default="gelu")
    require(folder, raw, "position_embedding_type", "absolute", default="absolute")
    config = _build(BertConfig, raw, overrides)
    tensors = read_tensors(folder)
    with named(folder):
        if tower is not None:
            tensors = weight_maps.dpr_tower(tensors, tower)
        return config, weight_maps.bert_from_published(config, tensors)


def load_mt5(folder_or_id: Pathlike, **overrides) -> tuple[Mt5Config, dict]:
    """Reads a Hugging Face `MT5ForConditionalGeneration`, or T5 v1.1.

    As in transformers 5, whether an mT5's output matrix is its own is decided by the weights (the
    key in config.json is unreliable), and only a T5 with tied embeddings scales what it shares.
    Otherwise like `load_bert`.
    """
    folder = resolve_folder(folder_or_id)
    raw = read_config(folder, ("mt5", "t5"), _MT5_SIZES)
    is_t5 = raw["model_type"] == "t5"
    default = "relu" if is_t5 else "gated-gelu"
    require(folder, raw, "feed_forward_proj", "gated-gelu", default=default)
    raw.setdefault("num_decoder_layers", None)
    raw["num_decoder_layers"] = raw["num_decoder_layers"] or raw["num_layers"]
    raw["tie_word_embeddings"] = is_t5 and raw.get("tie_word_embeddings", True)
    config = _build(Mt5Config, raw, overrides)
    tensors = read_tensors(folder)
    with named(folder):
        return config, weight_maps.mt5_from_published(config, tensors)


def load_marian(folder_or_id: Pathlike, **overrides) -> tuple[MarianConfig, dict]:
    """Reads a Hugging Face `MarianMTModel` (OPUS-MT) whose embeddings are shared.

    Otherwise like `load_bert`; `load_marian_search` reads how it is meant to be decoded.
    """
    folder = resolve_folder(folder_or_id)
    raw = read_config(folder, ("marian",), _MARIAN_SIZES)
    for key, value in _MARIAN_FIXED.items():
        require(folder, raw, key, value, default=value)
    # What transformers takes for granted where the file is silent; our defaults are opus-mt's.
    raw = {"activation_function": "gelu", "scale_embedding": False, **raw}
    with named(folder):
        config = _build(MarianConfig, raw, overrides)
        return config, weight_maps.marian_from_published(config, read_tensors(folder))


def load_marian_search(folder_or_id: Pathlike) -> MarianSearch:
    """How the folder's `generation_config.json` (before 2022 `config.json`) says to decode.

    Defaults are those of transformers' `generate`. Raises InputError for banned phrases.
    """
    folder = resolve_folder(folder_or_id)
    own = folder / GENERATION_CONFIG
    path = own if own.exists() else folder / "config.json"
    raw = read_json(path)
    banned = raw.get("bad_words_ids") or ()
    if any(len(ids) != 1 for ids in banned):
        raise InputError(f"{path}: bad_words_ids bans phrases; only single tokens are implemented")
    return MarianSearch(
        num_beams=raw.get("num_beams") or 1,
        max_length=raw.get("max_length") or 20,
        length_penalty=1.0 if raw.get("length_penalty") is None else raw["length_penalty"],
        early_stopping=raw.get("early_stopping") or False,
        banned=tuple(ids[0] for ids in banned),
        renormalize=bool(raw.get("renormalize_logits")),
        force_eos=raw.get("forced_eos_token_id") is not None,
    )


def save_bert(
    folder: Pathlike,
    config: BertConfig,
    params: Mapping,
    tokenizer_files: Iterable[Pathlike] = (),
    *,
    file_format: str = "safetensors",
    stored: str = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a folder that `transformers.AutoModel.from_pretrained` reads.

    tokenizer_files: copied beside the weights.   file_format: "safetensors" or "msgpack"
    stored: "float32" or "float16" (half the size; readers upcast)
    The folder appears whole or not at all; an older one of that name is replaced.
    """
    raw = {
        **_public_fields(config),
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "dtype": stored,
    }
    tensors = stored_as(stored, weight_maps.bert_to_published(config, params))
    files = weight_files(weight_maps.bert_weights(config), tensors, file_format, max_shard_bytes)
    write_folder(folder, raw, files, tokenizer_files)


def save_mt5(
    folder: Pathlike,
    config: Mt5Config,
    params: Mapping,
    tokenizer_files: Iterable[Pathlike] = (),
    *,
    file_format: str = "safetensors",
    stored: str = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a folder that `transformers.AutoModelForSeq2SeqLM.from_pretrained` reads.

    Tied embeddings are written as model type "t5", the one that scales them. Else like `save_bert`.
    """
    kind = "t5" if config.tie_word_embeddings else "mt5"
    raw = {
        **_public_fields(config),
        "architectures": [f"{kind.upper()}ForConditionalGeneration"],
        "model_type": kind,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "dtype": stored,
    }
    tensors = stored_as(stored, weight_maps.mt5_to_published(config, params))
    files = weight_files(weight_maps.mt5_weights(config), tensors, file_format, max_shard_bytes)
    write_folder(folder, raw, files, tokenizer_files)


def save_marian(
    folder: Pathlike,
    config: MarianConfig,
    params: Mapping,
    search: MarianSearch,
    tokenizer_files: Iterable[Pathlike] = (),
    *,
    stored: str = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a folder that `transformers.MarianMTModel.from_pretrained` reads.

    search: becomes `generation_config.json`, the defaults of `generate`. Else like `save_bert`.
    """
    ids = {
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "forced_eos_token_id": config.eos_token_id if search.force_eos else None,
    }
    raw = {
        **_public_fields(config),
        **_MARIAN_FIXED,
        **ids,
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "decoder_vocab_size": config.vocab_size,
        "is_encoder_decoder": True,
        "static_position_embeddings": True,
        "dtype": stored,
    }
    generation = {
        **ids,
        "num_beams": search.num_beams,
        "max_length": search.max_length,
        "length_penalty": search.length_penalty,
        "early_stopping": search.early_stopping,
        "bad_words_ids": [[i] for i in search.banned] or None,
        "renormalize_logits": search.renormalize,
    }
    tensors = stored_as(stored, weight_maps.marian_to_published(config, params))
    weights = weight_files(
        weight_maps.marian_weights(config), tensors, "safetensors", max_shard_bytes
    )
    files = [*weights, (GENERATION_CONFIG, json.dumps(generation, indent=1).encode())]
    write_folder(folder, raw, files, tokenizer_files)


def _build(cls, raw: dict, overrides: dict):
    """The config from the fields it knows. `dtype` is how we compute, not how files are stored."""
    fields = {field.name for field in dataclasses.fields(cls)} - {"dtype", "remat"}
    known = {key: value for key, value in raw.items() if key in fields and value is not None}
    return cls(**{**known, **overrides})


def _public_fields(config: BertConfig | Mt5Config | MarianConfig) -> dict:
    raw = dataclasses.asdict(config)
    return {key: value for key, value in raw.items() if key not in ("dtype", "remat")}
