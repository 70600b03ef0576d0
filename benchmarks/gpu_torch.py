"""One measurement in PyTorch with transformers: the other side of benchmarks/gpu.py, which starts it.

python benchmarks/gpu_torch.py FOLDER

FOLDER holds `case.json` (kind, sizes, optimizer, how often to measure) and `batch.npz`. Prints JSON
{"seconds": of every repeat, "device", "version"}. As one would write it: fused attention kernels where
transformers has them, fused AdamW; training in mixed precision by autocast, inference with all
weights in bfloat16; gradient checkpointing where our side recomputes.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from clock import seconds_per_call
from dual_bert_torch import DualBert


def main() -> None:
    """Measures the case of the folder."""
    folder = sys.argv[1]
    with open(f"{folder}/case.json", encoding="utf-8") as file:
        case = json.load(file)
    on_card = torch.cuda.is_available()
    if not on_card and case["dtype"] != "float32":
        sys.exit("PyTorch finds no CUDA device")
    device = torch.device("cuda" if on_card else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    arrays = np.load(f"{folder}/batch.npz")
    batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    batch = {k: v.long() if v.dtype == torch.int32 else v for k, v in batch.items()}
    call = KINDS[case["kind"]](case, batch, device)
    wait = (lambda _: torch.cuda.synchronize()) if on_card else (lambda _: None)
    seconds = seconds_per_call(call, wait, case["repeats"], case["calls"])
    name = torch.cuda.get_device_name() if on_card else "cpu"
    print(json.dumps({"seconds": seconds, "device": name, "version": torch.__version__}))


def _bert(case: dict):
    config = transformers.BertConfig(**case["sizes"], attn_implementation="sdpa")
    return transformers.BertModel(config, add_pooling_layer=False)


def _compiled(case: dict, model):
    return torch.compile(model) if case["compile"] else model


def _updates(case: dict, models: list, loss):
    """call() -> loss of one more update of all parameters."""
    groups = [[], []]
    for model in models:
        model.train()
        for parameter in model.parameters():
            groups[parameter.ndim < 2].append(parameter)  # biases and norms do not decay
    decays = case["weight_decay"], 0.0
    optimizer = torch.optim.AdamW(
        [{"params": part, "weight_decay": decay} for part, decay in zip(groups, decays)],
        lr=case["learning_rate"],
        fused=True,
    )
    device, mixed = groups[0][0].device.type, case["dtype"] == "bfloat16"

    def call():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(groups[0] + groups[1], case["clip_norm"])
        optimizer.step()
        return value

    return call


def _mdpr(case, batch, device):
    towers = {side: _bert(case).to(device) for side in ("question", "passage")}
    compiled = {side: _compiled(case, tower) for side, tower in towers.items()}
    batch = {k: v.flatten(0, -2) for k, v in batch.items() if k.endswith(("_ids", "_mask"))}

    def loss():
        vectors = [
            tower(batch[f"{side}_ids"], batch[f"{side}_mask"]).last_hidden_state[:, 0]
            for side, tower in compiled.items()
        ]
        scores = (vectors[0] @ vectors[1].T).float()
        contexts = scores.shape[1] // scores.shape[0]
        return F.cross_entropy(scores, contexts * torch.arange(len(scores), device=device))

    return _updates(case, list(towers.values()), loss)


def _encode(case, batch, device):
    model = _compiled(case, _bert(case).to(device, getattr(torch, case["dtype"])).eval())

    def call():
        with torch.inference_mode():
            return model(batch["ids"], batch["mask"]).last_hidden_state[:, 0].float()

    return call


def _mt5(case, device):
    return transformers.MT5ForConditionalGeneration(transformers.MT5Config(**case["sizes"])).to(
        device
    )


def _seq2seq(case, batch, device):
    model = _mt5(case, device)
    if case["remat"]:
        model.gradient_checkpointing_enable()
    compiled = _compiled(case, model)
    labels = batch["decoder_target_tokens"].masked_fill(~batch["decoder_mask"], -100)
    inputs = {"input_ids": batch["encoder_input_tokens"], "attention_mask": batch["encoder_mask"]}
    return _updates(case, [model], lambda: compiled(**inputs, labels=labels, use_cache=False).loss)


def _generate(case, batch, device):
    model = _mt5(case, device).to(getattr(torch, case["dtype"])).eval()
    length = case["max_length"]
    options = {"num_beams": case["beams"], "max_length": length, "min_length": length}
    options |= {"length_penalty": case["length_penalty"], "do_sample": False}

    def call():
        with torch.inference_mode():
            mask = batch["mask"].long()
            return model.generate(input_ids=batch["ids"], attention_mask=mask, **options)

    return call


def _dual_bert(case, batch, device):
    rng = np.random.default_rng(0)
    variables = {
        name: np.ones(shape, np.float32)
        if name.endswith("gamma")
        else 0.02 * rng.standard_normal(shape, np.float32)
        for name, shape in case["variables"].items()
    }
    model = DualBert(case, variables).to(device)
    compiled = _compiled(case, model)
    return _updates(case, [model], lambda: compiled(batch))


KINDS = {
    "mdpr": _mdpr,
    "encode": _encode,
    "seq2seq": _seq2seq,
    "generate": _generate,
    "dual_bert": _dual_bert,
}


if __name__ == "__main__":
    main()
