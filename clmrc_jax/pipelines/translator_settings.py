"""Settings of a translator's training, checked; configs/translator.py says what the values mean."""

import dataclasses

from clmrc_jax.data import setting_checks
from clmrc_jax.files import InputError
from clmrc_jax.models.marian import MarianConfig, MarianSearch
from clmrc_jax.pipelines.settings import build, check_dtype, freeze_rules
from clmrc_jax.train.goodput import check_window
from clmrc_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class TranslatorSettings:
    """Everything `pipelines.translator` needs.

    directions: ("en-es", ...); with several target languages, a `>>lang<<` token leads the source.
    train, valid, test: corpora as data/parallel_text.py reads them, ("en-zh", FILE[, FILE]). With
        no `train`, the text is the embedded corpus; with no `valid` or `test`, about `held_out`
        pairs of the training text.
    max_pairs: of each training corpus, 0 for all.   vocabulary: tokens of both languages together.
    sizes: fields of MarianConfig.   buckets: padded lengths; the last is the longest sentence.
    batch_tokens: positions of one side of a training batch: many short or few long sentences.
    valid_rows: sentences translated at each validation, per direction.
    search_batch: sentences searched at once.
    """

    name: str
    seed: int
    directions: tuple[str, ...]
    train: tuple = ()
    valid: tuple = ()
    test: tuple = ()
    held_out: int = 500
    max_pairs: int = 0
    vocabulary: int = 8000
    sizes: dict = dataclasses.field(default_factory=dict)
    buckets: tuple[int, ...] = (32, 64, 128)
    steps: int = 1000
    batch_tokens: int = 2048
    accumulate: int = 1
    label_smoothing: float = 0.1
    valid_rows: int = 200
    search_batch: int = 64
    validate_every: int = 0
    log_every: int = 50
    save_every: int = 500
    mesh: dict = dataclasses.field(default_factory=dict)
    rules: dict = dataclasses.field(default_factory=dict)
    search: MarianSearch = dataclasses.field(default_factory=MarianSearch)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    profile: tuple[int, ...] = ()

    def __post_init__(self):
        check_window(self.profile)
        freeze_rules(self)
        self._check_ranges()
        if not self.directions:
            raise InputError('directions is empty; give at least one, e.g. ("en-es",)')
        for name in self.directions:
            codes = name.split("-")
            if len(codes) != 2 or not all(codes) or codes[0] == codes[1]:
                raise InputError(f"direction {name!r}: write source-target, as in 'en-es'")
        for part in ("train", "valid", "test"):
            for corpus in getattr(self, part):
                if len(corpus) not in (2, 3):
                    raise InputError(f"{part}: {corpus!r} is not ('en-es', FILE[, FILE])")

    def _check_ranges(self) -> None:
        lows = ("vocabulary", "steps", "batch_tokens", "accumulate", "valid_rows")
        lows += ("search_batch", "log_every", "save_every")
        setting_checks.at_least(self, 1, *lows)
        setting_checks.at_least(self, 0, "held_out", "max_pairs", "validate_every")
        setting_checks.at_least(self.search, 1, "num_beams", prefix="search.")
        setting_checks.at_least(self.search, 2, "max_length", prefix="search.")  # start and end
        setting_checks.share(self, "label_smoothing", whole=False)
        setting_checks.buckets(self, "buckets")
        check_dtype(self.sizes)

    def model(self, **values) -> MarianConfig:
        """The model of these sizes. Raises InputError naming the config key of bad ones.

        values: more fields, known from the vocabulary.
        """
        try:
            return MarianConfig(**values, **self.sizes)
        except (TypeError, ValueError) as error:
            raise InputError(f"config.sizes: {error}") from error


def translator_settings(config) -> TranslatorSettings:
    """An ml-collections ConfigDict (or plain dict) as checked settings."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    values.pop("task", None)
    return build(TranslatorSettings, values, "")
