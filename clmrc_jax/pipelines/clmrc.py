"""CLMRC from questions to scores: the systems of the paper, phase by phase, top down.

    questions -> [ system: phase -> phase ... -> read every evaluation set -> score ] -> report

    zero_shot    train on the source language (SQuAD)                     Table 2, row 9
    plain        train on the target language                             rows 6, 7
    cascade      source, then target                                      row 10
    mixed        both together                                            row 11
    dual         Dual BERT on the target set with its translation         row 8
    dual_squad   source, then Dual BERT, which inherits the encoder       row 12
    bt_*         back-translation, see pipelines/back_translation.py      rows 1-5

Every stage leaves its files in the workdir and is skipped when the same command runs again; the
source phase is trained once for all systems of a run. On several hosts all processes train and
read together, and process 0 writes what is single.
"""

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from etils import epath

from clmrc_jax import hosts, sharding
from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.evaluate.golds import Gold
from clmrc_jax.files import InputError, read_json, write_json, write_jsonl
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.pipelines import mesh_checks
from clmrc_jax.pipelines.back_translation import BackTranslation
from clmrc_jax.pipelines.clmrc_data import EvaluationSet, load_reading_sets
from clmrc_jax.pipelines.clmrc_settings import BACK_TRANSLATION, SCORERS, SYSTEMS, ClmrcSettings
from clmrc_jax.pipelines.models import source_folder, tokenizer_files
from clmrc_jax.pipelines.plan import config_of
from clmrc_jax.pipelines.read import null_scores
from clmrc_jax.pipelines.reader import Model, Reader, make_reader, reader_on
from clmrc_jax.pipelines.reading import PARTS, NBest, read_in_parts
from clmrc_jax.pipelines.settings import ModelSource, determining, plain
from clmrc_jax.pipelines.stages import MANIFEST, Run
from clmrc_jax.pipelines.training_identity import training_identity
from clmrc_jax.train import pretrained, readers
from clmrc_jax.train.span_recipe import Recipe

# What must agree where one encoder goes on from another's weights.
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
# Settings that a training depends on, beside its recipe and its questions.
READER = ("model", "source_model", "format", "dual", "training", "translation")


