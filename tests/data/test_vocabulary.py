"""SentencePiece vocabularies that we train."""

import pytest

from clmrc_jax.data.vocabulary import train_sentencepiece, train_vocabulary
from clmrc_jax.files import InputError


def test_same_texts_give_the_same_bytes(many_sentences, vocabulary, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert train_vocabulary(many_sentences, folder, vocab_size=1200, sentinels=8) == 1200
    assert (folder / "spiece.model").read_bytes() == (vocabulary / "spiece.model").read_bytes()


def test_too_few_texts_for_a_vocabulary_raise(tmp_path):
    with pytest.raises(InputError, match="cannot give a vocabulary of 5000 pieces .* more text"):
        train_vocabulary(["one sentence", "two"], tmp_path, vocab_size=5000)
    assert not list(tmp_path.iterdir())


def test_options_reach_the_trainer(many_sentences):
    import sentencepiece

    model = train_sentencepiece(many_sentences, 1000, eos_id=0, unk_id=1, bos_id=-1)
    trained = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert trained.get_piece_size() == 1000
    assert (trained.eos_id(), trained.unk_id(), trained.bos_id(), trained.pad_id()) == (
        0,
        1,
        -1,
        -1,
    )
