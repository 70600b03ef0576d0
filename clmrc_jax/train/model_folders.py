"""Hugging Face model folders: config.json, weights and tokenizer files, found, read and written.

Read: `model.safetensors`, its sharded form with an index, or `flax_model.msgpack`, from a folder or
a hub id; numbers stored in 16 bits become float32. Written folders load in transformers.
Pickled files (`.bin`, `.pt`, `.cpt`) can run code when opened and are refused.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator

import msgpack
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import serialization

from clmrc_jax.files import InputError, atomic_write, local_build, read_json, write_json
from clmrc_jax.models import weight_maps

SAFETENSORS, INDEX, MSGPACK = (
    "model.safetensors",
    "model.safetensors.index.json",
    "flax_model.msgpack",
)
PICKLED = (".bin", ".pt", ".pth", ".cpt", ".ckpt")
MAX_SHARD_BYTES = 5 * 10**9
_SIDE_FILES = ["*.json", "*.model", "*.spm", "*.txt"]

Pathlike = str | os.PathLike


def given_folder(folder_or_id: Pathlike) -> epath.Path | None:
    """The folder itself; None for what may be a hub id instead.

    Raises InputError for a file, and for a path without a folder.
    """
    folder = epath.Path(folder_or_id)
    if folder.is_dir():
        return folder
    name = os.fspath(folder_or_id)
    if folder.exists():
        raise InputError(f"{name}: is a file; give the folder that holds config.json and weights")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise InputError(
            f"{name}: no such folder; give one that holds config.json and weights, or a hub id"
        )
    return None


def resolve_folder(folder_or_id: Pathlike) -> epath.Path:
    """The folder itself, or the local snapshot of a hub id (downloaded when it is not cached)."""
    if folder := given_folder(folder_or_id):
        return folder
    name = os.fspath(folder_or_id)
    from huggingface_hub import snapshot_download  # slow to import, needed only here

    try:
        local = snapshot_download(name, allow_patterns=[*_SIDE_FILES, "*.safetensors"])
        if not any(epath.Path(local).glob("*.safetensors")):
            local = snapshot_download(name, allow_patterns=[*_SIDE_FILES, MSGPACK])
    except Exception as error:  # the hub client raises network, HTTP and validation errors alike
        raise InputError(
            f"{name}: no such folder, and not to be had from the Hugging Face hub "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Offline, give a folder "
            f"with config.json and {SAFETENSORS}; online, check the id"
        ) from error
    return epath.Path(local)


def read_tensors(folder: Pathlike) -> weight_maps.Tensors:
    """All published tensors of a model folder, float32, by PyTorch name.

    Raises InputError for a folder without weights, with pickled ones only, or with broken files.
    """
    folder = epath.Path(folder)
    if (folder / SAFETENSORS).exists():
        return _read_safetensors(folder / SAFETENSORS)
    if (folder / INDEX).exists():
        return _read_shards(folder)
    if (folder / MSGPACK).exists():
        return _read_msgpack(folder / MSGPACK)
    pickled = sorted(p.name for p in folder.iterdir() if p.name.endswith(PICKLED))
    if pickled:
        raise InputError(
            f"{folder}: {pickled[0]} is a pickle, which can run any code when opened, and is not "
            f"read. Convert it where PyTorch is installed and the file is trusted:\n"
            f"  python -c \"import torch, safetensors.torch as s; w = torch.load('{pickled[0]}', "
            f"weights_only=True); w = w.get('model_dict', w); "
            f"s.save_file({{k: v.contiguous().clone() for k, v in w.items()}}, "
            f"'{SAFETENSORS}')\""
        )
    raise InputError(
        f"{folder}: holds no {SAFETENSORS}, {INDEX} or {MSGPACK}. A model published as a PyTorch "
        f"pickle only (many opus-mt models) is converted, where PyTorch is installed, by "
        f"transformers: AutoModel...from_pretrained(ID).save_pretrained(FOLDER)"
    )


def _read_shards(folder: epath.Path) -> weight_maps.Tensors:
    """The files of `model.safetensors.index.json`; each must hold what the index says."""
    place_of = read_json(folder / INDEX)["weight_map"]
    tensors: weight_maps.Tensors = {}
    for shard in sorted(set(place_of.values())):
        if not (folder / shard).exists():
            raise InputError(f"{folder}: {INDEX} names {shard}, which is missing; copy it there")
        tensors |= _read_safetensors(folder / shard)
    missing = sorted(set(place_of) - set(tensors))
    if missing:
        raise InputError(f"{folder}: {INDEX} names {missing[0]}, which is in no shard")
    return tensors


def _read_safetensors(path: epath.Path) -> weight_maps.Tensors:
    with _local_copy(path) as name:
        try:
            # the flax reader knows bfloat16, which NumPy alone does not
            with safetensors.safe_open(name, framework="flax") as file:
                return {key: np.asarray(file.get_tensor(key), np.float32) for key in file.keys()}
        except safetensors.SafetensorError as error:
            raise InputError(
                f"{path}: not a whole safetensors file ({error}); copy or download it again"
            ) from error


def _read_msgpack(path: epath.Path) -> weight_maps.Tensors:
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
    except (msgpack.UnpackException, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: not a whole flax msgpack file ({error}); copy or download it again"
        ) from error
    tensors = weight_maps.flax_to_published(tree.get("params", tree))
    return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}


@contextlib.contextmanager
def _local_copy(path: epath.Path) -> Iterator[str]:
    """safetensors maps local files only; a remote one (gs://) is copied first."""
    if "://" not in os.fspath(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = epath.Path(scratch) / path.name
        path.copy(local)
        yield os.fspath(local)


@contextlib.contextmanager
def named(folder: Pathlike) -> Iterator[None]:
    """Puts the folder's name in front of what the weight maps complain about."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from error


def read_config(folder: epath.Path, kinds: tuple[str, ...], sizes: tuple[str, ...]) -> dict:
    """config.json of a model of one of `kinds`, which must hold the whole numbers `sizes`.

    Raises InputError naming file and key.
    """
    raw = read_json(folder / "config.json")
    if raw.get("model_type") not in kinds:
        raise InputError(
            f"{folder / 'config.json'}: model_type is {raw.get('model_type')!r}, "
            f"expected {' or '.join(kinds)}; choose a model of that kind"
        )
    for key in sizes:
        if not isinstance(raw.get(key), int):
            raise InputError(f"{folder / 'config.json'}: {key} is missing or not a whole number")
    return raw


def require(folder: epath.Path, raw: dict, key: str, value, *, default) -> None:
    """InputError unless config key `key` (or its default) has the one value we implement."""
    if raw.get(key, default) != value:
        raise InputError(
            f"{folder / 'config.json'}: {key} is {raw.get(key, default)!r}; only {value!r} is "
            "implemented, and another one would give other numbers"
        )


def stored_as(dtype: str, tensors: weight_maps.Tensors) -> weight_maps.Tensors:
    """The tensors in the type they are stored in, "float32" or "float16"."""
    if dtype not in ("float32", "float16"):
        raise ValueError(f"stored {dtype!r} must be 'float32' or 'float16'")
    return {name: tensor.astype(dtype) for name, tensor in tensors.items()}


def weight_files(
    weights: list[weight_maps.Weight],
    tensors: weight_maps.Tensors,
    file_format: str,
    max_shard_bytes: int,
) -> Iterator[tuple[str, bytes]]:
    """Yields (file name, content), one shard in memory at a time."""
    if file_format == "msgpack":
        yield (
            MSGPACK,
            serialization.msgpack_serialize(weight_maps.published_to_flax(weights, tensors)),
        )
        return
    if file_format != "safetensors":
        raise ValueError(f"file_format {file_format!r} must be 'safetensors' or 'msgpack'")
    shards: list[weight_maps.Tensors] = [{}]
    for name, tensor in tensors.items():
        if (
            shards[-1]
            and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > max_shard_bytes
        ):
            shards.append({})
        shards[-1][name] = tensor
    place_of = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        place_of |= dict.fromkeys(shard, name)
        content = safetensors.numpy.save(shard, {"format": "pt"})
        yield (SAFETENSORS if len(shards) == 1 else name), content
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": place_of}
        yield INDEX, json.dumps(index, indent=1).encode()


def write_folder(
    folder: Pathlike,
    raw: dict,
    files: Iterable[tuple[str, bytes]],
    tokenizer_files: Iterable[Pathlike],
) -> None:
    """Writes config.json (`raw`), the files (name, content) and copies of the tokenizer files.

    No half-written folder ever has the name, see `files.local_build`.
    """
    with local_build(folder, last="config.json") as made:
        made.mkdir()
        for name, content in files:
            with atomic_write(made / name, "wb") as file:
                file.write(content)
        write_json(made / "config.json", raw)
        for path in map(epath.Path, tokenizer_files):
            if not path.exists():
                raise InputError(f"{path}: no such tokenizer file")
            path.copy(made / path.name)
