"""A checkpoint of the released TensorFlow code becomes a reader's folder: `launch/import_reader.py`.

What `read` answers with, and what `source_model` of a config goes on from (plain readers).
"""

import dataclasses

from etils import epath

from clmrc_jax.data.char_split import char_split_tokenizer
from clmrc_jax.data.span_windows import SpanFormat
from clmrc_jax.data.tokenization import load_tokenizer
from clmrc_jax.files import InputError
from clmrc_jax.models import dual_bert
from clmrc_jax.pipelines.clmrc_settings import Decoding
from clmrc_jax.pipelines.models import tokenizer_files
from clmrc_jax.pipelines.plan import config_of
from clmrc_jax.pipelines.settings import ModelSource
from clmrc_jax.train import official_weights, readers
from clmrc_jax.train.model_folders import resolve_folder

REPLICA_ROWS = 8  # of the released runs: 64 rows on 8 TPU cores


def import_reader(variables: str, bert: str, output: str) -> dict:
    """Writes the folder of a reader; returns {"kind", "output"}.

    variables: `.npz` of TensorFlow's arrays, see `train.official_weights`; its names tell a Dual
        BERT from a plain reader.
    bert: folder or hub id of the encoder that it was trained from, for its sizes and its tokenizer.
    The reader reads and answers as the released code did (mode "official").
    Raises InputError naming variables that do not fit the encoder, and for an output that exists.
    """
    if epath.Path(output).exists():
        raise InputError(f"{output}: exists already; delete it, or give another folder")
    folder = str(resolve_folder(bert))
    config = config_of(ModelSource(folder), "bert", [])
    if config is None:
        raise InputError(f"{folder}: has no config.json with the sizes of the encoder")
    char_split_tokenizer(load_tokenizer(folder))  # what will read with it; it may be missing
    kind = official_weights.reader_kind(variables)
    if kind == "dual":
        model = dual_bert.official(config, lambda_group_size=REPLICA_ROWS)
        params = official_weights.load_dual_bert(variables, model)
    else:
        model, params = config, official_weights.load_span_reader(variables, config)
    longest = min(512, config.max_position_embeddings)
    format = SpanFormat(max_length=longest, source_length=longest, mode="official")
    decoding = Decoding(max_answer_length=40, text="official")
    reading = {"format": dataclasses.asdict(format), "decoding": dataclasses.asdict(decoding)}
    readers.save_reader(output, model, params, tokenizer_files(folder), reading)
    return {"kind": kind, "output": output}
