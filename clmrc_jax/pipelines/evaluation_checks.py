"""What evaluation and validation of a run need, checked before anything is trained.

A round ends with answers and scores: what these lack must not come to light after hours.
"""

import sys

from clmrc_jax import hosts
from clmrc_jax.evaluate.xor import check_segmenters
from clmrc_jax.files import InputError
from clmrc_jax.pipelines.corpora import Corpus, CorpusSettings
from clmrc_jax.pipelines.settings import CoraSettings

REQUIRED = ("passages", "train", "annotated")
# Whose validation -> the file of kind "files" that it reads.
VALIDATES_ON = {"retriever": "dev_annotated", "generator": "dev"}


def check_settings(settings: CoraSettings) -> None:
    """Raises InputError where the corpus names no file to train, evaluate or validate on."""
    corpus, split = settings.corpus, settings.evaluation.split
    missing = _needed(settings)
    if set(missing) & set(REQUIRED):
        flags = " ".join(f"--config.corpus.{name}=FILE" for name in missing)
        raise InputError(
            f"{_keys(missing)} {'are' if missing[1:] else 'is'} empty: kind 'files' needs the "
            f"path of each file. Give {flags}"
        )
    if missing:  # the split that is evaluated
        raise InputError(
            f"evaluation.split is {split!r} and corpus.{split} is empty: every round is scored on "
            f"its questions. Give --config.corpus.{split}=FILE, or name another split by "
            "--config.evaluation.split"
        )
    for model in _validating(settings):
        name = VALIDATES_ON[model]
        if _missing(corpus, (name,)):
            raise InputError(
                f"{model}.validate_every is set and corpus.{name} is empty: there is nothing to "
                f"validate on. Give --config.corpus.{name}=FILE, or set "
                f"--config.{model}.validate_every=0 --config.{model}.best=False"
            )


def check_questions(settings: CoraSettings, corpus: Corpus) -> None:
    """Raises InputError for no question to evaluate or validate on, and no scorer's segmenter.

    Says on stderr what else the corpus lacks, see `link_notes`.
    """
    e = settings.evaluation
    for note in link_notes(settings) if hosts.is_first() else ():
        print(note, file=sys.stderr, flush=True)
    rows = {"retriever": corpus.rows("dev"), "generator": corpus.questions("dev")}
    for model in _validating(settings):
        if not len(rows[model]):
            raise InputError(
                f"{model}.validate_every is set, but this corpus has no dev questions; give more "
                f"data, or set --config.{model}.validate_every=0 --config.{model}.best=False"
            )
    questions = corpus.questions(e.split)
    if not questions:
        raise InputError(
            f"evaluation.split {e.split!r}: this corpus has no question in it, so there is nothing "
            "to score; name another split by --config.evaluation.split, or give more data"
        )
    if not settings.generate:
        return
    try:
        check_segmenters(e.scorer, (question.lang for question in questions if question.answers))
    except ImportError as error:
        raise InputError(
            f"evaluation.scorer {e.scorer!r}: {error}. --config.evaluation.scorer=portable needs "
            "no package, but its numbers are not comparable to published ones"
        ) from error


def plan_notes(settings: CoraSettings) -> list[str]:
    """What a dry run says of files that the run will need.

    Raises InputError as `check_settings` where the config names all the others.
    """
    notes = link_notes(settings)
    if not _missing(settings.corpus, REQUIRED):
        check_settings(settings)
        return notes
    return [f"the run itself needs {_keys(_needed(settings))}", *notes]


def link_notes(settings: CoraSettings) -> list[str]:
    """What a run and its plan say where mining is to follow links of which there are none."""
    corpus = settings.corpus
    mined = settings.rounds and settings.mining.language_links
    if not mined or corpus.kind == "world_facts" or (corpus.kind == "files" and corpus.links):
        return []
    if corpus.kind == "files":
        why, remedy = "corpus.links is empty", "give --config.corpus.links=FILE, or set "
    else:
        why, remedy = f"corpus.kind {corpus.kind!r} has none", "set "
    return [
        f"no mining candidates come from language links: {why}; {remedy}"
        "--config.mining.language_links=False"
    ]


def _validating(settings: CoraSettings) -> list[str]:
    """The models whose training was asked to validate on its way."""
    trained = ("retriever", "generator") if settings.generate else ("retriever",)
    return [name for name in trained if getattr(settings, name).validate_every]


def _keys(names: list[str]) -> str:
    return ", ".join(f"corpus.{name}" for name in names)


def _needed(settings: CoraSettings) -> list[str]:
    """The corpus' empty keys that no run does without, each once."""
    return _missing(settings.corpus, tuple(dict.fromkeys((*REQUIRED, settings.evaluation.split))))


def _missing(corpus: CorpusSettings, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if corpus.kind == "files" and not getattr(corpus, name)]
