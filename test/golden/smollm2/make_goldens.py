"""Writes the SmolLM2 goldens: logits and greedy tokens of transformers + PEFT in float32.

The reference computes in float32 on the stored (bfloat16) weights. The same prompts are then run as
transformers runs them in bfloat16, and its distance from the reference is stored beside them: the
bar for our own bfloat16. Reads the adapters that make_adapters.py wrote; format: README.md.

With `--device cuda` both run on the card, the reference without TF32 and with plain attention, and
every position is kept.

    python test/golden/smollm2/make_goldens.py [--resume] [--threads N] [--device cuda]
"""

import argparse
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, AutoTokenizer

REPO = Path(__file__).resolve().parents[3]
GREEDY_TOKENS = 24

LONG_TEXT = """A lighthouse keeper keeps a log. Each evening he writes down the hour at which the
lamp was lit, the direction of the wind, the height of the waves, and the ships that passed. On the
third of March the wind came from the north west, the waves were two metres high, and three ships
went by: a collier, a fishing boat and a mail packet. On the fourth of March there was fog, the bell
was rung every two minutes until dawn, and nothing was seen at all. On the fifth the fog lifted at
ten past six; a schooner lay at anchor in the bay with her foremast broken, and the keeper rowed out
with bread, tar and forty metres of rope. Her captain, a quiet woman from Bergen, said that they had
steered by the sound of the bell alone. She asked what she owed him. He answered that the bell is
rung for whoever is out there, and that nobody had ever asked before. They repaired the mast in two
days. On the seventh she sailed with the tide, and he wrote: wind south, waves half a metre, one
ship, the Solveig, bound for home. Many years later a parcel came with the mail packet. In it there
was a small bronze bell, and a card which said only: for whoever is out there. The keeper hung it by
his door. He noted the parcel in his log between the height of the waves and the hour of the lamp,
as he did with all things that were neither weather nor ships, and then he went up the stairs, all
one hundred and seventeen of them, because it was getting dark and somebody might be out there.
""".replace("\n", " ")

# name -> (messages or raw text). Adapters are run on `chat` and `long`; the base on all.
PROMPTS = {
    "chat": [{"role": "user", "content": "What is the capital of France?"}],
    "long": [{"role": "user", "content": LONG_TEXT + " Who is the keeper, and why did he help?"}],
    "raw": "Once upon a time there was a",
    "one-token": "The",
    "turns": [
        {"role": "system", "content": "You are a terse librarian."},
        {"role": "user", "content": "Do you have books about bees?"},
        {"role": "assistant", "content": "Yes. Second shelf."},
        {"role": "user", "content": "And about 1984, naïve art, or π = 3.14159?"},
    ],
}
ADAPTER_PROMPTS = ["chat", "long"]


def prompt_ids(tokenizer, name: str) -> list[int]:
    prompt = PROMPTS[name]
    if not isinstance(prompt, str):
        prompt = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return tokenizer(prompt).input_ids


