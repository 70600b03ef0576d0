"""What benchmarks/gpu.py measures: the jitted functions of the runs, at the paper's sizes.

Models, lengths, rows and optimizers are those of configs/cora.py:paper and
configs/dual_bert.py:files; weights and tokens are random. Making a case looks for no device yet.
"""

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import random_batches
from jax.sharding import Mesh

from clmrc_jax import sharding
from clmrc_jax.models import bert, biencoder, dual_bert, mt5, official_names
from clmrc_jax.pipelines.clmrc_settings import clmrc_settings
from clmrc_jax.pipelines.compile_steps import model_config
from clmrc_jax.pipelines.estimates import generation_flops
from clmrc_jax.pipelines.generator import Generator
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.pipelines.reader import forward_flops
from clmrc_jax.pipelines.retriever import Retriever
from clmrc_jax.pipelines.settings import cora_settings
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.span_objectives import dual_span_objective
from clmrc_jax.train.step import base_key

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
_TINY_BERT = {
    "vocab_size": 500,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "dtype": "float32",
}
_TINY_MT5 = {"vocab_size": 500, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2}
_TINY_MT5 |= {"num_layers": 2, "num_decoder_layers": 2, "dtype": "float32", "remat": False}


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement.

    shape: what a call works on, for people.   rows: examples per call.
    flops: of a call at full length, by formula: what the mathematics needs, recomputation left out.
    start(mesh) -> call: places weights and batch; a call returns arrays not yet waited for.
    torch: what benchmarks/gpu_torch.py must know of the model.   batch: name -> array, for both.
    """

    name: str
    shape: str
    rows: int
    flops: float
    start: Callable[[Mesh], Callable]
    torch: dict
    batch: dict[str, np.ndarray]


def make_cases(tiny: bool, rows: int = 0) -> list[Case]:
    """All measurements.

    tiny: two small layers in float32, to try the program on a CPU.   rows: of every batch, 0 for those
    of the paper's runs (4 if tiny).
    """
    size = tiny, rows or 4 * tiny
    return [
        _train_mdpr(*size),
        _encode("encode", *size, length=32 if tiny else 256),
        _encode("encode 180", *size, length=24 if tiny else 192, tokens=22 if tiny else 180),
        _train_mgen(*size),
        _generate(*size),
        _train_dual_bert(*size),
    ]


def _config(name: str, preset: str):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(preset)


def _cora(tiny: bool, rows: int):
    """Settings of the paper's run; decoding goes on to the last token."""
    config = _config("cora", "paper")
    if rows:
        config.retriever.update({"batch_size": rows, "encode_batch": rows})
        config.generator.update({"batch_size": rows, "generate_batch": rows})
    if tiny:
        config.retriever_model.update({"pretrained": "", "sizes": _TINY_BERT})
        config.generator_model.update({"pretrained": "", "sizes": _TINY_MT5})
        config.generator.max_length = 8
        config.generator_format.update({"source_buckets": (32,), "target_length": 8})
    config.generator.min_length = config.generator.max_length
    return cora_settings(config)


def _retriever(s, mesh: Mesh) -> Retriever:
    model = s.biencoder(model_config(s.retriever_model, "bert"))
    rest = s.retriever, s.retriever_optimizer, s.retriever_format, builtin_folder("bert")
    return Retriever(model, *rest, mesh, sharding.DEFAULT_RULES)


def _generator(s, mesh: Mesh) -> Generator:
    model = model_config(s.generator_model, "mt5")
    rest = s.generator, s.generator_optimizer, s.generator_format, builtin_folder("mt5")
    return Generator(model, *rest, mesh, sharding.DEFAULT_RULES)


def _random(init: Callable):
    """Random parameters shaped like those of `init(key)`, which would take long to compile."""
    rng = np.random.default_rng(0)

    def one(path, leaf):
        if path[-1].key == "scale":
            return np.ones(leaf.shape, np.float32)
        return np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32)

    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(one, shapes)


def _updates(trainer: Trainer, init: Callable, batch: dict) -> Callable:
    """call() -> loss of one more update, made as `Trainer.fit` makes it."""
    params = _random(init)
    _, start, update = trainer.prepare(params)
    state, arrays = start(params), sharding.place_batch(trainer.mesh, batch)
    key, rate = base_key(0, trainer.mesh), np.float32(trainer.optimizer.learning_rate)

    def call():
        nonlocal state
        with sharding.activate(trainer.mesh, trainer.rules):
            state, values = update(state, arrays, key, rate)
        return values["loss"]

    return call


def _torch_model(kind: str, config, dtype: str, optimizer=None, **more) -> dict:
    """What the other side needs. Names of sizes are those of transformers already."""
    sizes = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("dtype", "remat")}
    case = {"kind": kind, "sizes": sizes, "dtype": dtype, "remat": config.remat, **more}
    if optimizer:
        case |= {x: getattr(optimizer, x) for x in ("learning_rate", "weight_decay", "clip_norm")}
    return case


