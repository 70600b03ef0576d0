"""The edge where the config of a reading-comprehension run becomes frozen dataclasses."""

import collections
import dataclasses
import math

from clmrc_jax.data.fields import known_language
from clmrc_jax.data.mrc_examples import LOCATE
from clmrc_jax.data.span_decoding import TEXTS
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.evaluate import mrc
from clmrc_jax.files import InputError
from clmrc_jax.models import dual_bert
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.pipelines.settings import ModelSource, build, freeze_rules
from clmrc_jax.train.goodput import check_window
from clmrc_jax.train.span_recipe import Recipe
from clmrc_jax.translate.translator import KINDS as TRANSLATORS

DATA_KINDS = ("world_facts", "files")
DUAL_MODES = {"paper": dual_bert.paper, "official": dual_bert.official}
# System -> the phases of its training. "source" is shared by all systems of a run.
SYSTEMS = {
    "zero_shot": ("source",),
    "plain": ("target",),
    "cascade": ("source", "target"),
    "mixed": ("mixed",),
    "dual": ("bilingual",),
    "dual_squad": ("source", "bilingual"),
}
# Systems with a translator at run time (pipelines/back_translation.py) -> what they train on.
BACK_TRANSLATION = {
    "bt_raw": ("source",),
    "bt_match": ("source",),
    "bt_aligner": ("source", "target"),
    "bt_verifier": ("source", "target"),
}
SCORERS = {
    "cmrc2018": mrc.score_cmrc,
    "drcd": mrc.score_cmrc,
    "squad": mrc.score_squad,
    "squad2": mrc.score_squad2,
    "xquad": mrc.score_squad,
    "squad_ja_fr": mrc.score_ja_fr,
}


def _check_choice(name: str, value: str, known) -> None:
    if value not in known:
        raise InputError(f"{name} {value!r}: choose one of {', '.join(known)}")


