"""Writes one small PEFT adapter per format beside this file, with goldens.json and goldens.f32.

Their base models are those of test/golden/families. Each adapter is made by PEFT, its weights drawn
at random, saved as PEFT saves it, loaded again and computed in float32 on the CPU. Read by
test/e2e/goldens.test.ts.  Run:  python test/golden/formats/make_formats.py
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
FAMILIES = HERE.parent / "families"
sys.path.append(str(FAMILIES))
from make_families import MIN_MARGIN, greedy  # noqa: E402

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name -> (base model, LoRA settings, save_pretrained's arguments)
TIED, UNTIED, BIASED = "llama-gqa", "llama-untied", "qwen2-bias"
FORMATS: dict[str, tuple[str, dict, dict]] = {
    "torch-file": (TIED, dict(r=6, lora_alpha=12, target_modules=SEVEN), dict(safe_serialization=False)),
    # B with a bias; ranks by module.
    "lora-bias": (BIASED, dict(r=4, lora_alpha=6, target_modules=SEVEN, lora_bias=True, rank_pattern={"v_proj": 3}), {}),
    "dora": (TIED, dict(r=4, lora_alpha=8, target_modules=SEVEN, use_dora=True), {}),
    "dora-bias": (BIASED, dict(r=5, lora_alpha=4, target_modules=SEVEN, use_dora=True, use_rslora=True), {}),
    # LoRA on the head and the embedding. PEFT saves their own weights with it, if it may.
    "head": (TIED, dict(r=3, lora_alpha=6, target_modules=["q_proj", "lm_head"]), dict(save_embedding_layers=False)),
    "head-untied": (UNTIED, dict(r=4, lora_alpha=4, target_modules=["lm_head"], lora_bias=True), dict(save_embedding_layers=False)),
    "embedding": (TIED, dict(r=4, lora_alpha=8, target_modules=["v_proj", "embed_tokens"]), dict(save_embedding_layers=False)),
    "embedding-head": (UNTIED, dict(r=5, lora_alpha=5, target_modules=["embed_tokens", "lm_head", "o_proj"]), {}),
    "dora-embedding-head": (UNTIED, dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "lm_head"], use_dora=True), {}),
    "lora-tying": (TIED, dict(r=4, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True), {}),
    # Whole modules, trained.
    "saved-embedding": (TIED, dict(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"]), {}),
    "saved-head": (TIED, dict(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]), {}),
    "saved-both": (UNTIED, dict(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), {}),
    "saved-both-tied": (TIED, dict(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), {}),
    "saved-tying": (TIED, dict(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True), {}),
    # The base's own embeddings in the file, which were changed before: PEFT loads them over the base's.
    "layers-saved": (TIED, dict(r=4, target_modules=["q_proj"]), dict(save_embedding_layers=True)),
    "layers-saved-untied": (UNTIED, dict(r=4, target_modules=["q_proj"]), dict(save_embedding_layers=True)),
    "layers-saved-lora": (TIED, dict(r=4, target_modules=["q_proj", "embed_tokens"]), dict(save_embedding_layers=True)),
    # Activated LoRA: from the last occurrence of these tokens on. Prompts hold them twice; or not at all.
    "alora": (TIED, dict(r=4, lora_alpha=8, target_modules=SEVEN, alora_invocation_tokens=[7, 11, 7]), {}),
    "alora-biased-base": (BIASED, dict(r=3, target_modules=["q_proj", "down_proj"], alora_invocation_tokens=[90, 4]), {}),
}
INVOKED_AT = (9, 30)


@torch.no_grad()
def change_embeddings(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in dict.fromkeys([model.get_input_embeddings().weight, model.get_output_embeddings().weight]):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_((parameter + 0.3 * parameter.std() * noise).to(torch.bfloat16))


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int) -> None:
    """What was trained: LoRA's matrices and biases, magnitudes near what they start at, whole modules."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" not in name and ".modules_to_save." not in name:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_magnitude_vector" in name:
            parameter.mul_(1 + 0.3 * noise)
        elif "lora_" in name:
            parameter.copy_(0.25 * noise)
        else:
            parameter.copy_((parameter + 0.3 * parameter.std() * noise).to(torch.bfloat16))


def base(name: str, dtype: torch.dtype):
    return AutoModelForCausalLM.from_pretrained(FAMILIES / name, dtype=dtype).eval()


def save(name: str, model_name: str, settings: dict, arguments: dict, seed: int) -> Path:
    config = LoraConfig(task_type="CAUSAL_LM", **settings)
    plain = base(model_name, torch.float32)
    if name.startswith("layers-saved"):
        change_embeddings(plain, seed)
    model = get_peft_model(plain, config)
    randomize(model, seed)
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path, **arguments)
    (path / "README.md").unlink(missing_ok=True)
    config_path = path / "adapter_config.json"
    saved = json.loads(config_path.read_text())
    saved["base_model_name_or_path"] = model_name
    for field in ("target_modules", "modules_to_save"):
        if isinstance(saved[field], list):
            saved[field].sort()
    config_path.write_text(json.dumps(saved, indent=2) + "\n")
    return path


def load(model_name: str, path: Path, dtype: torch.dtype):
    return PeftModel.from_pretrained(base(model_name, dtype), path, autocast_adapter_dtype=False).to(dtype).eval()


@torch.no_grad()
def main() -> None:
    warnings.simplefilter("ignore")
    entries, floats, offset = [], [], 0
    for index, (name, (model_name, settings, arguments)) in enumerate(FORMATS.items()):
        path = save(name, model_name, settings, arguments, 300 + index)
        exact, rounded = load(model_name, path, torch.float32), load(model_name, path, torch.bfloat16)
        plain = base(model_name, torch.float32)
        for seed in range(100):
            generator = torch.Generator().manual_seed(5000 + 1000 * index + seed)
            length = int(torch.randint(40, 61, (1,), generator=generator))
            prompt = torch.randint(3, 128, (length,), generator=generator).tolist()
            invocation = settings.get("alora_invocation_tokens", [])
            for at in INVOKED_AT:
                prompt[at : at + len(invocation)] = invocation
            tokens, margin = greedy(exact, prompt)
            if margin >= MIN_MARGIN:
                break
        else:
            raise SystemExit(f"{name}: every greedy continuation has a race closer than {MIN_MARGIN}")
        rows = [length - 1, length // 2, 17, 0]
        ids = torch.tensor([prompt])
        reference = exact(ids, use_cache=False).logits[0, rows]
        relative = lambda other: float((other.float() - reference).norm() / reference.norm())
        error = relative(rounded(ids, use_cache=False).logits[0, rows])
        changed = relative(plain(ids, use_cache=False).logits[0, rows])
        assert changed > 0.1, f"{name} changes next to nothing"
        entries.append({"model": model_name, "adapter": name, "promptTokens": prompt, "rows": rows, "offset": offset,
                        "vocab": reference.shape[1], "greedy": tokens, "greedyMargin": round(margin, 4), "bf16RelErr": error})
        floats.append(reference.numpy().astype("<f4").ravel())
        offset += floats[-1].size
        print(name, length, "tokens, margin", round(margin, 3), f"bf16 {error:.1e}, base {changed:.2f}")
    np.concatenate(floats).tofile(HERE / "goldens.f32")
    (HERE / "goldens.json").write_text("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n")


if __name__ == "__main__":
    main()
