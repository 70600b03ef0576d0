"""Builds, saves and loads the two models of a run, as Hugging Face folders."""

import dataclasses
from importlib import resources

from clmrc_jax import hosts, sharding
from clmrc_jax.data.tokenization import SENTENCEPIECE_FILES, load_tokenizer
from clmrc_jax.data.vocabulary import train_vocabulary
from clmrc_jax.files import InputError, atomic_write
from clmrc_jax.models.bert import BertConfig
from clmrc_jax.models.biencoder import PARAM_AXES as RETRIEVER_AXES
from clmrc_jax.models.mt5 import PARAM_AXES as GENERATOR_AXES
from clmrc_jax.models.mt5 import Mt5Config
from clmrc_jax.pipelines.batch_checks import check_buckets
from clmrc_jax.pipelines.generator import Generator
from clmrc_jax.pipelines.retriever import Retriever
from clmrc_jax.pipelines.settings import ModelSource
from clmrc_jax.train import pretrained

PROJECTION = "projection.safetensors"  # of a tower, beside the weights of its BERT
BUILTIN = {"bert": "mbert", "mt5": "mt5"}


def builtin_folder(kind: str) -> str:
    """Folder of a tiny pretrained model that ships with the package: "bert" or "mt5"."""
    folder = resources.files("clmrc_jax") / "pretrained" / BUILTIN[kind]
    if not folder.is_dir():
        raise InputError(f"{folder}: the package was installed without its pretrained models")
    return str(folder)


def source_folder(source: ModelSource, kind: str) -> str:
    """Folder or hub id of the weights; "" for random ones."""
    return builtin_folder(kind) if source.pretrained == "builtin" else source.pretrained


def tokenizer_folder(source: ModelSource, kind: str, cora) -> str:
    """Where the tokenizer lies; a vocabulary is trained on the corpus when none is given."""
    folder = source.tokenizer or source_folder(source, kind)
    if folder:
        return folder

    def work(folder):
        texts = _corpus_texts(cora.corpus)
        return {"pieces": train_vocabulary(texts, folder, vocab_size=source.vocabulary)}

    settings = {"corpus": dataclasses.asdict(cora.settings.corpus), "size": source.vocabulary}
    cora.run.stage(f"vocabulary_{source.vocabulary}", settings, work, alone=True)
    return str(cora.run.path(f"vocabulary_{source.vocabulary}"))


def _corpus_texts(corpus):
    for passage in corpus.store:
        yield f"{passage.title} {passage.text}"
    for question in corpus.questions("train"):
        yield question.question
        yield from question.answers


def make_retriever(cora) -> tuple[Retriever, dict]:
    """The retriever of a run and its first parameters, numpy."""
    s = cora.settings
    source = s.retriever_model
    folder = source_folder(source, "bert")
    tokenizer = tokenizer_folder(source, "bert", cora)
    if folder:
        config, weights = pretrained.load_bert(folder, **source.sizes)
    else:
        vocabulary = {"vocab_size": load_tokenizer(tokenizer).vocab_size}
        config, weights = BertConfig(**vocabulary | source.sizes), None
    retriever = _retriever(s, config, tokenizer, cora.mesh, cora.rules, cora.corpus.linked_article)
    return retriever, sharding.fetch(retriever.init(s.seed, weights))


def _retriever(settings, config: BertConfig, tokenizer: str, mesh, rules, article_key=None):
    check_buckets(config, settings.retriever_format)
    return Retriever(
        settings.biencoder(config),
        settings.retriever,
        settings.retriever_optimizer,
        settings.retriever_format,
        tokenizer,
        mesh,
        rules,
        article_key,
        settings.profile,
        settings.corpus.passage_names,
    )


def left_out_note(settings) -> str:
    """What a run without mGEN says of it: the output, the report and the dry run."""
    start = settings.generator_model.pretrained and repr(settings.generator_model.pretrained)
    other = "RANDOM weights unless --config.generator_model.pretrained=FOLDER_OR_ID is given"
    return (
        "mGEN is left out (generate=False): passages are retrieved and scored, no question is "
        f"answered. --config.generate=True trains it as well, from {start or other}"
    )


