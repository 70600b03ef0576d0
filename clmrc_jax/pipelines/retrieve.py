"""Retrieves passages for questions with any published encoder: store, encode, index, search, run.

What is expensive is kept in the workdir under names made of what it depends on, so the same
command continues where it was stopped, and another one reuses what it can:
    passages-<hash>/   the passage store of this passage file
    embeddings-<hash>/ its embeddings by this encoder and these settings
    scann-<hash>/      the index over those embeddings
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
from etils import epath

from clmrc_jax.data import datasets, sources
from clmrc_jax.data.fields import NoLanguage, known_language
from clmrc_jax.data.passages import PassageStore, read_passages, write_passage_store
from clmrc_jax.data.retriever_features import RetrieverFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError
from clmrc_jax.models import biencoder
from clmrc_jax.models.biencoder import BiEncoderConfig
from clmrc_jax.pipelines.locks import workdir_lock
from clmrc_jax.pipelines.models import PROJECTION, load_projection
from clmrc_jax.retrieval.batches import BatchPlan, PassageTokens
from clmrc_jax.retrieval.embeddings import DTYPES, EmbeddingStore, fingerprint_of
from clmrc_jax.retrieval.encode import encode_corpus, encode_questions
from clmrc_jax.retrieval.index import KINDS, open_index
from clmrc_jax.retrieval.runs import write_run
from clmrc_jax.sharding import make_mesh
from clmrc_jax.train.pretrained import load_bert

QUESTION_BUCKETS = (16, 24, 32, 48, 64)


@dataclasses.dataclass(frozen=True)
class RetrieveOptions:
    """One retrieval.

    encoder: folder or hub id of a BERT encoder.   question_encoder: of the question side, ""
    = the same.   passages: JSONL or TSV.   questions: JSONL, or native MKQA.   output: the run,
    JSONL.   passages_lang, questions_lang: languages of rows that do not name theirs.
    top_k: passages per question.   pooling: cls or mean.   normalize: unit-length vectors.
    query_prefix, passage_prefix: e.g. "query: " and "passage: " for E5.
    tag_language: append ` [lang]` to the question, as CORA's mDPR was trained.
    index: exact, scann or numpy.   max_rows_on_device: embeddings that exact search keeps on each
    device; more are streamed.   batch_size: passages of max_length tokens per batch.
    workdir: cache; "" = a temporary folder.   embeddings: float16, float32 or int8.
    workers: tokenising processes, 0 = a thread.
    """

    encoder: str
    passages: str
    questions: str
    output: str
    passages_lang: str = ""
    questions_lang: str = ""
    top_k: int = 10
    question_encoder: str = ""
    pooling: str = "cls"
    normalize: bool = False
    query_prefix: str = ""
    passage_prefix: str = ""
    tag_language: bool = False
    index: str = "exact"
    max_rows_on_device: int = 1 << 22
    batch_size: int = 8
    max_length: int = 256
    workdir: str = ""
    embeddings: str = "float16"
    workers: int = 0

    def __post_init__(self):
        if self.index not in KINDS:
            raise InputError(f"--index={self.index}: choose one of {', '.join(KINDS)}")
        if self.pooling not in ("cls", "mean"):
            raise InputError(f"--pooling={self.pooling}: choose cls or mean")
        if min(self.top_k, self.batch_size) < 1 or self.max_length < 8:
            raise InputError("--top_k and --batch_size must be at least 1, --max_length at least 8")
        if self.max_rows_on_device < 1:
            raise InputError("--max_rows_on_device must be at least 1; by default it is 4194304")
        if self.embeddings not in DTYPES:
            raise InputError(f"--embeddings={self.embeddings}: choose one of {', '.join(DTYPES)}")
        for name in ("passages_lang", "questions_lang"):
            if code := getattr(self, name):
                object.__setattr__(self, name, known_language(code, f"--{name}"))


def retrieve(options: RetrieveOptions) -> dict:
    """Runs the retrieval; writes `options.output` and returns a summary for people and JSON.

    Raises InputError for bad files or settings; the output is written whole or not at all.
    """
    begin = time.monotonic()
    with _language_flag("questions_lang"):
        lang = options.questions_lang or None
        questions = list(datasets.load(sources.existing(options.questions), "questions", lang=lang))
    with _workdir(options.workdir) as workdir:
        store, corpus = _passage_store(workdir, options.passages, options.passages_lang)
        mesh = make_mesh()
        embeddings, seconds = _encode_passages(options, workdir, store, corpus, mesh)
        vectors = _encode_questions(options, questions, mesh)
        if vectors.shape[1] != embeddings.spec.dim:
            raise InputError(
                f"--question_encoder is {vectors.shape[1]} wide, --encoder {embeddings.spec.dim}: "
                "both sides must come from one model"
            )
        folder = workdir / f"scann-{embeddings.spec.fingerprint}"
        index, recall = open_index(
            options.index,
            embeddings,
            mesh=mesh,
            folder=folder,
            queries=vectors,
            max_rows_on_device=options.max_rows_on_device,
        )
        scores, rows = index.search(vectors, options.top_k)
        count = write_run(options.output, questions, scores, rows, store)
    return {
        "output": options.output,
        "questions": count,
        "passages": len(store),
        "dim": int(embeddings.spec.dim),
        "top_k": options.top_k,
        "index": options.index,
        "index_recall_at_10": recall,
        "encode_seconds": round(seconds, 2),
        "seconds": round(time.monotonic() - begin, 2),
    }


@contextlib.contextmanager
def _workdir(path: str) -> Iterator[epath.Path]:
    """The cache folder, locked against a second run; a temporary one when none is named."""
    with contextlib.ExitStack() as stack:
        folder = path or stack.enter_context(tempfile.TemporaryDirectory(prefix="retrieve-"))
        stack.enter_context(workdir_lock(folder))
        yield epath.Path(folder)


@contextlib.contextmanager
def _language_flag(name: str) -> Iterator[None]:
    """Says which flag tells the language that a row lacks."""
    try:
        yield
    except NoLanguage as error:
        raise InputError(f"{error}: give --{name}=en, or whatever it is") from error


def _passage_store(workdir: epath.Path, passages: str, lang: str) -> tuple[PassageStore, str]:
    """The store of a passage file, built on first use, and a name of its content.

    lang: of rows that do not name theirs, or "".
    """
    if not epath.Path(passages).exists():
        raise InputError(f"--passages={passages}: no such file")
    corpus = "-".join(filter(None, (_hash_file(passages), lang)))
    folder = workdir / f"passages-{corpus}"
    if not (folder / "passages.array_record").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _language_flag("passages_lang"):
            write_passage_store(folder, read_passages(passages, lang or None))
    return PassageStore(folder), corpus


def _hash_file(path: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _encode_passages(
    options: RetrieveOptions, workdir: epath.Path, store: PassageStore, corpus: str, mesh
) -> tuple[EmbeddingStore, float]:
    """Embeddings of the corpus, and the seconds that took."""
    begin = time.monotonic()
    config, params = _load(options.encoder, options)
    text_format = _format(options, config.bert.max_position_embeddings)
    fingerprint = fingerprint_of(
        params,
        config=dataclasses.astuple(config),
        format=(text_format.passage_prefix, text_format.passage_buckets[-1]),
        corpus=corpus,
        dtype=options.embeddings,
    )
    embeddings = encode_corpus(
        _encoder(config, params, mesh),
        store,
        PassageTokens(options.encoder, text_format),
        workdir / f"embeddings-{fingerprint}",
        plan=BatchPlan(options.batch_size, text_format.passage_buckets, multiple=mesh.size),
        fingerprint=fingerprint,
        dtype=options.embeddings,
        normalized=options.normalize,
        workers=options.workers,
        mesh=mesh,
    )
    return embeddings, time.monotonic() - begin


def _encode_questions(options: RetrieveOptions, questions: list, mesh) -> np.ndarray:
    name = options.question_encoder or options.encoder
    config, params = _load(name, options)
    text_format = _format(options, config.bert.max_position_embeddings)
    pairs = [(question.question, question.lang) for question in questions]
    return encode_questions(
        _encoder(config, params, mesh),
        text_format.questions(load_tokenizer(name), pairs),
        plan=BatchPlan(options.batch_size, text_format.question_buckets, multiple=mesh.size),
        mesh=mesh,
    )


@functools.lru_cache(maxsize=2)
def _load_bert(name: str):
    return load_bert(name)


def _load(name: str, options: RetrieveOptions) -> tuple[BiEncoderConfig, dict]:
    """The encoder of a folder or hub id; a tower that was trained with a projection keeps it."""
    bert_config, params = _load_bert(name)
    tower, width = {"bert": params}, 0
    if (epath.Path(name) / PROJECTION).exists():
        tower["projection"] = load_projection(epath.Path(name))
        width = tower["projection"]["kernel"].shape[1]
    config = BiEncoderConfig(
        bert_config,
        pooling=options.pooling,
        tied=True,
        projection=width,
        normalize=options.normalize,
    )
    return config, {"shared": tower}


def _encoder(config: BiEncoderConfig, params: dict, mesh):
    """ids, mask -> vectors, with the weights on every device of the mesh."""
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    placed = jax.device_put(params, replicated)
    encode = jax.jit(functools.partial(biencoder.encode_passages, config))
    return lambda ids, mask: encode(placed, ids, mask)


def _format(options: RetrieveOptions, positions: int) -> RetrieverFormat:
    """Text format and length buckets for texts of up to max_length tokens."""
    longest = min(options.max_length, positions)
    steps = [length for length in range(32, longest, 32)]
    short = [length for length in QUESTION_BUCKETS if length < longest]
    return RetrieverFormat(
        tag_language=options.tag_language,
        query_prefix=options.query_prefix,
        passage_prefix=options.passage_prefix,
        question_buckets=(*short, longest),
        passage_buckets=(*steps, longest),
    )
