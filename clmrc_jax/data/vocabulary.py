"""Trains SentencePiece vocabularies: the same texts and seed give the same bytes."""

import io
import os
from collections.abc import Iterable

from etils import epath

from clmrc_jax.data.tokenization import SENTENCEPIECE_FILES
from clmrc_jax.files import InputError, atomic_write


def train_vocabulary(
    texts: Iterable[str],
    folder: str | os.PathLike,
    *,
    vocab_size: int,
    sentinels: int = 16,
    seed: int = 0,
) -> int:
    """Trains a vocabulary laid out like mT5's (pad 0, eos 1, unk 2).

    Writes `spiece.model` into `folder`; returns the piece count.
    Raises InputError when the texts cannot give so many pieces.
    """
    model = train_sentencepiece(
        texts,
        vocab_size,
        seed,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=3,
        user_defined_symbols=["<mask>"] + [f"<extra_id_{i}>" for i in range(sentinels)],
    )
    with atomic_write(epath.Path(folder) / SENTENCEPIECE_FILES[0], "wb") as file:
        file.write(model)
    return vocab_size


def train_sentencepiece(texts: Iterable[str], pieces: int, seed: int = 0, **options) -> bytes:
    """A SentencePiece unigram model of `pieces` pieces, bytes for rare characters included.

    options: of `SentencePieceTrainer`, such as the ids of the special tokens.
    returns: the serialized model.   Raises InputError when the texts cannot give so many pieces.
    """
    import sentencepiece

    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=pieces,
            character_coverage=0.9995,
            byte_fallback=True,
            num_threads=1,  # fixes the order of floating-point sums, and so the vocabulary
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        raise InputError(
            f"the texts cannot give a vocabulary of {pieces} pieces ({error}); "
            "set another vocabulary size, or give more text"
        ) from error
    return model.getvalue()
