"""The edge where an ml-collections config becomes frozen dataclasses, every key checked."""

import dataclasses
from typing import TypeVar

from clmrc_jax import sharding
from clmrc_jax.data import setting_checks
from clmrc_jax.data.fields import known_language
from clmrc_jax.data.generator_features import GeneratorFormat
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.evaluate.xor import MODES
from clmrc_jax.files import InputError
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.pipelines.corpora import SPLITS, CorpusSettings
from clmrc_jax.pipelines.generator import GeneratorTraining
from clmrc_jax.pipelines.mining import MiningRules
from clmrc_jax.pipelines.retriever import RetrieverTraining
from clmrc_jax.retrieval.index import KINDS
from clmrc_jax.retrieval.scann_index import ScannConfig
from clmrc_jax.train.goodput import check_window
from clmrc_jax.train.optimizer import OptimizerConfig

T = TypeVar("T")
DTYPES = ("float32", "bfloat16", "float16")  # that a model computes in


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """kind: "scann", "exact" or "numpy".   top_k: passages per question kept in run files.

    max_rows_on_device: rows that exact search keeps on the devices; more are streamed.
    """

    kind: str = "scann"
    top_k: int = 20
    max_rows_on_device: int = 1 << 22
    scann: ScannConfig = dataclasses.field(default_factory=ScannConfig)

    def __post_init__(self):
        setting_checks.choice("kind", self.kind, KINDS)
        setting_checks.at_least(self, 1, "top_k", "max_rows_on_device")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """split: what is answered after every round.   scorer: mode of the XOR-Full scorer.

    recall_at: k of R^L@k and R^multi@k.   closed_book: also answer without passages.
    examples: questions with evidence in the report.
    """

    split: str = "test"
    scorer: str = "portable"
    recall_at: int = 10
    closed_book: bool = True
    examples: int = 8

    def __post_init__(self):
        setting_checks.choice("split", self.split, SPLITS)
        setting_checks.choice("scorer", self.scorer, MODES)
        setting_checks.at_least(self, 1, "recall_at")
        setting_checks.at_least(self, 0, "examples")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """pretrained: a folder, a hub id, "builtin" (ours, in the package), or "" for random weights.

    tokenizer: folder or id where `pretrained` is "" and none is trained.
    vocabulary: with no pretrained model and no tokenizer, the size of the SentencePiece
        vocabulary that is trained on the corpus.
    sizes: fields of BertConfig or Mt5Config, for random weights or as overrides (dtype, remat).
    """

    pretrained: str = "builtin"
    tokenizer: str = ""
    vocabulary: int = 4000
    sizes: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not (self.pretrained or self.tokenizer):
            setting_checks.at_least(self, 1, "vocabulary")
        check_dtype(self.sizes)


@dataclasses.dataclass(frozen=True)
class CoraSettings:
    """Everything `pipelines.cora` needs; see configs/cora.py for what the values mean."""

    name: str
    seed: int
    rounds: int
    mesh: dict
    rules: dict
    corpus: CorpusSettings
    retriever_model: ModelSource
    retriever_head: dict
    retriever_format: RetrieverFormat
    retriever: RetrieverTraining
    retriever_optimizer: OptimizerConfig
    index: IndexSettings
    generator_model: ModelSource
    generator_format: GeneratorFormat
    generator: GeneratorTraining
    generator_optimizer: OptimizerConfig
    generate: bool
    synthetic_languages: tuple[str, ...]
    mining: MiningRules
    evaluation: EvaluationSettings
    profile: tuple[int, ...] = ()

    def __post_init__(self):
        check_window(self.profile)
        freeze_rules(self)
        setting_checks.at_least(self, 0, "rounds")
        self._check_languages()
        rules = ("retrieved", "passages_per_article", "max_positives", "max_negatives")
        setting_checks.at_least(self.mining, 0, *rules, prefix="mining.")
        if self.evaluation.recall_at > self.index.top_k:
            raise InputError(
                f"evaluation.recall_at is {self.evaluation.recall_at}, but only index.top_k = "
                f"{self.index.top_k} passages per question are kept; raise the one or lower the other"
            )
        if self.rounds and not self.generate:
            raise ValueError(
                "rounds after the first mine data with mGEN: with generate=False set rounds=0"
            )
        self.biencoder(BertConfig())  # bad values of the head are found before any work

    def _check_languages(self) -> None:
        """Spells language codes as `languages.py`. Raises InputError for one it does not have."""
        known = {}
        for key, codes in (
            ("synthetic_languages", self.synthetic_languages),
            ("mining.link_languages", self.mining.link_languages),
        ):
            known[key] = tuple(known_language(str(code), key) for code in codes)
        object.__setattr__(self, "synthetic_languages", known["synthetic_languages"])
        mining = dataclasses.replace(self.mining, link_languages=known["mining.link_languages"])
        object.__setattr__(self, "mining", mining)

    def biencoder(self, bert: BertConfig) -> BiEncoderConfig:
        """The retriever's model on a given BERT."""
        return build(BiEncoderConfig, {"bert": bert, **self.retriever_head}, "retriever_head.")


def check_dtype(sizes: dict) -> None:
    """Raises InputError where the sizes of a model have a `dtype` that it cannot compute in."""
    if "dtype" in sizes:
        setting_checks.choice("sizes.dtype", sizes["dtype"], DTYPES)


def freeze_rules(settings) -> None:
    """Checks the sharding rules of new settings, and makes them a dict: pairs are welcome too."""
    object.__setattr__(settings, "rules", sharding.parse_rules(settings.rules))


def build(cls: type[T], values: dict, where: str) -> T:
    """`cls(**values)` with nested dataclasses; an unknown key is an InputError naming the known."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InputError(
            f"config key {where}{unknown[0]} does not exist; known here: {', '.join(fields)}"
        )
    required = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = sorted(set(required) - set(values))
    if missing:
        raise InputError(f"config key {where}{missing[0]} is missing")
    made = {}
    for key, value in values.items():
        kind = fields[key].type
        if dataclasses.is_dataclass(kind) and not isinstance(value, kind):
            made[key] = build(kind, dict(value), f"{where}{key}.")
        else:
            made[key] = _frozen(value)
    try:
        return cls(**made)
    except InputError as error:
        text = str(error).removeprefix(where)
        raise InputError(f"config {where}{text}" if where else text) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"config {where.rstrip('.') or cls.__name__}: {error}") from error


def _frozen(value):
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def cora_settings(config) -> CoraSettings:
    """An ml-collections ConfigDict (or plain dict) as checked settings."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return build(CoraSettings, values, "")


def plain(settings) -> dict:
    """A dataclass as JSON-ready values, for manifests."""
    return dataclasses.asdict(settings)


def determining(settings, *others: str) -> dict:
    """`plain` settings of a run for the manifests of its stages, without the fields `others`.

    A stage records them all; `run_identity` says which of them it does not compare.
    """
    return {name: value for name, value in plain(settings).items() if name not in others}
