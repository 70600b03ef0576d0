"""Pretrains the tiny multilingual BERT and mT5 that the demo starts from.

mBERT and mT5 have read the text of a hundred languages; their tiny stand-ins read templated
statements and name lists in 26 languages (masking, span corruption) and learn to find (questions
in 26 languages, passages in the 8 seen ones) and to read (questions in the 8 seen ones) on exercises over INVENTED facts: real
names in random pairings (a true pairing is never shown) and made-up names. Nothing of the
world-facts questions can so be memorised.
"""

import dataclasses
import os
import time

import jax
import numpy as np
from etils import epath

from clmrc_jax import sharding
from clmrc_jax.data.corruption import corrupt_spans, mask_tokens
from clmrc_jax.data.generator_features import (
    GeneratorFormat,
    encode_sources,
    encode_targets,
    seq2seq_batch,
)
from clmrc_jax.data.languages import SEEN, in_category
from clmrc_jax.data.pipeline import make_dataset, pad_to_bucket
from clmrc_jax.data.retriever_features import RetrieverFormat, contrastive_batches
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.data.vocabulary import train_vocabulary
from clmrc_jax.data.world_facts.cldr import QUESTION_LANGUAGES
from clmrc_jax.data.world_facts.corpus import load_world_facts
from clmrc_jax.data.world_facts.exercises import Exercises
from clmrc_jax.files import InputError
from clmrc_jax.models import bert, biencoder, mt5
from clmrc_jax.pipelines.run_identity import identity
from clmrc_jax.train import objectives, pretrained
from clmrc_jax.train.loop import Trainer
from clmrc_jax.train.optimizer import OptimizerConfig

MASKED_LM_AXES = tuple((rf"bert/{path}", axes) for path, axes in bert.PARAM_AXES) + (
    (r"head/dense/kernel", ("embed", None)),
    (r"head/dense/bias", (None,)),
    (r"head/LayerNorm/(scale|bias)", (None,)),
    (r"head/bias", ("vocab",)),
)