class Clmrc:
    """One run: the question sets, the reader with its compiled functions, and the systems."""

    def __init__(self, settings: ClmrcSettings, run: Run):
        self.settings, self.run = settings, run
        self.mesh = sharding.make_mesh(**settings.mesh)
        self.rules = {**sharding.DEFAULT_RULES, **settings.rules}
        mesh_checks.check_clmrc(settings, self.mesh, self.rules, run)
        self.sets = load_reading_sets(settings.data)
        self.sets.check(settings.phases())
        self.reader, self.start = make_reader(self)
        trained_on = [phase for x in settings.systems for phase in SYSTEMS.get(x, ())]
        if settings.source_model and "source" in trained_on:
            _ = self.source_params  # one that does not fit is refused before any training

    def train(self) -> None:
        """All systems, each to its scores."""
        hosts.on_first("scorers", self._check_scorers)
        back = BackTranslation(self)
        if set(self.settings.systems) & set(BACK_TRANSLATION):
            self._check_translated_source()
            back.prepare()
        for system in self.settings.systems:
            if system in BACK_TRANSLATION:
                back.run(system)
                continue
            params, model = self.start, self.reader.bert
            for phase in SYSTEMS[system]:
                params, model = self.phase(system, phase, params)
            self.read(system, self.span_answers(model, params))

    def _check_scorers(self) -> None:
        """Scores a made-up answer of each set and language: what is not installed shows here.

        Raises InputError naming set and package, before hours of training.
        """
        if all(self.run.path(x, "read", MANIFEST).exists() for x in self.settings.systems):
            return
        for evaluation in self.sets.evaluation:
            for lang in dict.fromkeys(x.lang for x in evaluation.examples):
                gold = Gold("1", lang, ("answer",))
                try:
                    SCORERS[evaluation.scorer]([gold], {"1": "answer"}, self.settings.scorer)
                except ImportError as error:
                    raise InputError(
                        f"data.evaluate {evaluation.name!r}, scorer {evaluation.scorer!r} "
                        f"({self.settings.scorer}), language {lang!r}: {error}"
                    ) from error

    def span_answers(self, model: Model, params: dict, asked: Callable | None = None) -> Callable:
        """What `read` needs of a span model.

        asked(evaluation): the questions it gets, if others than the set's own.
        """

        def answers(evaluation, folder):
            examples = asked(evaluation) if asked else evaluation.examples
            # Always an answer, with the score of none beside it: the best threshold is found after.
            threshold = math.inf if evaluation.scorer == "squad2" else None

            def read(part, which):
                return self.reader.read(model, params, part, evaluation.name + which, threshold)

            return self.read_in_parts(examples, read, folder / f"{evaluation.name}.{PARTS}")

        return answers

    def read_in_parts(self, examples: list[MrcExample], read: Callable, folder) -> NBest:
        """See `reading.read_in_parts`."""
        return read_in_parts(
            examples,
            read,
            folder,
            size=self.settings.training.read_chunk,
            made_by=training_identity(self.settings, (*READER, "decoding"), examples),
        )

    @functools.cached_property
    def source_reader(self) -> tuple[Reader, Model, dict]:
        """(reader, model, parameters) that read translations: `source_model`, or trained here."""
        s = self.settings
        if s.source_model:
            saved = self._saved_source()
            return reader_on(self, saved.bert, s.source_model), saved.bert, saved.params
        if not s.translation.reader:
            return self.reader, self.reader.bert, self.source_params
        folder = source_folder(ModelSource(s.translation.reader), "bert")
        bert, weights = pretrained.load_bert(folder, **self._computed())
        reader = reader_on(self, bert, folder)
        params = self._fit_phase("source_reader", "source", bert, {"bert": weights}, reader)
        return reader, bert, params

    def _check_translated_source(self) -> None:
        """Raises InputError for a source model that is not of the encoder named for its rows.

        Aligner and Verifier have an encoder of their own, so that it tells nothing of the reader.
        """
        s, reader = self.settings, self.settings.translation.reader
        if not s.source_model:
            return
        wanted, key = None, "translation.reader"
        if reader:
            wanted = config_of(ModelSource(reader), "bert", [])
        elif s.model.pretrained and set(s.systems) & {"bt_raw", "bt_match"}:
            wanted, key = self.reader.bert, "model.pretrained"
        if wanted:  # else none is named, or it lies on the hub and was never loaded
            self._require_sizes(self._saved_source().bert, wanted, key)

    def _require_sizes(self, found: BertConfig, wanted: BertConfig, key: str, why="") -> None:
        sizes = [{name: getattr(c, name) for name in _SIZES} for c in (found, wanted)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"source_model {self.settings.source_model}: an encoder of {_differences(*sizes)} "
                f"than {key}{why}: give the encoder that it was trained from, or another "
                "source_model"
            )

    def phase(self, system: str, phase: str, params: dict) -> tuple[dict, Model]:
        """One training of a system, from `params`; returns its (parameters, model)."""
        if phase == "source":
            return self.source_params, self.reader.bert
        model = self.reader.dual if phase == "bilingual" else self.reader.bert
        return self._fit_phase(f"{system}/train", phase, model, params), model

    def _fit_phase(
        self, name: str, phase: str, model: Model, params: dict, reader: Reader | None = None
    ) -> dict:
        s = self.settings
        recipe = s.source_recipe if phase == "source" else s.target_recipe
        examples = functools.partial(self.sets.of, phase)
        seed, mended = self._seed(phase), self.sets.mended_of(phase)
        return self.fit(name, model, params, examples, recipe, seed, reader, mended)

    @functools.cached_property
    def source_params(self) -> dict:
        """The plain reader of the source language, to go on from: `source_model`, or trained."""
        if self.settings.source_model:
            return self._given_source()
        return self._fit_phase("source", "source", self.reader.bert, self.start)

    def _given_source(self) -> dict:
        folder, saved = self.settings.source_model, self._saved_source()
        why = ", and these systems go on training it"
        self._require_sizes(saved.bert, self.reader.bert, "model.pretrained", why)
        texts = [t for x in self.sets.evaluation[0].examples[:20] for t in (x.question, x.context)]
        if load_tokenizer(folder).encode_batch(texts) != self.reader.tokenizer.encode_batch(texts):
            raise InputError(
                f"source_model {folder} has another vocabulary than this run's "
                f"({self.reader.tokenizer_folder}); set model.tokenizer to the source model's"
            )
        self.run.say(f"source: {folder}")
        return saved.params

    def _saved_source(self) -> readers.SavedReader:
        folder = self.settings.source_model
        saved = readers.load_reader(folder, **self._computed())
        if saved.dual is not None:
            raise InputError(f"source_model {folder} is a Dual BERT; give a plain reader's folder")
        return saved

    def _computed(self) -> dict:
        """How another encoder than the run's is computed: its sizes are its own."""
        sizes = self.settings.model.sizes
        return {name: sizes[name] for name in ("dtype", "remat") if name in sizes}

    def fit(
        self,
        name: str,
        model: Model,
        params: dict,
        examples: Callable[[], list[MrcExample]],
        recipe: Recipe,
        seed: int,
        reader: Reader | None = None,
        mended: Mapping[str, int] = MappingProxyType({}),
    ) -> dict:
        """One training as the stage `name`; returns the parameters.

        examples(): its questions.   reader: on another encoder than the run's.
        mended: of the questions' files, to be counted in the manifest.
        """
        reader = reader or self.reader

        def work(folder):
            first, asked = reader.init(model, seed, params), examples()
            config = training_identity(self.settings, READER, asked) | {"recipe": plain(recipe)}
            trained, counts = reader.train(
                model, first, asked, recipe, seed=seed, workdir=folder, config=config
            )
            self._save(folder / "model", model, trained, reader.tokenizer_folder)
            return counts | dict(mended)

        self.stage(name, work)
        return readers.load_reader(self.run.path(name, "model")).params

    def read(self, system: str, answers: Callable[[EvaluationSet, epath.Path], NBest]) -> None:
        """Answers every evaluation set and scores it.

        answers(set, folder): n-best answers by id; folder: where parts of them may lie.
        """

        def work(folder):
            summary = {}
            for evaluation in self.sets.evaluation:
                found = answers(evaluation, folder)
                if not hosts.is_first():
                    continue
                predictions = {id: entries[0]["text"] for id, entries in found.items()}
                write_json(folder / f"{evaluation.name}.json", predictions)
                write_json(folder / f"{evaluation.name}.nbest.json", found)
                nulls = _null_scores(evaluation, found)
                if nulls:
                    write_json(folder / f"{evaluation.name}.null_scores.json", nulls)
                scores = self._scores(evaluation, predictions, nulls)
                write_jsonl(folder / f"{evaluation.name}.scores.jsonl", scores.questions)
                summary[evaluation.name] = _summary(scores.extras)
            if hosts.is_first():
                write_json(folder / "scores.json", summary)
            rows = [(name, row | self.sets.mended.get(name, {})) for name, row in summary.items()]
            return {f"{name} {what}": x for name, row in rows for what, x in row.items()}

        self.stage(f"{system}/read", work)
        for evaluation in self.sets.evaluation:
            self.remove_parts(f"{system}/read", f"{evaluation.name}.{PARTS}")

    def remove_parts(self, *path: str) -> None:
        """After their stage: a killed one would read all of them again."""
        if hosts.is_first():
            self.run.path(*path).rmtree(missing_ok=True)

    def _scores(self, evaluation: EvaluationSet, predictions: dict[str, str], nulls: dict):
        golds = [_gold(example) for example in evaluation.examples]
        # Only answers that were not silenced yet tell which threshold is best.
        search = nulls and self.settings.decoding.null_threshold is None
        options = {"null_scores": nulls} if search else {}
        return SCORERS[evaluation.scorer](golds, predictions, self.settings.scorer, **options)

    def scores(self) -> dict[str, dict]:
        """System -> evaluation set -> {"em", "f1", "average", "count"}, of the finished systems."""
        paths = {s: self.run.path(s, "read", "scores.json") for s in self.settings.systems}
        return {system: read_json(path) for system, path in paths.items() if path.exists()}

    def _save(self, folder, model: Model, params: dict, tokenizer_folder: str) -> None:
        reading = {"format": plain(self.settings.format), "decoding": plain(self.settings.decoding)}
        whole = sharding.fetch(params)
        if hosts.is_first():
            files = tokenizer_files(tokenizer_folder)
            readers.save_reader(folder, model, whole, files, reading)

    def stage(self, name: str, work) -> dict:
        """A stage of the run; it depends on all settings but the run's name and its systems."""
        # More systems may be added to a workdir later.
        settings = determining(self.settings, "name", "systems")
        return self.run.stage(name, {"stage": name} | settings, work)

    def _seed(self, phase: str) -> int:
        return self.settings.seed * 100 + ("source", "target", "mixed", "bilingual").index(phase)


