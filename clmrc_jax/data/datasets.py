"""One door to data sets: a raw file, a tensorflow-datasets name, or a folder prepared by it.

tensorflow-datasets works here without TensorFlow: sets are prepared as ArrayRecord and read as data
sources. Standard sets go by their names (`squad`, `xquad/th`, `tydi_qa/goldp`,
`natural_questions_open`); ours (`xor_tydi`, `mkqa`, `passages`) are prepared from local files.
`natural_questions` with its documents can be read, but not prepared, without TensorFlow and Apache
Beam: pass the folder that another machine prepared as ArrayRecord.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from etils import epath

from clmrc_jax.data.fields import NoLanguage, known_language
from clmrc_jax.data.languages import LANGUAGES
from clmrc_jax.data.mrc_examples import MrcExample, read_mrc
from clmrc_jax.data.passages import Passage, read_passages
from clmrc_jax.data.qa_examples import Question, mkqa_languages, read_mkqa, read_questions
from clmrc_jax.data.squad_corpus import Paragraph, SquadCorpus, build_corpus, read_squad
from clmrc_jax.files import InputError

TFDS = "tfds:"  # in front of a set's name in a config
KINDS = ("questions", "passages", "paragraphs", "examples")
OUR_BUILDERS = ("xor_tydi", "mkqa", "passages", "cmrc2018", "drcd")
_RAW_SUFFIXES = (".json", ".jsonl", ".tsv", ".zip", ".gz")
_EXTRACTIVE = ("squad", "xquad", "cmrc2018", "drcd")  # answers with their offsets
_TYDI_LANGUAGES = {
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
}


def load(
    name_or_path: str | os.PathLike,
    kind: str,
    *,
    lang: str | None = None,
    split: str | None = None,
    need_answers: bool = False,
    data_dir: str | os.PathLike | None = None,
    downloads: str | os.PathLike | None = None,
) -> Iterator[Question] | Iterator[Passage] | Iterator[Paragraph] | Iterator[MrcExample]:
    """Streams rows of a kind: "questions", "passages", "paragraphs", "examples" (`MrcExample`s).

    name_or_path: a raw file (the readers of `qa_examples`, `passages`, `squad_corpus`,
    `mrc_examples`; questions may be native MKQA), a folder made by `prepare` or by
    tensorflow-datasets, a tensorflow-datasets name, or "tfds:NAME[/CONFIG]/SPLIT" or
    "tfds:FOLDER[/SPLIT]", which name their split.
    lang: of a raw file, its language; of a prepared set or native MKQA, the one language wanted.
    need_answers: a question without answers is an error.
    split, data_dir, downloads: of prepared sets, see `data_source`.
    Rows without what the kind needs (no gold passage, a language that `languages.py` lacks) are left
    out and counted in the log. Raises InputError for what cannot be read.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}: it must be one of {', '.join(KINDS)}")
    if is_raw(name_or_path):
        return _read_raw(name_or_path, kind, lang, need_answers)
    name_or_path, split = _name_and_split(name_or_path, split)
    rows = _read_prepared(name_or_path, kind, lang, split, data_dir, downloads)
    return _answered(rows, name_or_path) if need_answers else rows


def load_squads(sources: Iterable[tuple[str | os.PathLike, str | None]], **options) -> SquadCorpus:
    """One corpus from (name or path, language) pairs, raw files and data sets mixed.

    options: `split`, `data_dir`, `downloads` of `load`. See `build_corpus`; raises InputError as
    the readers do, also for no source.
    """
    sources = list(sources)
    if not sources:
        raise InputError("no SQuAD-style file was given; name at least one (path, language)")
    return build_corpus(
        [
            (str(source), paragraph)
            for source, lang in sources
            for paragraph in load(source, "paragraphs", lang=lang, **options)
        ]
    )


def prepare(
    name: str,
    files: Mapping[str, Sequence[str | os.PathLike | tuple[str | os.PathLike, str]]],
    data_dir: str | os.PathLike,
    **options,
) -> epath.Path:
    """Prepares one of our builders from local files as ArrayRecord; returns its folder.

    name: one of OUR_BUILDERS.   files: {split: [path or (path, language)]}.
    options: `langs` and `keep_unanswerable` of "mkqa".
    The same unchanged files are not prepared twice. Raises InputError for bad files, and leaves
    nothing half-written.
    """
    if name not in OUR_BUILDERS:
        raise InputError(f"no builder {name!r}; ours are {', '.join(OUR_BUILDERS)}")
    # slow to import: only on demand
    from clmrc_jax.data.builders import passages, questions, reading

    builders = {
        "xor_tydi": questions.XorTydi,
        "mkqa": questions.Mkqa,
        "passages": passages.Passages,
        "cmrc2018": reading.Cmrc2018,
        "drcd": reading.Drcd,
    }
    pairs = {split: [_with_language(entry) for entry in some] for split, some in files.items()}
    builder = builders[name](files=pairs, data_dir=data_dir, **options)
    builder.download_and_prepare(download_config=_download_config(None))
    return epath.Path(builder.data_path)