def encoder_transform(
    tokenizer, exercises, format: RetrieverFormat, *, contexts: int, predictions: int
):
    """Batches of retrieval exercises, with half as many texts to be unmasked beside them."""
    contrastive = contrastive_batches(tokenizer, format, hard_negatives=contexts - 1)
    buckets = format.passage_buckets

    def transform(indices, rngs, epoch):
        texts = [exercises.statement(i)[1] for i in indices[: len(indices) // 2]]
        packed = tokenizer.pack(texts, max_length=buckets[-1])
        masked = [
            mask_tokens(x, rng, tokenizer.ids, tokenizer.vocab_size) for x, rng in zip(packed, rngs)
        ]
        ids, mask = pad_to_bucket([m[0] for m in masked], buckets, tokenizer.ids.pad)
        positions, weights = pad_to_bucket([m[1] for m in masked], (predictions,), 0)
        labels, _ = pad_to_bucket([m[2] for m in masked], (predictions,), 0)
        rows = [dpr_row(exercises.reading(i, passages=contexts)) for i in indices]
        return contrastive(rows, rngs, epoch) | {
            "input_ids": ids,
            "attention_mask": mask,
            "masked_positions": positions,
            "masked_labels": labels,
            "masked_weights": weights,
        }

    return transform


def dpr_row(exercise: dict) -> dict:
    """A reading exercise as a DPR row."""
    return {
        "q_id": None,
        "question": exercise["question"],
        "lang": exercise["lang"],
        "positive_ctxs": [dataclasses.asdict(p) for p in exercise["positives"]],
        "hard_negative_ctxs": [dataclasses.asdict(p) for p in exercise["negatives"]],
    }


def generator_transform(
    tokenizer,
    exercises,
    format: GeneratorFormat,
    *,
    corrupted_share: float,
    naming_share: float,
    easy_examples: int,
):
    """Batches of reading exercises with 1 to `format.passages` passages, naming, span corruption.

    The first `easy_examples` are exercises with one passage: to copy comes before to choose.

    A batch is of one kind, so that its sources are of similar length and little is padding; short
    ones are more frequent (share ~ passages ** -0.75), being cheap.
    """
    counts = np.arange(1, format.passages + 1)
    shares = counts**-0.75 / np.sum(counts**-0.75)

    def corrupted(indices, rng):
        ids = tokenizer.encode_batch([exercises.statement(i)[1] for i in indices])
        limit = format.source_length - 1
        pairs = [corrupt_spans(x[:limit], rng, tokenizer.ids, share=0.25) for x in ids]
        return [p[0] for p in pairs], [p[1][: format.target_length] for p in pairs]

    def naming(indices):
        items = [exercises.naming(i) for i in indices]
        sources, _ = encode_sources(tokenizer, format, [(name, x, ()) for name, x, _ in items])
        return sources, encode_targets(tokenizer, format, [answer for _, _, answer in items])

    def reading(indices, rng, count):
        items, answers = [], []
        for index in indices:
            # Retrieval often finds an answer in several languages at once.
            item = exercises.reading(index, passages=count, positives=int(rng.integers(count)) + 1)
            ctxs = [dataclasses.asdict(p) for p in (*item["positives"], *item["negatives"])]
            shuffled = [ctxs[i] for i in rng.permutation(count)]
            items.append((item["question"], item["lang"], shuffled))
            answers.append(item["answer"])
        sources, _ = encode_sources(tokenizer, format, items)
        return sources, encode_targets(tokenizer, format, answers)

    def transform(indices, rngs, epoch):
        rng = rngs[0]  # of the batch: it has one kind
        easy, kind = indices[0] < easy_examples, rng.random()
        if not easy and kind < corrupted_share:
            sources, targets = corrupted(indices, rng)
        elif not easy and kind < corrupted_share + naming_share:
            sources, targets = naming(indices)
        else:
            count = 1 if easy else int(rng.choice(counts, p=shares))
            sources, targets = reading(indices, rng, count)
        return seq2seq_batch(format, sources, targets, tokenizer.ids.pad)

    return transform


def encoder_objective(config: biencoder.BiEncoderConfig):
    """Masked language model and contrastive exercises, added with equal weight."""
    masked_lm = objectives.masked_lm_objective(config.bert)
    contrastive = objectives.contrastive_objective(config, mask_articles=False)

    def loss_fn(params, batch, key):
        keys = (None, None) if key is None else jax.random.split(key)
        mlm_loss, mlm = masked_lm(params, batch, keys[0])
        loss, metrics = contrastive({"shared": {"bert": params["bert"]}}, batch, keys[1])
        extra = {"masked_loss": mlm_loss, "masked_accuracy": mlm["accuracy"]}
        return loss + mlm_loss, metrics | extra

    return loss_fn


def vocabulary_texts(exercises, count: int):
    """Texts the vocabulary is trained on: statements, exercises in mGEN's format, names."""
    format = GeneratorFormat(passages=1)
    for i in range(count):
        yield exercises.statement(i)[1]
    for i in range(count // 3):
        item = exercises.reading(i, passages=1)
        ctxs = [dataclasses.asdict(p) for p in item["positives"]]
        yield " ".join(format.parts(item["question"], item["lang"], ctxs))
    for entity in exercises.world.entities.values():
        yield from entity.names.values()


def pretrain_encoder(config, exercises, tokenizer_folder: str, workdir, mesh, start: str = ""):
    """Trains the tiny BERT; returns (BertConfig, parameters). config: see configs/pretrain.py."""
    tokenizer = load_tokenizer(tokenizer_folder)
    model = bert.BertConfig(vocab_size=tokenizer.vocab_size, **config.bert)
    keys = jax.random.split(jax.random.key(config.seed))
    encoder = _initial(model, bert.init, keys[0], pretrained.load_bert, start)
    if not config.steps:
        return model, encoder
    format = RetrieverFormat(
        question_buckets=tuple(config.question_buckets),
        passage_buckets=tuple(config.passage_buckets),
    )
    transform = encoder_transform(
        tokenizer, exercises, format, contexts=config.contexts, predictions=config.predictions
    )
    params = {"bert": encoder, "head": bert.init_masked_lm_head(model, keys[1])}
    objective = encoder_objective(biencoder.BiEncoderConfig(bert=model, tied=True))
    result = _fit(config, objective, MASKED_LM_AXES, params, transform, workdir, "encoder", mesh)
    return model, result.params["bert"]


def pretrain_generator(config, exercises, tokenizer_folder: str, workdir, mesh, start: str = ""):
    """Trains the tiny mT5; returns (Mt5Config, parameters). config: see configs/pretrain.py."""
    tokenizer = load_tokenizer(tokenizer_folder)
    model = mt5.Mt5Config(vocab_size=tokenizer.vocab_size, **config.mt5)
    params = _initial(model, _init_mt5, jax.random.key(config.seed), pretrained.load_mt5, start)
    if not config.steps:
        return model, params
    format = GeneratorFormat(
        passages=config.passages,
        source_buckets=tuple(config.source_buckets),
        target_length=config.target_length,
    )
    transform = generator_transform(
        tokenizer,
        exercises,
        format,
        corrupted_share=config.corrupted_share,
        naming_share=config.naming_share,
        easy_examples=config.easy_examples,
    )
    objective = objectives.seq2seq_objective(model)
    result = _fit(config, objective, mt5.PARAM_AXES, params, transform, workdir, "generator", mesh)
    return model, result.params


def _init_mt5(model: mt5.Mt5Config, key):
    """Random parameters whose output embeddings are the input ones.

    Copying a token is then a linear map of its embedding, not 6000 rows to learn one by one; from
    here on input and output embeddings go their own ways.
    """
    params = mt5.init(model, key)
    params["lm_head"]["kernel"] = params["shared"]["embedding"].T * model.d_model**-0.5
    return params


def _initial(model, init, key, load, start: str):
    """Random parameters, or those of the folder `start`, which must be of the same sizes."""
    if not start:
        return init(model, key)
    found, params = load(start)
    if found != model:
        raise InputError(f"{start}: is {found}, but the config asks for {model}")
    return params


def _fit(config, objective, axes, params, transform, workdir, name, mesh):
    data = make_dataset(
        range(config.examples),
        batch_size=config.batch_size,
        seed=config.seed,
        transform=transform,
        shuffle=False,
    )
    trainer = Trainer(objective, OptimizerConfig(**config.optimizer), mesh, axes)
    return trainer.fit(
        params,
        data,
        steps=config.steps,
        seed=config.seed,
        workdir=workdir,
        name=name,
        config=identity(config.to_dict()),
        log_every=config.log_every,
        save_every=config.save_every,
    )


def main(config, workdir: str, output: str) -> None:
    """Vocabulary, encoder and generator; exports both models as float16 folders to `output`.

    Every part continues where it was killed when the same command runs again.
    """
    folder, begin = epath.Path(workdir), time.monotonic()
    world = load_world_facts("full")
    exercises = Exercises(world, config.seed)
    # Passages in the other corpus languages are for mining to bring in, as in the paper.
    searches = Exercises(world, config.seed, QUESTION_LANGUAGES, in_category(SEEN))
    vocabulary = _vocabulary(config, exercises, folder)
    mesh, start = sharding.make_mesh(), config.start
    starts = [os.path.join(start, name) if start else "" for name in ("mbert", "mt5")]
    encoder = pretrain_encoder(config.encoder, searches, vocabulary, workdir, mesh, starts[0])
    generator = pretrain_generator(
        config.generator, exercises, vocabulary, workdir, mesh, starts[1]
    )
    export(output, encoder, generator, vocabulary)
    print(f"wrote {output} after {time.monotonic() - begin:.0f} s")


def _vocabulary(config, exercises, folder: epath.Path) -> str:
    """Path of the SentencePiece model: the one of `config.start`, or a new one in `folder`."""
    if config.start:
        return os.path.join(config.start, "mt5", "spiece.model")
    v = config.vocabulary
    if not (folder / "spiece.model").exists():
        texts = vocabulary_texts(exercises, v.texts)
        train_vocabulary(texts, folder, vocab_size=v.size, sentinels=v.sentinels, seed=v.seed)
    return str(folder / "spiece.model")


def export(output: str, encoder, generator, vocabulary: str) -> None:
    """Writes (config, parameters) of both models to `output`/mbert and /mt5, in float16."""
    folder = epath.Path(output)
    for save, name, (model, params) in (
        (pretrained.save_bert, "mbert", encoder),
        (pretrained.save_mt5, "mt5", generator),
    ):
        save(folder / name, model, jax.device_get(params), (vocabulary,), stored="float16")
