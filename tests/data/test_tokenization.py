"""Tokenizers of several formats behind one interface."""

import json

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from clmrc_jax.data.tokenization import load_tokenizer, longest_first
from clmrc_jax.files import InputError


@pytest.fixture(scope="module")
def fast_vocabulary(vocabulary, tmp_path_factory):
    """The same vocabulary as `tokenizer.json`, built from its pieces."""
    model = sentencepiece.SentencePieceProcessor(str(vocabulary / "spiece.model"))
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    backend = Tokenizer(models.Unigram(pieces, unk_id=model.unk_id(), byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    special = ["<pad>", "</s>", "<unk>", "<s>", "<mask>", *(f"<extra_id_{i}>" for i in range(8))]
    backend.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in special])
    folder = tmp_path_factory.mktemp("fast")
    backend.save(str(folder / "tokenizer.json"))
    names = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    config = {f"{k}_token": v for k, v in names.items()} | {"mask_token": {"content": "<mask>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_both_formats_of_one_vocabulary_agree(vocabulary, fast_vocabulary, many_sentences):
    slow, fast = load_tokenizer(str(vocabulary)), load_tokenizer(str(fast_vocabulary))
    texts = [*many_sentences[::5], "", "  two   spaces ", "1 000,50 € ½ Ⅳ", "🦆 unknown"]
    assert slow.ids == fast.ids and slow.vocab_size == fast.vocab_size == 1200
    assert slow.encode_batch(texts) == fast.encode_batch(texts)
    ids = slow.encode_batch(texts)
    assert [slow.decode(x) for x in ids] == [fast.decode(x) for x in ids]


def test_special_ids_of_our_vocabulary_are_those_of_mt5(vocabulary):
    ids = load_tokenizer(str(vocabulary)).ids
    assert (ids.pad, ids.eos, ids.unk) == (0, 1, 2)
    assert len(set(ids.sentinels)) == 8 and ids.mask > 2 and ids.cls == 3 and ids.sep == 1


def test_decode_restores_text_and_leaves_special_tokens_out(vocabulary, many_sentences):
    tokenizer = load_tokenizer(str(vocabulary / "spiece.model"))
    for text in many_sentences[::40]:
        (ids,) = tokenizer.encode_batch([text])
        special = [tokenizer.ids.cls, *ids, tokenizer.ids.sentinels[0], tokenizer.ids.eos, 0, 0]
        normal = tokenizer.model.normalize(text)
        assert tokenizer.decode(special) == normal.replace("\u2581", " ").strip()


def test_decode_ignores_ids_beyond_the_vocabulary(vocabulary):
    """mT5's output layer is padded: 250,112 logits for 250,100 pieces."""
    tokenizer = load_tokenizer(str(vocabulary))
    (ids,) = tokenizer.encode_batch(["Japan"])
    assert tokenizer.decode([*ids, tokenizer.vocab_size + 5]) == "Japan"


def test_longest_first_equals_cutting_one_token_at_a_time():
    for a in range(9):
        for b in range(9):
            for room in range(1, 18):
                kept_a, kept_b = a, b
                while kept_a + kept_b > room:
                    if kept_a > kept_b:
                        kept_a -= 1
                    else:
                        kept_b -= 1
                kept = longest_first(a, b, room)
                assert sum(kept) == kept_a + kept_b and abs(kept[0] - kept_a) <= 1, (a, b, room)


def test_pack_adds_special_tokens_and_cuts_to_length(vocabulary):
    tokenizer = load_tokenizer(str(vocabulary))
    cls, sep = tokenizer.ids.cls, tokenizer.ids.sep
    title, text = "Japan", "Where is the currency used in Japan?"
    (a,), (b,) = tokenizer.encode_batch([title]), tokenizer.encode_batch([text])
    assert tokenizer.pack([text], max_length=99) == [[cls, *b, sep]]
    assert tokenizer.pack([text], max_length=5) == [[cls, *b[:3], sep]]
    assert tokenizer.pack([title], [text], max_length=99) == [[cls, *a, sep, *b, sep]]
    room = len(a) + 4
    cut = tokenizer.pack([title], [text], max_length=room + 3)
    assert cut == [[cls, *a, sep, *b[:4], sep]], "the longer part is cut first"
    assert tokenizer.pack([""], [text], max_length=99) == [[cls, *b, sep]], "no title: text alone"
    for length in range(5, 20):
        (packed,) = tokenizer.pack([text], [text], max_length=length)
        assert len(packed) <= length and packed.count(sep) == 2


def test_wordpiece_folder_with_vocab_txt_alone_equals_transformers(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "un", "##known", "?"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.encode_batch(["What is unknown?", "duck"]) == [[5, 6, 7, 8, 9], [1]]
    ids = tokenizer.ids
    assert (ids.pad, ids.unk, ids.cls, ids.sep, ids.mask, ids.sentinels) == (0, 1, 2, 3, 4, ())


def test_folder_without_tokenizer_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"no tokenizer; expected one of tokenizer.json.*spiece"):
        load_tokenizer(str(tmp_path))


def test_name_that_is_no_folder_and_not_on_the_hub_is_an_input_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no/such-model: neither a folder nor"):
        load_tokenizer("no/such-model")
