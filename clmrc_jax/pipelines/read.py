"""Answers the questions of a file with a trained or imported span reader: `launch/read.py`."""

import dataclasses
import time
from collections.abc import Mapping

import jax
from etils import epath

from clmrc_jax import sharding
from clmrc_jax.data.mrc_examples import MrcExample, pair_parallel, read_mrc
from clmrc_jax.data.span_decoding import null_score
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.files import InputError, write_json
from clmrc_jax.models import dual_bert
from clmrc_jax.pipelines.clmrc_settings import Decoding, ReaderTraining
from clmrc_jax.pipelines.locks import folder_lock
from clmrc_jax.pipelines.reader import Reader
from clmrc_jax.pipelines.reading import PARTS, read_in_parts
from clmrc_jax.pipelines.settings import plain
from clmrc_jax.pipelines.training_identity import checksum
from clmrc_jax.retrieval.embeddings import fingerprint_of
from clmrc_jax.train import readers

NO_ANSWER = 1e6  # beyond any difference of log-probabilities


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """One reading.

    model: folder that training wrote (its `model` folder), or a folder or hub id of
        transformers' BertForQuestionAnswering.   data: SQuAD-style or aligned file.
    lang: of the file.   output: predictions {id: answer}; beside it OUTPUT.nbest.json and, with a
        null_threshold, OUTPUT.null_scores.json (what launch/evaluate.py --null_scores reads).
    source_data, source_lang: the parallel file that a Dual BERT reads beside `data`; not needed
        for an aligned file.
    max_length, doc_stride, max_query_length, n_best, max_answer_length: 0 = as trained.
    text: "offsets" or "official", "" = as trained.
    null_threshold: SQuAD 2.0: answer "" where no-answer scores so much more than the best span;
        None = as trained, "inf" always answers (to search for the best threshold on a dev set).
    batch_size: windows at a time.
    """

    model: str
    data: str
    lang: str
    output: str
    source_data: str = ""
    source_lang: str = "en"
    max_length: int = 0
    doc_stride: int = 0
    max_query_length: int = 0
    n_best: int = 0
    max_answer_length: int = 0
    text: str = ""
    null_threshold: float | None = None
    batch_size: int = 32


def read(options: ReadOptions) -> dict:
    """Writes predictions and n-best lists; returns counts and seconds.

    Killed, the same call goes on from OUTPUT.parts. Raises InputError.
    """
    begin = time.monotonic()
    saved = readers.load_reader(options.model)
    reader = _reader(saved, options)
    examples = _examples(options, dual=saved.dual is not None)
    stem = options.output.removesuffix(".json")
    files = {"output": options.output, "nbest": f"{stem}.nbest.json"}
    parts = epath.Path(f"{stem}.{PARTS}")
    with folder_lock(parts):
        found = _answers(saved, reader, examples, options.data, parts)
        write_json(files["nbest"], found)
        if reader.decoding.null_threshold is not None:
            files["null_scores"] = f"{stem}.null_scores.json"
            write_json(files["null_scores"], null_scores(found))
        write_json(options.output, {id: entries[0]["text"] for id, entries in found.items()})
        parts.rmtree()
    seconds = round(time.monotonic() - begin, 1)
    return {"kind": saved.kind, "questions": len(examples)} | files | {"seconds": seconds}


def _answers(
    saved: readers.SavedReader,
    reader: Reader,
    examples: list[MrcExample],
    description: str,
    parts: epath.Path,
) -> dict[str, list[dict]]:
    def part(asked, which):
        return reader.read(saved.dual or saved.bert, saved.params, asked, description + which)

    settings = {"format": plain(reader.format), "decoding": plain(reader.decoding)}
    made_by = settings | {
        "model": fingerprint_of(saved.params, config=saved.dual or saved.bert),
        "questions": checksum(examples),
    }
    return read_in_parts(examples, part, parts, size=reader.training.read_chunk, made_by=made_by)


def null_scores(found: Mapping[str, list[dict]]) -> dict[str, float]:
    """{id: how much better "no answer" scores than the best answer}, of n-best lists.

    Where no answer is possible at all: NO_ANSWER, since JSON has no infinity.
    """
    return {id: min(null_score(entries), NO_ANSWER) for id, entries in found.items()}


def _examples(options: ReadOptions, dual: bool) -> list[MrcExample]:
    examples = read_mrc(options.data, options.lang, labelled=False, source_lang=options.source_lang)
    if options.source_data:
        if not dual:
            raise InputError(f"{options.model}: a plain reader; leave --source_data out")
        sources = read_mrc(options.source_data, options.source_lang, labelled=False)
        examples = pair_parallel(examples, sources)
    if dual and not all(example.source for example in examples):
        alone = sum(not example.source for example in examples)
        raise InputError(
            f"{options.data}: {alone} of {len(examples)} questions have no translation, and "
            f"{options.model} is a Dual BERT, which reads both sides: give --source_data, or an "
            "aligned file from launch/translate.py as --data"
        )
    return examples


def _reader(saved: readers.SavedReader, options: ReadOptions) -> Reader:
    longest = min(512, saved.bert.max_position_embeddings)
    lengths = {"max_length": longest, "source_length": longest}
    trained = _trained(SpanFormat, saved, "format", options, **lengths)
    given = {name: getattr(options, name) for name in ("doc_stride", "max_query_length")}
    if options.max_length:
        given |= {"max_length": options.max_length, "source_length": options.max_length}
    format = dataclasses.replace(trained, **{k: v for k, v in given.items() if v})
    given = {name: getattr(options, name) for name in ("n_best", "max_answer_length", "text")}
    given = {name: value for name, value in given.items() if value}
    if options.null_threshold is not None:
        given["null_threshold"] = options.null_threshold
    decoding = dataclasses.replace(_trained(Decoding, saved, "decoding", options), **given)
    mesh = sharding.make_mesh(devices=jax.local_devices())
    return Reader(
        saved.bert,
        saved.dual or dual_bert.paper(saved.bert),
        format,
        ReaderTraining(predict_batch=options.batch_size),
        decoding,
        options.model,
        mesh,
        sharding.DEFAULT_RULES,
    )


def _trained(cls, saved: readers.SavedReader, name: str, options: ReadOptions, **default):
    """The settings `name` that a reader was trained with, as `cls`; `default` for what it lacks.

    Raises InputError naming the reader's file where they cannot be such settings.
    """
    found = saved.reading.get(name, {})
    try:
        return cls(**{**default, **found})
    except (TypeError, InputError) as error:
        raise InputError(
            f"{options.model}/{readers.DESCRIPTION}: reading.{name} is {found!r:.200} ({error}); "
            "written by another version?"
        ) from error
