"""A training small enough to run in any test: a two-layer network that learns a projection.

Also a script: `toy.py WORKDIR STEPS` trains slowly enough to be killed on the way, and
`toy.py WORKDIR STEPS PORT INDEX` is one of two processes that train together.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.sharding import make_mesh
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.optimizer import OptimizerConfig

PARAM_AXES = (
    (r"in/kernel", ("embed", "mlp")),
    (r"out/kernel", ("mlp", "embed")),
    (r"out/bias", ("embed",)),
)
OPTIMIZER = OptimizerConfig(learning_rate=0.02, warmup_steps=2, weight_decay=0.01)
DATA = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


def init(width=16):
    rng = np.random.default_rng(1)
    return {
        "in": {"kernel": rng.normal(size=(8, width)).astype(np.float32)},
        "out": {
            "kernel": rng.normal(size=(width, 4)).astype(np.float32),
            "bias": np.zeros(4, np.float32),
        },
    }


def dataset(pause=0.0, batch_size=16, spoil=None, noise=0.01, **hosts):
    """Batches x, y, x_mask; `spoil`: the row whose input becomes NaN."""

    def transform(rows, rngs, epoch):
        time.sleep(pause)
        x = DATA[rows] + np.stack([rng.normal(size=8) for rng in rngs]).astype(np.float32) * noise
        if spoil in rows:
            x = x * np.nan
        mask = np.arange(8) < np.array(rows)[:, None] % 8 + 1  # mean share of padding: 3.5 / 8
        return {"x": x, "y": DATA[rows, :4], "x_mask": mask}

    return make_dataset(
        range(len(DATA)), batch_size=batch_size, seed=5, transform=transform, **hosts
    )


def loss_fn(params, batch, key):
    """Squared error weighted by the tokens of a row, with dropout on the hidden layer."""
    hidden = jnp.tanh(batch["x"] @ params["in"]["kernel"])
    hidden = hidden * jax.random.bernoulli(key, 0.9, hidden.shape)
    return weighted_error(params, batch, hidden)


def plain_loss_fn(params, batch, key):
    """The same without dropout."""
    return weighted_error(params, batch, jnp.tanh(batch["x"] @ params["in"]["kernel"]))


def weighted_error(params, batch, hidden):
    guess = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    weight = batch["x_mask"].sum(-1).astype(jnp.float32)
    error = jnp.square(guess - batch["y"]).mean(-1)
    loss = (error * weight).sum() / weight.sum()
    return loss, {"weight": weight.sum()}


def trainer(loss=loss_fn, mesh=None, config=OPTIMIZER, **options):
    mesh = mesh or make_mesh(1, 1, jax.devices()[:1])
    return Trainer(loss, config, mesh, PARAM_AXES, **options)


def main(folder, steps, port=None, index=None):
    options = {"steps": int(steps), "seed": 7, "workdir": folder, "log_every": 1, "save_every": 4}
    if port is None:
        trainer().fit(init(), dataset(pause=0.05), name="toy", **options)
        return
    jax.distributed.initialize(f"localhost:{port}", 2, int(index))
    data = dataset(noise=0.0, host_index=int(index), host_count=2)
    result = trainer(plain_loss_fn, make_mesh()).fit(init(), data, name="two", **options)
    assert jax.process_count() == 2 and result.metrics["loss"] > 0


if __name__ == "__main__":
    main(*sys.argv[1:])
