"""AdamW, BERT's own Adam and Adafactor, learning rate schedules, decay mask, clipping.

The transform never contains the learning rate or the number of steps: both come with each
step, so one compiled train step serves every round of training, whatever its length.
"""

import dataclasses
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clmrc_jax.files import InputError
from clmrc_jax.sharding import flatten_paths

# Biases, and the scales of every normalisation: BERT's "LayerNorm/scale", T5's
# "self_attention_norm/scale", "mlp_norm/scale", "final_norm/scale".
NO_DECAY = r".*(^|/)(bias|scale)"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """What updates the parameters.

    name: "adamw" (Loshchilov & Hutter 2019), "adafactor" (Shazeer & Stern 2018) or
        "official_adam", the released BERT code's AdamW without bias correction.
    learning_rate: its peak.  schedule: "linear" or "cosine" decay to `end_factor` times the
        peak at the end, or "constant"; each after `warmup_steps` of linear growth. "official"
        is the cosine of the released Dual BERT, see `schedule`.
    weight_decay: decoupled, times the learning rate; not on parameters whose whole path
        matches `no_decay` (biases, scales of norms).
    clip_norm: largest L2 norm of the whole gradient (all parameters, all devices); 0 = off.
    frozen: parameters whose whole path matches stay as they are: no gradient, no statistics, no
        decay. E.g. ".*word_embeddings.*", four fifths of multilingual-E5-small.
    b1, b2, eps: AdamW's and official_adam's.  eps stands outside the root; None is 1e-8 for
        AdamW and 1e-6 for official_adam, as published.
    decay_rate, clipping_threshold, parameter_scale, min_factored: Adafactor's second-moment
        exponent, update clipping (RMS per parameter), whether steps are relative to a
        parameter's RMS, and the smallest dimension that is factored.
    """

    name: str = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: str = "linear"
    end_factor: float = 0.0
    weight_decay: float = 0.0
    no_decay: str = NO_DECAY
    clip_norm: float = 1.0
    frozen: str = ""
    b1: float = 0.9
    b2: float = 0.999
    eps: float | None = None
    decay_rate: float = 0.8
    clipping_threshold: float = 1.0
    parameter_scale: bool = True
    min_factored: int = 128

    def __post_init__(self):
        for field, known in (("name", _TRANSFORMS), ("schedule", _DECAYS)):
            if getattr(self, field) not in known:
                raise InputError(
                    f"optimizer {field} {getattr(self, field)!r} is unknown; "
                    f"choose one of {', '.join(known)}"
                )
        try:
            re.compile(self.frozen)
        except re.error as error:
            raise InputError(f"optimizer frozen {self.frozen!r} is no regex: {error}") from error
        for field in ("learning_rate", "warmup_steps", "weight_decay", "clip_norm", "end_factor"):
            if getattr(self, field) < 0:
                raise InputError(f"optimizer {field} is {getattr(self, field)}; it must be >= 0")


def schedule(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate of update `step` (0 = the first) in a training of `total_steps`.

    Warm-up reaches the peak at update `warmup_steps`; the first update is
    1 / (warmup_steps + 1) of it, not 0. A decay would reach its end at update `total_steps`.

    "official": step / warmup_steps during warm-up, so that the first update is 0, then the value
    of a cosine over all `total_steps`, not shifted by the warm-up: with 10 % of warm-up the rate
    falls at once from the peak to 0.976 of it. Kept because published runs had it.
    """
    if config.schedule == "official":
        return config.learning_rate * _official_factor(config, step, total_steps)
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    span = max(1, total_steps - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    end = config.end_factor
    return config.learning_rate * (end + (1 - end) * _DECAYS[config.schedule](done))


def _official_factor(config, step, total_steps):
    if step < config.warmup_steps:
        return step / config.warmup_steps
    end = config.end_factor
    return end + (1 - end) * _DECAYS["official"](min(1.0, step / max(1, total_steps)))


def decay_mask(config: OptimizerConfig, params):
    """Tree of bools: whether weight decay applies to each parameter."""
    return _by_path(params, lambda path: re.fullmatch(config.no_decay, path) is None)


def divide(config: OptimizerConfig, params):
    """(what is trained, what is frozen): each `params` with None in place of the other's leaves.

    Raises InputError when `frozen` matches nothing, or everything.
    """
    if not config.frozen:
        return params, jax.tree.map(lambda _: None, params)
    held = _by_path(params, lambda path: re.fullmatch(config.frozen, path) is not None)
    if len(set(jax.tree.leaves(held))) == 1:
        share = "every" if jax.tree.leaves(held)[0] else "no"
        raise InputError(
            f"optimizer frozen {config.frozen!r} matches {share} parameter; they are named like "
            f"{', '.join(list(flatten_paths(params))[:3])}"
        )
    trained = jax.tree.map(lambda fixed, leaf: None if fixed else leaf, held, params)
    return trained, jax.tree.map(lambda fixed, leaf: leaf if fixed else None, held, params)


def unite(trained, frozen):
    """The parameters that `divide` divided."""
    none = lambda leaf: leaf is None  # noqa: E731
    return jax.tree.map(lambda x, y: y if x is None else x, trained, frozen, is_leaf=none)


def _by_path(params, choose):
    chosen = [choose(path) for path in flatten_paths(params)]
    return jax.tree.unflatten(jax.tree.structure(params), chosen)


def make_transform(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients -> update directions; the step subtracts `learning_rate` times them.

    Its state is made from all parameters and has statistics of the trained ones; gradients,
    updates and the parameters given with them are those of `divide`'s first part.
    """
    transforms = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    transforms += _TRANSFORMS[config.name](config)
    if config.weight_decay:
        mask = lambda params: decay_mask(config, params)  # noqa: E731
        transforms.append(optax.add_decayed_weights(config.weight_decay, mask))
    chain = optax.chain(*transforms)
    return optax.GradientTransformation(
        lambda params: chain.init(divide(config, params)[0]), chain.update
    )


def apply_updates(params, updates, learning_rate):
    """params - learning_rate * updates, in each parameter's own dtype."""
    return jax.tree.map(lambda p, u: (p - learning_rate * u).astype(p.dtype), params, updates)


def global_norm(gradients) -> jax.Array:
    """L2 norm of a whole tree, float32 scalar; of sharded arrays, the norm over all devices."""
    return optax.tree.norm(gradients)


class UncorrectedAdamState(NamedTuple):
    """First and second moments, trees shaped like the parameters."""

    mu: optax.Updates
    nu: optax.Updates


def _adamw(config):
    eps = 1e-8 if config.eps is None else config.eps
    return [optax.scale_by_adam(config.b1, config.b2, eps)]


def _official_adam(config):
    """m / (sqrt(v) + eps), moments from zero and never corrected for it (BERT's optimiser)."""
    eps = 1e-6 if config.eps is None else config.eps

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return UncorrectedAdamState(zeros, jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params=None):
        del params
        mu = optax.tree.update_moment(gradients, state.mu, config.b1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, config.b2, 2)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return updates, UncorrectedAdamState(mu, nu)

    return [optax.GradientTransformation(init, update)]


def _adafactor(config):
    transforms = [
        optax.scale_by_factored_rms(
            decay_rate=config.decay_rate, min_dim_size_to_factor=config.min_factored
        ),
        optax.clip_by_block_rms(config.clipping_threshold),
    ]
    if config.parameter_scale:
        transforms.append(optax.scale_by_param_block_rms())
    return transforms


_TRANSFORMS = {"adamw": _adamw, "adafactor": _adafactor, "official_adam": _official_adam}
_DECAYS = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
    "official": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
