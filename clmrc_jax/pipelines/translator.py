"""Trains a translator from parallel text: vocabulary -> Marian -> test -> a folder to use.

    text -> joint SentencePiece vocabulary -> train (BLEU and chrF while it runs) -> export -> test

`export` is a Hugging Face Marian folder: `marian:WORKDIR/export` translates with it, transformers'
`MarianMTModel` reads it. Every stage is skipped when the same command runs again.
"""

import dataclasses
import json
import math

import jax

from clmrc_jax import hosts, sharding
from clmrc_jax.data import marian_tokenizer
from clmrc_jax.data.marian_tokenizer import MarianTokenizer
from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.data.translation_features import (
    TranslationFormat,
    group_batches,
    length_groups,
    pair_batches,
    rows_of,
)
from clmrc_jax.evaluate.translation import score_translations
from clmrc_jax.files import InputError, write_json, write_jsonl
from clmrc_jax.models import marian
from clmrc_jax.models.marian import MarianConfig
from clmrc_jax.pipelines.mesh_checks import check_translator
from clmrc_jax.pipelines.settings import determining
from clmrc_jax.pipelines.stages import Run
from clmrc_jax.pipelines.training_identity import training_identity
from clmrc_jax.pipelines.translator_data import Direction, read_directions
from clmrc_jax.pipelines.translator_settings import TranslatorSettings
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.objectives import seq2seq_objective
from clmrc_jax.train.pretrained import load_marian, save_marian
from clmrc_jax.translate.marian_search import BatchSearch

# Settings that the training depends on, beside those that `Trainer.fit` compares itself.
MODEL = ("directions", "train", "valid", "held_out", "max_pairs", "vocabulary", "sizes", "buckets")
MODEL += ("batch_tokens", "label_smoothing", "valid_rows", "validate_every", "search")


class Translation:
    """One run: the text, the tokenizer, the model and what it is trained with."""

    def __init__(self, settings: TranslatorSettings, run: Run):
        self.settings, self.run = settings, run
        self.directions = read_directions(settings)
        self.format = TranslationFormat(settings.buckets)
        self.mesh = sharding.make_mesh(**settings.mesh)
        self.rules = {**sharding.DEFAULT_RULES, **settings.rules}
        check_translator(settings, self.mesh, self.rules)
        self.scores: dict[str, dict] = {}

    def train(self) -> None:
        """All stages."""
        self._stage("vocabulary", self._make_vocabulary, alone=True)
        self.tokenizer = MarianTokenizer(self.run.path("vocabulary"))
        self._stage("model", self._train_model)
        self.scores = self._stage("test", self._test, alone=True)["directions"]

    def _stage(self, name: str, work, **options) -> dict:
        return self.run.stage(name, determining(self.settings, "name"), work, **options)

    def _make_vocabulary(self, folder) -> dict:
        s = self.settings
        texts = {text: None for d in self.directions for pair in d.train for text in pair}
        tags = {d.tag: None for d in self.directions if d.tag}
        pieces = marian_tokenizer.train_tokenizer(
            texts,
            folder,
            size=s.vocabulary,
            languages=tuple(_only({d.languages[side] for d in self.directions}) for side in (0, 1)),
            language_tokens=tuple(tags),
            seed=s.seed,
        )
        return {"pieces": pieces, "sentences": len(texts)}

    def _train_model(self, folder) -> dict:
        s, config = self.settings, self._config()
        rows = [d.tagged(pair) for d in self.directions for pair in d.train]
        self.run.say(f"  {len(rows)} pairs, {_millions(config)} million parameters")
        data = self._dataset(rows)
        objective = seq2seq_objective(config, model=marian, label_smoothing=s.label_smoothing)
        trainer = Trainer(
            objective, s.optimizer, self.mesh, marian.PARAM_AXES, self.rules, s.accumulate
        )
        result = trainer.fit(
            marian.init(config, jax.random.key(s.seed)),
            data,
            steps=s.steps,
            seed=s.seed,
            workdir=folder,
            name="translator",
            log_every=s.log_every,
            save_every=s.save_every,
            validate=self._validation(config),
            validate_every=s.validate_every,
            best_metric=("chrf", "max"),
            config=training_identity(s, MODEL, rows),
            flops_per_batch=3 * _batch_flops(config, s),
            profile=s.profile,
        )
        self._export(config, result.params)
        return {"pairs": len(rows), **result.metrics}

    def _config(self) -> MarianConfig:
        pad, s = self.tokenizer.ids.pad, self.settings
        ids = {"pad_token_id": pad, "decoder_start_token_id": pad}
        sizes = {"vocab_size": self.tokenizer.vocab_size, **ids}
        return s.model(**sizes, eos_token_id=self.tokenizer.ids.eos)

    def _dataset(self, rows):
        """Batches of one bucket each; where several hosts read slices of a batch, and would choose
        different buckets, of the longest only."""
        s, (index, count) = self.settings, sharding.batch_slice(self.mesh)
        multiple = self.mesh.shape["data"] * s.accumulate
        if count == 1:
            groups = length_groups(
                self.tokenizer,
                self.format,
                rows,
                tokens=s.batch_tokens,
                multiple=multiple,
                seed=s.seed,
            )
            transform = group_batches(self.tokenizer)
            return make_dataset(groups, batch_size=1, seed=s.seed, transform=transform)
        longest = TranslationFormat(self.format.buckets[-1:])
        return make_dataset(
            rows,
            batch_size=rows_of(s.batch_tokens, longest.length, multiple),
            seed=s.seed,
            transform=pair_batches(self.tokenizer, longest),
            host_index=index,
            host_count=count,
        )

    def _search(self, **changes):
        search = dataclasses.replace(self.settings.search, banned=(self.tokenizer.ids.pad,))
        return dataclasses.replace(search, **changes)

    def _export(self, config: MarianConfig, params) -> None:
        """The folder `export`, which appears whole or not at all."""
        whole = sharding.fetch(params)
        if hosts.is_first():
            files = marian_tokenizer.tokenizer_files(self.run.path("vocabulary"))
            save_marian(self.run.path("export"), config, whole, self._search(), files)
        hosts.wait_for_all("export")

    def _validation(self, config: MarianConfig):
        """Greedy BLEU and chrF of the first `valid_rows` held-out sentences of every direction."""
        searcher = BatchSearch(
            config, self._search(num_beams=1), batch_size=self.settings.search_batch
        )

        def validate(params, step):
            params, scores = searcher.place(sharding.fetch(params)), []
            for direction in self.directions:
                pairs = direction.valid[: self.settings.valid_rows]
                scores.append(self._score(searcher, params, direction, pairs)[0])
            return {k: sum(s[k] for s in scores) / len(scores) for k in ("bleu", "chrf")}

        return validate

    def _score(self, searcher: BatchSearch, params, direction: Direction, pairs):
        """({bleu, chrf, count, signatures}, translations) of pairs of one direction."""
        room, eos = self.format.length - 1, self.tokenizer.ids.eos
        texts = [direction.tagged(pair)[0] for pair in pairs]
        sources = [[*ids[:room], eos] for ids in self.tokenizer.encode_batch(texts)]
        found = [self.tokenizer.decode(ids) for ids in searcher(params, sources)]
        target = direction.languages[1]
        scores = score_translations(found, [reference for _, reference in pairs], target)
        return {**dataclasses.asdict(scores), "signatures": list(scores.signatures)}, found

    def _test(self, folder) -> dict:
        """Beam search over the test part of every direction, with the exported folder."""
        config, params = load_marian(self.run.path("export"))
        searcher = BatchSearch(config, self._search(), batch_size=self.settings.search_batch)
        params, rows = searcher.place(params), {}
        for direction in self.directions:
            name = "-".join(direction.languages)
            rows[name], found = self._score(searcher, params, direction, direction.test)
            shown = (
                {"source": source, "reference": reference, "translation": translation}
                for (source, reference), translation in zip(direction.test, found)
            )
            write_jsonl(folder / f"{name}.jsonl", shown)
        write_json(folder / "scores.json", rows)
        return {"directions": rows}


