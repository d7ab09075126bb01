"""Writes tiny random models, one directory per decoder variant, with goldens.json and goldens.f32.

Each directory is what save_pretrained would give (config.json, safetensors); goldens come from
loading it again with transformers (and PEFT) and computing in float32 on the CPU. Read by the
native decoder tests.  Run:  python test/golden/families/make_families.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = Path(__file__).resolve().parent
GREEDY_TOKENS = 24
MIN_MARGIN = 0.05
DYNAMIC_CONTEXT = 128  # where the base of `dynamic` is frozen: factor x max_position_embeddings

SHAPE = dict(vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
             bos_token_id=None, eos_token_id=2, pad_token_id=0)


def rope(theta: float = 10000.0, rope_type: str = "default", **more) -> dict:
    return {"rope_parameters": {"rope_theta": theta, "rope_type": rope_type, **more}}


# name -> (config class, model class, config changes, stored type, config.json form, shard size)
# Forms: "new" as transformers 5 writes it; "classic" with rope_theta, rope_scaling and torch_dtype.
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
LLAMA = (LlamaConfig, LlamaForCausalLM)
FAMILIES: dict[str, tuple] = {
    "llama-gqa": (*LLAMA, rope(), BF16, "classic", None),
    "llama-mha": (*LLAMA, dict(num_attention_heads=2, num_key_value_heads=2) | rope(), BF16, "classic", None),
    "llama-mqa": (*LLAMA, dict(num_key_value_heads=1) | rope(), BF16, "new", None),
    "llama-rope-llama3": (*LLAMA, rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                       original_max_position_embeddings=32), BF16, "classic", None),
    "llama-rope-linear": (*LLAMA, rope(10000.0, "linear", factor=4.0), BF16, "new", None),
    "llama-rope-yarn": (*LLAMA, rope(1000.0, "yarn", factor=4.0, original_max_position_embeddings=32), BF16, "new", None),
    "llama-rope-dynamic": (*LLAMA, dict(max_position_embeddings=32) | rope(1000.0, "dynamic", factor=4.0), BF16, "classic", None),
    "llama-untied": (*LLAMA, dict(tie_word_embeddings=False, intermediate_size=32) | rope(), BF16, "classic", None),
    "llama-sharded": (*LLAMA, rope(), BF16, "new", "20KB"),
    "llama-f16": (*LLAMA, rope(), F16, "classic", None),
    "llama-f32": (*LLAMA, dict(num_attention_heads=2, num_key_value_heads=1, intermediate_size=16) | rope(), F32, "classic", None),
    "mistral-sliding": (MistralConfig, MistralForCausalLM, dict(sliding_window=16) | rope(), BF16, "classic", None),
    "qwen2-bias": (Qwen2Config, Qwen2ForCausalLM, dict(num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6) | rope(1e6), BF16, "classic", None),
    "qwen3-qk-norm": (Qwen3Config, Qwen3ForCausalLM, dict(num_attention_heads=2, num_key_value_heads=1, head_dim=32,
                                                         intermediate_size=32, rms_norm_eps=1e-6) | rope(1e6), BF16, "new", None),
}
ADAPTERS = {  # model -> (adapter name, LoRA settings)
    "llama-gqa": ("all-r8", dict(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
    "qwen3-qk-norm": ("qv-r4", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
}


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough that attention is sharp and every bias, norm and rotation shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.copy_(1.0 + 0.3 * noise)
        elif name.endswith("bias") or "embed_tokens" in name:
            parameter.copy_(0.5 * noise)
        else:
            parameter.copy_(1.2 * noise / parameter.shape[-1] ** 0.5)


def classic_config(path: Path) -> None:
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    # The oldest files say "type", later ones "rope_type".
    config["rope_scaling"] = None if kind == "default" else {"type" if kind == "dynamic" else "rope_type": kind, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def load(directory: Path, dtype: torch.dtype, adapter: Path | None):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    rotary = model.model.rotary_emb
    if rotary.rope_type == "dynamic":
        # A token must not depend on how long its batch has grown: the base is that of the whole context.
        rotary.inv_freq, rotary.attention_scaling = ROPE_INIT_FUNCTIONS["dynamic"](model.config, torch.device("cpu"), seq_len=DYNAMIC_CONTEXT)
        rotary.rope_type = "default"
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).to(dtype).eval()
    return model


def greedy(model, prompt: list[int]) -> tuple[list[int], float]:
    ids, margin = list(prompt), float("inf")
    for _ in range(GREEDY_TOKENS):
        best = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(prompt):], margin


@torch.no_grad()
def main() -> None:
    entries, floats, offset = [], [], 0
    for index, (name, (config_class, model_class, changes, dtype, form, shard)) in enumerate(FAMILIES.items()):
        directory = HERE / name
        shutil.rmtree(directory, ignore_errors=True)
        model = model_class(config_class(**(SHAPE | changes)))
        randomize(model, 100 + index)
        model = model.to(dtype)
        model.save_pretrained(directory, **({"max_shard_size": shard} if shard else {}))
        if form == "classic":
            classic_config(directory / "config.json")
        adapters: list[tuple[str | None, Path | None]] = [(None, None)]
        if name in ADAPTERS:
            adapter_name, settings = ADAPTERS[name]
            path = directory / "adapters" / adapter_name
            path.mkdir(parents=True)
            config = LoraConfig(task_type="CAUSAL_LM", **settings)
            adapted = get_peft_model(load(directory, F32, None), config)
            generator = torch.Generator().manual_seed(200 + index)
            state = {k: (torch.randn(v.shape, generator=generator) * 0.25).to(BF16) for k, v in get_peft_model_state_dict(adapted).items()}
            save_file(state, path / "adapter_model.safetensors", metadata={"format": "pt"})
            config.inference_mode, config.base_model_name_or_path = True, name
            config.save_pretrained(path)
            saved = json.loads((path / "adapter_config.json").read_text())
            saved["target_modules"].sort()
            (path / "adapter_config.json").write_text(json.dumps(saved, indent=2) + "\n")
            adapters.append((adapter_name, path))
        for adapter_name, path in adapters:
            exact, rounded = load(directory, F32, path), load(directory, BF16, path)
            for seed in range(100):
                generator = torch.Generator().manual_seed(1000 * index + seed)
                length = int(torch.randint(40, 61, (1,), generator=generator))
                prompt = torch.randint(3, 128, (length,), generator=generator).tolist()
                tokens, margin = greedy(exact, prompt)
                if margin >= MIN_MARGIN:
                    break
            else:
                raise SystemExit(f"{name}: every greedy continuation has a race closer than {MIN_MARGIN}")
            rows = [length - 1, length // 2, 17, 0]
            reference = exact(torch.tensor([prompt]), use_cache=False).logits[0, rows]
            error = float((rounded(torch.tensor([prompt]), use_cache=False).logits[0, rows].float() - reference).norm() / reference.norm())
            entry = {"model": name, "adapter": adapter_name, "promptTokens": prompt, "rows": rows, "offset": offset,
                     "vocab": reference.shape[1], "greedy": tokens, "greedyMargin": round(margin, 4), "bf16RelErr": error}
            if name == "llama-rope-dynamic":
                entry["contextTokens"] = DYNAMIC_CONTEXT
            entries.append(entry)
            floats.append(reference.numpy().astype("<f4").ravel())
            offset += floats[-1].size
            print(name, adapter_name, length, "tokens, margin", round(margin, 3), f"bf16 {error:.1e}, logits {reference.std():.2f}")
    np.concatenate(floats).tofile(HERE / "goldens.f32")
    (HERE / "goldens.json").write_text("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n")


if __name__ == "__main__":
    main()
