"""The jitted steps of a reading-comprehension run, for `compile_steps`."""

import dataclasses
import functools

import jax
import numpy as np
from jax.sharding import Mesh

from clmrc_jax import sharding
from clmrc_jax.data import span_features
from clmrc_jax.data.mrc_examples import Answer, MrcExample, SourceSide
from clmrc_jax.data.pipeline import row_generators
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.models import dual_bert, span_head
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.pipelines import compile_advice as advice
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION, SYSTEMS, ClmrcSettings
from clmrc_jax.pipelines.compile_steps import (
    Meshes,
    Step,
    batch_shapes,
    model_config,
    placed_shapes,
    training_step,
)
from clmrc_jax.pipelines.models import builtin_folder
from clmrc_jax.pipelines.reader import forward_flops
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.span_objectives import dual_span_objective, span_objective

_WINDOWS = 1 << 20  # enough that the warm-up of a recipe is no shorter than the run's


def reader_steps(s: ClmrcSettings, meshes: Meshes) -> list[Step]:
    """Training and prediction of every kind of reader that the run's systems need."""
    config = model_config(s.model, "bert")
    models = {"reader": (config, span_head), "Dual BERT": (s.dual_bert(config), dual_bert)}
    phases = {phase for system in s.systems for phase in (SYSTEMS | BACK_TRANSLATION)[system]}
    needed = {"Dual BERT": "bilingual" in phases, "reader": bool(phases - {"bilingual"})}
    steps = []
    for name, wanted in needed.items():
        if wanted:
            steps += _steps(s, meshes.whole, name, *models[name], phases)
    return steps


def _steps(s: ClmrcSettings, mesh: Mesh, name: str, model, module, phases) -> list[Step]:
    """The update and the prediction of one model; module: `span_head` or `dual_bert`."""
    dual = isinstance(model, DualBertConfig)
    rules = {**sharding.DEFAULT_RULES, **s.rules}
    shapes = jax.eval_shape(lambda key: module.init(model, key), jax.random.key(0))
    weights = placed_shapes(shapes, module.PARAM_AXES, mesh, rules)
    key = "source_recipe" if not dual and "source" in phases else "target_recipe"
    recipe = getattr(s, key)
    trainer = Trainer(
        dual_span_objective(model) if dual else span_objective(model),
        recipe.optimizer_config(_WINDOWS),
        mesh,
        module.PARAM_AXES,
        rules,
        s.training.accumulate,
    )
    options = _advice(s, key, recipe)
    return [
        training_step(
            f"train {name}",
            trainer,
            weights,
            _batch(s, recipe.batch_size, dual),
            shape=_shape(s, recipe.batch_size, dual),
            key=f"{key}.batch_size",
            model_flops=3 * forward_flops(model, s.format, recipe.batch_size),
            held=0,
            advice=options,
        ),
        _prediction(s, mesh, name, model, module, weights),
    ]


def _prediction(s: ClmrcSettings, mesh: Mesh, name: str, model, module, weights) -> Step:
    dual = isinstance(model, DualBertConfig)
    ways = mesh.shape["data"]
    rows = -(-s.training.predict_batch // ways) * ways
    batch = batch_shapes(_batch(s, rows, dual), mesh, "training.predict_batch")
    effect = "fewer windows at a time"
    return Step(
        f"read with {name}",
        mesh,
        jax.jit(functools.partial(module.predict, model), out_shardings=sharding.replicated(mesh)),
        (weights, batch),
        shape=_shape(s, rows, dual),
        rows=rows,
        model_flops=forward_flops(model, s.format, rows),
        held=0,
        advice=(*advice.smaller("training.predict_batch", rows, effect), advice.LARGER_SLICE),
        context=functools.partial(sharding.activate, mesh, {**sharding.DEFAULT_RULES, **s.rules}),
    )


def _batch(s: ClmrcSettings, rows: int, dual: bool) -> dict[str, np.ndarray]:
    """A batch of one question whose passage is longer than any window."""
    text = "ab " * 2 * max(s.format.max_length, s.format.source_length)
    answer = Answer("ab", 0)
    source = SourceSide("en", "ab", text, answer, "ab")
    example = MrcExample("0", "en", "", "ab", text, (answer,), source=source)
    tokenizer = load_tokenizer(builtin_folder("bert"))
    windows = span_features.dual_windows if dual else span_features.span_windows
    make = span_features.dual_batches if dual else span_features.span_batches
    # Shapes alone count, and the official windows want a vocabulary that this one is not.
    format = dataclasses.replace(s.format, mode="paper")
    first = windows([example], tokenizer, format, training=True)[0]
    return make(tokenizer, format)([first] * rows, row_generators(0, range(rows)), 0)


def _shape(s: ClmrcSettings, rows: int, dual: bool) -> str:
    lengths = [s.format.max_length] + [s.format.source_length] * dual
    return f"{rows} x {' + '.join(map(str, lengths))}"


def _advice(s: ClmrcSettings, key: str, recipe) -> tuple[advice.Option, ...]:
    chunk = advice.Option(
        "--config.dual.saa_chunk=8", "attention maps of 8 rows at a time", advice.ACTIVATIONS
    )
    return (
        *advice.remat("model", s.model.sizes),
        advice.accumulation("training", s.training.accumulate, "micro-batches, the same update"),
        *((chunk,) if key == "target_recipe" and not s.dual.get("saa_chunk") else ()),
        *advice.smaller(f"{key}.batch_size", recipe.batch_size, "fewer rows"),
        advice.FSDP,
        *advice.adafactor(f"{key}.optimizer", recipe.optimizer),
        advice.model_axis(s.mesh.get("model", 1)),
        advice.LARGER_SLICE,
    )
