"""Whether the models and batches of a run fit its mesh, asked before the first stage.

The training that would fail may come days later, after a corpus was encoded and another model
trained.
"""

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from clmrc_jax import sharding
from clmrc_jax.files import InputError
from clmrc_jax.models import biencoder, dual_bert, marian, mt5, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines.batch_checks import (
    check_buckets,
    check_generator,
    check_retriever,
    check_training,
)
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION, SYSTEMS, ClmrcSettings
from clmrc_jax.pipelines.plan import config_of
from clmrc_jax.pipelines.settings import CoraSettings, ModelSource
from clmrc_jax.pipelines.stages import MANIFEST, Run
from clmrc_jax.pipelines.translator_settings import TranslatorSettings


def check_cora(s: CoraSettings, mesh: Mesh, rules: sharding.Rules, run: Run) -> None:
    """Both models of a CORA run. Raises InputError, as everything here, naming the config key."""

    def left(stage: str) -> bool:
        return any(not _is_done(run, f"round_{r}/{stage}") for r in range(s.rounds + 1))

    if left("mdpr"):
        check_retriever(mesh, s.retriever)
    if s.generate and left("mgen"):
        check_generator(mesh, s.generator)
    place = mesh, rules
    encoder = _check_model(
        "retriever_model",
        s.retriever_model,
        "bert",
        lambda bert, key: biencoder.init(s.biencoder(bert), key),
        biencoder.PARAM_AXES,
        *place,
    )
    if encoder:
        check_buckets(encoder, s.retriever_format)
    if s.generate:
        _check_model("generator_model", s.generator_model, "mt5", mt5.init, mt5.PARAM_AXES, *place)


def check_clmrc(s: ClmrcSettings, mesh: Mesh, rules: sharding.Rules, run: Run) -> None:
    """All readers that a reading-comprehension run trains."""
    trainings = reader_trainings(s)
    for stage, recipe in trainings.items():
        if not _is_done(run, stage):
            rows, parts = getattr(s, recipe).batch_size, s.training.accumulate
            check_training(mesh, f"{recipe}.batch_size", rows, "training", parts)
    kinds = [(span_head.init, span_head.PARAM_AXES)]
    if "bilingual" in s.phases():
        kinds.append(
            (lambda bert, key: dual_bert.init(s.dual_bert(bert), key), dual_bert.PARAM_AXES)
        )
    for init, axes in kinds:
        _check_model("model", s.model, "bert", init, axes, mesh, rules)
    if "source_reader" in trainings:
        reader = ModelSource(s.translation.reader)
        _check_model("translation.reader", reader, "bert", *kinds[0], mesh, rules)


def check_translator(s: TranslatorSettings, mesh: Mesh, rules: sharding.Rules) -> None:
    """The model; batches are counted in tokens, and made to fit."""
    sharding.batch_slice(mesh)
    config = s.model(vocab_size=mesh.size)  # the vocabulary is still to train
    _check_shapes("sizes", lambda key: marian.init(config, key), marian.PARAM_AXES, mesh, rules)


def check_parameters(key: str, params, axes: sharding.ParamAxes, mesh: Mesh, rules) -> None:
    """Raises InputError where parameters (or their shapes) cannot lie on the mesh.

    key: the config key of the model.
    """
    try:
        sharding.param_specs(params, axes, rules, mesh)
    except InputError as error:
        sizes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
        raise InputError(f"config.{key} does not fit config.mesh ({sizes}): {error}") from error


def _check_model(
    key: str,
    source: ModelSource,
    kind: str,
    init: Callable,
    axes: sharding.ParamAxes,
    mesh: Mesh,
    rules: sharding.Rules,
) -> BertConfig | Mt5Config | None:
    """A model whose sizes are known before it is loaded; its sizes. kind: "bert" or "mt5"."""
    config = config_of(source, kind, [], key)
    if config is None:  # on the hub, and never loaded
        return None
    if not (source.pretrained or "vocab_size" in source.sizes):
        # Of a tokenizer that is still to be read or trained: no matter, vocabularies always fit.
        config = dataclasses.replace(config, vocab_size=mesh.size)
    _check_shapes(key, lambda random: init(config, random), axes, mesh, rules)
    return config


def _check_shapes(key: str, init: Callable, axes: sharding.ParamAxes, mesh: Mesh, rules) -> None:
    """check_parameters of `init(key)`, of which only the shapes are computed."""
    check_parameters(key, jax.eval_shape(init, jax.random.key(0)), axes, mesh, rules)


def reader_trainings(s: ClmrcSettings) -> dict[str, str]:
    """Stage -> the recipe of its training, for all systems of the run."""
    found = {}
    for system in s.systems:
        for phase in (SYSTEMS | BACK_TRANSLATION)[system]:
            if phase != "source":
                found[f"{system}/train"] = "target_recipe"
            elif not s.source_model:
                back = system in BACK_TRANSLATION and s.translation.reader
                found["source_reader" if back else "source"] = "source_recipe"
    return found


def _is_done(run: Run, stage: str) -> bool:
    return run.path(stage, MANIFEST).exists()
