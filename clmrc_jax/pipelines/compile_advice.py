"""What makes a step smaller: settings to change, and which part of the memory each shrinks."""

import dataclasses

from clmrc_jax.pipelines.settings import CoraSettings

STATE, ACTIVATIONS = "state", "activations"


@dataclasses.dataclass(frozen=True)
class Option:
    """A change of the config.

    change: flags, or what else to do.   effect: for people.
    shrinks: STATE (parameters, optimizer, embeddings: the arguments) or ACTIVATIONS.
    """

    change: str
    effect: str
    shrinks: str


def best_first(options: tuple[Option, ...], arguments: int, capacity: int) -> list[Option]:
    """The options, those first that shrink what does not fit.

    arguments: bytes of the arguments and of what else is held on one device.
    """
    first = STATE if arguments > 0.9 * capacity else ACTIVATIONS
    return sorted(options, key=lambda option: option.shrinks != first)


FSDP = Option(
    "--config.rules=\"(('embed','data'),)\"",
    "FSDP: parameters, gradients and optimizer state divided over the data axis",
    STATE,
)
LARGER_SLICE = Option(
    "a larger --topology", "fewer rows, and with FSDP less state, per chip", STATE
)


def model_axis(model: int) -> Option:
    """Tensor parallelism over twice as many chips."""
    effect = "tensor parallelism: heads and MLPs divided, fewer data shards"
    return Option(f"--config.mesh.model={2 * model}", effect, STATE)


def remat(key: str, sizes: dict) -> tuple[Option, ...]:
    """Recomputation of the layers, where it is not on already."""
    if sizes.get("remat"):
        return ()
    effect = "layers are recomputed in the backward pass: about a third more compute"
    return (Option(f"--config.{key}.sizes.remat=True", effect, ACTIVATIONS),)


def smaller(key: str, rows: int, effect: str, shrinks: str = ACTIVATIONS) -> tuple[Option, ...]:
    """Half the rows, where there are two."""
    return (Option(f"--config.{key}={rows // 2}", effect, shrinks),) if rows > 1 else ()


def accumulation(key: str, accumulate: int, effect: str) -> Option:
    """Twice the micro-batches."""
    return Option(f"--config.{key}.accumulate={2 * accumulate}", effect, ACTIVATIONS)


def adafactor(key: str, name: str) -> tuple[Option, ...]:
    """Factored second moments, where AdamW's whole ones are kept."""
    effect = "row and column statistics instead of two arrays per parameter"
    return (Option(f"--config.{key}=adafactor", effect, STATE),) if name == "adamw" else ()


def for_retriever(s: CoraSettings) -> tuple[Option, ...]:
    """Options of the mDPR update."""
    t = s.retriever
    effect = "GradCache: the towers run chunk by chunk, every negative stays"
    size = t.chunk_size // 2 if t.chunk_size else max(1, t.batch_size // 4)
    chunks = (Option(f"--config.retriever.chunk_size={size}", effect, ACTIVATIONS),)
    return (
        *(chunks if size else ()),
        *remat("retriever_model", s.retriever_model.sizes),
        accumulation(
            "retriever", t.accumulate, "micro-batches; negatives of the micro-batch alone"
        ),
        *smaller("retriever.batch_size", t.batch_size, "fewer rows and fewer negatives"),
        FSDP,
        *adafactor("retriever_optimizer.name", s.retriever_optimizer.name),
        model_axis(s.mesh.get("model", 1)),
        LARGER_SLICE,
    )


def for_encoding(s: CoraSettings) -> tuple[Option, ...]:
    """Options of the corpus encoder."""
    return (
        *smaller("retriever.encode_batch", s.retriever.encode_batch, "fewer passages at a time"),
        FSDP,
        model_axis(s.mesh.get("model", 1)),
        LARGER_SLICE,
    )


def for_search(s: CoraSettings) -> tuple[Option, ...]:
    """Options of exact search."""
    effect = "smaller blocks of the corpus, streamed one after the other"
    rows = smaller("index.max_rows_on_device", s.index.max_rows_on_device, effect, STATE)
    return (*rows, FSDP, LARGER_SLICE)


def for_generator(s: CoraSettings) -> tuple[Option, ...]:
    """Options of the mGEN update."""
    t = s.generator
    return (
        *remat("generator_model", s.generator_model.sizes),
        accumulation("generator", t.accumulate, "micro-batches; the update stays the same"),
        *smaller("generator.batch_size", t.batch_size, "fewer rows"),
        Option("shorter --config.generator_format.source_buckets", "fewer tokens", ACTIVATIONS),
        FSDP,
        *adafactor("generator_optimizer.name", s.generator_optimizer.name),
        model_axis(s.mesh.get("model", 1)),
        LARGER_SLICE,
    )


def for_generation(s: CoraSettings) -> tuple[Option, ...]:
    """Options of beam search."""
    t = s.generator
    return (
        *smaller("generator.generate_batch", t.generate_batch, "fewer questions at a time"),
        *smaller("generator.beams", t.beams, "fewer hypotheses per question"),
        FSDP,
        model_axis(s.mesh.get("model", 1)),
        LARGER_SLICE,
    )
