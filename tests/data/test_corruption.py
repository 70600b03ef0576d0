"""Masking and span corruption lose nothing and hide what they say."""

import numpy as np
import pytest

from clmrc_jax.data.corruption import corrupt_spans, mask_tokens
from clmrc_jax.data.tokenization import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=2, eos=1, cls=3, sep=1, mask=4, sentinels=tuple(range(10, 18)))
VOCAB = 500


def restore(source, target):
    """Puts the spans of the target back into the source, as T5's authors define them."""
    assert source[-1] == target[-1] == SPECIAL.eos
    spans, current = {}, None
    for token in target[:-1]:
        if token in SPECIAL.sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    sentinels = [token for token in source if token in SPECIAL.sentinels]
    assert sentinels == list(spans) == list(SPECIAL.sentinels[: len(spans)]), "in order, each once"
    assert all(spans.values()), "no span is empty"
    return [x for token in source[:-1] for x in spans.get(token, [token])]


@pytest.mark.parametrize("length", [2, 3, 7, 50, 200])
@pytest.mark.parametrize("share, mean", [(0.15, 3.0), (0.25, 3.0), (0.5, 1.0), (0.9, 2.0)])
def test_corrupted_spans_can_be_put_back(length, share, mean):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ids = rng.integers(20, VOCAB, length).tolist()
        source, target = corrupt_spans(ids, rng, SPECIAL, share, mean)
        assert restore(source, target) == ids
        hidden = sum(token not in SPECIAL.sentinels for token in target[:-1])
        assert hidden == min(max(1, round(share * length)), length - 1)
        spans = len(target) - 1 - hidden
        assert spans <= max(1, round(hidden / mean)) and spans <= len(SPECIAL.sentinels)


def test_spans_vary_and_a_seed_repeats_them():
    ids = list(range(20, 120))
    draw = lambda seed: corrupt_spans(ids, np.random.default_rng(seed), SPECIAL)  # noqa: E731
    assert draw(1) == draw(1) and draw(1) != draw(2)
    starts = [draw(seed)[1][1] for seed in range(50)]
    assert len(set(starts)) > 10


def test_masking_hides_the_share_and_labels_restore_the_text():
    ids = [SPECIAL.cls, *range(20, 220), SPECIAL.sep]
    for seed in range(20):
        corrupted, positions, labels = mask_tokens(
            ids, np.random.default_rng(seed), SPECIAL, VOCAB, share=0.15
        )
        assert len(positions) == 30 and positions == sorted(set(positions))
        restored = list(corrupted)
        for position, label in zip(positions, labels, strict=True):
            restored[position] = label
        assert restored == ids
        assert corrupted[0] == SPECIAL.cls and corrupted[-1] == SPECIAL.sep
        assert {0, len(ids) - 1}.isdisjoint(positions)


def test_masking_follows_the_80_10_10_rule():
    ids = [SPECIAL.cls, *[400] * 20_000, SPECIAL.sep]
    corrupted, positions, _ = mask_tokens(ids, np.random.default_rng(0), SPECIAL, VOCAB, share=0.5)
    chosen = np.array(corrupted)[positions]
    assert abs(np.mean(chosen == SPECIAL.mask) - 0.8) < 0.02
    assert abs(np.mean(chosen == 400) - 0.1) < 0.02
    assert len(set(chosen.tolist())) > 300, "the rest is random"


def test_masking_of_no_token_masks_nothing():
    ids = [SPECIAL.cls, SPECIAL.sep]
    assert mask_tokens(ids, np.random.default_rng(0), SPECIAL, VOCAB) == (ids, [], [])
