"""Variables of the released TensorFlow code, read from an `.npz` file.

Such a file is made where TensorFlow is installed, one array per variable under its name:
    r = tf.train.load_checkpoint(path)
    numpy.savez(out, **{name: r.get_tensor(name) for name in r.get_variable_to_shape_map()})
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator

import numpy as np
from etils import epath

from clmrc_jax.files import InputError
from clmrc_jax.models import official_names
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig


def reader_kind(path: str | os.PathLike) -> str:
    """What the file's names make it: "dual" or "span" (a plain reader).

    Raises InputError for a file without a head.
    """
    with _arrays(path) as arrays:
        names = {name.removesuffix(":0") for name in arrays.files}
    if any(name.startswith("target/") for name in names):
        return "dual"
    if "cls/squad/output_weights" in names:
        return "span"
    raise InputError(
        f"{path}: has neither a Dual BERT's variables (target/...) nor a span head "
        "(cls/squad/output_weights); give the checkpoint of a reader, all its variables"
    )


def load_dual_bert(path: str | os.PathLike, config: DualBertConfig, *, prefix: str = "") -> dict:
    """Dual BERT's parameters {"bert", "fusion", "target_head", "source_head"}, NumPy float32.

    prefix: only arrays whose name starts with it are read, and it is cut off ("var/").
    Raises InputError naming the file and every missing, unexpected or misshaped variable.
    """
    return _load(path, official_names.dual_bert_variables(config), prefix)


def load_span_reader(path: str | os.PathLike, config: BertConfig, *, prefix: str = "") -> dict:
    """The plain span reader's parameters {"bert", "head"}; otherwise like `load_dual_bert`."""
    return _load(path, official_names.span_reader_variables(config), prefix)


def _load(path, rows, prefix: str) -> dict:
    with _arrays(path) as arrays:
        variables = {
            name.removeprefix(prefix): arrays[name]
            for name in arrays.files
            if name.startswith(prefix)
        }
    try:
        return official_names.from_official(rows, variables)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


@contextlib.contextmanager
def _arrays(path: str | os.PathLike) -> Iterator[np.lib.npyio.NpzFile]:
    """The open file. Raises InputError where it, or what is read of it, is no whole .npz."""
    path = epath.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, TypeError) as error:
        raise InputError(
            f"{path}: not a whole .npz file ({error}); write it with numpy.savez"
        ) from error
