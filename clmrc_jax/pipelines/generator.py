"""mGEN as one object: train, answer, label. Its compiled functions serve all rounds."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from clmrc_jax import hosts, sharding
from clmrc_jax.data import setting_checks
from clmrc_jax.data.generator_features import (
    GeneratorFormat,
    count_tokens,
    encode_sources,
    pad_sources,
    seq2seq_batches,
)
from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError
from clmrc_jax.models import decoding, mt5
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.progress import Meter
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.objectives import seq2seq_objective
from clmrc_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class GeneratorTraining:
    """How mGEN is trained and how it decodes.

    steps: updates of each round; the last entry serves all later rounds.
    answer_passages: at most so many passages with an answer string per training source; the
        rest of the top k is filled with the best-ranked passages without one (spec 4.2).
    synthetic_after_epoch: answers in other languages, from language links, join the training
        only after this epoch of the initial round (CORA footnote 2).
    synthetic_share: probability of such a row, per English question and language (spec 4.2).
    label_smoothing: really applied (the reference accepts and ignores it).
    validation_rows: dev questions for exact match, a fixed sample; 0 skips validation.
    validate_every: updates between validations; 0 validates after the last one only.
    best: keep the parameters of the highest exact match instead of the last ones.
    group_by_length: batches of rows whose sources are about equally long, which saves padding
        where `source_buckets` has several lengths; several hosts pad to the longest all the same.
    generate_batch: sources answered at once by a process.
    label_chunk: mining candidates in memory at once, and labelled again after a kill at most.
    answer_chunk: the same of evaluation questions.
    beams, length_penalty, early_stopping, max_length, min_length: decoding (spec 4.5); lengths
        count the start token.   Labelling is greedy.
    """

    steps: tuple[int, ...] = (40000, 20000, 20000)
    batch_size: int = 32
    accumulate: int = 1
    answer_passages: int = 3
    synthetic_after_epoch: int = 3
    synthetic_share: float = 0.5
    label_smoothing: float = 0.0
    validation_rows: int = 256
    validate_every: int = 0
    best: bool = False
    group_by_length: bool = False
    save_every: int = 500
    log_every: int = 50
    generate_batch: int = 64
    label_chunk: int = 100_000
    answer_chunk: int = 10_000
    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    max_length: int = 20
    min_length: int = 1

    def __post_init__(self):
        setting_checks.counts(self, "steps")
        setting_checks.share(self, "synthetic_share")
        setting_checks.share(self, "label_smoothing", whole=False)
        lows = ("batch_size", "accumulate", "save_every", "log_every")
        lows += ("generate_batch", "beams", "label_chunk", "answer_chunk")
        setting_checks.at_least(self, 1, *lows)
        setting_checks.at_least(
            self, 0, "answer_passages", "synthetic_after_epoch", "validation_rows", "min_length"
        )
        setting_checks.at_least(self, 2, "max_length")  # the start token and one more
        if self.min_length > self.max_length:
            raise InputError(
                f"min_length is {self.min_length}, above max_length {self.max_length}: no answer "
                "could end; lower the one or raise the other"
            )
        setting_checks.validation(self)

    def steps_of(self, round: int) -> int:
        """Updates in a round."""
        return self.steps[min(round, len(self.steps) - 1)]


class Generator:
    """The encoder-decoder, its tokenizer and format, and the functions compiled for them."""

    def __init__(
        self,
        model: Mt5Config,
        training: GeneratorTraining,
        optimizer: OptimizerConfig,
        format: GeneratorFormat,
        tokenizer_folder: str,
        mesh: jax.sharding.Mesh,
        rules: dict,
        profile: tuple[int, ...] = (),
    ):
        self.model, self.training, self.format, self.mesh = model, training, format, mesh
        self._profile = profile
        self._local = sharding.local_mesh(mesh)  # answering: every process for itself
        self.tokenizer_folder = tokenizer_folder
        self.tokenizer = load_tokenizer(tokenizer_folder)
        self.count_tokens = count_tokens(self.tokenizer, format)
        objective = seq2seq_objective(model, label_smoothing=training.label_smoothing)
        self.trainer = Trainer(
            objective, optimizer, mesh, mt5.PARAM_AXES, rules, training.accumulate
        )
        self._generate = jax.jit(self._generate_batch, static_argnames=("beams",))

    @property
    def programs(self) -> dict[str, Callable]:
        """The jitted functions besides the training step: f(params, tokens, mask, beams=n)."""
        return {"generate": self._generate}

    def init(self, seed: int):
        """Random parameters."""
        return mt5.init(self.model, jax.random.key(seed))

    def train(
        self,
        params,
        rows: Sequence[dict],
        choose,
        *,
        round: int,
        seed: int,
        workdir,
        epoch_length=None,
        lengths: Sequence[int] | None = None,
        validate=None,
        name="generator",
        steps=None,
        config: dict | None = None,
    ):
        """One round of training from `params`; continues where it was killed. Returns params.

        rows: any records; choose(row, rng, epoch) -> (question, lang, ctxs, answer).
        lengths: of every row's source, expected; rows of like length then share batches.
        validate(params, step) -> metrics, every `validate_every` steps and after the last.
        config: see `Trainer.fit`.
        """
        t = self.training
        index, count = sharding.batch_slice(self.mesh)
        format = self.format if count == 1 else self.format.one_length()
        data = make_dataset(
            rows,
            batch_size=t.batch_size,
            seed=seed,
            transform=seq2seq_batches(self.tokenizer, format, choose),
            epoch_length=epoch_length,
            sizes=lengths,
            host_index=index,
            host_count=count,
        )
        result = self.trainer.fit(
            params,
            data,
            steps=steps or t.steps_of(round),
            seed=seed,
            workdir=workdir,
            name=name,
            log_every=t.log_every,
            save_every=t.save_every,
            validate=validate,
            validate_every=t.validate_every,
            best_metric=("exact_match", "max") if t.best else None,
            config=config,
            flops_per_batch=3 * self.forward_flops(t.batch_size),
            profile=self._profile,
        )
        return result.params

    def forward_flops(self, batch: int) -> float:
        """Model floating-point operations of one teacher-forced pass at full lengths."""
        f = self.format
        passages = f.passages if f.fusion else 1
        return mt5.forward_flops(self.model, batch, passages * f.source_length, f.target_length)

    def answer(
        self,
        params,
        items: Sequence[tuple[str, str, Sequence[dict]]],
        *,
        beams: int | None = None,
        description: str = "generate answers",
        format: GeneratorFormat | None = None,
    ) -> tuple[list[str], list[float], list[int]]:
        """Answers of (question, lang, ctxs) items; all processes call it with the same items.

        Each answers every n-th of them, n being the number of processes, and gets all answers.

        beams: default from the training settings; 1 is greedy.
        returns: texts, sequence scores (log probability over length), whole passages that
        reached the model - all in the order of the items
        """
        format = format or self.format
        beams = beams or self.training.beams
        mine = items[jax.process_index() :: jax.process_count()]
        params = sharding.local_view(params, self.mesh)
        parts = hosts.gather(description, self._answer(params, mine, beams, description, format))
        found = tuple([None] * len(items) for _ in range(3))
        for process, part in enumerate(parts):
            for values, own in zip(found, part):
                values[process :: jax.process_count()] = own
        return found

    def _answer(self, params, items, beams: int, description: str, format: GeneratorFormat):
        """Texts, scores and surviving passages of this process's items."""
        sources, survived = encode_sources(self.tokenizer, format, items)
        texts, scores = [""] * len(items), [0.0] * len(items)
        flying = []

        def land():
            rows, result = flying.pop(0)
            tokens = np.asarray(result.tokens[:, 0])
            for row, ids, score in zip(rows, tokens, np.asarray(result.scores[:, 0])):
                texts[row], scores[row] = (
                    self.tokenizer.decode(_until_eos(ids, self.model)),
                    float(score),
                )
            meter.advance(len(rows))

        with Meter(description, len(items)) as meter:
            for rows, tokens, mask in self._batches(sources, format):
                flying.append((rows, self._generate(params, tokens, mask, beams=beams)))
                if len(flying) > 2:
                    land()
            while flying:
                land()
        return texts, scores, survived

    def _batches(self, sources, format) -> Iterator[tuple[list[int], jax.Array, jax.Array]]:
        """Sorted by length, so that a batch falls into a short bucket; fixed row count."""
        devices = self._local.shape["data"]
        size = -(-self.training.generate_batch // devices) * devices
        longest = (lambda s: max(map(len, s), default=0)) if format.fusion else len
        order = sorted(range(len(sources)), key=lambda i: longest(sources[i]))
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            padded = [sources[i] for i in rows] + [sources[rows[0]]] * (size - len(rows))
            arrays = pad_sources(format, padded, self.tokenizer.ids.pad)
            yield rows, *jax.device_put(arrays, sharding.batch_sharding(self._local))

    def _generate_batch(self, params, tokens, mask, beams):
        config, t = self.model, self.training
        if tokens.ndim == 3:
            encoded, mask = mt5.encode_fusion(config, params, tokens, mask)
        else:
            encoded = mt5.encode(config, params, tokens, mask)
        cache = mt5.init_cache(config, params, encoded, mask, t.max_length, beams)

        def step_fn(cache, tokens, position):
            return mt5.decode_step(config, params, cache, tokens, position)

        ids = {
            "start": config.decoder_start_token_id,
            "eos": config.eos_token_id,
            "pad": config.pad_token_id,
        }
        lengths = {"max_length": t.max_length, "min_length": t.min_length}
        if beams == 1:
            return decoding.greedy(step_fn, cache, batch=len(tokens), **lengths, **ids)
        search = decoding.BeamConfig(
            beams=beams,
            length_penalty=t.length_penalty,
            early_stopping=t.early_stopping,
            **lengths,
            **ids,
        )
        return decoding.beam_search(
            step_fn, cache, search, batch=len(tokens), reorder=mt5.reorder_cache
        )


def _until_eos(ids: np.ndarray, config: Mt5Config) -> list[int]:
    ids = ids[1:].tolist()
    return ids[: ids.index(config.eos_token_id)] if config.eos_token_id in ids else ids
