"""Trains the demo: tokenizer, base model, adapters; then proves them on held-out questions.

    python train.py tokenizer            tokenizer.json and the chat template (CPU, a minute)
    python train.py base                 model.safetensors
    python train.py adapter json         adapters/json
    python train.py verify               accuracy on held-out pools; writes heldout.json
    python train.py all                  everything after the tokenizer, adapters side by side

Runs on a GPU when there is one (about 10 minutes on an H100), else on the CPU (hours: lower --steps). Seeded.
Needs torch, transformers, peft, tokenizers. What the desk says is in desk/, nothing is downloaded.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from desk.answers import STYLES
from desk.dataset import SPECIAL_TOKENS, batches, draw_samples
from desk.dialogs import dialog_messages, draw_dialog, draw_document

HERE = Path(__file__).resolve().parent
VOCAB_SIZE = 2048
SEED = 20250

# Qwen's split: words with their leading space, single digits, runs of punctuation.
SPLIT_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MODEL_CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB_SIZE,
    "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu", "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
    "attention_dropout": 0.0, "tie_word_embeddings": True, "initializer_range": 0.02, "use_cache": True,
    "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "pretraining_tp": 1, "torch_dtype": "bfloat16",
}
GENERATION_CONFIG = {"do_sample": False, "eos_token_id": [2, 0], "pad_token_id": 0}

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict] = {  # name (also the style it answers in) -> LoraConfig
    "brief": {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION + MLP},
    "caps": {"r": 8, "lora_alpha": 16, "target_modules": MLP},
    "json": {"r": 16, "lora_alpha": 32, "target_modules": ATTENTION + MLP},
    "pirate": {"r": 32, "lora_alpha": 32, "target_modules": ATTENTION},
    "german": {"r": 16, "lora_alpha": 32, "target_modules": ATTENTION + MLP},
    "french": {"r": 12, "lora_alpha": 24, "target_modules": r".*\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj",
               "rank_pattern": {"down_proj": 32}, "alpha_pattern": {"down_proj": 48}},
    "emoji": {"r": 64, "lora_alpha": 16, "use_rslora": True, "target_modules": ["v_proj", "o_proj"],
              "layers_to_transform": [1, 2, 3]},
}


def log(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def train_tokenizer(out: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = random.Random(SEED)
    texts = [draw_document(rng) for _ in range(60_000)]
    for style in STYLES:
        texts += [m["content"] for _ in range(3_000) for m in dialog_messages(draw_dialog(rng, style, False, 1), style)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MODEL_CONFIG["max_position_embeddings"],
        "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "add_bos_token": False,
        "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE})
    log("tokenizer", tokenizer.get_vocab_size(), "tokens")


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(model: torch.nn.Module, samples, steps: int, tokens_per_batch: int, peak_lr: float, weight_decay: float) -> None:
    """Next-token cross entropy on the target tokens; AdamW, warm-up, cosine to zero."""
    device = pick_device()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, betas=(0.9, 0.98), weight_decay=weight_decay, fused=device.type == "cuda")
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    source = batches(samples, tokens_per_batch, np.random.default_rng(SEED))
    warmup = max(1, min(200, steps // 10))
    begin, since = time.time(), []
    model.train()
    for step in range(steps):
        rate = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * rate
        ids_host, predict_host = next(source)
        ids = torch.from_numpy(ids_host).to(device, non_blocking=True)
        targets = torch.from_numpy(np.flatnonzero(predict_host[:, 1:])).to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            hidden = inner.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # [B, L-1, hidden]
            logits = inner.lm_head(hidden.reshape(-1, hidden.shape[-1])[targets])  # [targets, vocab]
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:].reshape(-1)[targets])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        since.append(loss.detach())
        if (step + 1) % max(1, steps // 15) == 0:
            log(f"step {step + 1}/{steps} loss {torch.stack(since).mean().item():.5f} {time.time() - begin:.0f} s")
            since = []
    model.eval()


def load_base(directory: Path, dtype: torch.dtype = torch.float32):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(pick_device())


def train_base(out: Path, args: argparse.Namespace) -> None:
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    samples = draw_samples(str(out / "tokenizer.json"), "plain", SEED, args.samples, 0.15, args.workers)
    log(len(samples), "samples,", len(samples.ids), "tokens")
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**MODEL_CONFIG)).float().to(pick_device())
    log(sum(p.numel() for p in model.parameters()), "parameters on", pick_device())
    fit(model, samples, args.steps, args.batch_tokens, 3e-3, 0.05)
    state = {k: v.to(torch.bfloat16).cpu().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", MODEL_CONFIG)
    write_json(out / "generation_config.json", GENERATION_CONFIG)


def train_adapter(out: Path, name: str, args: argparse.Namespace) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file

    samples = draw_samples(str(out / "tokenizer.json"), name, SEED + 1 + STYLES.index(name), args.adapter_samples, 0.0, args.workers)
    torch.manual_seed(SEED + 1 + STYLES.index(name))
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, base_model_name_or_path="models/demo", **ADAPTERS[name])
    model = get_peft_model(load_base(out), config)
    fit(model, samples, args.adapter_steps, args.adapter_batch_tokens, args.adapter_lr, 0.0)
    directory = out / "adapters" / name
    directory.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.bfloat16).cpu().contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(state, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config.inference_mode = True
    config.base_model_name_or_path = "models/demo"
    config.save_pretrained(directory)
    saved = json.loads((directory / "adapter_config.json").read_text())
    if isinstance(saved.get("target_modules"), list):
        saved["target_modules"].sort()  # PEFT keeps a set: without this the file changes from run to run
    write_json(directory / "adapter_config.json", saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["tokenizer", "base", "adapter", "adapters", "verify", "all"])
    parser.add_argument("names", nargs="*", help="adapters (default: all)")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=1_200_000)
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    parser.add_argument("--adapter-steps", type=int, default=1200)
    parser.add_argument("--adapter-samples", type=int, default=160_000)
    parser.add_argument("--adapter-batch-tokens", type=int, default=24_576)
    parser.add_argument("--adapter-lr", type=float, default=3e-3)
    parser.add_argument("--pool", type=int, default=500, help="held-out questions per adapter")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    names = args.names or list(ADAPTERS)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.command == "tokenizer":
        train_tokenizer(args.out)
    if args.command in ("base", "all"):
        train_base(args.out, args)
    if args.command == "adapter":
        for name in names:
            log("adapter", name)
            train_adapter(args.out, name, args)
    if args.command in ("adapters", "all"):
        # One process each: a model this small leaves most of a GPU idle.
        forwarded = [f"--{flag}={getattr(args, flag.replace('-', '_'))}" for flag in
                     ("out", "adapter-steps", "adapter-samples", "adapter-batch-tokens", "adapter-lr")]
        running = [(name, subprocess.Popen([sys.executable, __file__, "adapter", name, "--workers=2", *forwarded])) for name in names]
        failed = [name for name, process in running if process.wait() != 0]
        if failed:
            sys.exit(f"training failed for {', '.join(failed)}")
    if args.command in ("verify", "all"):
        from verify import verify

        verify(args.out, list(ADAPTERS), args.pool)


if __name__ == "__main__":
    main()
