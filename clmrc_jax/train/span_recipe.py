"""How the published span readers are trained: the settings that are not the model's (D8)."""

from dataclasses import dataclass

from clmrc_jax.train.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Recipe:
    """Batch, epochs and optimiser.

    warmup: share of the steps during which the rate grows.
    optimizer, schedule, weight_decay, clip_norm, frozen: see `OptimizerConfig`.
    """

    learning_rate: float = 4e-5
    epochs: float = 2
    batch_size: int = 64
    warmup: float = 0.1
    optimizer: str = "adamw"
    schedule: str = "cosine"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    frozen: str = ""

    def steps(self, windows: int) -> int:
        """Updates of a training on so many windows; the remainder of a batch is dropped."""
        return int(windows / self.batch_size * self.epochs)

    def optimizer_config(self, windows: int) -> OptimizerConfig:
        """The optimiser for so many windows."""
        return OptimizerConfig(
            name=self.optimizer,
            learning_rate=self.learning_rate,
            warmup_steps=int(self.warmup * self.steps(windows)),
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            frozen=self.frozen,
        )


# Cui et al. (2019), section 5.1; the paper does not mention warm-up, and 10 % is the code's.
PAPER = Recipe()
# The released code and its README: 2 epochs on CMRC 2018, 3 on DRCD.
OFFICIAL = Recipe(learning_rate=2e-5, optimizer="official_adam", schedule="official")
