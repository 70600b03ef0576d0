"""Every jitted step of a run with its full-size arguments, as descriptions: nothing is allocated.

The functions are those that the run calls (`Trainer.prepare`, `Retriever.programs`,
`Generator.programs`, `exact.search_block`), and batches come out of the run's own formatters,
fed with texts that are too long, so that every step is seen at its largest shape. Of tokenizers
only the padding matters here: those of the package's tiny models stand in for the real ones.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from clmrc_jax import sharding
from clmrc_jax.data.generator_features import encode_sources, pad_sources, seq2seq_batches
from clmrc_jax.data.pipeline import row_generators
from clmrc_jax.data.retriever_features import contrastive_batches
from clmrc_jax.files import InputError
from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.pipelines import compile_advice as advice
from clmrc_jax.pipelines.batch_checks import check_batch
from clmrc_jax.pipelines.counts import corpus_counts
from clmrc_jax.pipelines.estimates import device_bytes, generation_flops
from clmrc_jax.pipelines.generator import Generator
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.pipelines.plan import config_of
from clmrc_jax.pipelines.retriever import Retriever
from clmrc_jax.pipelines.settings import CoraSettings, ModelSource
from clmrc_jax.retrieval import exact
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.step import base_key

_LONG = "ab " * 3000  # more words than any length limit has tokens
_PASSAGE = {"id": "0", "lang": "en", "article_id": "0", "title": "a", "text": _LONG}
_SEARCHED = 256  # questions per search: `ExactIndex.query_batch`


@dataclasses.dataclass(frozen=True)
class Step:
    """One compiled program of a run.

    mesh: the devices it runs on, all of them or those of one host.
    program: the jitted function, called with `arguments` (ShapeDtypeStructs with shardings, or
        static values) and the static `keywords`.
    shape: what it works on, for people, e.g. "128 x 64 + 256 x 256".   rows: examples per call.
    model_flops: operations that the mathematics needs, by formula.
    held: bytes on one device that the run keeps there beside the program's arguments.
    trips: iterations of a loop whose end depends on the data, at most.
    advice: what would make it smaller, see `compile_advice`.
    context: made around tracing and lowering.
    """

    name: str
    mesh: Mesh
    program: Callable
    arguments: tuple
    shape: str
    rows: int
    model_flops: float
    held: int
    advice: tuple[advice.Option, ...]
    keywords: dict = dataclasses.field(default_factory=dict)
    trips: int = 1
    context: Callable = contextlib.nullcontext


@dataclasses.dataclass(frozen=True)
class Meshes:
    """whole: all devices, for training.   host: those of one host, where inference runs: every
    host answers and encodes its share with its `sharding.local_view` of the weights."""

    whole: Mesh
    host: Mesh

    def host_rules(self, rules: sharding.Rules) -> sharding.Rules:
        """The rules of the view: what several hosts hold parts of is whole on each of them."""
        shared = {x for x in self.whole.shape if self.whole.shape[x] == self.host.shape[x]}

        def kept(entry):
            names = (entry,) if isinstance(entry, str) else entry or ()
            return tuple(name for name in names if name in shared) or None

        return {axis: kept(entry) for axis, entry in rules.items()}


def model_config(source: ModelSource, kind: str):
    """Sizes of a model ("bert" or "mt5") without its weights. Raises InputError if unknown."""
    notes = []
    config = config_of(source, kind, notes)
    if config is None:
        raise InputError(notes[-1])
    return config


def placed_shapes(shapes, axes: sharding.ParamAxes, mesh: Mesh, rules: sharding.Rules):
    """Parameters as ShapeDtypeStructs that say where each lies."""
    return jax.tree.map(described, shapes, sharding.param_shardings(mesh, shapes, axes, rules))


def described(array, place: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, with a place."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)


def batch_shapes(batch: dict, mesh: Mesh, key: str) -> dict:
    """A numpy batch as ShapeDtypeStructs over the `data` axis.

    key: the config key that sets the number of rows. Raises InputError when they do not divide.
    """
    check_batch(mesh, key, len(next(iter(batch.values()))))
    place = sharding.batch_sharding(mesh)
    return {name: described(array, place) for name, array in batch.items()}


def training_step(
    name: str, trainer: Trainer, params, batch: dict, *, shape: str, key: str, **fields
) -> Step:
    """The update of a `Trainer` on a numpy batch; key: as in `batch_shapes`."""
    abstract, _, update = trainer.prepare(params)
    random_key = jax.eval_shape(lambda: base_key(0, trainer.mesh))
    rows = batch_shapes(batch, trainer.mesh, key)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    return Step(
        name,
        trainer.mesh,
        update,
        (abstract, rows, random_key, rate),
        shape=shape,
        rows=len(next(iter(batch.values()))),
        context=functools.partial(sharding.activate, trainer.mesh, trainer.rules),
        **fields,
    )


def cora_steps(s: CoraSettings, meshes: Meshes) -> list[Step]:
    """The programs of a CORA run, largest shapes. Raises InputError for what cannot run."""
    models = [_Model(s, meshes, _retriever(s), biencoder)]
    if s.generate:
        models.append(_Model(s, meshes, _generator(s), mt5))
    steps = [_retriever_training(s, models[0]), _encoding(s, models[0])]
    if s.index.kind != "numpy":
        steps.append(_exact_search(s, models[0], meshes))
    for model in models[1:]:
        steps += [_generator_training(s, model), _generation(s, model)]
    return steps


class _Model:
    """One model of a run, on all devices for training and on those of a host for inference.

    make(mesh, rules): the pipeline's object, with `model` its config.   module: its functions.
    """

    def __init__(self, s: CoraSettings, meshes: Meshes, make: Callable, module):
        rules = {**sharding.DEFAULT_RULES, **s.rules}
        view = meshes.host_rules(rules)
        self.trained, self.used = make(meshes.whole, rules), make(meshes.host, view)
        shapes = _shapes(lambda key: module.init(self.trained.model, key))
        self.weights = placed_shapes(shapes, module.PARAM_AXES, meshes.whole, rules)
        self.view = placed_shapes(shapes, module.PARAM_AXES, meshes.host, view)
        self.held = device_bytes(self.weights)

    def beside(self, used) -> int:
        """Bytes of the weights that are no arguments of a program that uses the view `used`."""
        # Without FSDP over hosts the view is the same memory.
        copied = device_bytes(self.view) != self.held
        return self.held if copied else self.held - device_bytes(used)


def _retriever(s: CoraSettings) -> Callable:
    config = s.biencoder(model_config(s.retriever_model, "bert"))
    rest = s.retriever, s.retriever_optimizer, s.retriever_format, builtin_folder("bert")
    return lambda mesh, rules: Retriever(config, *rest, mesh, rules)


def _generator(s: CoraSettings) -> Callable:
    config = model_config(s.generator_model, "mt5")
    rest = s.generator, s.generator_optimizer, s.generator_format, builtin_folder("mt5")
    return lambda mesh, rules: Generator(config, *rest, mesh, rules)


def _shapes(init: Callable):
    """Shapes of `init(key)`."""
    return jax.eval_shape(init, jax.random.key(0))


def _retriever_training(s: CoraSettings, model: _Model) -> Step:
    t, retriever = s.retriever, model.trained
    row = {"question": _LONG, "lang": "en", "positive_ctxs": [_PASSAGE]}
    row["hard_negative_ctxs"] = [_PASSAGE] * t.hard_negatives
    transform = contrastive_batches(
        retriever.tokenizer, retriever.format, hard_negatives=t.hard_negatives
    )
    batch = transform([row] * t.batch_size, row_generators(0, range(t.batch_size)), 0)
    lengths = batch["question_ids"].shape[-1], batch["passage_ids"].shape[-1]
    contexts = t.batch_size * (1 + t.hard_negatives)
    return training_step(
        "train mDPR",
        retriever.trainer,
        model.weights,
        batch,
        shape=f"{t.batch_size} x {lengths[0]} + {contexts} x {lengths[1]}",
        key="retriever.batch_size",
        model_flops=retriever.flops_per_batch(),
        held=0,
        advice=advice.for_retriever(s),
    )


def _encoding(s: CoraSettings, model: _Model) -> Step:
    retriever = model.used
    plan = retriever.batch_plan(retriever.format.passage_buckets)
    length = plan.buckets[-1]
    rows = plan.rows(length)
    place = sharding.batch_sharding(retriever.mesh)
    ids, mask = (
        jax.ShapeDtypeStruct((rows, length), dtype, sharding=place)
        for dtype in (jnp.int32, jnp.bool_)
    )
    tower = model.view["shared" if retriever.model.tied else "passage"]
    return Step(
        "encode passages",
        retriever.mesh,
        retriever.programs["passages"],
        (model.view, ids, mask),
        shape=f"{rows} x {length}",
        rows=rows,
        model_flops=bert.forward_flops(retriever.model.bert, rows, length),
        held=model.beside(tower),
        advice=advice.for_encoding(s),
    )


def _exact_search(s: CoraSettings, model: _Model, meshes: Meshes) -> Step:
    """One block of the corpus against one batch of questions.

    As the index it uses all devices; ScaNN's recall is measured with those of one host.
    """
    mesh = meshes.whole if s.index.kind == "exact" else meshes.host
    count = corpus_counts(s.corpus).passages
    tile, block = exact.block_sizes(count, mesh.size, s.index.max_rows_on_device)
    width, whole = model.trained.model.embedding_size, sharding.replicated(mesh)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    best = tuple(
        jax.ShapeDtypeStruct((_SEARCHED, s.index.top_k), dtype, sharding=whole)
        for dtype in (jnp.float32, jnp.int32)
    )
    arguments = (
        jax.ShapeDtypeStruct((_SEARCHED, width), jnp.float32, sharding=whole),
        jax.ShapeDtypeStruct((block, width), jnp.float32, sharding=rows),
        best,
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    return Step(
        "exact search",
        mesh,
        exact.search_block,
        arguments,
        shape=f"{_SEARCHED} x {block:,} of {count:,} rows",
        rows=_SEARCHED,
        model_flops=2.0 * _SEARCHED * block * width,
        held=model.held,
        advice=advice.for_search(s),
        keywords={"mesh": mesh, "tile": tile},
    )


def _generator_training(s: CoraSettings, model: _Model) -> Step:
    t, f, generator = s.generator, s.generator_format, model.trained
    passages = [_PASSAGE] * max(f.passages, 1)
    transform = seq2seq_batches(
        generator.tokenizer, f, lambda row, rng, epoch: (_LONG, "en", passages, _LONG)
    )
    batch = transform([None] * t.batch_size, row_generators(0, range(t.batch_size)), 0)
    source = "x".join(map(str, batch["encoder_input_tokens"].shape[1:]))
    return training_step(
        "train mGEN",
        generator.trainer,
        model.weights,
        batch,
        shape=f"{t.batch_size} x ({source} -> {f.target_length})",
        key="generator.batch_size",
        model_flops=3 * generator.forward_flops(t.batch_size),
        held=0,
        advice=advice.for_generator(s),
    )


def _generation(s: CoraSettings, model: _Model) -> Step:
    """Beam search of the longest sources; the loop is taken to run to the last token."""
    t, f, generator = s.generator, s.generator_format, model.used
    passages = [_PASSAGE] * max(f.passages, 1)
    sources, _ = encode_sources(generator.tokenizer, f, [(_LONG, "en", passages)])
    ways = generator.mesh.shape["data"]
    rows = -(-t.generate_batch // ways) * ways
    tokens, mask = pad_sources(f, sources * rows, generator.tokenizer.ids.pad)
    batch = {"tokens": tokens, "mask": mask}
    batch = batch_shapes(batch, generator.mesh, "generator.generate_batch")
    length = tokens[0].size
    flops = sum(generation_flops(generator.model, rows, length, t.max_length - 1, t.beams))
    return Step(
        "generate",
        generator.mesh,
        generator.programs["generate"],
        (model.view, batch["tokens"], batch["mask"]),
        shape=f"{rows} x ({length} -> {t.max_length}, {t.beams} beams)",
        rows=rows,
        model_flops=flops,
        held=model.beside(model.view),
        advice=advice.for_generation(s),
        keywords={"beams": t.beams},
        trips=t.max_length - 1,
    )


# Task of a config -> (its settings, the steps of those on the meshes).
def _cora(config, meshes: Meshes) -> list[Step]:
    from clmrc_jax.pipelines.settings import cora_settings

    return cora_steps(cora_settings(config), meshes)


def _clmrc(config, meshes: Meshes) -> list[Step]:
    from clmrc_jax.pipelines.clmrc_settings import clmrc_settings
    from clmrc_jax.pipelines.compile_reader import reader_steps

    return reader_steps(clmrc_settings(config), meshes)


TASKS: dict[str, Callable[[object, Meshes], list[Step]]] = {"cora": _cora, "clmrc": _clmrc}
