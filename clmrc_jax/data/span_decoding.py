"""From the log-probabilities of a question's windows to its n-best answers (spec 5.1).

Scores are log-softmax values of each window, so a window that believes in [CLS] (no answer here)
counts less. The text is cut from the passage by character offsets; the official text, put together
from pieces and without spaces, can be had by option (on CMRC dev it costs up to 2 points of EM).
"""

from collections.abc import Sequence

import numpy as np

from clmrc_jax.data.mrc_examples import MrcExample
from clmrc_jax.data.official_spans import predicted_text
from clmrc_jax.data.span_windows import Window
from clmrc_jax.files import InputError

TEXTS = ("offsets", "official")
# What the official code answers when no pair of start and end is allowed.
NOTHING = {"offsets": "", "official": "empty"}


def decode(
    example: MrcExample,
    windows: Sequence[Window],
    start_log_probs: Sequence[np.ndarray],
    end_log_probs: Sequence[np.ndarray],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
    text: str = "offsets",
    null_threshold: float | None = None,
) -> list[dict]:
    """The n-best answers of one question; the text of the first is its answer.

    windows: all windows of the question, made without looking at its answers.
    start_log_probs, end_log_probs: float [length] of each window; padding may follow.
    n_best: starts and ends that are tried per window, and different answers that are kept.
    max_answer_length: in tokens.   text: "offsets" or "official" (windows of mode "official").
    null_threshold: for sets with unanswerable questions (SQuAD 2.0): "" is an answer too, and the
    first one if the least score of [CLS] among the windows exceeds the best answer's by more.
    returns: {text, probability (among those kept), start_logit, end_logit, start, end}, best first;
    start and end are character offsets, -1 for "no answer".
    """
    if text not in TEXTS:
        raise InputError(f"text {text!r}: choose one of {', '.join(TEXTS)}")
    if not windows or not len(windows) == len(start_log_probs) == len(end_log_probs):
        raise InputError(
            f"question {example.id!r}: {len(windows)} windows, {len(start_log_probs)} and "
            f"{len(end_log_probs)} rows of scores; every window needs its own"
        )
    starts = [np.asarray(row, np.float64) for row in start_log_probs]
    ends = [np.asarray(row, np.float64) for row in end_log_probs]
    pairs = np.concatenate(
        [
            _pairs(number, window, starts[number], ends[number], n_best, max_answer_length)
            for number, window in enumerate(windows)
        ]
    )
    entries = _different(example, windows, pairs, n_best, text)
    if null_threshold is not None:
        entries = _with_null(entries, starts, ends, null_threshold)
    if not entries:
        entries = [_entry(NOTHING[text], 0.0, 0.0, -1, -1)]
    scores = np.array([entry["start_logit"] + entry["end_logit"] for entry in entries])
    weights = np.exp(scores - scores.max())
    for entry, probability in zip(entries, weights / weights.sum()):
        entry["probability"] = float(probability)
    return entries


def _pairs(
    number: int, window: Window, start: np.ndarray, end: np.ndarray, n_best: int, longest: int
) -> np.ndarray:
    """Allowed pairs, start-major: [pairs, 5] of window, first and last token, the two scores."""
    tops = [np.argsort(-scores, kind="stable")[:n_best] for scores in (start, end)]
    first, last = (top - window.first for top in tops)  # places in the passage part
    of_passage = [(places >= 0) & (places < window.count) for places in (first, last)]
    starts_here = of_passage[0].copy()
    starts_here[of_passage[0]] &= window.max_context[first[of_passage[0]]]
    length = last[None, :] - first[:, None] + 1
    allowed = (length >= 1) & (length <= longest) & starts_here[:, None] & of_passage[1][None, :]
    i, j = np.nonzero(allowed)
    return np.stack(
        [np.full(len(i), number), first[i], last[j], start[tops[0][i]], end[tops[1][j]]], axis=1
    )


def _different(
    example: MrcExample, windows: Sequence[Window], pairs: np.ndarray, n_best: int, text: str
) -> list[dict]:
    """The best pairs of different texts; of equal scores the earlier window and pair first."""
    entries: dict[str, dict] = {}
    for row in np.argsort(-(pairs[:, 3] + pairs[:, 4]), kind="stable"):
        number, first, last = (int(value) for value in pairs[row, :3])
        window = windows[number]
        start, end = int(window.offsets[first, 0]), int(window.offsets[last, 1])
        found = example.context[start:end] if text == "offsets" else _official(window, first, last)
        if found and found not in entries:
            entries[found] = _entry(found, *map(float, pairs[row, 3:]), start, end)
        if len(entries) == n_best:
            break
    return list(entries.values())


def _official(window: Window, first: int, last: int) -> str:
    if window.split is None:
        raise InputError('text="official" needs windows made with mode="official"')
    return predicted_text(window.split, window.begin + first, window.begin + last)


def _entry(text: str, start_score: float, end_score: float, start: int, end: int) -> dict:
    return {
        "text": text,
        "probability": 1.0,
        "start_logit": start_score,
        "end_logit": end_score,
        "start": start,
        "end": end,
    }


def _with_null(entries: list[dict], starts, ends, threshold: float) -> list[dict]:
    """The answers and "no answer", which comes first only beyond the threshold."""
    least = min(range(len(starts)), key=lambda number: starts[number][0] + ends[number][0])
    null = _entry("", float(starts[least][0]), float(ends[least][0]), -1, -1)
    score = null["start_logit"] + null["end_logit"]
    others = [entry["start_logit"] + entry["end_logit"] for entry in entries]
    if not entries or score - others[0] > threshold:
        return [null, *entries]
    place = max(1, sum(other >= score for other in others))
    return [*entries[:place], null, *entries[place:]]


def answer(entries: Sequence[dict]) -> str:
    """The answer of a question: the text of its best entry."""
    return entries[0]["text"]


def null_score(entries: Sequence[dict]) -> float:
    """How much better "no answer" scores than the best answer; `entries` of a `null_threshold`.

    What a search for the best threshold on a development set needs.
    """
    scores = [entry["start_logit"] + entry["end_logit"] for entry in entries]
    null = [score for score, entry in zip(scores, entries) if not entry["text"]]
    others = [score for score, entry in zip(scores, entries) if entry["text"]]
    if not null:
        raise InputError('no entry for "no answer"; decode with a null_threshold')
    return null[0] - max(others, default=-np.inf)
