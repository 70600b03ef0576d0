"""mDPR as one object: train, encode the corpus, search. Its compiled functions serve all rounds."""

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from clmrc_jax import sharding
from clmrc_jax.data import setting_checks
from clmrc_jax.data.passage_names import by_id
from clmrc_jax.data.pipeline import make_dataset, row_generators
from clmrc_jax.data.retriever_features import POSITIVES, RetrieverFormat, contrastive_batches
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.models import bert, biencoder
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.retrieval.batches import BatchPlan, PassageTokens
from clmrc_jax.retrieval.embeddings import DTYPES, fingerprint_of
from clmrc_jax.retrieval.encode import encode_corpus, encode_questions
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.objectives import contrastive_loss, contrastive_objective, contrastive_scores
from clmrc_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class RetrieverTraining:
    """How mDPR is trained; the rest of the settings is in `BiEncoderConfig` and `OptimizerConfig`.

    steps: updates of each round; the last entry serves all later rounds.
    batch_size: questions of the global batch.   hard_negatives: per question.
    english_first: share of round 0's steps spent on English questions alone (CORA section 3:
        Natural Questions first, then XOR-TyDi and TyDi QA).
    positives, mask_duplicates, mask_articles, temperature, chunk_size, freeze_passages: see
        `contrastive_batches` and `contrastive_objective`.
    validation_rows: dev questions for the NLL and the average rank, a fixed sample; 0 skips it.
    validate_every: updates between validations; 0 validates after the last one only.
    best: keep the parameters of the lowest average rank instead of the last ones.
    """

    steps: tuple[int, ...] = (18400, 4600, 4600)
    batch_size: int = 128
    hard_negatives: int = 1
    english_first: float = 0.0
    positives: str = "uniform"
    mask_duplicates: bool = True
    mask_articles: bool = True
    temperature: float = 1.0
    chunk_size: int = 0
    freeze_passages: bool = False
    accumulate: int = 1
    validation_rows: int = 256
    validate_every: int = 0
    best: bool = False
    save_every: int = 500
    log_every: int = 50
    encode_batch: int = 64
    embeddings: str = "float16"
    shard_rows: int = 1 << 18
    tokenizer_workers: int = 0

    def __post_init__(self):
        setting_checks.choice("positives", self.positives, POSITIVES)
        setting_checks.choice("embeddings", self.embeddings, DTYPES)
        setting_checks.counts(self, "steps")
        setting_checks.positive(self, "temperature")
        setting_checks.share(self, "english_first", whole=False)
        lows = ("batch_size", "accumulate", "save_every", "log_every")
        lows += ("encode_batch", "shard_rows")
        setting_checks.at_least(self, 1, *lows)
        setting_checks.at_least(
            self, 0, "hard_negatives", "chunk_size", "validation_rows", "tokenizer_workers"
        )
        setting_checks.validation(self)

    def steps_of(self, round: int) -> int:
        """Updates in a round."""
        return self.steps[min(round, len(self.steps) - 1)]


