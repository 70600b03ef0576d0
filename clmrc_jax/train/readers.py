"""Trained span readers in and out: a Hugging Face BERT folder with the heads beside it.

config.json, model.safetensors, tokenizer files   the encoder, as `pretrained.save_bert` writes it
heads.safetensors                                 what is not the encoder, by parameter path
reader.json                                       which reader it is, and how it was trained to read

A folder of transformers' `BertForQuestionAnswering` is read as a plain reader.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping

import jax
import numpy as np
import safetensors.numpy
from etils import epath
from flax import traverse_util

from clmrc_jax.files import InputError, atomic_write, read_json, write_json
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.train import pretrained

KINDS = {"span": {"head"}, "dual": {"fusion", "target_head", "source_head"}}
HEADS, DESCRIPTION = "heads.safetensors", "reader.json"
PUBLISHED_HEAD = ("qa_outputs.weight", "qa_outputs.bias")


@dataclasses.dataclass(frozen=True)
class SavedReader:
    """kind: "span" or "dual".   dual: the Dual BERT config, None for a plain reader.

    params: float32 NumPy.   reading: the settings it was trained with ({} if imported).
    """

    kind: str
    bert: BertConfig
    dual: DualBertConfig | None
    params: dict
    reading: dict


def save_reader(
    folder: str | os.PathLike,
    model: BertConfig | DualBertConfig,
    params: Mapping,
    tokenizer_files: Iterable,
    reading: Mapping,
) -> None:
    """Writes a reader's folder.

    model: BertConfig for a plain reader, else Dual BERT's.   params: with "bert" and the heads.
    tokenizer_files: copied into it.   reading: JSON-ready settings (format, decoding).
    """
    folder, params = epath.Path(folder), jax.device_get(params)
    dual = isinstance(model, DualBertConfig)
    pretrained.save_bert(folder, model.bert if dual else model, params["bert"], tokenizer_files)
    heads = {name: value for name, value in params.items() if name != "bert"}
    flat = {"/".join(path): np.asarray(x) for path, x in traverse_util.flatten_dict(heads).items()}
    with atomic_write(folder / HEADS, "wb") as file:
        file.write(safetensors.numpy.save(flat))
    options = {k: v for k, v in dataclasses.asdict(model).items() if k != "bert"} if dual else {}
    kind = "dual" if dual else "span"
    description = {"kind": kind, "dual": options, "reading": dict(reading)}
    write_json(folder / DESCRIPTION, description)


def load_reader(folder_or_id: str | os.PathLike, **overrides) -> SavedReader:
    """Reads what `save_reader` wrote, or a `BertForQuestionAnswering` folder or hub id.

    overrides: BertConfig fields, e.g. dtype="bfloat16".
    Raises InputError for a folder without a span head, naming what it lacks, and for damaged files.
    """
    folder = pretrained.resolve_folder(folder_or_id)
    bert, body = pretrained.load_bert(folder, **overrides)
    if not (folder / DESCRIPTION).exists():
        return SavedReader("span", bert, None, {"bert": body, "head": _published_head(folder)}, {})
    description = _read_description(folder / DESCRIPTION)
    kind, reading = description["kind"], description.get("reading", {})
    params = {"bert": body, **_read_heads(folder / HEADS, KINDS[kind])}
    dual = _dual_config(folder, bert, description["dual"]) if kind == "dual" else None
    return SavedReader(kind, bert, dual, params, reading)


def _read_description(path) -> dict:
    """reader.json, of which kind, options and settings have the form that this version writes."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds {found!r:.60}, no object; written by another version?")
    kind = found.get("kind")
    if kind not in tuple(KINDS):
        raise InputError(f"{path}: kind {kind!r:.60}; known: {', '.join(KINDS)}")
    needed = {"reading": found.get("reading", {})}
    needed |= {"dual": found.get("dual")} if kind == "dual" else {}
    for name, value in needed.items():
        if not isinstance(value, dict):
            raise InputError(
                f"{path}: {name} is {value!r:.60}, no object; written by another version?"
            )
    return found


def _read_heads(path, wanted: set[str]) -> dict:
    """What is not the encoder, as a parameter tree."""
    try:
        heads = safetensors.numpy.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy the folder again") from error
    tree = traverse_util.unflatten_dict({tuple(name.split("/")): x for name, x in heads.items()})
    if set(tree) != wanted:
        raise InputError(
            f"{path}: holds {', '.join(sorted(tree)) or 'nothing'}, and this reader consists of "
            f"{', '.join(sorted(wanted))}; copy the folder again"
        )
    return tree


def _dual_config(folder, bert: BertConfig, options: dict) -> DualBertConfig:
    try:
        return DualBertConfig(bert, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder / DESCRIPTION}: {error}; written by another version?") from error


def _published_head(folder) -> dict:
    tensors = pretrained.read_tensors(folder)
    if not set(PUBLISHED_HEAD) <= set(tensors):
        raise InputError(
            f"{folder}: is an encoder without a span head (no {DESCRIPTION}, and its weights have "
            f"no {PUBLISHED_HEAD[0]}); train a reader from it with configs/dual_bert.py"
        )
    kernel, bias = (tensors[name] for name in PUBLISHED_HEAD)
    return {"kernel": np.ascontiguousarray(kernel.T), "bias": bias}