def data_source(
    name_or_folder: str | os.PathLike,
    split: str | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    downloads: str | os.PathLike | None = None,
):
    """Random access to the rows of a prepared set: len(), [row], for Grain.

    A standard set that is not prepared yet is downloaded and prepared as ArrayRecord.
    split: may be left out where the set has only one.   data_dir: where prepared sets live, default
    tensorflow-datasets' own.   downloads: a folder with files fetched by hand, under their
    published names, for machines without network.
    Raises InputError for an unknown name or split, and when preparing fails, with the remedy.
    """
    builder = _builder(name_or_folder, data_dir, downloads)
    return _source(builder, name_or_folder, split)


def prepared_size(source: str | os.PathLike) -> tuple[int, float] | None:
    """Rows of a prepared folder and their mean bytes; None for a set that a name alone tells.

    Nothing is downloaded. Raises InputError for a split that the folder lacks.
    """
    name, split = _name_and_split(source, None)
    if not is_prepared(name):
        return None
    builder = _builder(name, None, None)
    info = builder.info.splits[_split_of(builder, name, split)]
    return info.num_examples, info.num_bytes / max(1, info.num_examples)


def is_raw(source: str | os.PathLike) -> bool:
    """Whether a source is a file of its own, no set of tensorflow-datasets."""
    name = os.fspath(source)
    return not name.startswith(TFDS) and (
        name.endswith(_RAW_SUFFIXES) or epath.Path(name).is_file()
    )


def is_prepared(folder: str | os.PathLike) -> bool:
    """Whether tensorflow-datasets has prepared a set in this folder."""
    return (epath.Path(folder) / "dataset_info.json").exists()


def _name_and_split(source: str | os.PathLike, split: str | None) -> tuple[str, str | None]:
    """("xquad/th", "validation") of "tfds:xquad/th/validation"; other sources as they are."""
    name = os.fspath(source)
    if not name.startswith(TFDS):
        return name, split
    name = name.removeprefix(TFDS)
    if is_prepared(name):
        return name, split
    name, slash, last = name.rpartition("/")
    if not slash:
        raise InputError(
            f"{source}: a set's name and its split are needed, {TFDS}NAME[/CONFIG]/SPLIT, such as "
            f"{TFDS}xquad/th/validation"
        )
    return name, last


def _answered(questions: Iterable[Question], source) -> Iterator[Question]:
    for question in questions:
        if not question.answers:
            raise InputError(
                f"{source}: question {question.id!r} has no answers; this step needs answers"
            )
        yield question


def _read_raw(path, kind: str, lang: str | None, need_answers: bool) -> Iterator:
    if kind == "questions":
        if mkqa_languages(path):
            return read_mkqa(path, [lang] if lang else None)
        return read_questions(path, lang, need_answers=need_answers)
    if kind == "passages":
        return read_passages(path, lang)
    if lang is None:
        raise NoLanguage(f"{path}: a SQuAD-style file does not name its language; give lang=")
    return iter(read_mrc(path, lang)) if kind == "examples" else read_squad(path, lang)


def _with_language(entry) -> tuple[str, str | None]:
    path, lang = entry if isinstance(entry, tuple) else (entry, None)
    return os.fspath(path), lang


def _download_config(downloads: str | os.PathLike | None):
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    manual = None if downloads is None else os.fspath(downloads)
    return tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)


def _builder(source: str | os.PathLike, data_dir, downloads):
    """The builder of a prepared folder, or of a standard name, prepared now if need be."""
    import tensorflow_datasets as tfds

    # Without this import only some of the standard sets are registered.
    import tensorflow_datasets.question_answering  # noqa: F401

    if is_prepared(source):
        return tfds.builder_from_directory(os.fspath(source))
    directory = None if data_dir is None else os.fspath(data_dir)
    try:
        builder = tfds.builder(os.fspath(source), data_dir=directory, file_format="array_record")
    except (ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{os.fspath(source)!r} is neither a file, nor a prepared folder, nor a "
            f"tensorflow-datasets name ({reason})"
        ) from error
    try:
        builder.download_and_prepare(download_config=_download_config(downloads))
    except Exception as error:  # tfds lets anything through: network, checksum, missing Beam
        raise InputError(
            f"{builder.info.full_name} cannot be prepared ({type(error).__name__}: {error}). "
            "Fetch its files by hand into a folder and pass that as downloads=, or prepare the set "
            "on another machine and pass the prepared folder"
        ) from error
    return builder


def _split_of(builder, name, split: str | None) -> str:
    """The split; it may be left out where the set has only one."""
    splits = list(builder.info.splits)
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        raise InputError(f"{name}: split {split!r} is not one of {', '.join(splits)}")
    return split


