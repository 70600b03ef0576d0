"""Makes the golden files beside it from PyTorch models of Hugging Face transformers.

    python tests/golden/make_goldens.py                           # all but e5.npz
    python tests/golden/make_goldens.py --e5=FOLDER --data=FOLDER # e5.npz alone

Needs torch and transformers 5; the tests that read the files need neither. Per model:
  NAME/             the folder `save_pretrained` wrote (config.json, model.safetensors)
  NAME.npz          inputs, activations and outputs in float32
  NAME_grads.safetensors   gradient of the loss in NAME.npz with respect to every weight
generate.npz: what `generate` answers for 24 inputs under every setting of generate.json.
e5.npz: embeddings of 50 real sentences by the real multilingual-e5-small.
All weights are random but fixed by seed, wide enough that no term of a formula hides in rounding.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from e5_sentences import digest, read_sentences
from safetensors.numpy import save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

HERE = pathlib.Path(__file__).parent

BERTS = {
    "bert_wide": dict(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=20, type_vocab_size=2,
    ),
    "bert_deep": dict(
        vocab_size=61, hidden_size=24, num_hidden_layers=4, num_attention_heads=3,
        intermediate_size=40, max_position_embeddings=16, type_vocab_size=1,
        layer_norm_eps=1e-5, pad_token_id=1,
    ),
}  # fmt: skip
T5S = {
    "mt5_square": dict(
        vocab_size=48, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2,
        num_heads=4, relative_attention_num_buckets=8, relative_attention_max_distance=20,
    ),
    "mt5_narrow": dict(
        vocab_size=53, d_model=24, d_kv=6, d_ff=40, num_layers=1, num_decoder_layers=3,
        num_heads=3, layer_norm_epsilon=1e-5,
    ),
    "t5_tied": dict(
        vocab_size=45, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2,
    ),
}  # fmt: skip
# One entry per search; `generate` of the mt5_square model answers 24 inputs under each.
GENERATE = {
    "greedy": dict(num_beams=1, max_length=12),
    "greedy_min_length": dict(num_beams=1, max_length=12, min_length=8),
    "beams": dict(num_beams=4, max_length=12, num_return_sequences=4),
    "beams_short": dict(num_beams=4, max_length=5, num_return_sequences=2),
    "beams_stop_early": dict(
        num_beams=4, max_length=12, num_return_sequences=4, early_stopping=True
    ),
    "beams_never_early": dict(
        num_beams=4, max_length=12, num_return_sequences=4, early_stopping="never"
    ),
    "beams_penalty_0.6": dict(
        num_beams=4, max_length=12, num_return_sequences=4, length_penalty=0.6
    ),
    "beams_penalty_1.5": dict(
        num_beams=4, max_length=12, num_return_sequences=4, length_penalty=1.5
    ),
    "beams_penalty_1.5_stop_early": dict(
        num_beams=4, max_length=12, num_return_sequences=1, length_penalty=1.5, early_stopping=True
    ),
    "beams_min_length": dict(num_beams=4, max_length=12, num_return_sequences=4, min_length=7),
    "beams_2": dict(num_beams=2, max_length=12, num_return_sequences=1),
}


def lengths_to_mask(lengths: list[int], width: int) -> np.ndarray:
    return np.arange(width)[None] < np.array(lengths)[:, None]


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Every weight, norms and biases included, random and of visible size."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        is_norm = "norm" in name.lower() and name.endswith("weight")
        scale = 0.2 if weight.ndim < 2 else weight.shape[-1] ** -0.5
        weight.data = 1 + 0.2 * noise if is_norm else scale * noise


def save_gradients(name: str, model: torch.nn.Module, loss: torch.Tensor) -> None:
    loss.backward()
    gradients = {k: numpy_of(v.grad) for k, v in model.named_parameters() if v.grad is not None}
    save_file(gradients, HERE / f"{name}_grads.safetensors")


def make_bert(name: str, sizes: dict, seed: int) -> None:
    """Embeddings, first attention, first layer, encoder, pooled vectors, gradients."""
    model = BertModel(BertConfig(**sizes, attn_implementation="eager"), add_pooling_layer=False)
    randomize(model, seed)
    model.eval().save_pretrained(HERE / name)
    rng = np.random.default_rng(seed)
    width = 9
    ids = rng.integers(2, sizes["vocab_size"], (4, width))
    types = rng.integers(0, sizes["type_vocab_size"], (4, width))
    mask = lengths_to_mask([9, 4, 1, 7], width)
    cotangent = rng.standard_normal((4, width, sizes["hidden_size"])).astype(np.float32)
    torch_mask = torch.tensor(mask)
    embedded = model.embeddings(torch.tensor(ids), torch.tensor(types))
    bias = torch.where(torch_mask, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    attended = model.encoder.layer[0].attention(embedded, attention_mask=bias)[0]
    layer = model.encoder.layer[0](embedded, attention_mask=bias)
    layer = layer[0] if isinstance(layer, tuple) else layer
    hidden = model(
        torch.tensor(ids), attention_mask=torch_mask.long(), token_type_ids=torch.tensor(types)
    ).last_hidden_state
    weights = torch_mask[..., None].float()
    mean = (hidden * weights).sum(1) / weights.sum(1)
    one = model(torch.tensor(ids[:, :1])).last_hidden_state
    save_gradients(name, model, (hidden * weights * torch.tensor(cotangent)).sum())
    arrays = dict(
        input_ids=ids, attention_mask=mask, token_type_ids=types, cotangent=cotangent,
        embedded=numpy_of(embedded), attended=numpy_of(attended), layer=numpy_of(layer),
        hidden=numpy_of(hidden), mean=numpy_of(mean), cls=numpy_of(hidden[:, 0]),
        single_token=numpy_of(one),
    )  # fmt: skip
    np.savez_compressed(HERE / f"{name}.npz", **arrays)


def make_t5_model(name: str, seed: int) -> torch.nn.Module:
    """mT5 with its own output matrix; T5 v1.1 tied (transformers 5 scales only the latter)."""
    common = dict(feed_forward_proj="gated-gelu", attn_implementation="eager", **T5S[name])
    if name.startswith("mt5"):
        model = MT5ForConditionalGeneration(MT5Config(**common))
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    else:
        config = T5Config(decoder_start_token_id=0, tie_word_embeddings=True, **common)
        model = T5ForConditionalGeneration(config)
    randomize(model, seed)
    if name.startswith("mt5"):
        # sharp enough that hypotheses differ; the end token now very likely, now very unlikely
        model.lm_head.weight.data *= 3
        model.lm_head.weight.data[1] *= 2
    return model.eval()


def make_t5(name: str, seed: int) -> None:
    """Encoder, first encoder attention, decoder logits, loss, position buckets, gradients."""
    model = make_t5_model(name, seed)
    model.save_pretrained(HERE / name)
    if name.startswith("t5"):  # the configuration drops the key, older readers need it
        path = HERE / name / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "tie_word_embeddings": True}, indent=2) + "\n")
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, T5S[name]["vocab_size"], (4, 11))
    mask = lengths_to_mask([11, 1, 6, 9], 11)
    targets = rng.integers(2, T5S[name]["vocab_size"], (4, 7))
    target_mask = lengths_to_mask([7, 3, 1, 5], 7)
    labels = torch.tensor(np.where(target_mask, targets, -100))
    targets = np.where(target_mask, targets, 0)
    out = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long(), labels=labels)
    first = model.encoder.block[0].layer[0]
    embedded = model.shared(torch.tensor(ids))
    bias = torch.where(torch.tensor(mask), 0.0, torch.finfo(torch.float32).min)[:, None, None]
    bias = bias + first.SelfAttention.compute_bias(11, 11)
    attended = first.SelfAttention(first.layer_norm(embedded), position_bias=bias)[0]
    distance = torch.arange(-300, 301)
    buckets = {}
    for bidirectional in (True, False):
        for count, limit in ((32, 128), (8, 20), (16, 64)):
            key = f"buckets_{int(bidirectional)}_{count}_{limit}"
            bucket = first.SelfAttention._relative_position_bucket
            buckets[key] = numpy_of(bucket(distance, bidirectional, count, limit))
    save_gradients(name, model, out.loss)
    arrays = dict(
        input_ids=ids, attention_mask=mask, targets=targets, target_mask=target_mask,
        attended=numpy_of(attended), encoded=numpy_of(out.encoder_last_hidden_state),
        logits=numpy_of(out.logits), loss=numpy_of(out.loss), **buckets,
    )  # fmt: skip
    np.savez_compressed(HERE / f"{name}.npz", **arrays)


def make_generate(seed: int) -> None:
    """`generate` under every setting. Sequences are cut behind their end token and padded with 0:
    transformers fills the rest of a beam with the end token where the pad id is 0."""
    model = make_t5_model("mt5_square", seed)
    rng = np.random.default_rng(seed + 1)
    ids = rng.integers(2, T5S["mt5_square"]["vocab_size"], (24, 10))
    mask = lengths_to_mask([1 + i % 10 for i in range(24)], 10)
    arrays = {"input_ids": ids, "attention_mask": mask}
    for name, setting in GENERATE.items():
        out = model.generate(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long(),
            do_sample=False, return_dict_in_generate=True, output_scores=True, **setting,
        )  # fmt: skip
        width, n_best = setting["max_length"], setting.get("num_return_sequences", 1)
        tokens = np.zeros((24 * n_best, width), np.int32)
        for row, sequence in enumerate(numpy_of(out.sequences)):
            ends = np.flatnonzero(sequence[1:] == 1)
            length = ends[0] + 2 if len(ends) else len(sequence)
            tokens[row, :length] = sequence[:length]
        arrays[f"{name}/tokens"] = tokens.reshape(24, n_best, width)
        if setting["num_beams"] > 1:
            arrays[f"{name}/scores"] = numpy_of(out.sequences_scores).reshape(24, n_best)
        lengths = (tokens != 0).sum(1) + 1
        print(f"{name}: lengths {np.bincount(lengths)}")
    np.savez_compressed(HERE / "generate.npz", **arrays)
    (HERE / "generate.json").write_text(json.dumps(GENERATE, indent=1) + "\n")


def make_e5(folder: str, data: pathlib.Path) -> None:
    """Mean-pooled unit embeddings of real sentences, real weights, float32, one by one."""
    rows = read_sentences(data)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    vectors = []
    with torch.inference_mode():
        for _, text in rows:
            inputs = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            vectors.append(model(**inputs).last_hidden_state[0].mean(0))
    embeddings = numpy_of(torch.nn.functional.normalize(torch.stack(vectors), dim=-1))
    ids = np.array([row[0] for row in rows])
    np.savez_compressed(HERE / "e5.npz", ids=ids, sha256=digest(rows), embeddings=embeddings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--e5", help="folder of multilingual-e5-small; makes e5.npz alone")
    parser.add_argument("--data", type=pathlib.Path, help="data folder that e5_sentences names")
    args = parser.parse_args()
    if args.e5:
        make_e5(args.e5, args.data)
        return
    for seed, (name, sizes) in enumerate(BERTS.items()):
        make_bert(name, sizes, seed)
    for seed, name in enumerate(T5S):
        make_t5(name, 10 + seed)
    make_generate(10)


if __name__ == "__main__":
    main()
