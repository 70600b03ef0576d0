"""Sentence BLEU-4 (Papineni et al., 2002) over any sequence of tokens.

Two ways of treating an n-gram order without any match, both tested against NLTK:
`none`  NLTK's default: such an order counts as the smallest float, so the score is about 0.
`exp`   1/2^k of one match for the k-th such order (NIST's mteval, NLTK `method3`), over as many
        orders as the hypothesis has tokens; an exact match of any length scores 1.
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence

ORDERS = 4


def sentence_bleu(references: Sequence[Sequence], hypothesis: Sequence, smooth: str) -> float:
    """BLEU in [0, 1] of one hypothesis against its references.

    references, hypothesis: sequences of hashable tokens; a string is a sequence of characters,
    which is how XOR-QA's scorer calls it.   smooth: `none` or `exp`.
    """
    if smooth not in ("none", "exp"):
        raise ValueError(f"smooth must be 'none' or 'exp', not {smooth!r}")
    if not hypothesis or not references:
        return 0.0
    matches = _matches(references, hypothesis)
    if not matches[0]:
        return 0.0
    orders = ORDERS if smooth == "none" else min(ORDERS, len(hypothesis))
    logs = []
    misses = 0
    for n, match in enumerate(matches[:orders], start=1):
        total = max(1, len(hypothesis) - n + 1)
        if match:
            precision = match / total
        elif smooth == "none":
            precision = sys.float_info.min
        else:
            misses += 1
            precision = 1 / (2**misses * total)
        logs.append(math.log(precision) / orders)
    return _brevity(references, len(hypothesis)) * math.exp(math.fsum(logs))


def _matches(references: Sequence[Sequence], hypothesis: Sequence) -> list[int]:
    """Clipped n-gram matches of orders 1 to `ORDERS`; none of an order means none of a longer."""
    matches = [0] * ORDERS
    for n in range(1, ORDERS + 1):
        found = [_ngrams(reference, n) for reference in references]
        for ngram, count in _ngrams(hypothesis, n).items():
            matches[n - 1] += min(count, max(ngrams.get(ngram, 0) for ngrams in found))
        if not matches[n - 1]:
            break
    return matches


def _ngrams(tokens: Sequence, n: int) -> Counter:
    return Counter(tokens) if n == 1 else Counter(zip(*(tokens[start:] for start in range(n))))


def _brevity(references: Sequence[Sequence], length: int) -> float:
    """Penalty of a hypothesis shorter than the closest reference (the shorter one in a tie)."""
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return 1.0 if length > closest else math.exp(1 - closest / length)