def _train_mdpr(tiny: bool, rows: int) -> Case:
    lengths = (16, 32) if tiny else (64, 256)
    s = _cora(tiny, rows)
    config, rows = model_config(s.retriever_model, "bert"), s.retriever.batch_size
    contexts = 1 + s.retriever.hard_negatives
    batch = random_batches.contrastive(rows, contexts, lengths, config.vocab_size)

    def start(mesh):
        made = _retriever(s, mesh)
        return _updates(made.trainer, functools.partial(biencoder.init, made.model), batch)

    counts = rows, rows * contexts
    return Case(
        "train mDPR",
        " + ".join(f"{count} x {length}" for count, length in zip(counts, lengths)),
        rows,
        3 * sum(bert.forward_flops(config, *pair) for pair in zip(counts, lengths)),
        start,
        _torch_model("mdpr", config, config.dtype, s.retriever_optimizer),
        batch,
    )


def _encode(name: str, tiny: bool, rows: int, *, length: int, tokens: int = 0) -> Case:
    """tokens: of every passage; 0 for three quarters to the whole of the length, counted as whole."""
    s = _cora(tiny, rows)
    config, rows = model_config(s.retriever_model, "bert"), s.retriever.encode_batch
    made = random_batches.texts(np.random.default_rng(0), rows, length, config.vocab_size, tokens)

    def start(mesh):
        retriever = _retriever(s, mesh)
        weights = _random(functools.partial(biencoder.init, retriever.model))
        params = jax.device_put(weights, sharding.replicated(mesh))
        batch = jax.device_put(made, sharding.batch_sharding(mesh))
        return lambda: retriever.programs["passages"](params, *batch)

    return Case(
        name,
        f"{rows} x {length}" + (f", {tokens} used" if tokens else ""),
        rows,
        bert.forward_flops(config, rows, tokens or length),
        start,
        _torch_model("encode", config, config.dtype),
        dict(zip(("ids", "mask"), made)),
    )


def _train_mgen(tiny: bool, rows: int) -> Case:
    s = _cora(tiny, rows)
    config, rows = model_config(s.generator_model, "mt5"), s.generator.batch_size
    lengths = s.generator_format.source_length, s.generator_format.target_length
    batch = random_batches.seq2seq(rows, *lengths, config.vocab_size)

    def start(mesh):
        made = _generator(s, mesh)
        return _updates(made.trainer, functools.partial(mt5.init, made.model), batch)

    return Case(
        "train mGEN",
        f"{rows} x ({lengths[0]} -> {lengths[1]})",
        rows,
        3 * mt5.forward_flops(config, rows, *lengths),
        start,
        _torch_model("seq2seq", config, config.dtype, s.generator_optimizer),
        batch,
    )


def _generate(tiny: bool, rows: int) -> Case:
    s = _cora(tiny, rows)
    t, config = s.generator, model_config(s.generator_model, "mt5")
    rows, length = t.generate_batch, s.generator_format.source_length
    made = random_batches.texts(np.random.default_rng(0), rows, length, config.vocab_size)

    def start(mesh):
        generator = _generator(s, mesh)
        weights = _random(functools.partial(mt5.init, generator.model))
        params = jax.device_put(weights, sharding.replicated(mesh))
        batch = jax.device_put(made, sharding.batch_sharding(mesh))
        return lambda: generator.programs["generate"](params, *batch, beams=t.beams)

    more = {"beams": t.beams, "max_length": t.max_length, "length_penalty": t.length_penalty}
    return Case(
        "generate",
        f"{rows} x ({length} -> {t.max_length}, {t.beams} beams)",
        rows,
        sum(generation_flops(config, rows, length, t.max_length - 1, t.beams)),
        start,
        _torch_model("generate", config, config.dtype, **more),
        dict(zip(("ids", "mask"), made)),
    )


def _train_dual_bert(tiny: bool, rows: int) -> Case:
    config = _config("dual_bert", "files")
    if tiny:
        config.model.update({"pretrained": "", "sizes": _TINY_BERT})
        config.format.update({"max_length": 32, "source_length": 32, "max_query_length": 8})
    config.target_recipe.batch_size = rows or config.target_recipe.batch_size
    s = clmrc_settings(config)
    model = s.dual_bert(model_config(s.model, "bert"))
    rows, length = s.target_recipe.batch_size, s.format.max_length
    optimizer = s.target_recipe.optimizer_config(windows=rows)
    batch = random_batches.span_pairs(rows, length, model.bert.vocab_size)
    init = functools.partial(dual_bert.init, model)

    def start(mesh):
        parts = optimizer, mesh, dual_bert.PARAM_AXES, sharding.DEFAULT_RULES
        return _updates(Trainer(dual_span_objective(model), *parts), init, batch)

    more = {"heads": model.bert.num_attention_heads, "layers": model.bert.num_hidden_layers}
    more |= {"dropout": model.fusion_dropout, "variables": _official_shapes(model)}
    return Case(
        "train Dual BERT",
        f"{rows} x {length} + {length}",
        rows,
        3 * forward_flops(model, s.format, rows),
        start,
        _torch_model("dual_bert", model.bert, model.bert.dtype, optimizer, **more),
        batch,
    )


def _official_shapes(model) -> dict[str, tuple[int, ...]]:
    """Released name -> shape of every parameter of Dual BERT."""
    shapes = jax.eval_shape(lambda: dual_bert.init(model, jax.random.key(0)))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    rows = official_names.dual_bert_variables(model)
    return {k: v.shape for k, v in official_names.to_official(rows, zeros).items()}
