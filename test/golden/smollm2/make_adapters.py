"""Makes the LoRA adapters that the SmolLM2 goldens are taken with: one per way PEFT writes them.

PEFT itself resolves every config, so target_modules, exclude_modules, patterns and layers mean here
what they mean to its users. Weights are random (fixed seed per name) and scaled so that
||scale B A||_F = `effect` x ||W||_F for every module: the logits clearly move and stay sane.
Writes .cache/goldens/smollm2/adapters/<name>/ and manifest.json, which make_goldens.py reads.

    python test/golden/smollm2/make_adapters.py [--all-subsets]
"""

import argparse
import json
import shutil
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

REPO = Path(__file__).resolve().parents[3]
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
ALL = ATTENTION + MLP
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    name: str
    r: int
    targets: list[str] | str
    alpha: int = 16
    dtype: str = "f32"
    effect: float = 0.1
    config: dict = field(default_factory=dict)  # further LoraConfig arguments
    # Keys as other tools write them. PEFT cannot read such files back, so the goldens are taken
    # with a twin directory whose keys are PEFT's own.
    rename: tuple[str, str] | None = None


def all_cases() -> list[Case]:
    return [
        # One projection each, every rank of the issue and an odd one.
        Case("q-r4", 4, ["q_proj"], alpha=8, effect=0.2),
        Case("k-r5", 5, ["k_proj"], alpha=10, effect=0.2),
        Case("v-r8", 8, ["v_proj"], effect=0.2),
        Case("o-r16", 16, ["o_proj"], alpha=32, effect=0.2),
        Case("gate-r32", 32, ["gate_proj"], effect=0.2),
        Case("up-r64", 64, ["up_proj"], alpha=128, dtype="bf16", effect=0.2),
        Case("down-r3", 3, ["down_proj"], alpha=3, effect=0.2),
        # Groups, in the three element types.
        Case("qv-r8-f16", 8, ["q_proj", "v_proj"], dtype="f16", effect=0.2),
        Case("attention-r8-bf16", 8, ATTENTION, dtype="bf16"),
        Case("mlp-r16-f16", 16, MLP, alpha=32, dtype="f16"),
        Case("all-r4-bf16", 4, ALL, alpha=8, dtype="bf16"),
        Case("all-r16-f32", 16, ALL, alpha=32),
        Case("all-r32-f16", 32, ALL, dtype="f16"),
        Case("all-r64-bf16", 64, ALL, alpha=64, dtype="bf16"),
        Case("all-r1-f32", 1, ALL, alpha=1),
        # Ways to name the modules.
        Case("all-linear-r8", 8, "all-linear", dtype="bf16"),
        Case("regex-layers", 8, r".*layers\.(0|1|5|29)\.(self_attn\.[qv]_proj|mlp\.down_proj)",
             effect=0.3),
        Case("regex-names", 6, r"model\.layers\.\d+\..*\.(k|o|up)_proj", dtype="bf16"),
        Case("suffix-names", 4, ["self_attn.q_proj", "mlp.up_proj"], dtype="f16", effect=0.15),
        Case("exclude-list", 8, "all-linear", dtype="bf16",
             config={"exclude_modules": ["down_proj", "k_proj"]}),
        Case("exclude-regex", 8, ["q_proj", "v_proj", "gate_proj"], effect=0.15,
             config={"exclude_modules": r".*layers\.\d\..*"}),
        Case("layers-one", 16, ALL, effect=0.4, config={"layers_to_transform": 7}),
        Case("layers-list", 8, ["q_proj", "v_proj", "down_proj"], effect=0.4,
             config={"layers_to_transform": [0, 3, 17, 29], "layers_pattern": "layers"}),
        Case("layers-patterns", 5, MLP, dtype="f16", effect=0.2,
             config={"layers_to_transform": list(range(10, 20)),
                     "layers_pattern": ["layers", "h"]}),
        # Ways to scale.
        Case("rslora-r16", 16, ["q_proj", "k_proj", "v_proj", "o_proj"], alpha=4,
             config={"use_rslora": True}),
        Case("rank-pattern", 8, ALL, dtype="bf16",
             config={"rank_pattern": {"q_proj": 4, "mlp.down_proj": 32,
                                      r"layers\.1\d\.mlp\.gate_proj": 16,
                                      "^model.layers.0.self_attn.v_proj": 64,
                                      "model.layers.29.self_attn.o_proj": 5}}),
        Case("alpha-pattern", 8, ALL, dtype="bf16",
             config={"alpha_pattern": {"k_proj": 64, "mlp.up_proj": 2,
                                       r"layers\.2[0-4]\.self_attn\.o_proj": 1}}),
        Case("patterns-rslora", 8, ["q_proj", "v_proj", "up_proj", "down_proj"], dtype="f16",
             config={"use_rslora": True, "rank_pattern": {"v_proj": 25, "down_proj": 4},
                     "alpha_pattern": {"q_proj": 32, "down_proj": 3}}),
        # Keys of other tools.
        Case("keys-without-prefix", 8, ["q_proj", "down_proj"], effect=0.2,
             rename=("base_model.model.", "")),
        Case("keys-with-default", 8, ["v_proj", "gate_proj"], dtype="bf16", effect=0.2,
             rename=(".weight", ".default.weight")),
    ]  # fmt: skip