def finish(translation: Translation, seconds: float, *, as_json: bool = False) -> dict:
    """Prints the scores and where the folder is; returns them."""
    folder = str(translation.run.path("export"))
    report = {"directions": translation.scores, "model": folder, "seconds": seconds}
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return report
    for name, row in translation.scores.items():
        print(
            f"{name}: BLEU {row['bleu']:.1f}, chrF {row['chrf']:.1f} "
            f"on {row['count']} sentences ({row['signatures'][0]})"
        )
    print(f"{seconds:.0f} s. Translate with it: --translator=marian:{folder}")
    return report


def print_plan(settings: TranslatorSettings, topology: str = "", *, as_json: bool = False) -> dict:
    """What `--dry_run` prints: text, parameters, memory of the training state, work.

    Raises InputError for a topology: no stage of a translator is timed.
    """
    if topology:
        raise InputError(f"--topology={topology}: a translator's plan has no time for a slice")
    directions = read_directions(settings)
    pad = settings.vocabulary - 1
    ids = {"pad_token_id": pad, "decoder_start_token_id": pad}
    config = settings.model(vocab_size=settings.vocabulary, **ids)
    count = _parameters(config)
    plan = {
        "pairs": {"-".join(d.languages): len(d.train) for d in directions},
        "parameters": count,
        "state_bytes": 4 * 3 * count,  # parameters and AdamW's two moments
        "training_flops_at_most": 3 * settings.steps * _batch_flops(config, settings),
    }
    if as_json:
        print(json.dumps(plan))
    else:
        for name, value in plan.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    return plan


def _batch_flops(config: MarianConfig, settings: TranslatorSettings) -> float:
    """Of a forward pass over a batch of the longest sentences."""
    length = settings.buckets[-1]
    return marian.forward_flops(config, settings.batch_tokens // length, length, length)


def _parameters(config: MarianConfig) -> int:
    shapes = jax.eval_shape(lambda: marian.init(config, jax.random.key(0)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _millions(config: MarianConfig) -> str:
    return f"{_parameters(config) / 1e6:.2f}"


def _only(codes: set[str]) -> str:
    """The language if there is one, "mul" for several."""
    return next(iter(codes)) if len(codes) == 1 else "mul"