@dataclasses.dataclass(frozen=True)
class ReadingData:
    """Which questions train and evaluate.

    kind: "world_facts" (embedded, with `world` "smoke", "demo" or "full") or "files".
    target, source: languages of kind "world_facts".
    source_train, target_train: (path, language) pairs of SQuAD-style files, or of prepared sets
        ("tfds:FOLDER/SPLIT", "tfds:squad/train", see data/datasets.py), like every path below.
    bilingual_train: (path, language, source language) of translated-aligned files, or
        (path, language, source path, source language) of parallel files.
    evaluate: (name, path, language, scorer), and for parallel files also (.., source path,
        source language); a system that reads both sides needs one of the two forms. scorer: a key
        of SCORERS.   name: of its files; `cmrc_dev`, `cmrc_test`, `cmrc_challenge`, `drcd_dev`,
        `drcd_test`, `ja` and `fr` have published scores.
    exclude: files whose question ids are taken out of source_train.
    article_share: share of the articles that train; the others evaluate. 0 keeps files whole.
    max_source, max_target, max_evaluate: a seeded sample of so many questions; 0 for all. The
        sample depends on ids alone, so smaller ones lie in larger ones, and plain readers and
        Dual BERT train on the same questions.
    paraphrases: questions per fact of the embedded corpus, in the source language and the test set;
        the target's training set, being small, has one.
    locate: see `data.mrc_examples.read_mrc`.
    """

    kind: str = "world_facts"
    world: str = "full"
    target: str = "ja"
    source: str = "en"
    source_train: tuple = ()
    target_train: tuple = ()
    bilingual_train: tuple = ()
    evaluate: tuple = ()
    exclude: tuple = ()
    article_share: float = 0.0
    max_source: int = 0
    max_target: int = 0
    max_evaluate: int = 0
    paraphrases: int = 1
    locate: str = "offset"
    seed: int = 0

    def __post_init__(self):
        for name, known in (("kind", DATA_KINDS), ("locate", LOCATE)):
            _check_choice(name, getattr(self, name), known)
        known_language(self.source, "source")
        _check_rows("source_train", self.source_train, (2,), "(path, language)")
        _check_rows("target_train", self.target_train, (2,), "(path, language)")
        forms = "(path, language, source language) or (path, language, source path, language)"
        _check_rows("bilingual_train", self.bilingual_train, (3, 4), forms)
        forms = "(name, path, language, scorer) or these and (.., source path, source language)"
        _check_rows("evaluate", self.evaluate, (4, 6), forms)
        _check_evaluation(self.evaluate)
        if self.exclude and all(len(name) == 1 for name in self.exclude):
            name = "".join(self.exclude)  # a tuple of one needs its comma
            raise InputError(f"exclude is {name!r}, and should be a list of files: ({name!r},)")
        if not 0 <= self.article_share < 1:
            raise InputError(f"article_share is {self.article_share}; it must be in [0, 1)")
        for name in ("max_source", "max_target", "max_evaluate"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be >= 0 (0: all)")


def _check_rows(name: str, rows, lengths: tuple[int, ...], forms: str) -> None:
    for row in rows:
        if isinstance(row, str) or len(row) not in lengths:
            raise InputError(f"{name} has an entry {row!r}; every entry is {forms}")


def _check_evaluation(rows) -> None:
    """Names become file names: plain, different, and not that of the training set."""
    names = collections.Counter(row[0] for row in rows)
    for name, count in names.items():
        if count > 1 or name == "train" or not name or set(name) & set("/\\"):
            raise InputError(
                f"evaluate {name!r}: every set needs a name of its own that can be a file's name "
                "and is not 'train'"
            )
    for name, _, _, scorer, *_ in rows:
        _check_choice(f"evaluate {name!r}: scorer", scorer, SCORERS)


@dataclasses.dataclass(frozen=True)
class ReaderTraining:
    """accumulate: micro-batches per update.   predict_batch: windows at a time.

    read_chunk: questions read until their answers are on disk; their windows are in memory.
    lengths: padded lengths, evenly spread, and as many compiled programs. Windows of like length
        share batches, see `data.pipeline`; 1 pads all to the longest, as the released code does.
    dual_heads: heads of a Dual BERT that goes on from a source reader: "fresh", as published, or
        "inherited" from it, see `models.dual_bert.inherit_head`.
    """

    accumulate: int = 1
    lengths: int = 1
    dual_heads: str = "fresh"
    save_every: int = 500
    log_every: int = 50
    predict_batch: int = 64
    read_chunk: int = 1000

    def __post_init__(self):
        _check_choice("dual_heads", self.dual_heads, ("fresh", "inherited"))
        for name in (x.name for x in dataclasses.fields(self) if x.name != "dual_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be >= 1")


@dataclasses.dataclass(frozen=True)
class Decoding:
    """See `data.span_decoding.decode`.

    null_threshold: None answers every question, and finds the best threshold of sets whose scorer
        is squad2 (`best_em`, `best_f1` in the report).
    """

    n_best: int = 20
    max_answer_length: int = 30
    text: str = "offsets"
    null_threshold: float | None = None

    def __post_init__(self):
        _check_choice("text", self.text, TEXTS)
        for name in ("n_best", "max_answer_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be >= 1")
        if self.null_threshold is not None and math.isnan(self.null_threshold):
            raise InputError("null_threshold is nan; give a number, or inf to answer always")

    def check_format(self, format: SpanFormat) -> None:
        """Raises InputError when the text cannot be made from windows of this format."""
        if self.text == "official" and format.mode != "official":
            raise InputError(
                f"decoding text 'official' needs windows of format.mode 'official', not "
                f"{format.mode!r}; set both, or text='offsets'"
            )


@dataclasses.dataclass(frozen=True)
class Translation:
    """Translators of the back-translation systems; see `translate.translator.open_translator`.

    forward, backward: into and out of the source language, e.g. "command:apertium -u spa-eng".
    cache: folder that keeps translations between runs, "" for one in the workdir.
    consent, project: for "google", which costs money.
    start: what Aligner and Verifier are trained from: "encoder" (model.pretrained) or "source"
        (the encoder of the source reader); the paper does not say.
    reader: encoder, as `model.pretrained`, that the reader of the source language is trained from;
        "" for model.pretrained itself. Rows 4 and 5 of Table 2 read with English BERT-large and
        bring the answer back with mBERT.
    """

    start: str = "encoder"
    reader: str = ""
    forward: str = ""
    backward: str = ""
    cache: str = ""
    consent: bool = False
    project: str = ""

    def __post_init__(self):
        _check_choice("start", self.start, ("encoder", "source"))

    def check(self) -> None:
        """Raises InputError where a translator is missing, before a reader is trained for it."""
        for name in ("forward", "backward"):
            kind = getattr(self, name).partition(":")[0]
            if kind not in TRANSLATORS:
                raise InputError(
                    f"translation.{name} is {getattr(self, name)!r}, and back-translation needs a "
                    f"translator: --config.translation.{name}='command:apertium -u spa-eng', or "
                    f"one of: {'; '.join(TRANSLATORS.values())}"
                )
            if kind == "google" and not self.consent:
                raise InputError(
                    f"translation.{name} is 'google', which costs money: launch/translate.py "
                    "shows an estimate; --config.translation.consent=True agrees to pay"
                )


@dataclasses.dataclass(frozen=True)
class ClmrcSettings:
    """Everything `pipelines.clmrc` needs; see configs/dual_bert.py for what the values mean."""

    task: str
    name: str
    seed: int
    mesh: dict
    rules: dict
    systems: tuple[str, ...]
    data: ReadingData
    model: ModelSource
    source_model: str
    format: SpanFormat
    dual: dict
    source_recipe: Recipe
    target_recipe: Recipe
    training: ReaderTraining
    decoding: Decoding
    translation: Translation
    scorer: str
    profile: tuple[int, ...] = ()

    def __post_init__(self):
        check_window(self.profile)
        freeze_rules(self)
        known = (*SYSTEMS, *BACK_TRANSLATION)
        if set(self.systems) - set(known) or not self.systems or isinstance(self.systems, str):
            raise InputError(
                f"systems {self.systems!r}: choose from {', '.join(known)}, at least one, as in "
                "--config.systems=\"('plain', 'cascade')\""
            )
        _check_choice("scorer", self.scorer, mrc.MODES)
        for name in ("source_recipe", "target_recipe"):
            self._check_recipe(name)
        self.decoding.check_format(self.format)
        self._check_room()
        self._check_dual(self.dual_bert(BertConfig()))
        if set(self.systems) & set(BACK_TRANSLATION):
            self.translation.check()
            self._check_unanswerable()

    def phases(self) -> list[str]:
        """Which training sets the systems need, each once; a given source model needs none."""
        needed = [phase for name in self.systems for phase in (SYSTEMS | BACK_TRANSLATION)[name]]
        return [x for x in dict.fromkeys(needed) if x != "source" or not self.source_model]

    def _check_recipe(self, name: str) -> None:
        recipe, parts = getattr(self, name), self.training.accumulate
        if recipe.batch_size < 1 or recipe.epochs <= 0 or not 0 <= recipe.warmup < 1:
            raise InputError(f"{name}: batch_size and epochs must be positive, warmup in [0, 1)")
        if recipe.batch_size % parts:
            raise InputError(
                f"{name}.batch_size {recipe.batch_size} does not divide into "
                f"training.accumulate {parts} micro-batches"
            )
        try:
            recipe.optimizer_config(recipe.batch_size)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def _check_room(self) -> None:
        """A long question would end the run where its windows are made, after other trainings."""
        for name in ("max_length", "source_length"):
            length, question = getattr(self.format, name), self.format.max_query_length
            if length < question + 4:  # [CLS], two [SEP] and a token of the passage
                raise InputError(
                    f"format.{name} {length} leaves a passage no room behind a question of "
                    f"max_query_length {question}: raise it, or lower max_query_length"
                )

    def _check_unanswerable(self) -> None:
        """A translated answer has no score of "no answer" beside it to find a threshold with."""
        alone = sorted(set(self.systems) & {"bt_raw", "bt_match"})
        asked = [row[0] for row in self.data.evaluate if row[3] == "squad2"]
        if alone and asked and self.decoding.null_threshold is None:
            raise InputError(
                f"data.evaluate {asked[0]!r} is scored as 'squad2', and {alone[0]} would answer "
                "every question of it: give --config.decoding.null_threshold=T, e.g. the best one "
                "of the source reader on a development set"
            )

    def _check_dual(self, dual: DualBertConfig) -> None:
        """What the forward pass of Dual BERT would refuse, before anything is trained for it."""
        if "bilingual" not in self.phases():
            return
        lengths = self.format.max_length, self.format.source_length
        if lengths[0] != lengths[1] and (dual.equal_lengths or dual.residual == "source"):
            raise InputError(
                f"format.max_length {lengths[0]} and source_length {lengths[1]} differ, and "
                f"dual.equal_lengths={dual.equal_lengths}, residual={dual.residual!r} need equal "
                "ones"
            )
        rows = self.target_recipe.batch_size // self.training.accumulate
        if dual.lambda_group_size and rows % dual.lambda_group_size:
            raise InputError(
                f"dual.lambda_group_size {dual.lambda_group_size} does not divide the {rows} rows "
                "of a (micro-)batch"
            )

    def dual_bert(self, bert: BertConfig) -> DualBertConfig:
        """Dual BERT on a given encoder, in the mode and with the options of the config."""
        options = {name: value for name, value in self.dual.items() if value is not None}
        mode = options.pop("mode", "paper")
        if mode not in DUAL_MODES:
            raise InputError(f"dual.mode {mode!r}: choose one of {', '.join(DUAL_MODES)}")
        known = {field.name for field in dataclasses.fields(DualBertConfig)} - {"bert"}
        unknown = sorted(set(options) - known)
        if unknown:
            raise InputError(
                f"config key dual.{unknown[0]} does not exist; known here: "
                f"{', '.join(sorted(known))}"
            )
        try:
            return DUAL_MODES[mode](bert, **options)
        except ValueError as error:
            raise InputError(f"config dual: {error}") from error


def clmrc_settings(config) -> ClmrcSettings:
    """An ml-collections ConfigDict (or plain dict) as checked settings."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return build(ClmrcSettings, values, "")