def subset_cases() -> list[Case]:
    """All 127 non-empty subsets of the seven projections, rank 2, small files."""
    cases = []
    for mask in range(1, 1 << len(ALL)):
        targets = [name for bit, name in enumerate(ALL) if mask >> bit & 1]
        name = "subset-" + "-".join(t.removesuffix("_proj") for t in targets)
        cases.append(Case(name, 2, targets, alpha=4, dtype="bf16", effect=0.15))
    return cases


def fill(model, case: Case) -> int:
    """Random A and B for every LoRA layer; returns how many layers there are."""
    generator = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))
    count = 0
    for module in model.modules():
        if not isinstance(module, LoraLayer):
            continue
        a = module.lora_A["default"].weight  # [r, d_in]
        b = module.lora_B["default"].weight  # [d_out, r]
        with torch.no_grad():
            a.copy_(torch.randn(a.shape, generator=generator) / a.shape[1] ** 0.5)
            b.copy_(torch.randn(b.shape, generator=generator))
            delta = module.scaling["default"] * (b @ a)
            b.mul_(case.effect * module.get_base_layer().weight.norm() / delta.norm())
        count += 1
    return count


def make(base, case: Case, out: Path) -> dict:
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=case.r,
        lora_alpha=case.alpha,
        target_modules=case.targets,
        lora_dropout=0.05,  # means nothing when serving; people's files have it
        **case.config,
    )
    model = get_peft_model(base, config)
    num_modules = fill(model, case)
    model.save_pretrained(out)
    model.unload()
    (out / "README.md").unlink(missing_ok=True)
    weights_path = out / "adapter_model.safetensors"
    dtype = DTYPES[case.dtype]
    tensors = {k: v.to(dtype).contiguous() for k, v in load_file(weights_path).items()}
    save_file(tensors, weights_path, metadata={"format": "pt"})
    config_path = out / "adapter_config.json"
    values = json.loads(config_path.read_text())
    values["base_model_name_or_path"] = BASE_NAME
    config_path.write_text(json.dumps(values, indent=2) + "\n")

    entry = {"name": case.name, "dir": out.name, "peftDir": out.name, "modules": num_modules}
    if case.rename is not None:
        twin = out.parent / f".peft-{out.name}"
        shutil.rmtree(twin, ignore_errors=True)
        shutil.copytree(out, twin)
        old, new = case.rename
        renamed = {k.replace(old, new): v for k, v in tensors.items()}
        assert not set(renamed) & set(tensors)
        save_file(renamed, weights_path, metadata={"format": "pt"})
        entry["peftDir"] = twin.name
    return entry


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=REPO / ".cache/models/SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=REPO / ".cache/goldens/smollm2/adapters")
    parser.add_argument("--all-subsets", action="store_true", help="also all 127 subsets (160 MB)")
    args = parser.parse_args()
    if not (args.model / "model.safetensors").exists():
        print(f"{args.model} is missing: run node scripts/fetch-smollm2.mjs", file=sys.stderr)
        return 1
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    args.out.mkdir(parents=True, exist_ok=True)
    manifest = []
    for case in all_cases() + (subset_cases() if args.all_subsets else []):
        manifest.append(make(base, case, args.out / case.name))
        print(f"{case.name}: {manifest[-1]['modules']} modules", flush=True)
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
