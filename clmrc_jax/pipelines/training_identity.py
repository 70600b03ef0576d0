"""What a half-finished training must have been begun with, to be continued.

`Trainer.fit` compares its own arguments (optimizer, steps, seed); batch size, temperature, lengths,
the loss and the rows are known to the pipelines alone, which say them here.
"""

import dataclasses
import zlib
from collections.abc import Iterable

from clmrc_jax.files import JsonlRows
from clmrc_jax.pipelines.run_identity import identity

_PART = 1 << 24  # bytes read at a time


def training_identity(settings, fields: Iterable[str], rows) -> dict:
    """The `config` of `Trainer.fit`, a JSON object, equal in every process.

    settings: those of the run, a dataclass.   fields: the ones that the training depends on;
    what changes only its speed and memory is left out.   rows: what it is trained on, a JsonlRows
    or any iterable of values whose `repr` tells them.
    """
    found = identity(dataclasses.asdict(settings))
    return {name: found[name] for name in fields} | {"rows": checksum(rows)}


def checksum(rows) -> int:
    """CRC-32 of all rows."""
    crc = 0
    if isinstance(rows, JsonlRows):
        with open(rows.path, "rb") as file:
            while part := file.read(_PART):
                crc = zlib.crc32(part, crc)
        return crc
    for row in rows:
        crc = zlib.crc32(repr(row).encode(), crc)
    return crc
