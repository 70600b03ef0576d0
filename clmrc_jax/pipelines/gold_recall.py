"""Recall of gold passages: how retrieval is judged where a question knows its own paragraph.

R@k counts a question whose paragraph, in any language it exists in, is among the first k of the
whole corpus; R_en@k searches the English passages alone and wants the English paragraph, which
is cross-lingual retrieval for every other question language.
"""

from collections.abc import Sequence

import numpy as np

from clmrc_jax.evaluate.scores import average
from clmrc_jax.retrieval.numpy_index import NumpyIndex

ENGLISH = "en"


def gold_recall(
    queries: np.ndarray,
    questions: Sequence,
    gold: dict[str, Sequence[str]],
    store,
    embeddings,
    depths: tuple[int, ...] = (1, 10),
) -> dict:
    """Recall of gold passages per question language, in percent.

    queries: float32 [questions, dim]   questions: records with id and lang
    gold: question id -> ids of its paragraph in all languages
    returns: {"languages": {code: {"r@1", "r_en@1", .., "count"}}, "macro": {..}}; languages
    none of whose questions have an English paragraph lack `r_en@k`
    """
    everything = _found(NumpyIndex(embeddings), queries, max(depths))
    english = np.asarray(store.language_rows(ENGLISH))
    found_english = None
    if len(english):
        vectors = np.concatenate([embeddings.rows(int(r), int(r) + 1) for r in english])
        found_english = english[
            _found(NumpyIndex(vectors), queries, min(max(depths), len(english)))
        ]
    rows, english_rows = [], []
    for i, question in enumerate(questions):
        wanted = np.asarray(store.rows_of_ids(list(gold[question.id])))
        hits = {f"r@{k}": float(np.isin(everything[i, :k], wanted).any()) for k in depths}
        rows.append({"lang": question.lang} | hits)
        wanted = np.intersect1d(wanted, english)
        if found_english is not None and len(wanted):
            hits = {f"r_en@{k}": float(np.isin(found_english[i, :k], wanted).any()) for k in depths}
            english_rows.append({"lang": question.lang} | hits)
    languages, macro = average(rows, [f"r@{k}" for k in depths])
    by_language, english_macro = average(english_rows, [f"r_en@{k}" for k in depths])
    for lang, values in by_language.items():
        languages[lang] |= {k: v for k, v in values.items() if k != "count"}
    macro |= {k: v for k, v in english_macro.items() if k != "count" and english_rows}
    return {"languages": languages, "macro": macro}


def _found(index: NumpyIndex, queries: np.ndarray, k: int) -> np.ndarray:
    return index.search(queries, k)[1]