def make_generator(cora) -> tuple[Generator | None, dict | None]:
    """The generator of a run and its first parameters, numpy; None when the run only retrieves."""
    s = cora.settings
    if not s.generate:
        cora.run.say(left_out_note(s))
        return None, None
    source = s.generator_model
    folder = source_folder(source, "mt5")
    tokenizer = tokenizer_folder(source, "mt5", cora)
    if folder:
        config, weights = pretrained.load_mt5(folder, **source.sizes)
    else:
        vocabulary = {"vocab_size": load_tokenizer(tokenizer).vocab_size}
        config, weights = Mt5Config(**vocabulary | source.sizes), None
        cora.run.say(
            "mGEN starts from RANDOM weights: give generator_model.pretrained for real answers"
        )
    generator = _generator(s, config, tokenizer, cora.mesh, cora.rules)
    return generator, sharding.fetch(generator.init(s.seed) if weights is None else weights)


def _generator(settings, config: Mt5Config, tokenizer: str, mesh, rules) -> Generator:
    return Generator(
        config,
        settings.generator,
        settings.generator_optimizer,
        settings.generator_format,
        tokenizer,
        mesh,
        rules,
        settings.profile,
    )


def placed(params, axes, mesh, rules):
    """Parameters on the mesh, each in its place."""
    return sharding.place(params, sharding.param_shardings(mesh, params, axes, rules))


def save_retriever(cora, folder, params) -> None:
    """Each tower as a Hugging Face `BertModel` folder (`shared`, or `question` and `passage`)."""
    whole = sharding.fetch(params)
    for name, tower in whole.items() if hosts.is_first() else ():
        files = tokenizer_files(cora.retriever.tokenizer_folder)
        pretrained.save_bert(folder / name, cora.retriever.model.bert, tower["bert"], files)
        if "projection" in tower:
            _save_projection(folder / name, tower["projection"])


def load_retriever(cora, folder) -> dict:
    """Reads what `save_retriever` wrote in `folder`/model, as numpy."""
    towers = ("shared",) if cora.retriever.model.tied else ("question", "passage")
    folders = {name: folder / "model" / name for name in towers}
    return sharding.fetch({k: _load_tower(cora.settings, path)[1] for k, path in folders.items()})


def open_question_encoder(settings, folder, mesh, rules) -> tuple[Retriever, dict]:
    """A retriever that only encodes questions, from what `save_retriever` wrote in `folder`/model.

    Of separate towers, that of the questions alone is read.
    """
    name = "shared" if settings.retriever_head.get("tied", False) else "question"
    path = folder / "model" / name
    config, tower = _load_tower(settings, path)
    retriever = _retriever(settings, config, str(path), mesh, rules)
    return retriever, placed({name: tower}, RETRIEVER_AXES, mesh, rules)


def _load_tower(settings, folder) -> tuple[BertConfig, dict]:
    config, weights = pretrained.load_bert(folder, **settings.retriever_model.sizes)
    tower = {"bert": weights}
    if settings.retriever_head.get("projection"):
        tower["projection"] = load_projection(folder)
    return config, tower


def _save_projection(folder, projection: dict) -> None:
    from safetensors.flax import save

    with atomic_write(folder / PROJECTION, "wb") as file:
        file.write(save(projection))


def load_projection(folder) -> dict:
    """The linear layer on top of a tower that `save_retriever` wrote with one: kernel, bias."""
    from safetensors.flax import load

    return load((folder / PROJECTION).read_bytes())


def save_generator(cora, folder, params) -> None:
    """A Hugging Face `MT5ForConditionalGeneration` folder."""
    whole = sharding.fetch(params)
    if hosts.is_first():
        files = tokenizer_files(cora.generator.tokenizer_folder)
        pretrained.save_mt5(folder, cora.generator.model, whole, files)


def load_generator(cora, folder) -> dict:
    """Reads what `save_generator` wrote in `folder`/model, as numpy."""
    _, weights = pretrained.load_mt5(folder / "model", **cora.settings.generator_model.sizes)
    return sharding.fetch(weights)


def open_generator(settings, folder, mesh, rules) -> tuple[Generator, dict]:
    """The generator that `save_generator` wrote in `folder`/model, without a run around it."""
    config, weights = pretrained.load_mt5(folder / "model", **settings.generator_model.sizes)
    generator = _generator(settings, config, str(folder / "model"), mesh, rules)
    return generator, placed(weights, GENERATOR_AXES, mesh, rules)


def tokenizer_files(folder_or_id: str) -> list:
    """The tokenizer's files in a model folder, to be copied beside trained weights."""
    folder = pretrained.resolve_folder(folder_or_id)
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    return [folder / n for n in (*names, *SENTENCEPIECE_FILES) if (folder / n).exists()]