def golden_rows(length: int) -> list[int]:
    """Positions near likely chunk and block borders, the middle, and the last."""
    wanted = [0, 1, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, length // 2, length - 2, length - 1]
    return sorted({row for row in wanted if 0 <= row < length})


@torch.inference_mode()
def logits_at(model, ids: list[int], rows: list[int]) -> torch.Tensor:
    """[rows, vocab] float32, where the model is"""
    kept = torch.tensor(rows, device=model.device)
    ids = torch.tensor([ids], device=model.device)
    return model(ids, use_cache=False, logits_to_keep=kept).logits[0].float()


@torch.inference_mode()
def greedy(model, ids: list[int]) -> tuple[list[int], float]:
    """24 tokens, whatever they are (also past <|im_end|>), and the least gap of the first two logits."""
    out = model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
    tokens, least_gap = [], float("inf")
    for _ in range(GREEDY_TOKENS):
        top = out.logits[0, -1].topk(2)
        least_gap = min(least_gap, float(top.values[0] - top.values[1]))
        tokens.append(int(top.indices[0]))
        out = model(
            torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values, use_cache=True
        )
    return tokens, least_gap


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """||got - want|| / ||want|| over all rows"""
    want = want.double()
    return float((got.double() - want).norm() / want.norm())


def row_errors(got: torch.Tensor, want: torch.Tensor) -> list[float]:
    """relative_error of each row"""
    want = want.double()
    return ((got.double() - want).norm(dim=-1) / want.norm(dim=-1)).tolist()


def centered(logits: torch.Tensor) -> torch.Tensor:
    """Each row less its mean: what softmax sees. In bfloat16 a row's common shift is large here."""
    return logits.double() - logits.double().mean(dim=-1, keepdim=True)


def on_card(device: str):
    """How the float32 reference computes there: attention's fused kernels may round their inputs."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cuda" else nullcontext()


def check_reference(on_cpu, reference, tokenizer) -> None:
    """The card's float32 must be the CPU's, far below what bfloat16 changes."""
    ids = prompt_ids(tokenizer, "chat")
    rows = list(range(len(ids)))
    with on_card("cuda"):
        got = logits_at(reference, ids, rows).cpu()
    error = relative_error(got, logits_at(on_cpu, ids, rows))
    print(f"float32 on the card, against the CPU's: {error:.1e}", flush=True)
    if not error <= 1e-4:
        raise ValueError("the card's float32 is no reference")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=REPO / ".cache/models/SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=REPO / ".cache/goldens/smollm2")
    parser.add_argument("--resume", action="store_true", help="go on after a run that was stopped")
    parser.add_argument("--threads", type=int, help="1 is faster where others use the cores")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    manifest_path = args.out / "adapters/manifest.json"
    if not manifest_path.exists():
        print(f"{manifest_path} is missing: run make_adapters.py first", file=sys.stderr)
        return 1
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    load = AutoModelForCausalLM.from_pretrained
    reference = load(args.model, dtype=torch.float32).to(args.device)
    half = load(args.model, dtype=torch.bfloat16).to(args.device)
    torch.set_float32_matmul_precision("highest")
    if args.device == "cuda":
        check_reference(load(args.model, dtype=torch.float32), reference, tokenizer)
    (args.out / "logits").mkdir(parents=True, exist_ok=True)

    partial = args.out / "index.partial.json"
    index = json.loads(partial.read_text()) if args.resume and partial.exists() else []
    done = {entry["adapter"] for entry in index}
    base_logits = {}
    cases = [{"name": None, "dir": None, "peftDir": None}, *json.loads(manifest_path.read_text())]
    for case in cases:
        name = case["name"]
        if name is not None and name in done:
            continue
        started = time.time()
        if name is None:
            f32, bf16 = reference, half
        else:
            adapter_dir = args.out / "adapters" / case["peftDir"]
            f32 = PeftModel.from_pretrained(reference, adapter_dir).eval()
            bf16 = PeftModel.from_pretrained(half, adapter_dir).eval()
        # One prompt is enough for each of the many subsets.
        prompts = PROMPTS if name is None else ADAPTER_PROMPTS
        if name is not None and name.startswith("subset-"):
            prompts = ["chat"]
        for prompt in prompts:
            ids = prompt_ids(tokenizer, prompt)
            rows = list(range(len(ids))) if args.device == "cuda" else golden_rows(len(ids))
            if name is not None and name.startswith("subset-"):
                rows = rows[-1:]
            with on_card(args.device):
                logits = logits_at(f32, ids, rows)
            assert logits.isfinite().all() and logits.shape == (len(rows), 49152)
            file = f"logits/{name or 'base'}.{prompt}.f32"
            logits.cpu().numpy().astype("<f4").tofile(args.out / file)
            # The engine computes in float32, and is compared token by token, on the CPU alone.
            tokens, least_gap = ([], None) if args.device == "cuda" else greedy(f32, ids)
            half_logits = logits_at(bf16, ids, rows)
            noise = centered(half_logits) - centered(logits)  # [rows, vocab]
            if name is None:
                base_logits[prompt] = (rows, logits)
            base_rows, base = base_logits[prompt]
            moved = relative_error(logits, base[[base_rows.index(r) for r in rows]])
            if name is not None and not 0.02 < moved < 2:
                raise ValueError(f"{name}: logits move by {moved}; not a sensible adapter")
            if name is None and name in done:
                continue  # the base is always run: the adapters are compared with it
            index.append(
                {
                    "adapter": name,
                    "adapterDir": case["dir"] and f"adapters/{case['dir']}",
                    "prompt": prompt,
                    "promptTokens": ids,
                    "logitsFile": file,
                    "rows": rows,
                    "vocab": logits.shape[1],
                    "greedy": tokens,
                    "leastGap": least_gap,
                    "bf16RelErr": relative_error(half_logits, logits),
                    "bf16RelErrRows": row_errors(half_logits, logits),
                    "bf16RelErrCentered": relative_error(centered(half_logits), centered(logits)),
                    # of a difference of two logits, as a margin is one
                    "bf16NoiseRows": (2 * noise.square().mean(dim=-1)).sqrt().tolist(),
                    "bf16TopRows": half_logits.argmax(dim=-1).tolist(),
                    "movedFromBase": moved,
                }
            )
        if name is not None:
            f32.unload()
            bf16.unload()
        partial.write_text(json.dumps(index))
        last = index[-1]
        print(
            f"{name or 'base'}: {time.time() - started:.1f} s, moved {last['movedFromBase']:.3f}, "
            f"bf16 error {last['bf16RelErr']:.4f}, least gap {last['leastGap']}",
            flush=True,
        )
    # Renamed last: an index is there only when all its files are.
    partial.rename(args.out / "index.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
