"""Span readers as one object: train on windows, read questions. Plain reader and Dual BERT alike."""

import collections
import dataclasses
import functools

import jax

from clmrc_jax import sharding
from clmrc_jax.data import span_decoding, span_features
from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.data.vocabulary import train_vocabulary
from clmrc_jax.files import InputError
from clmrc_jax.models import bert, dual_bert, span_head
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.dual_bert import DualBertConfig
from clmrc_jax.pipelines.batch_checks import check_windows
from clmrc_jax.pipelines.clmrc_settings import Decoding, ReaderTraining
from clmrc_jax.pipelines.models import placed, source_folder
from clmrc_jax.pipelines.settings import plain
from clmrc_jax.progress import track
from clmrc_jax.train import pretrained
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.span_objectives import dual_span_objective, span_objective
from clmrc_jax.train.span_recipe import Recipe

Model = BertConfig | DualBertConfig
READ_LENGTHS = 4  # padded lengths, and compiled programs, of reading


class Reader:
    """Encoder sizes, tokenizer and format of a run, and the functions compiled for them.

    bert: the plain reader's config.   dual: Dual BERT's, on the same encoder.
    Raises InputError for windows longer than the encoder's positions, and for a tokenizer with more
    tokens than the encoder.
    """

    def __init__(
        self,
        bert: BertConfig,
        dual: DualBertConfig,
        format: SpanFormat,
        training: ReaderTraining,
        decoding: Decoding,
        tokenizer_folder: str,
        mesh: jax.sharding.Mesh,
        rules: dict,
        profile: tuple[int, ...] = (),
    ):
        check_windows(bert, format)
        decoding.check_format(format)
        self.bert, self.dual, self.format = bert, dual, format
        self.training, self.decoding, self._profile = training, decoding, profile
        self.mesh, self.rules, self.tokenizer_folder = mesh, rules, tokenizer_folder
        self.tokenizer = load_tokenizer(tokenizer_folder)
        if self.tokenizer.vocab_size > bert.vocab_size:  # a token without a row would be NaN
            raise InputError(
                f"{tokenizer_folder}: the tokenizer has {self.tokenizer.vocab_size} tokens, the "
                f"model only {bert.vocab_size} (vocab_size); they do not belong together: give the "
                "tokenizer files that the model was trained with"
            )
        # The result lies whole on every device, so that every host can read it.
        compiled = functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
        self._predict = {
            bert: compiled(functools.partial(span_head.predict, bert)),
            dual: compiled(functools.partial(dual_bert.predict, dual)),
        }

    def init(self, model: Model, seed: int, params: dict) -> dict:
        """First parameters of a phase from those of the phase before, numpy.

        A plain reader goes on with its head; Dual BERT inherits the encoder alone, as published,
        or with `training.dual_heads` the head too, where there is one.
        """
        key = jax.random.key(seed)
        if isinstance(model, DualBertConfig):
            first = dual_bert.init(model, key, params["bert"])
            if self.training.dual_heads == "inherited" and "head" in params:
                first = dual_bert.inherit_head(first, params["head"])
            return sharding.fetch(first)
        if "head" in params:
            return params
        return sharding.fetch(span_head.init(model, key, params["bert"]))

    def train(
        self,
        model: Model,
        params: dict,
        examples: list[MrcExample],
        recipe: Recipe,
        *,
        seed: int,
        workdir,
        config: dict | None = None,
    ) -> tuple[dict, dict]:
        """Trains on the windows of `examples`; continues where it was killed.

        params: the first ones, numpy: the updates have the devices for themselves.
        config: see `Trainer.fit`.
        returns: parameters on the mesh, counts {"questions", "windows", "steps", "loss"} and,
        where questions were left out, how many for which reason.
        """
        dual, left_out = isinstance(model, DualBertConfig), collections.Counter()
        rows = self._windows(examples, dual, training=True, counts=left_out)
        axes = dual_bert.PARAM_AXES if dual else span_head.PARAM_AXES
        steps = max(1, recipe.steps(len(rows)))
        lengths = self._lengths(model, self.training.lengths)
        sizes = [span_features.size_of(row, *lengths) for row in rows]
        index, count = sharding.batch_slice(self.mesh)
        data = make_dataset(
            rows,
            batch_size=recipe.batch_size,
            seed=seed,
            transform=self._batches(model, lengths),
            host_index=index,
            host_count=count,
            sizes=sizes,
        )
        result = self._trainer(model, recipe, len(rows), axes).fit(
            params,
            data,
            steps=steps,
            seed=seed,
            workdir=workdir,
            name="reader",
            config=config,
            log_every=self.training.log_every,
            save_every=self.training.save_every,
            flops_per_batch=3 * recipe.batch_size * self._mean_flops(model, lengths, sizes),
            profile=self._profile,
        )
        counts = {"questions": len(examples), "windows": len(rows), "steps": steps}
        return result.params, counts | dict(+left_out) | {"loss": result.metrics["loss"]}

    def _trainer(self, model: Model, recipe: Recipe, windows: int, axes) -> Trainer:
        dual = isinstance(model, DualBertConfig)
        return Trainer(
            dual_span_objective(model) if dual else span_objective(model),
            recipe.optimizer_config(windows),
            self.mesh,
            axes,
            self.rules,
            self.training.accumulate,
        )

    def read(
        self,
        model: Model,
        params: dict,
        examples: list[MrcExample],
        description: str = "",
        null_threshold: float | None = None,
    ) -> dict[str, list[dict]]:
        """n-best answers of every question, best first; gold answers are not looked at.

        All processes call it with the same questions, work on each batch together, and get all
        answers.

        null_threshold: where the settings of decoding have none, see `span_decoding.decode`.
        returns: id -> [{"text", "probability", "start_logit", "end_logit", "start", "end"}]
        """
        dual = isinstance(model, DualBertConfig)
        rows = self._windows(examples, dual, training=False)
        axes = dual_bert.PARAM_AXES if dual else span_head.PARAM_AXES
        params = placed(params, axes, self.mesh, self.rules)
        devices = self.mesh.shape["data"]
        count = -(-self.training.predict_batch // devices) * devices
        lengths = self._lengths(model, READ_LENGTHS)
        sizes = [span_features.size_of(row, *lengths) for row in rows]
        transform = self._batches(model, lengths)
        order, scores = sorted(range(len(rows)), key=sizes.__getitem__), [None] * len(rows)
        parts = [order[first : first + count] for first in range(0, len(order), count)]
        for part in track(parts, f"read {description}"):
            filled = [rows[i] for i in part] + [None] * (count - len(part))
            batch = self._own_rows(transform(filled, None, 0, max(sizes[i] for i in part)))
            with sharding.activate(self.mesh, self.rules):
                start, end = jax.device_get(self._predict[model](params, batch))
            for place, row in enumerate(part):
                scores[row] = start[place], end[place]
        windows = [row[0] if dual else row for row in rows]
        return self._answers(examples, windows, scores, null_threshold)

    def _own_rows(self, batch: dict) -> dict[str, jax.Array]:
        """A batch on the mesh, of which this process gives its slice of the rows."""
        index, count = sharding.batch_slice(self.mesh)
        share = len(batch["valid"]) // count
        own = {k: array[index * share : (index + 1) * share] for k, array in batch.items()}
        return sharding.place_batch(self.mesh, own)

    def _lengths(self, model: Model, count: int) -> list[tuple[int, ...]]:
        """Padded lengths of each side, by size class.

        Both sides of Dual BERT have one class, so that there are no more than `count` programs to
        compile, and sides of equal length share one call of the encoder. Where padding takes part
        in the model (D6) there is one class, whatever the count.
        """
        longest = [self.format.max_length]
        if isinstance(model, DualBertConfig):
            longest.append(self.format.source_length)
            count = count if model.mask_padding else 1
        return [span_features.padded_lengths(length, count) for length in longest]

    def _batches(self, model: Model, lengths):
        """Transform of windows, or pairs of them, into batches."""
        dual = isinstance(model, DualBertConfig)
        make = span_features.dual_batches if dual else span_features.span_batches
        return make(self.tokenizer, self.format, *lengths)

    def _mean_flops(self, model: Model, lengths, sizes) -> float:
        """Operations of the forward pass of a row, on average over the size classes."""
        total = 0.0
        for size, count in collections.Counter(sizes).items():
            target, source = lengths[0][size], lengths[-1][size]
            format = dataclasses.replace(self.format, max_length=target, source_length=source)
            total += count * forward_flops(model, format, 1)
        return total / len(sizes)

    def _windows(self, examples, dual: bool, training: bool, counts=None) -> list:
        """Windows of all examples, or pairs of target and source windows."""
        make = span_features.dual_windows if dual else span_features.span_windows
        return make(examples, self.tokenizer, self.format, training=training, counts=counts)

    def _answers(self, examples, windows, scores, null_threshold) -> dict[str, list[dict]]:
        grouped: dict[int, list] = {i: [] for i in range(len(examples))}
        for window, score in zip(windows, scores):
            grouped[window.example].append((window, *score))
        d = self.decoding
        null_threshold = null_threshold if d.null_threshold is None else d.null_threshold
        return {
            examples[i].id: span_decoding.decode(
                examples[i],
                [window for window, _, _ in found],
                [start for _, start, _ in found],
                [end for _, _, end in found],
                n_best=d.n_best,
                max_answer_length=d.max_answer_length,
                text=d.text,
                null_threshold=null_threshold,
            )
            for i, found in grouped.items()
        }


def forward_flops(model: Model, format: SpanFormat, rows: int) -> float:
    """Operations of one forward pass over `rows` full windows (2 per multiply-add).

    Dual BERT: the encoder over both sides; four projections, the attentions of SAA and the two
    span vectors of lambda.
    """
    if not isinstance(model, DualBertConfig):
        return bert.forward_flops(model, rows, format.max_length)
    target, source, e = format.max_length, format.source_length, model.bert.hidden_size
    encoder = sum(bert.forward_flops(model.bert, rows, length) for length in (target, source))
    projections = 4 * e * e * (target + source)
    squares = target**2 + source**2
    attention = 4 * e * (target * source + (squares if model.adaptive else 0) + squares)
    return encoder + float(rows * (projections + attention))


def make_reader(clmrc) -> tuple[Reader, dict]:
    """The reader of a run and its first parameters {"bert"}, numpy."""
    s = clmrc.settings
    folder = source_folder(s.model, "bert")
    tokenizer = s.model.tokenizer or folder or _trained_vocabulary(clmrc)
    if folder:
        config, weights = pretrained.load_bert(folder, **s.model.sizes)
    else:
        vocabulary = {"vocab_size": load_tokenizer(tokenizer).vocab_size}
        config = BertConfig(**vocabulary | s.model.sizes)
        weights = sharding.fetch(bert.init(config, jax.random.key(s.seed)))
    return reader_on(clmrc, config, tokenizer), {"bert": weights}


def _trained_vocabulary(clmrc) -> str:
    """Folder of a SentencePiece vocabulary trained on the run's own texts."""
    sets, size = clmrc.sets, clmrc.settings.model.vocabulary
    examples = (*sets.source, *sets.target, *sets.bilingual)
    sides = (*examples, *(x.source for x in examples if x.source))

    def work(folder):
        texts = dict.fromkeys(text for x in sides for text in (x.question, x.context))
        return {"pieces": train_vocabulary(texts, folder, vocab_size=size)}

    name = f"vocabulary_{size}"
    made_from = {"size": size, "data": plain(clmrc.settings.data)}
    clmrc.run.stage(name, made_from, work, alone=True)
    return str(clmrc.run.path(name))


def reader_on(clmrc, config: BertConfig, folder: str) -> Reader:
    """A reader as the run has it, on any encoder.   folder: with the encoder's tokenizer."""
    s = clmrc.settings
    return Reader(
        config,
        s.dual_bert(config),
        s.format,
        s.training,
        s.decoding,
        folder,
        clmrc.mesh,
        clmrc.rules,
        s.profile,
    )
