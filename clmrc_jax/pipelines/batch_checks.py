"""Whether global batches divide over a mesh, which may be of devices that are not there.

And whether the encoder has a position for every token of them.
"""

from jax.sharding import AbstractMesh, Mesh

from clmrc_jax import sharding
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.files import InputError
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.pipelines.settings import GeneratorTraining, RetrieverTraining


def check_retriever(mesh: Mesh | AbstractMesh, t: RetrieverTraining) -> None:
    """The batches of mDPR. Raises InputError, as everything here, naming the config key."""
    check_training(mesh, "retriever.batch_size", t.batch_size, "retriever", t.accumulate)
    check_chunk("retriever.chunk_size", t.chunk_size, t.batch_size // t.accumulate)


def check_generator(mesh: Mesh | AbstractMesh, t: GeneratorTraining) -> None:
    """The batches of mGEN."""
    check_training(mesh, "generator.batch_size", t.batch_size, "generator", t.accumulate)


def check_training(
    mesh: Mesh | AbstractMesh, key: str, rows: int, group: str, accumulate: int
) -> None:
    """Raises InputError where a global batch cannot be trained on.

    key: the config key of `rows`.   group: that of the group with the key `accumulate`.
    """
    check_batch(mesh, key, rows, f"{group}.accumulate", accumulate)
    if isinstance(mesh, Mesh):  # of devices that are there
        sharding.batch_slice(mesh)  # hosts have equal slices of the data axis, or it says why not


def check_batch(
    mesh: Mesh | AbstractMesh, key: str, rows: int, parts_key: str = "", parts: int = 1
) -> None:
    """Raises InputError where `rows` do not divide over the data axis, in each of `parts` parts.

    Nor do 0 rows, or fewer.
    """
    ways = mesh.shape["data"]
    if rows > 0 and rows % (ways * parts) == 0:
        return
    divided = f"the {ways} devices of the data axis"
    fewer = ""
    if parts > 1:
        divided += f" in config.{parts_key}={parts} micro-batches"
        fewer = ", or fewer micro-batches"
    fitting = max(1, -(-rows // (ways * parts))) * ways * parts
    raise InputError(
        f"config.{key}={rows} does not divide over {divided}; set --config.{key}={fitting}, or "
        f"give the mesh a larger model axis{fewer}"
    )


def check_chunk(key: str, chunk: int, rows: int) -> None:
    """Raises InputError where chunks (0: none) do not divide the rows of a (micro-)batch."""
    if chunk and rows % chunk:
        fitting = max(n for n in range(1, min(chunk, rows) + 1) if rows % n == 0)
        raise InputError(
            f"config.{key}={chunk} does not divide the {rows} questions of a (micro-)batch; set "
            f"--config.{key}={fitting}"
        )


def check_buckets(encoder: BertConfig, format: RetrieverFormat) -> None:
    """Raises InputError where a bucket of mDPR is longer than the encoder's positions."""
    for name in ("question_buckets", "passage_buckets"):
        longest = getattr(format, name)[-1]
        if longest > encoder.max_position_embeddings:
            raise InputError(
                f"config.retriever_format.{name} goes to {longest} tokens, but the encoder has "
                f"{encoder.max_position_embeddings} positions; shorten the buckets"
            )


def check_windows(encoder: BertConfig, format: SpanFormat) -> None:
    """Raises InputError where windows of a reader are longer than the encoder's positions."""
    if max(format.max_length, format.source_length) > encoder.max_position_embeddings:
        raise InputError(
            f"max_length {format.max_length} or source_length {format.source_length} is more "
            f"than the encoder's {encoder.max_position_embeddings} positions; shorten them"
        )
