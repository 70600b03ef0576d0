"""Batches of sentence pairs."""

import pytest

from clmrc_jax.data.marian_tokenizer import MarianTokenizer, train_tokenizer
from clmrc_jax.data.pipeline import make_dataset
from clmrc_jax.data.translation_features import (
    TranslationFormat,
    encode_pairs,
    group_batches,
    length_groups,
    pair_batches,
)
from clmrc_jax.files import InputError

PAIRS = [("a " * n + "cat", "un " * (n % 5) + "gato") for n in range(1, 30)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = 20 * [text for pair in PAIRS for text in pair]
    train_tokenizer(texts, folder, size=268, languages=("en", "es"))
    return MarianTokenizer(folder)


def test_batch_holds_both_sides_with_end_tokens_in_one_bucket(tokenizer):
    batch = pair_batches(tokenizer, TranslationFormat((16, 32)))(PAIRS[:3], None, 0)
    assert {name: x.shape for name, x in batch.items()} == dict.fromkeys(batch, (3, 16))
    for side, texts in (("encoder_input", 0), ("decoder_target", 1)):
        ids, mask = batch[f"{side}_tokens"], batch[f"{side.split('_')[0]}_mask"]
        for row, pair in enumerate(PAIRS[:3]):
            kept = ids[row][mask[row]]
            assert kept[-1] == tokenizer.ids.eos and tokenizer.decode(kept) == pair[texts]
        assert (ids[~mask] == tokenizer.ids.pad).all()


def test_long_sides_are_cut_at_the_last_bucket(tokenizer):
    sources, targets = encode_pairs(tokenizer, TranslationFormat((4, 6)), PAIRS[-1:])
    assert len(sources[0]) == 6 and sources[0][-1] == targets[0][-1] == tokenizer.ids.eos
    with pytest.raises(InputError, match="must ascend"):
        TranslationFormat((8, 4))


def test_groups_hold_every_pair_and_fill_one_bucket(tokenizer):
    format = TranslationFormat((32, 48, 64))
    groups = length_groups(tokenizer, format, PAIRS, tokens=200, multiple=2)
    assert groups == length_groups(tokenizer, format, PAIRS, tokens=200, multiple=2)
    assert {pair for _, group in groups for pair in group} == set(PAIRS)
    transform = group_batches(tokenizer)
    data = make_dataset(groups, batch_size=1, seed=0, transform=transform, epochs=1)
    shapes = {data[i]["encoder_mask"].shape for i in range(len(data))}
    assert shapes == {(6, 32), (4, 48), (2, 64)}
    # Pairs repeat only where the last group was filled up.
    assert sum(len(group) for _, group in groups) - len(PAIRS) < 2


def test_batch_too_small_for_the_devices_is_refused(tokenizer):
    with pytest.raises(InputError, match="batch_tokens 100 hold no 8 sentences of 16 .* least 128"):
        length_groups(tokenizer, TranslationFormat((16,)), PAIRS, tokens=100, multiple=8)
