"""Makes random LoRA adapters for the benchmark: standard PEFT directories, all seven projections.

Speed does not depend on the values, so they are noise of a size that keeps the logits finite:
8 adapters of rank 16 in bfloat16 are 78 MB. Needs only numpy (the environment of make-gguf.py).

    python make-adapters.py [--model DIR] [--out DIR] [--count 8] [--rank 16]
"""

import argparse
import json
import struct
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=REPO / ".cache/models/SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=REPO / ".cache/bench/adapters")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    config = json.loads((args.model / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q_rows = head_dim * config["num_attention_heads"]
    kv_rows = head_dim * config["num_key_value_heads"]
    modules = {  # name -> (d_out, d_in)
        "self_attn.q_proj": (q_rows, hidden),
        "self_attn.k_proj": (kv_rows, hidden),
        "self_attn.v_proj": (kv_rows, hidden),
        "self_attn.o_proj": (hidden, q_rows),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for index in range(args.count):
        out = args.out / f"random-{index}"
        out.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(index)
        header, chunks, offset = {"__metadata__": {"format": "pt"}}, [], 0

        def add(name: str, values: np.ndarray) -> None:
            nonlocal offset
            # float32 -> bfloat16 by truncation: noise needs no better rounding
            data = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
            end = offset + len(data)
            shape = list(values.shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
            chunks.append(data)
            offset = end

        for layer in range(config["num_hidden_layers"]):
            for module, (d_out, d_in) in modules.items():
                key = f"base_model.model.model.layers.{layer}.{module}"
                a = random.standard_normal((args.rank, d_in)) / d_in**0.5
                add(f"{key}.lora_A.weight", a)  # [r, d_in]
                add(f"{key}.lora_B.weight", random.standard_normal((d_out, args.rank)) * 0.005)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        temporary = out / "adapter_model.safetensors.tmp"
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.writelines(chunks)
        temporary.rename(out / "adapter_model.safetensors")
        adapter_config = {
            "base_model_name_or_path": args.model.name,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "lora_alpha": 2 * args.rank,
            "lora_dropout": 0.0,
            "peft_type": "LORA",
            "r": args.rank,
            "target_modules": sorted(name.split(".")[1] for name in modules),
            "task_type": "CAUSAL_LM",
        }
        (out / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2) + "\n")
        print(f"{out} {offset / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
