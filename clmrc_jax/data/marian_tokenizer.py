"""The tokenizer of Marian folders: `source.spm`, `target.spm` and `vocab.json` beside the weights.

SentencePiece cuts, `vocab.json` numbers: a piece's id has nothing to do with its id in the `.spm`.
The end token is 0, the unknown one 1, the padding (which is also the decoder's start) the last.
A model with several target languages reads `>>lang<<` before the text, one token of the vocabulary.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence

from etils import epath

from clmrc_jax.data.tokenization import SpecialIds, Tokenizer
from clmrc_jax.data.vocabulary import train_sentencepiece
from clmrc_jax.files import InputError, atomic_write, read_json, write_json

SOURCE_SPM, TARGET_SPM, VOCABULARY = "source.spm", "target.spm", "vocab.json"
CONFIG = "tokenizer_config.json"
FILES = (SOURCE_SPM, TARGET_SPM, VOCABULARY, CONFIG)
EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
_LANGUAGE_TOKEN = re.compile(r">>[^<>\s]+<<")

Pathlike = str | os.PathLike


class MarianTokenizer(Tokenizer):
    """Ids as `transformers.MarianTokenizer` gives them, without its end token.

    languages: (source, target) as the folder names them, "" where it does not.
    max_length: the most tokens of a text, end token included.
    """

    def __init__(self, folder: Pathlike):
        """Raises InputError when a file of the folder is missing or broken."""
        folder = epath.Path(folder)
        self._source, self._target = (_load_spm(folder / name) for name in (SOURCE_SPM, TARGET_SPM))
        self._vocabulary = _load_vocabulary(folder / VOCABULARY)
        self.vocab_size = len(self._vocabulary)
        self._pieces = {i: piece for piece, i in self._vocabulary.items()}
        pad, unk, eos = (self._vocabulary[name] for name in (PAD, UNK, EOS))
        self.ids = SpecialIds(pad=pad, unk=unk, eos=eos, cls=-1, sep=-1, mask=-1)
        named = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
        if named.get("separate_vocabs"):
            raise InputError(f"{folder}: separate vocabularies of source and target are not read")
        self.languages = (named.get("source_lang") or "", named.get("target_lang") or "")
        self.max_length = min(int(named.get("model_max_length") or 512), 512)

    @property
    def language_tokens(self) -> tuple[str, ...]:
        """The `>>lang<<` tokens of the vocabulary."""
        return tuple(p for p in self._vocabulary if _LANGUAGE_TOKEN.fullmatch(p))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of source texts, each with or without a `>>lang<<` token in front."""
        return self._encode(texts, self._source)

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of target texts."""
        return self._encode(texts, self._target)

    def _encode(self, texts, model):
        found = [_LANGUAGE_TOKEN.match(text) for text in texts]
        codes = [m.group() if m and m.group() in self._vocabulary else "" for m in found]
        rest = [text[len(code) :] for text, code in zip(texts, codes)]
        unk = self.ids.unk
        return [
            [self._vocabulary.get(piece, unk) for piece in ([code] if code else []) + pieces]
            for code, pieces in zip(codes, model.encode(rest, out_type=str))
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of target ids; special tokens are left out."""
        special = (self.ids.pad, self.ids.unk, self.ids.eos)
        pieces = [self._pieces[int(i)] for i in ids if int(i) not in special]
        return self._target.decode_pieces(pieces).replace("▁", " ").strip()


def tokenizer_files(folder: Pathlike) -> list[epath.Path]:
    """Paths of a Marian tokenizer's files."""
    folder = epath.Path(folder)
    return [folder / name for name in FILES if (folder / name).exists()]


def train_tokenizer(
    texts: Iterable[str],
    folder: Pathlike,
    *,
    size: int,
    languages: tuple[str, str],
    language_tokens: Sequence[str] = (),
    seed: int = 0,
) -> int:
    """Trains one SentencePiece vocabulary for both sides and writes a Marian tokenizer folder.

    texts: sentences of all languages.   size: tokens, special and language tokens included.
    languages: written as source_lang and target_lang.
    language_tokens: `>>lang<<` tokens.   returns: `size`
    Raises InputError when the texts cannot give so many pieces.
    """
    import sentencepiece

    model = train_sentencepiece(
        texts,
        size - len(language_tokens) - 1,  # the padding is the last token
        seed,
        eos_id=0,
        unk_id=1,
        bos_id=-1,
        normalization_rule_name="identity",  # NFKC would lose the full-width signs of Chinese
    )
    spm = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [spm.id_to_piece(i) for i in range(spm.get_piece_size())]
    names = [EOS, UNK, *(p for p in pieces if p not in (EOS, UNK)), *language_tokens, PAD]
    folder = epath.Path(folder)
    for name in (SOURCE_SPM, TARGET_SPM):
        with atomic_write(folder / name, "wb") as file:
            file.write(model)
    write_json(folder / VOCABULARY, {name: i for i, name in enumerate(names)})
    config = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": languages[0],
        "target_lang": languages[1],
        "model_max_length": 512,
        "separate_vocabs": False,
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
    }
    write_json(folder / CONFIG, config)
    return len(names)


def _load_spm(path: epath.Path):
    import sentencepiece

    if not path.exists():
        raise InputError(f"{path}: no such file; a Marian folder holds {', '.join(FILES)}")
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(path.read_bytes())
    except RuntimeError as error:
        raise InputError(f"{path}: not a SentencePiece model; get it again") from error
    return model


def _load_vocabulary(path: epath.Path) -> dict[str, int]:
    vocabulary = read_json(path)
    if not isinstance(vocabulary, dict) or {EOS, UNK, PAD} - set(vocabulary):
        missing = json.dumps([EOS, UNK, PAD])
        raise InputError(f"{path}: must be an object of pieces and ids with {missing} among them")
    return vocabulary
