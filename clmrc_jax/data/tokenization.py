"""Text <-> token ids behind one small interface.

A folder with `tokenizer.json` is read by `tokenizers` (every fast Hugging Face tokenizer), one
with `spiece.model` or `sentencepiece.bpe.model` by `sentencepiece` (mT5, our tiny models).
Encoding never adds special tokens: `pack` does, for one text or a pair, in one place.
"""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etils import epath

from clmrc_jax.files import InputError

SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model")


@dataclass(frozen=True)
class SpecialIds:
    """Ids of special tokens; -1 where the vocabulary has none."""

    pad: int
    unk: int
    eos: int
    cls: int
    sep: int
    mask: int
    sentinels: tuple[int, ...] = ()


class Tokenizer:
    """What every tokenizer offers; see `load_tokenizer`."""

    ids: SpecialIds
    vocab_size: int

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        raise TypeError("use load_tokenizer")

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens are left out."""
        raise TypeError("use load_tokenizer")

    def pack(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int
    ) -> list[list[int]]:
        """`[CLS] text [SEP]`, with pairs `[CLS] text [SEP] pair [SEP]`, cut to `max_length`.

        A pair is cut longest first, as DPR does; an empty text of a pair is left out
        (spec 3.1: a passage without a title is encoded as its text alone).
        """
        cls, sep = self.ids.cls, self.ids.sep
        first = self.encode_batch(texts)
        if pairs is None:
            return [[cls, *ids[: max_length - 2], sep] for ids in first]
        packed = []
        for a, b in zip(first, self.encode_batch(pairs)):
            if not a:
                packed.append([cls, *b[: max_length - 2], sep])
                continue
            keep_a, keep_b = longest_first(len(a), len(b), max_length - 3)
            packed.append([cls, *a[:keep_a], sep, *b[:keep_b], sep])
        return packed


def longest_first(a: int, b: int, room: int) -> tuple[int, int]:
    """Lengths that two parts keep when tokens are cut, one at a time, from the longer part."""
    if a + b <= room:
        return a, b
    short = min(a, b, room // 2)
    return (short, room - short) if a <= b else (room - short, short)


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model file."""

    def __init__(self, path: str):
        import sentencepiece

        self.model = sentencepiece.SentencePieceProcessor()
        self.model.LoadFromSerializedProto(epath.Path(path).read_bytes())
        model, eos = self.model, self.model.eos_id()
        self.vocab_size = model.get_piece_size()

        def piece(name: str) -> int:
            found = model.piece_to_id(name)
            return found if found != model.unk_id() else -1

        sentinels = (piece(f"<extra_id_{i}>") for i in range(100))
        cls = model.bos_id() if model.bos_id() >= 0 else piece("<s>")
        self.ids = SpecialIds(
            pad=max(model.pad_id(), 0),
            unk=model.unk_id(),
            eos=eos,
            cls=cls,
            sep=eos,
            mask=piece("<mask>"),
            sentinels=tuple(i for i in sentinels if i >= 0),
        )
        self._special = {i for i in (self.ids.pad, eos, cls, self.ids.mask) if i >= 0}
        self._special.update(self.ids.sentinels)

    def encode_batch(self, texts):
        """Token ids of each text, without special tokens."""
        return self.model.encode(list(texts))

    def decode(self, ids):
        """Text of token ids; special tokens are left out."""
        kept = (int(i) for i in ids)
        return self.model.decode(
            [i for i in kept if i not in self._special and i < self.vocab_size]
        )


class FastTokenizer(Tokenizer):
    """A `tokenizer.json`, with the special tokens that `tokenizer_config.json` names."""

    def __init__(self, folder: str):
        from tokenizers import Tokenizer as Backend

        folder = epath.Path(folder)
        self.backend = Backend.from_str((folder / "tokenizer.json").read_text())
        self.backend.no_padding()
        self.backend.no_truncation()
        self.vocab_size = self.backend.get_vocab_size()
        config_file = folder / "tokenizer_config.json"
        named = json.loads(config_file.read_text()) if config_file.exists() else {}

        def special(key: str, *usual: str) -> int:
            token = named.get(f"{key}_token")
            token = token.get("content") if isinstance(token, dict) else token
            for name in filter(None, (token, *usual)):
                found = self.backend.token_to_id(name)
                if found is not None:
                    return found
            return -1

        sentinels = (self.backend.token_to_id(f"<extra_id_{i}>") for i in range(100))
        self.ids = SpecialIds(
            pad=special("pad", "[PAD]", "<pad>"),
            unk=special("unk", "[UNK]", "<unk>"),
            eos=special("eos", "</s>", "[SEP]"),
            cls=special("cls", "[CLS]", "<s>"),
            sep=special("sep", "[SEP]", "</s>"),
            mask=special("mask", "[MASK]", "<mask>"),
            sentinels=tuple(i for i in sentinels if i is not None),
        )

    def encode_batch(self, texts):
        """Token ids of each text, without special tokens."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [e.ids for e in encoded]

    def decode(self, ids):
        """Text of token ids; special tokens are left out."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)


@functools.lru_cache(maxsize=8)
def load_tokenizer(folder_or_id: str) -> Tokenizer:
    """The tokenizer of a model folder, a `.model` file, or a Hugging Face hub id.

    Raises InputError when there is no tokenizer to be found.
    """
    path = epath.Path(folder_or_id)
    if path.is_file():
        return SentencePieceTokenizer(str(path))
    if not path.is_dir():
        return _from_hub(folder_or_id)
    if (path / "tokenizer.json").exists():
        return FastTokenizer(str(path))
    for name in SENTENCEPIECE_FILES:
        if (path / name).exists():
            return SentencePieceTokenizer(str(path / name))
    if (path / "vocab.txt").exists():
        return _from_transformers(str(path))
    wanted = ", ".join(("tokenizer.json", "vocab.txt", *SENTENCEPIECE_FILES))
    raise InputError(f"{folder_or_id}: no tokenizer; expected one of {wanted} in the folder")


def _from_hub(name: str) -> Tokenizer:
    from huggingface_hub import snapshot_download

    patterns = ["tokenizer*", "vocab.txt", *SENTENCEPIECE_FILES]
    try:
        return load_tokenizer(snapshot_download(name, allow_patterns=patterns))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name}: neither a folder nor a model that the Hugging Face hub gives "
            f"({type(error).__name__}); check the name or the connection, or give a local folder"
        ) from error


def _from_transformers(folder: str) -> Tokenizer:
    """Old folders with only `vocab.txt`: transformers writes the `tokenizer.json` we read."""
    import tempfile

    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as converted:
        AutoTokenizer.from_pretrained(folder).save_pretrained(converted)
        return FastTokenizer(converted)
