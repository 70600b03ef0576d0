"""Translating text with a Marian folder; its weights are random, so wiring is what is tested."""

import dataclasses

import jax
import pytest

from clmrc_jax.data.marian_tokenizer import MarianTokenizer, tokenizer_files, train_tokenizer
from clmrc_jax.files import InputError
from clmrc_jax.models import marian
from clmrc_jax.models.marian import MarianConfig, MarianSearch
from clmrc_jax.train.pretrained import load_marian, load_marian_search, save_marian
from clmrc_jax.translate.marian_translator import MarianTranslator

ENGLISH = ["The cat sat on the mat.", "Where is the station?", "It rains in the mountains today."]
SPANISH = ["El gato se sentó.", "¿Dónde está la estación?", "Hoy llueve en las montañas."]


def make_folder(path, seed=0, languages=("en", "es"), tokens=()):
    train_tokenizer(
        20 * (ENGLISH + SPANISH),
        path / "vocabulary",
        size=300,
        languages=languages,
        language_tokens=tokens,
    )
    config = MarianConfig(
        vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, pad_token_id=299,
        decoder_start_token_id=299, init_std=0.3,
    )  # fmt: skip
    params = marian.init(config, jax.random.key(seed))
    search = MarianSearch(num_beams=2, max_length=7, banned=(299,))
    files = tokenizer_files(path / "vocabulary")
    save_marian(path / "model", config, params, search, files)
    return path / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("marian"))


@pytest.fixture(scope="module")
def translator(folder):
    return MarianTranslator(folder, batch_size=8)


def test_folder_gives_the_search_back(folder, translator):
    assert load_marian_search(folder) == MarianSearch(num_beams=2, max_length=7, banned=(299,))
    greedy = MarianTranslator(folder, num_beams=1)
    assert greedy.search == dataclasses.replace(translator.search, num_beams=1)


def test_translation_is_the_decoded_search_of_the_tokens(folder, translator):
    config, params = load_marian(folder)
    tokenizer = MarianTokenizer(folder)
    expected = []
    for text in ENGLISH:
        ids = jax.numpy.array([[*tokenizer.encode_batch([text])[0], 0]])
        found = marian.generate(config, params, ids, ids >= 0, translator.search)
        expected.append(tokenizer.decode(found.tokens[0, 0, 1:].tolist()))
    assert translator.translate(ENGLISH, "en", "es") == expected
    assert len(set(expected)) > 1, "the model must tell the sentences apart"


def test_order_and_empty_texts_are_kept(translator):
    texts = ["", ENGLISH[1], " \n ", ENGLISH[0]]
    found = translator.translate(texts, "en", "es")
    alone = [translator.translate([text], "en", "es")[0] for text in texts]
    assert found == alone and found[0] == found[2] == "" and found[1] and found[3]
    assert translator.translate([], "en", "es") == []


def test_long_text_is_translated_by_sentences(folder):
    translator = MarianTranslator(folder, whole_tokens=4)
    one, two, three = (translator.translate([text], "en", "es")[0] for text in ENGLISH)
    joined = f"{ENGLISH[0]}  {ENGLISH[1]}\n\n{ENGLISH[2]}"
    assert translator.translate([joined], "en", "es") == [f"{one} {two}\n\n{three}"]
    spacious = MarianTranslator(folder, whole_tokens=200)
    together = " ".join(ENGLISH[:2])
    assert spacious._parts([together], "") == [[(together, "")]]
    assert translator._parts([together], "") == [[(ENGLISH[0], " "), (ENGLISH[1], "")]]


def test_sentence_longer_than_the_model_is_cut_without_loss(translator):
    text = "the cat on the mat, " * 200
    (parts,) = translator._parts([text], "")
    lengths = [len(ids) for ids in translator.tokenizer.encode_batch([part for part, _ in parts])]
    assert len(parts) > 1 and max(lengths) <= 511
    assert " ".join(part for part, _ in parts) == text.strip()


def test_name_tells_models_and_settings_apart(folder, translator, tmp_path):
    same = MarianTranslator(folder, batch_size=16)
    assert same.name == translator.name and translator.name.startswith("marian:model@")
    others = [
        MarianTranslator(make_folder(tmp_path, seed=1)),
        MarianTranslator(folder, num_beams=1),
    ]
    assert len({translator.name, *(other.name for other in others)}) == 3


def test_wrong_languages_are_refused(translator):
    with pytest.raises(InputError, match="translates to 'es', not to 'fr'"):
        translator.translate(["x"], "en", "fr")
    with pytest.raises(InputError, match="translates from 'en', not from 'es'"):
        translator.prepare([], "es", "en")


def test_language_token_is_chosen_by_target_or_given(tmp_path):
    folder = make_folder(tmp_path, languages=("en", "mul"), tokens=(">>es<<", ">>zho<<"))
    translator = MarianTranslator(folder)
    by_target = translator.translate(ENGLISH, "en", "es")
    assert by_target == MarianTranslator(folder, prefix=">>es<<").translate(ENGLISH, "en", "zh")
    assert by_target != MarianTranslator(folder, prefix="").translate(ENGLISH, "en", "es")
    with pytest.raises(
        InputError, match=r"does not know >>zh<<; give prefix as one of >>es<<, >>z"
    ):
        translator.translate(ENGLISH, "en", "zh")
    with pytest.raises(InputError, match="prefix '>>fr<<' is not in the vocabulary"):
        MarianTranslator(folder, prefix=">>fr<<")


def test_folder_whose_files_do_not_belong_together_is_refused(folder, tmp_path):
    config, params = load_marian(folder)
    small = dataclasses.replace(config, vocab_size=200)
    params = marian.init(small, jax.random.key(0))
    save_marian(tmp_path / "bad", small, params, MarianSearch(), tokenizer_files(folder))
    with pytest.raises(InputError, match="vocab.json has 300 tokens, the model only 200"):
        MarianTranslator(tmp_path / "bad")