def _source(builder, name, split: str | None):
    try:
        return builder.as_data_source(split=_split_of(builder, name, split))
    except NotImplementedError as error:  # prepared as TFRecord by someone else
        raise InputError(
            f"{name}: prepared in a format without random access; prepare it again as ArrayRecord "
            '(file_format="array_record")'
        ) from error


def _read_prepared(source, kind: str, lang, split, data_dir, downloads) -> Iterator:
    builder = _builder(source, data_dir, downloads)
    convert = _converter(builder, kind)
    wanted = known_language(lang, os.fspath(source)) if lang else None
    kept = left_out = 0
    for row in _source(builder, source, split):
        record = convert(row)
        if record is None:
            left_out += 1
        elif wanted in (None, record.lang):
            kept += 1
            yield record
    if left_out:
        logging.getLogger(__name__).warning(
            "%s: left out %d rows without answer passage or of a language unknown here",
            source,
            left_out,
        )
    if not kept:
        raise InputError(f"{source}: no {kind} in it" + (f" in language {lang!r}" if lang else ""))


def _converter(builder, kind: str) -> Callable[[dict], object | None]:
    """Row -> record of `kind`, or None for a row that has none."""
    name, config = builder.info.name, builder.info.config_name
    if name in ("xor_tydi", "mkqa") and kind == "questions":
        return _question
    if name == "passages" and kind == "passages":
        return lambda row: Passage(**{key: _text(value) for key, value in row.items()})
    if name == "natural_questions_open" and kind == "questions":
        return _open_question
    if name in _EXTRACTIVE and kind == "examples":
        from clmrc_jax.data.builders.reading import example_of

        return lambda row: example_of(row, config if name == "xquad" else "en")
    paragraph = {
        "squad": lambda row: _squad_paragraph(row, "en"),
        "cmrc2018": lambda row: _squad_paragraph(row, _text(row["lang"])),
        "drcd": lambda row: _squad_paragraph(row, _text(row["lang"])),
        "xquad": lambda row: _squad_paragraph(row, config),
        "tydi_qa": _tydi_paragraph,
        "natural_questions": _natural_questions_paragraph,
    }.get(name)
    if paragraph is None or kind in ("passages", "examples"):
        raise InputError(f"{builder.info.full_name}: holds no {kind} that can be read")
    if kind == "paragraphs":
        return lambda row: found if (found := paragraph(row)) and found.text else None
    return lambda row: found.questions[0] if (found := paragraph(row)) and found.questions else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _question(row: dict) -> Question:
    fields = {name: _text(value) for name, value in row.items() if name != "answers"}
    return Question(**fields, answers=tuple(map(_text, row["answers"])))


def _open_question(row: dict) -> Question:
    text = _text(row["question"])  # the set has no ids: one made from the question is stable
    key = f"nq-{hashlib.sha1(text.encode()).hexdigest()[:16]}"
    return Question(key, text, "en", tuple(map(_text, row["answer"])), "en", "nq")


def _squad_paragraph(row: dict, lang: str) -> Paragraph:
    answers = tuple(dict.fromkeys(map(_text, row["answers"]["text"])))
    question = Question(_text(row["id"]), _text(row["question"]), lang, answers)
    return Paragraph(
        lang=lang,
        article=0,
        title=_text(row["title"]).replace("_", " ").strip(),
        text=_text(row["context"]),
        questions=(question,) if answers else (),
        unanswerable=0 if answers else 1,
    )


def _tydi_paragraph(row: dict) -> Paragraph | None:
    """TyDi's ids begin with the English name of the language: `arabic-2387...-1`."""
    lang = _TYDI_LANGUAGES.get(_text(row["id"]).partition("-")[0])
    return _squad_paragraph(row, lang) if lang in LANGUAGES else None


def _natural_questions_paragraph(row: dict) -> Paragraph | None:
    """The first annotated long answer as paragraph; all short answers, yes/no as words."""
    annotations, document = row["annotations"], row["document"]
    answers = []
    for texts, label in zip(annotations["short_answers"]["text"], annotations["yes_no_answer"]):
        answers.extend(map(_text, texts))
        answers.extend([("no", "yes")[label]] if label >= 0 else [])
    answers = tuple(dict.fromkeys(answer for answer in answers if answer.strip()))
    spans = annotations["long_answer"]
    spans = [(a, b) for a, b in zip(spans["start_token"], spans["end_token"]) if 0 <= a < b]
    words = []
    if spans:
        tokens, (start, end) = document["tokens"], spans[0]
        pairs = zip(tokens["token"][start:end], tokens["is_html"][start:end])
        words = [_text(token) for token, html in pairs if not html]
    question = Question(_text(row["id"]), _text(row["question"]["text"]), "en", answers, "en", "nq")
    return Paragraph(
        lang="en",
        article=0,
        title=_text(document["title"]),
        text=" ".join(words),
        questions=(question,) if answers else (),
        unanswerable=0 if answers else 1,
    )