class Retriever:
    """The bi-encoder, its tokenizer and format, and the functions compiled for them."""

    def __init__(
        self,
        model: BiEncoderConfig,
        training: RetrieverTraining,
        optimizer: OptimizerConfig,
        format: RetrieverFormat,
        tokenizer_folder: str,
        mesh: jax.sharding.Mesh,
        rules: dict,
        article_key: Callable[[dict], str] | None = None,
        profile: tuple[int, ...] = (),
        passage_names: Callable[[dict], tuple[str, ...]] = by_id,
    ):
        self.model, self.training, self.format, self.mesh = model, training, format, mesh
        self._local = sharding.local_mesh(mesh)  # encoding: every process for itself
        self.tokenizer_folder = tokenizer_folder
        self.tokenizer = load_tokenizer(tokenizer_folder)
        self._profile = profile
        self._same = {"article_key": article_key, "passage_names": passage_names}
        masks = {
            "mask_duplicates": training.mask_duplicates,
            "mask_articles": training.mask_articles,
        }
        objective = contrastive_objective(
            model,
            temperature=training.temperature,
            chunk_size=training.chunk_size,
            freeze_passages=training.freeze_passages,
            **masks,
        )
        self.trainer = Trainer(
            objective, optimizer, mesh, biencoder.PARAM_AXES, rules, training.accumulate
        )
        self._encode_questions = jax.jit(
            lambda params, ids, mask: biencoder.encode_questions(model, params, ids, mask)
        )
        self._encode_passages = jax.jit(
            lambda params, ids, mask: biencoder.encode_passages(model, params, ids, mask)
        )
        self._scores = jax.jit(
            lambda q, p, batch: contrastive_scores(q / training.temperature, p, batch, **masks)
        )

    @property
    def programs(self) -> dict[str, Callable]:
        """The jitted functions besides the training step: name -> f(params, ids, mask)."""
        return {"questions": self._encode_questions, "passages": self._encode_passages}

    def init(self, seed: int, pretrained=None):
        """First parameters; both towers start from `pretrained` BERT parameters if given."""
        return biencoder.init(self.model, jax.random.key(seed), pretrained)

    def train(
        self,
        params,
        rows: Sequence[dict],
        dev: Sequence[dict],
        *,
        round: int,
        seed: int,
        workdir,
        config: dict | None = None,
    ):
        """One round of training from `params`; continues where it was killed. Returns params.

        rows, dev: DPR rows. In round 0 the first `english_first` share of the steps sees the
        English rows alone.   config: see `Trainer.fit`.
        """
        steps = self.training.steps_of(round)
        english = (
            _Rows.of_language(rows, "en") if round == 0 and self.training.english_first else ()
        )
        first = int(steps * self.training.english_first) if english else 0
        place = {"workdir": workdir, "config": config}
        if first:
            params = self._fit(params, english, dev, first, seed, "retriever_english", **place)
            params = sharding.fetch(params)  # the next update starts from its own copy
        return self._fit(params, rows, dev, steps - first, seed + 1, "retriever", **place)

    def _fit(self, params, rows, dev, steps, seed, name, **place):
        t = self.training
        index, count = sharding.batch_slice(self.mesh)
        transform = contrastive_batches(
            self.tokenizer,
            self.format if count == 1 else self.format.one_length(),
            hard_negatives=t.hard_negatives,
            positives=t.positives,
            **self._same,
        )
        data = make_dataset(
            rows,
            batch_size=t.batch_size,
            seed=seed,
            transform=transform,
            host_index=index,
            host_count=count,
        )
        chosen = random.Random(0).sample(range(len(dev)), min(len(dev), t.validation_rows))
        validation = [dev[i] for i in chosen]
        result = self.trainer.fit(
            params,
            data,
            steps=steps,
            seed=seed,
            name=name,
            **place,
            log_every=t.log_every,
            save_every=t.save_every,
            validate=(lambda p, step: self.validate(p, validation)) if validation else None,
            validate_every=t.validate_every,
            best_metric=("average_rank", "min") if t.best else None,
            flops_per_batch=self.flops_per_batch(),
            profile=self._profile,
        )
        return result.params

    def flops_per_batch(self) -> float:
        """Model floating-point operations of one update at full lengths (3 passes of 2 towers)."""
        t, lengths = (
            self.training,
            (self.format.question_buckets[-1], self.format.passage_buckets[-1]),
        )
        questions = bert.forward_flops(self.model.bert, t.batch_size, lengths[0])
        contexts = t.batch_size * (1 + t.hard_negatives)
        return 3 * (questions + bert.forward_flops(self.model.bert, contexts, lengths[1]))

    def validate(self, params, rows: Sequence[dict]) -> dict[str, float]:
        """NLL, accuracy and average rank (0-based) of the first positive among all contexts.

        All questions are ranked against all contexts of `rows`, whatever the number of devices
        (the reference ranks per device, so that its value depends on their number).
        """
        transform = contrastive_batches(
            self.tokenizer,
            self.format,
            hard_negatives=self.training.hard_negatives,
            positives="first",
            **self._same,
        )
        batch = transform(list(rows), row_generators(0, range(len(rows))), 0)
        params = sharding.local_view(params, self.mesh)
        shape = batch["passage_ids"].shape
        questions = self.encode_question_ids(params, _ragged(batch, "question"))
        passages = self._encode_ids(
            self._encode_passages, params, _ragged(batch, "passage"), self.format.passage_buckets
        )
        scores = self._scores(questions, passages.reshape(*shape[:2], -1), batch)
        loss, metrics = contrastive_loss(scores, shape[1])
        return {"nll": float(loss)} | {k: float(v) for k, v in metrics.items() if k != "weight"}

    def encode_corpus(self, params, store, folder):
        """Embeddings of every passage, in resumable shards; returns the EmbeddingStore."""
        t = self.training
        params = sharding.local_view(params, self.mesh)
        return encode_corpus(
            lambda ids, mask: self._encode_passages(params, ids, mask),
            store,
            PassageTokens(self.tokenizer_folder, self.format),
            folder,
            plan=self.batch_plan(self.format.passage_buckets),
            fingerprint=fingerprint_of(
                params,
                # Recomputation, which may change between two starts, has no part in encoding.
                model=dataclasses.replace(
                    self.model, bert=dataclasses.replace(self.model.bert, remat=False)
                ),
                format=self.format,
                corpus=_corpus_identity(store),
            ),
            dtype=t.embeddings,
            shard_rows=t.shard_rows,
            normalized=self.model.normalize,
            workers=t.tokenizer_workers,
            mesh=self._local,
        )

    def encode_questions(self, params, questions: Iterable[tuple[str, str]]) -> np.ndarray:
        """(question, lang) pairs -> float32 [questions, embedding_size]."""
        return self.encode_question_ids(
            params, self.format.questions(self.tokenizer, list(questions))
        )

    def encode_question_ids(self, params, ids) -> np.ndarray:
        """Tokenised questions -> float32 [questions, embedding_size]."""
        return self._encode_ids(self._encode_questions, params, ids, self.format.question_buckets)

    def _encode_ids(self, encoder, params, ids, buckets):
        params = sharding.local_view(params, self.mesh)
        return encode_questions(
            lambda i, mask: encoder(params, i, mask),
            ids,
            plan=self.batch_plan(buckets),
            mesh=self._local,
        )

    def batch_plan(self, buckets) -> BatchPlan:
        """Shapes of the batches that are encoded."""
        return BatchPlan(self.training.encode_batch, buckets, multiple=self._local.shape["data"])


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Some rows of `source`, read when they are asked for."""

    source: Sequence[dict]
    numbers: np.ndarray

    @classmethod
    def of_language(cls, rows: Sequence[dict], lang: str) -> "_Rows":
        numbers = (i for i, row in enumerate(rows) if row["lang"] == lang)
        return cls(rows, np.fromiter(numbers, np.int32))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> dict:
        return self.source[int(self.numbers[i])]


def _corpus_identity(store) -> tuple:
    """What tells corpora apart without reading them: size, languages, first and last id."""
    return len(store), *store.language_counts().items(), store[0].id, store[len(store) - 1].id


def _ragged(batch, side: str) -> list[list[int]]:
    ids, mask = (
        batch[f"{side}_{x}"].reshape(-1, batch[f"{side}_{x}"].shape[-1]) for x in ("ids", "mask")
    )
    return [row[keep].tolist() for row, keep in zip(ids, mask)]
