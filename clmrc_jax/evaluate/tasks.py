"""The table of evaluation tasks behind `launch/evaluate.py`; a new task is one new row."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

from clmrc_jax.evaluate import language_id, mkqa, mrc, recall, xor
from clmrc_jax.evaluate.golds import read_golds, read_predictions
from clmrc_jax.evaluate.mrc_golds import language_of_file, read_mrc_golds, read_null_scores
from clmrc_jax.evaluate.scores import Scores
from clmrc_jax.files import InputError

DEPTH = 10  # of the retrieval metrics, unless asked for another
OPTIONS = ("data", "lang", "top_k", "null_scores")  # of Request, for some tasks only


@dataclass(frozen=True)
class Request:
    """One evaluation: which mode, which files. None is an option that was not given.

    data: questions (optional for `retrieval`, whose run holds the answers).
    lang: keep one language (native MKQA records), or the language of a SQuAD-like file.
    top_k: depth of the retrieval metrics, `DEPTH` unless given.
    null_scores: JSON {id: score of "no answer"} for the best threshold of `squad2`.
    """

    mode: str
    predictions: str | PathLike
    data: str | PathLike | None = None
    lang: str | None = None
    top_k: int | None = None
    null_scores: str | PathLike | None = None


@dataclass(frozen=True)
class Task:
    """One row of the table.

    modes: accepted ones, the default first.   options: those of `OPTIONS` that make a difference
    to it; the others are refused.   needs_data: whether it is nothing without `data`.
    """

    help: str
    modes: tuple[str, ...]
    score: Callable[[Request], Scores]
    options: tuple[str, ...] = ("data",)
    needs_data: bool = True


def evaluate(task: str, request: Request) -> Scores:
    """Scores one prediction file. Raises InputError for a wrong task, mode, option or file."""
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; known tasks: {', '.join(TASKS)}")
    row = TASKS[task]
    if request.mode not in row.modes:
        raise InputError(
            f"task {task} has no mode {request.mode!r}; it has: {', '.join(row.modes)}"
        )
    _refuse_idle_options(task, request)
    if row.needs_data and request.data is None:
        raise InputError(f"task {task} needs --data, the file of questions with answers")
    return row.score(request)


def _refuse_idle_options(task: str, request: Request) -> None:
    """Raises InputError for an option that would change nothing."""
    for name in OPTIONS:
        if getattr(request, name) is not None and name not in TASKS[task].options:
            takers = ", ".join(other for other, row in TASKS.items() if name in row.options)
            raise InputError(
                f"task {task} takes no --{name}: it would change nothing. Leave it out "
                f"(tasks that take it: {takers})"
            )


def _xor_full(request: Request) -> Scores:
    golds = read_golds(request.data)
    return xor.score_xor(golds, read_predictions(request.predictions), request.mode)


def _mkqa(request: Request) -> Scores:
    golds = mkqa.read_mkqa(request.data, request.lang)
    predictions, _ = mkqa.read_mkqa_predictions(request.predictions)
    return mkqa.score_mkqa(golds, predictions, request.mode)


def _mkqa_official(request: Request) -> Scores:
    golds = mkqa.read_mkqa(request.data, request.lang)
    predictions, probabilities = mkqa.read_mkqa_predictions(request.predictions)
    return mkqa.score_mkqa_official(golds, predictions, probabilities, request.mode)


def _retrieval(request: Request) -> Scores:
    golds = None if request.data is None else read_golds(request.data)
    rule = {"fixed": "substring", "legacy": "dpr"}[request.mode]
    depth = DEPTH if request.top_k is None else request.top_k
    run = recall.read_run(request.predictions)
    _check_depth(run, depth, request.predictions)
    return recall.score_retrieval(run, golds, depth, rule)


def _check_depth(run: Sequence[Mapping], depth: int, path: str | PathLike) -> None:
    """Raises InputError where no question of the run has as many passages as are judged."""
    longest = max(len(row["ctxs"]) for row in run)
    if not longest:
        raise InputError(f"{path}: no question has a passage in 'ctxs'; retrieve some first")
    if longest < depth:
        raise InputError(
            f"{path}: its questions have at most {longest} passage(s), so there is no recall at "
            f"--top_k={depth}. Give --top_k={longest} or less, or retrieve more passages"
        )


def _xor_retrieve(request: Request) -> Scores:
    return recall.score_token_recall(recall.read_run(request.predictions))


def _language(request: Request) -> Scores:
    golds = read_golds(request.data)
    return language_id.score_language(golds, read_predictions(request.predictions))


def _cmrc2018(request: Request) -> Scores:
    return _span_answers(request, mrc.score_cmrc, "zh_cn")


def _drcd(request: Request) -> Scores:
    return _span_answers(request, mrc.score_cmrc, "zh_tw")


def _squad(request: Request) -> Scores:
    return _span_answers(request, mrc.score_squad, request.lang or "en")


def _squad2(request: Request) -> Scores:
    nulls = request.null_scores and read_null_scores(request.null_scores)
    score = functools.partial(mrc.score_squad2, null_scores=nulls)
    return _span_answers(request, score, request.lang or "en")


def _xquad(request: Request) -> Scores:
    return _span_answers(request, mrc.score_squad, language_of_file(request.data, request.lang))


def _squad_ja_fr(request: Request) -> Scores:
    return _span_answers(request, mrc.score_ja_fr, language_of_file(request.data, request.lang))


def _span_answers(request: Request, score: Callable[..., Scores], lang: str) -> Scores:
    """Scores predictions for a SQuAD-like file of one language."""
    golds = read_mrc_golds(request.data, lang)
    return score(golds, read_predictions(request.predictions), mode=request.mode)


_BY_LANGUAGE = ("data", "lang")
TASKS = {
    "xor_full": Task("XOR-Full F1, EM, BLEU", ("legacy", "fixed", "portable"), _xor_full),
    "mkqa": Task("MKQA as CORA scores it", ("legacy", "fixed", "portable"), _mkqa, _BY_LANGUAGE),
    "mkqa_official": Task(
        "MKQA leaderboard metric", ("legacy", "fixed"), _mkqa_official, _BY_LANGUAGE
    ),
    "retrieval": Task(
        "R^L@k, R^multi@k, language matrix",
        ("fixed", "legacy"),
        _retrieval,
        ("data", "top_k"),
        needs_data=False,
    ),
    "xor_retrieve": Task(
        "XOR-Retrieve R@2kt, R@5kt", ("legacy",), _xor_retrieve, (), needs_data=False
    ),
    "language": Task("share of answers in the right language", ("fixed",), _language),
    "cmrc2018": Task("CMRC 2018 EM and F1 (longest common run)", mrc.MODES, _cmrc2018),
    "drcd": Task("DRCD by the scorer of CMRC 2018", mrc.MODES, _drcd),
    "squad": Task("SQuAD 1.1 EM and F1", mrc.MODES, _squad, _BY_LANGUAGE),
    "squad2": Task(
        "SQuAD 2.0, with unanswerable questions",
        mrc.MODES,
        _squad2,
        (*_BY_LANGUAGE, "null_scores"),
    ),
    "xquad": Task("XQuAD; `fixed` knows the language", mrc.MODES, _xquad, _BY_LANGUAGE),
    "squad_ja_fr": Task("Japanese and French SQuAD", mrc.MODES, _squad_ja_fr, _BY_LANGUAGE),
}
