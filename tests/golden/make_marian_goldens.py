"""Makes the golden files of the Marian tests from PyTorch models of Hugging Face transformers.

    python tests/golden/make_marian_goldens.py

Needs torch, transformers 5 and sentencepiece; the tests that read the files need only the last.
marian_swish, marian_relu, marian_gelu:
  NAME/                    what `save_pretrained` wrote (config.json, model.safetensors)
  NAME.npz                 inputs, encoder states, logits, loss
  NAME_grads.safetensors   gradient of the loss with respect to every weight
marian_generate.npz: what `generate` of marian_swish answers for 24 inputs under every setting of
marian_generate.json. Weights are random but fixed by seed.
"""

import json

import numpy as np
import torch
from make_goldens import HERE, lengths_to_mask, numpy_of, randomize, save_gradients
from transformers import MarianConfig, MarianMTModel

COMMON = dict(
    encoder_ffn_dim=48, decoder_ffn_dim=40, eos_token_id=0, forced_eos_token_id=0,
    attn_implementation="eager", scale_embedding=True,
)  # fmt: skip
SIZES = {
    "marian_swish": dict(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=2, activation_function="swish", max_position_embeddings=24,
    ),
    "marian_relu": dict(
        vocab_size=41, d_model=24, encoder_layers=1, decoder_layers=3, encoder_attention_heads=3,
        decoder_attention_heads=4, activation_function="relu", max_position_embeddings=16,
    ),
    "marian_gelu": dict(
        vocab_size=37, d_model=18, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=3, activation_function="gelu", max_position_embeddings=16,
        scale_embedding=False,
    ),
}  # fmt: skip
# One entry per search. PAD stands for [[padding id]]: it is banned in every published folder.
GENERATE = {
    "greedy": dict(num_beams=1, max_length=14, bad_words_ids="PAD"),
    "greedy_short": dict(num_beams=1, max_length=5, bad_words_ids="PAD"),
    "beams": dict(num_beams=4, max_length=14, bad_words_ids="PAD"),
    "beams_renormalized": dict(
        num_beams=4, max_length=14, bad_words_ids="PAD", renormalize_logits=True
    ),
    "beams_short": dict(num_beams=4, max_length=5, bad_words_ids="PAD", renormalize_logits=True),
    "beams_penalty_0.6": dict(
        num_beams=4, max_length=14, bad_words_ids="PAD", renormalize_logits=True, length_penalty=0.6
    ),
    "beams_stop_early": dict(
        num_beams=4, max_length=14, bad_words_ids="PAD", renormalize_logits=True,
        early_stopping=True,
    ),
    "beams_6": dict(num_beams=6, max_length=14, bad_words_ids="PAD", renormalize_logits=True),
    "beams_unforced": dict(num_beams=4, max_length=6, forced_eos_token_id=None),
}  # fmt: skip


def make_model(name: str, seed: int) -> torch.nn.Module:
    """Random weights; the end token and the padding (which must be banned) are likely."""
    sizes = {**COMMON, **SIZES[name]}
    pad = sizes["vocab_size"] - 1
    config = MarianConfig(**sizes, pad_token_id=pad, decoder_start_token_id=pad)
    model = MarianMTModel(config)
    randomize(model, seed)
    # the positions are frozen parameters, not weights: back to sines and cosines
    for stack in (model.model.encoder, model.model.decoder):
        stack.embed_positions.weight.data = stack.embed_positions.create_weight()
    generator = torch.Generator().manual_seed(seed + 1)
    bias = 0.3 * torch.randn(model.final_logits_bias.shape, generator=generator)
    bias[0, 0] = bias[0, pad] = 2.0
    model.final_logits_bias.copy_(bias)
    sharpen(model)
    return model.eval()


def sharpen(model: torch.nn.Module) -> None:
    """Hypotheses that differ, instead of one token for ever: less of the embedding comes through
    the residual connections to the tied output, and the logits are larger."""
    model.model.shared.weight.data *= 0.5
    layers = model.model.decoder.layers
    for layer in layers:
        layer.encoder_attn.out_proj.weight.data *= 2
        layer.fc2.weight.data *= 2
        layer.encoder_attn.q_proj.weight.data *= 3
        layer.self_attn.q_proj.weight.data *= 3
    layers[-1].fc2.weight.data *= 3
    layers[-1].final_layer_norm.weight.data *= 4


def make_outputs(name: str, seed: int) -> None:
    """Encoder states, logits of every decoder position, loss, gradients."""
    model = make_model(name, seed)
    model.save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    vocabulary, pad = model.config.vocab_size, model.config.pad_token_id
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, vocabulary - 1, (4, 11))
    mask = lengths_to_mask([11, 1, 6, 9], 11)
    targets = rng.integers(1, vocabulary - 1, (4, 7))
    target_mask = lengths_to_mask([7, 3, 1, 5], 7)
    labels = torch.tensor(np.where(target_mask, targets, -100))
    out = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long(), labels=labels)
    save_gradients(name, model, out.loss)
    arrays = dict(
        input_ids=ids, attention_mask=mask, targets=np.where(target_mask, targets, pad),
        target_mask=target_mask, encoded=numpy_of(out.encoder_last_hidden_state),
        logits=numpy_of(out.logits), loss=numpy_of(out.loss),
        positions=numpy_of(model.model.encoder.embed_positions.weight),
    )  # fmt: skip
    np.savez_compressed(HERE / f"{name}.npz", **arrays)


def make_generate(seed: int) -> None:
    """`generate` under every setting, sequences padded with the padding id to max_length."""
    model = make_model("marian_swish", seed)
    pad = model.config.pad_token_id
    rng = np.random.default_rng(seed + 1)
    ids = rng.integers(1, pad, (24, 10))
    mask = lengths_to_mask([1 + i % 10 for i in range(24)], 10)
    arrays = {"input_ids": ids, "attention_mask": mask}
    for name, setting in GENERATE.items():
        given = {"forced_eos_token_id": 0} | setting
        if "bad_words_ids" in given:
            given["bad_words_ids"] = [[pad]]
        out = model.generate(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long(),
            do_sample=False, return_dict_in_generate=True, output_scores=True, **given,
        )  # fmt: skip
        sequences = numpy_of(out.sequences)
        tokens = np.full((24, setting["max_length"]), pad, np.int32)
        tokens[:, : sequences.shape[1]] = sequences
        arrays[f"{name}/tokens"] = tokens
        if setting["num_beams"] > 1:
            arrays[f"{name}/scores"] = numpy_of(out.sequences_scores)
        ends = [list(row[1:]).index(0) + 2 if 0 in row[1:] else -1 for row in tokens.tolist()]
        print(f"{name}: ends {np.bincount(np.array(ends) + 1)}, pads {(tokens[:, 1:3] == pad).sum()}")
    np.savez_compressed(HERE / "marian_generate.npz", **arrays)
    (HERE / "marian_generate.json").write_text(json.dumps(GENERATE, indent=1) + "\n")


def main() -> None:
    for seed, name in enumerate(SIZES):
        make_outputs(name, 20 + seed)
    make_generate(20)


if __name__ == "__main__":
    main()
