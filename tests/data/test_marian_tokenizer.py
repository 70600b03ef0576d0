"""Marian tokenizer folders against transformers' MarianTokenizer."""

import json
import warnings

import pytest

from clmrc_jax.data import marian_tokenizer
from clmrc_jax.data.marian_tokenizer import MarianTokenizer
from clmrc_jax.files import InputError

ENGLISH = ["The cat sat on the mat.", "Where is the station?", "It rains in the mountains today."]
CHINESE = ["猫坐在垫子上。", "车站在哪里？", "今天山里下雨。"]
TEXTS = [
    "The cat sat in the mountains.",
    "  two  spaces\tand a tab ",
    "",
    "今天车站在哪里",
    "unseen: ŷ 🙂 ༄",
    ">>zh<< Where is the cat?",
    ">>zh<<Where is the cat?",
    "a >>zh<< inside",
    ">>xx<< unknown code",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer trained on six sentences, with byte pieces and two language tokens."""
    path = tmp_path_factory.mktemp("marian")
    texts = 20 * (ENGLISH + CHINESE)
    size = marian_tokenizer.train_tokenizer(
        texts, path, size=300, languages=("en", "zh"), language_tokens=(">>zh<<", ">>ja<<")
    )
    assert size == 300
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoTokenizer.from_pretrained(folder)


def test_ids_equal_transformers(folder, theirs):
    ours = MarianTokenizer(folder)
    assert type(theirs).__name__ == "MarianTokenizer"
    assert (ours.ids.pad, ours.ids.eos, ours.ids.unk) == (299, 0, 1)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (299, 0, 1)
    known = TEXTS[:-1]
    assert [[*ids, 0] for ids in ours.encode_batch(known)] == theirs(known)["input_ids"]
    assert [[*i, 0] for i in ours.encode_targets(CHINESE)] == theirs(text_target=CHINESE)[
        "input_ids"
    ]


def test_unknown_language_token_is_read_as_text(folder):
    ours = MarianTokenizer(folder)
    assert ours.language_tokens == (">>zh<<", ">>ja<<")
    (ids,) = ours.encode_batch([TEXTS[-1]])
    assert ours.ids.unk not in ids and ours.decode(ids) == TEXTS[-1]


def test_decoding_equals_transformers_and_gives_the_text_back(folder, theirs):
    ours = MarianTokenizer(folder)
    for text in (*ENGLISH, *CHINESE, "unseen: ŷ 🙂 ༄"):
        (ids,) = ours.encode_targets([text])
        padded = [299, *ids, 0, 299]
        assert ours.decode(padded) == text
        assert ours.decode(padded) == theirs.decode(padded, skip_special_tokens=True)


def test_languages_and_length_come_from_the_config(folder):
    ours = MarianTokenizer(folder)
    assert ours.languages == ("en", "zh") and ours.max_length == 512 and ours.vocab_size == 300
    assert [p.name for p in marian_tokenizer.tokenizer_files(folder)] == list(
        marian_tokenizer.FILES
    )


def test_same_texts_give_the_same_folder(folder, tmp_path):
    marian_tokenizer.train_tokenizer(
        20 * (ENGLISH + CHINESE),
        tmp_path,
        size=300,
        languages=("en", "zh"),
        language_tokens=(">>zh<<", ">>ja<<"),
    )
    for name in marian_tokenizer.FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_broken_folders_are_named_with_their_remedy(folder, tmp_path):
    with pytest.raises(InputError, match="source.spm: no such file; a Marian folder holds"):
        MarianTokenizer(tmp_path)
    for name in marian_tokenizer.FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    del vocabulary["<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(InputError, match='vocab.json: must be .* "<pad>"'):
        MarianTokenizer(tmp_path)
    (tmp_path / "target.spm").write_bytes(b"no model")
    with pytest.raises(InputError, match="target.spm: not a SentencePiece model"):
        MarianTokenizer(tmp_path)


def test_too_few_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot give a vocabulary of 4999 pieces"):
        marian_tokenizer.train_tokenizer(ENGLISH, tmp_path, size=5000, languages=("en", "zh"))
