"""Writes embeddings.json and embeddings.f32 beside this file: pooled final hidden states of every
prompt in the goldens of the demo model and of the families, base and adapters.

The reference is transformers (and PEFT) in float32 on the CPU. Run it again whenever those goldens
change:  python test/golden/embeddings/make_embeddings.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "families"))
from make_families import load  # noqa: E402

DEMO = HERE.parents[2] / "models" / "demo"


def states(model, prompt: list[int]) -> torch.Tensor:
    """[tokens, hidden]: what the head reads, i.e. after the last norm."""
    out = model(torch.tensor([prompt]), use_cache=False, output_hidden_states=True)
    hidden = out.hidden_states[-1]
    assert torch.allclose(model.get_output_embeddings()(hidden).float(), out.logits.float(), rtol=1e-3, atol=1e-3)
    return hidden[0].float()


def poolings(hidden: torch.Tensor) -> torch.Tensor:
    """[3, hidden]: mean, last, cls; not normalized."""
    return torch.stack([hidden.double().mean(0).float(), hidden[-1], hidden[0]])


@torch.no_grad()
def main() -> None:
    torch.set_float32_matmul_precision("highest")
    entries, floats, offset = [], [], 0
    models: dict[tuple[Path, str | None], tuple] = {}
    for folder, directory_of in (("demo", lambda _: DEMO), ("families", lambda name: HERE.parent / "families" / name)):
        for case in json.loads((HERE.parent / folder / "goldens.json").read_text()):
            directory, adapter = directory_of(case.get("model")), case["adapter"]
            path = directory / "adapters" / adapter if adapter else None
            if (directory, adapter) not in models:
                models = {(directory, adapter): (load(directory, torch.float32, path), load(directory, torch.bfloat16, path))}
            exact, rounded = models[directory, adapter]
            prompt = case["promptTokens"]
            reference, own_bf16 = (poolings(states(model, prompt)) for model in (exact, rounded))
            errors = ((own_bf16 - reference).norm(dim=1) / reference.norm(dim=1)).tolist()
            entries.append({"model": case.get("model"), "adapter": adapter, "promptTokens": prompt,
                            "hidden": reference.shape[1], "offset": offset, "bf16RelErr": errors})
            floats.append(reference.numpy().astype("<f4").ravel())
            offset += floats[-1].size
            print(case.get("model") or "demo", adapter, len(prompt), "tokens, bf16", " ".join(f"{e:.1e}" for e in errors))
    np.concatenate(floats).tofile(HERE / "embeddings.f32")
    (HERE / "embeddings.json").write_text("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n")


if __name__ == "__main__":
    main()
