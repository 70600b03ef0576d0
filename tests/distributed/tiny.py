"""Models of a few hundred parameters and one batch for each, for programs on many meshes.

BERT's vocabulary is odd, as mBERT's is, so that no `model` axis divides it.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from clmrc_jax import sharding
from clmrc_jax.models import bert, biencoder, dual_bert, mt5
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.objectives import contrastive_objective, seq2seq_objective
from clmrc_jax.train.optimizer import OptimizerConfig
from clmrc_jax.train.span_objectives import dual_span_objective

ROWS = 16
# A third of the time to compile; the collectives and, but for rounding, the numbers are the same.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
BERT = bert.BertConfig(
    vocab_size=45,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=16,
    initializer_range=0.3,
)
MT5 = mt5.Mt5Config(
    vocab_size=248, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=4
)


@dataclasses.dataclass(frozen=True)
class Case:
    """An objective with its model's axes, parameters and batch."""

    objective: Callable
    axes: sharding.ParamAxes
    params: dict
    batch: dict
    optimizer: OptimizerConfig


@functools.cache
def case(name: str) -> Case:
    """ "contrastive", "seq2seq" or "dual_span"."""
    return {"contrastive": _contrastive, "seq2seq": _seq2seq, "dual_span": _dual_span}[name]()


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step compiled for a mesh. start(params) -> state; text: what each device runs."""

    mesh: jax.sharding.Mesh
    rules: sharding.Rules
    start: Callable
    step: Callable
    text: str


@functools.cache
def program(name: str, data: int, model: int, fsdp: bool = False) -> Program:
    """The training step of a case on the first data * model devices."""
    made, mesh = case(name), sharding.make_mesh(data, model, jax.devices()[: data * model])
    rules = {**sharding.DEFAULT_RULES, **({"embed": "data"} if fsdp else {})}
    trainer = Trainer(made.objective, made.optimizer, mesh, made.axes, rules)
    state, start, step = trainer.prepare(made.params)
    rows = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows)
        for name, x in made.batch.items()
    }
    with sharding.activate(mesh, rules):
        lowered = step.lower(state, batch, jax.random.key(0), np.float32(0))
    step = lowered.compile(QUICKLY)
    return Program(mesh, rules, start, step, step.as_text())


def _init(model, config):
    params = jax.jit(model.init, static_argnums=0)(config, jax.random.key(0))
    return jax.tree.map(np.asarray, params)


def _text(rng, vocab: int, shape):
    lengths = rng.integers(3, shape[-1] + 1, shape[:-1])
    mask = np.arange(shape[-1]) < lengths[..., None]
    return np.where(mask, rng.integers(3, vocab, shape), 0).astype(np.int32), mask


def _contrastive() -> Case:
    rng, config = np.random.default_rng(1), biencoder.BiEncoderConfig(BERT)
    shape = (ROWS, 2)
    batch = {
        "passage_valid": rng.random(shape) < 0.8,
        "passage_key": rng.integers(0, 20, shape).astype(np.int32),
        "article_key": rng.integers(-1, 9, shape).astype(np.int32),
    }
    for side, size in (("question", (ROWS, 6)), ("passage", (*shape, 10))):
        batch[f"{side}_ids"], batch[f"{side}_mask"] = _text(rng, 45, size)
    optimizer = OptimizerConfig(eps=1e-3, weight_decay=0.01)
    objective = contrastive_objective(config)
    return Case(objective, biencoder.PARAM_AXES, _init(biencoder, config), batch, optimizer)


def _seq2seq() -> Case:
    rng, batch = np.random.default_rng(2), {}
    batch["encoder_input_tokens"], batch["encoder_mask"] = _text(rng, 248, (ROWS, 12))
    batch["decoder_target_tokens"], batch["decoder_mask"] = _text(rng, 248, (ROWS, 5))
    optimizer = OptimizerConfig(name="adafactor", min_factored=8, clip_norm=0.5)
    return Case(seq2seq_objective(MT5), mt5.PARAM_AXES, _init(mt5, MT5), batch, optimizer)


def _dual_span() -> Case:
    rng, config, batch = np.random.default_rng(3), dual_bert.paper(BERT), {}
    for side, length in (("", 12), ("source_", 10)):
        ids, mask = _text(rng, 45, (ROWS, length))
        batch |= {f"{side}input_ids": ids, f"{side}attention_mask": mask}
        batch[f"{side}token_type_ids"] = np.zeros((ROWS, length), np.int32)
        batch[f"{side}span_mask"] = mask
        start = rng.integers(0, 3, ROWS)
        batch |= {f"{side}start": start.astype(np.int32), f"{side}end": start.astype(np.int32)}
    batch["valid"] = np.arange(ROWS) < ROWS - 1
    optimizer = OptimizerConfig(eps=1e-3)
    objective = dual_span_objective(config)
    return Case(objective, dual_bert.PARAM_AXES, _init(dual_bert, config), batch, optimizer)