def _gold(example: MrcExample) -> Gold:
    answers = () if example.impossible else tuple(answer.text for answer in example.answers)
    return Gold(example.id, example.lang, answers)


def _null_scores(evaluation: EvaluationSet, found: dict[str, list[dict]]) -> dict[str, float]:
    """{id: how much better "no answer" scores}: SQuAD 2.0 answered by a span model, else {}."""
    entry = next(iter(found.values()))[0]
    if evaluation.scorer != "squad2" or "start_logit" not in entry:
        return {}
    return null_scores(found)


def _summary(extras: dict) -> dict[str, float]:
    """The numbers of one prediction file, percent; `average` is that of EM and F1.

    best_em, best_f1 (SQuAD 2.0): with the best thresholds of "no answer", which stand beside them.
    """
    em, f1 = extras["em"], extras["f1"]
    best = {name: value for name, value in extras.items() if name.startswith("best_")}
    return {"em": em, "f1": f1, "average": (em + f1) / 2, "count": extras["count"]} | best


def _differences(found: dict, wanted: dict) -> str:
    """What differs between two models' sizes, in words."""
    pairs = ((name, found[name], wanted[name]) for name in found)
    return "other sizes (" + ", ".join(f"{n} {a}, not {b}" for n, a, b in pairs if a != b) + ")"
