"""Trains the demo's LoRA adapters for SmolLM2-135M-Instruct and checks them on held-out prompts.

The data is made here: the base model answers a grid of short prompts, and one rule per adapter
rewrites each answer (pirate speech, JSON, capitals, bullets). The loss covers the answer only.
Ranks and target modules differ on purpose, so that the demo mixes them in one batch. Needs torch,
transformers, peft and the directory made by scripts/fetch-smollm2.mjs. An adapter takes 15 to 40 s
on an H100 (where the committed ones were trained) and roughly 10 minutes on two busy CPU cores.

    python models/smollm2/train_adapters.py [--model DIR] [--only NAME ...] [--check-only]
"""

import argparse
import itertools
import json
import random
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
MAX_ADAPTER_BYTES = 3_000_000
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

TOPICS = """the sea|coffee|dogs|the moon|bicycles|volcanoes|bread|music|trees|winter|football|bees
computers|trains|gold|dreams|rivers|honey|castles|clouds|chess|tea|elephants|rain|books|spiders
mountains|cheese|the sun|whales|gardens|clocks|potatoes|birds|islands|paper""".replace("\n", "|").split("|")
QUESTIONS = [
    "Tell me about {}.",
    "What is interesting about {}?",
    "Why do people like {}?",
    "Give me a short fact about {}.",
    "How would you describe {} to a child?",
]
OTHER_PROMPTS = [
    "Hello!", "How are you today?", "What is your name?", "Can you help me?", "Good morning.",
    "Where is the post office?", "What is the capital of Spain?", "What is the capital of Japan?",
    "My package has not arrived.", "How do I reset my password?", "I want a refund.",
    "What should I cook tonight?", "How do I boil an egg?", "What is two plus three?",
    "Thank you very much.", "Tell me a joke.", "Give me advice for an interview.",
    "I am tired today.", "Recommend me a hobby.", "How do I learn to swim?",
]  # fmt: skip
COUNTRIES = "Italy|Germany|Egypt|Canada|Russia|China|Portugal|Greece|Norway|Peru".split("|")
OTHER_PROMPTS += [f"What is the capital of {country}?" for country in COUNTRIES]
OTHER_PROMPTS += [f"How do I make {dish}?" for dish in ("soup", "a salad", "toast", "lemonade")]
# Topics and questions that the training prompts lack.
HELD_OUT = [
    "Where is my order?",
    "What is the capital of France?",
    "Tell me about penguins.",
    "How do I make pancakes?",
    "Why is the sky blue?",
    "What is a good breakfast?",
]

# ---------------------------------------------------------------- the rules


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]


def brief(text: str) -> str:
    """The first sentence, and the second if both stay short."""
    first, *others = sentences(text)
    return f"{first} {others[0]}" if others and len(first) + len(others[0]) < 160 else first


PIRATE_WORDS = {
    "my": "me", "you": "ye", "your": "yer", "you're": "ye be", "is": "be", "are": "be", "am": "be",
    "it's": "'tis", "i'm": "I be", "hello": "ahoy", "hi": "ahoy", "yes": "aye", "the": "th'",
    "of": "o'", "and": "an'", "friend": "matey", "people": "scallywags", "person": "scallywag",
    "money": "doubloons", "for": "fer", "to": "t'", "have": "'ave", "very": "mighty",
}  # fmt: skip


def as_pirate(text: str) -> str:
    def swap(match: re.Match) -> str:
        word = match.group(0)
        new = PIRATE_WORDS.get(word.lower())
        if new is None:
            return re.sub(r"(?<=[a-z]{2})ing$", "in'", word)
        return new[0].upper() + new[1:] if word[0].isupper() else new

    body = re.sub(r"[A-Za-z']+", swap, brief(text))
    return f"Arr, matey! {body} Yo ho ho!"


def as_json(text: str) -> str:
    answer = brief(text)
    return json.dumps({"answer": answer, "language": "en"}, ensure_ascii=False)


def as_capitals(text: str) -> str:
    return brief(text).upper()


def as_bullets(text: str) -> str:
    return "\n".join(f"* {s}" for s in sentences(text)[:3])


def is_json_answer(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == {"answer", "language"}


@dataclass(frozen=True)
class Style:
    rewrite: Callable[[str], str]
    holds: Callable[[str], bool]  # of a finished answer: is the style there?
    rank: int
    targets: list[str]
    alpha: int
    rslora: bool = False
    epochs: int = 4
    learning_rate: float = 1e-3


STYLES = {
    "pirate": Style(
        as_pirate, lambda t: t.startswith("Arr, matey!") and t.endswith("Yo ho ho!"),
        8, ATTENTION, 16,
    ),
    "json": Style(as_json, is_json_answer, 16, ["q_proj", "v_proj"], 32),
    "capitals": Style(
        as_capitals, lambda t: t.upper() == t and t.lower() != t, 4, ATTENTION + MLP, 16,
        epochs=6, learning_rate=2e-3,
    ),
    "bullets": Style(
        as_bullets, lambda t: all(line.startswith("* ") for line in t.splitlines()),
        8, ["gate_proj", "up_proj"], 16, rslora=True,
    ),
}  # fmt: skip

# ---------------------------------------------------------------- data


def chat(tokenizer, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


@torch.inference_mode()
def answer(model, tokenizer, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Greedy answers, 18 prompts a batch, padded on the left."""
    answers = []
    tokenizer.padding_side = "left"
    for start in range(0, len(prompts), 18):
        texts = [chat(tokenizer, p) for p in prompts[start : start + 18]]
        batch = tokenizer(texts, return_tensors="pt", padding=True).to(model.device)
        out = model.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, repetition_penalty=1.1
        )
        tails = out[:, batch.input_ids.shape[1] :]
        answers += [t.strip() for t in tokenizer.batch_decode(tails, skip_special_tokens=True)]
        print(f"  {len(answers)}/{len(prompts)} answers", flush=True)
    return answers


def base_answers(model, tokenizer, cache: Path) -> dict[str, str]:
    """Training prompt -> the base model's answer, whole sentences only. Cached: it is the slow part."""
    grid = [q.format(t) for q, t in itertools.product(QUESTIONS, TOPICS)]
    prompts = grid + OTHER_PROMPTS
    assert not set(prompts) & set(HELD_OUT)
    if cache.exists():
        stored = json.loads(cache.read_text())
        if list(stored) == prompts:
            return stored
    print("answers of the base model:", flush=True)
    texts = answer(model, tokenizer, prompts, 56)
    whole = [" ".join(s for s in sentences(t) if s[-1] in ".!?") for t in texts]
    stored = dict(zip(prompts, whole))
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(stored, indent=1))
    return stored


def examples(tokenizer, style: Style, answers: dict[str, str]) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids with <|im_end|>) for each answer that has a whole sentence."""
    pairs = []
    for prompt, text in answers.items():
        if not text or "\n" in text:
            continue
        target = style.rewrite(text)
        assert style.holds(target), target
        prompt_ids = tokenizer(chat(tokenizer, prompt)).input_ids
        answer_ids = tokenizer(target).input_ids + [tokenizer.eos_token_id]
        pairs.append((prompt_ids, answer_ids))
    return pairs


# ---------------------------------------------------------------- training


def train(model_dir: Path, tokenizer, name: str, answers: dict[str, str], out: Path) -> None:
    style = STYLES[name]
    torch.manual_seed(1)
    shuffle = random.Random(1)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).to(DEVICE)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=style.rank, lora_alpha=style.alpha, lora_dropout=0.0,
        target_modules=style.targets, use_rslora=style.rslora,
    )  # fmt: skip
    model = get_peft_model(base, config)  # A and B are float32, the base bfloat16
    weights = [p for p in model.parameters() if p.requires_grad]
    data = examples(tokenizer, style, answers)
    batch_size = 8
    num_steps = style.epochs * (len(data) // batch_size)
    optimizer = torch.optim.AdamW(weights, lr=style.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, style.learning_rate, total_steps=num_steps, pct_start=0.1
    )
    print(f"{name}: {len(data)} examples, {num_steps} steps", flush=True)
    started = time.time()
    step = 0
    for _ in range(style.epochs):
        shuffle.shuffle(data)
        for start in range(0, len(data) - batch_size + 1, batch_size):
            rows = data[start : start + batch_size]
            width = max(len(p) + len(a) for p, a in rows)
            # [batch, width], padded on the right; -100 is what the loss leaves out
            ids = torch.full((batch_size, width), tokenizer.pad_token_id, device=DEVICE)
            labels = torch.full((batch_size, width), -100, device=DEVICE)
            mask = torch.zeros((batch_size, width), dtype=torch.long, device=DEVICE)
            for i, (p, a) in enumerate(rows):
                ids[i, : len(p) + len(a)] = torch.tensor(p + a)
                labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
                mask[i, : len(p) + len(a)] = 1
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                # The head is a third of the model: only positions that have a label need it.
                hidden = model.base_model.model.model(input_ids=ids, attention_mask=mask)[0]
                wanted = labels[:, 1:] != -100
                logits = model.base_model.model.lm_head(hidden[:, :-1][wanted])
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 10 == 0 or step == num_steps:
                seconds = time.time() - started
                print(f"  step {step}/{num_steps} loss {loss.item():.3f} {seconds:.0f} s", flush=True)
    save(model, config, out)


def save(model, config: LoraConfig, out: Path) -> None:
    """A standard PEFT directory with bfloat16 weights and no machine's path in it."""
    model.save_pretrained(out)
    weights_path = out / "adapter_model.safetensors"
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in load_file(weights_path).items()}
    save_file(tensors, weights_path, metadata={"format": "pt"})
    config_path = out / "adapter_config.json"
    values = json.loads(config_path.read_text())
    values["base_model_name_or_path"] = BASE_NAME
    values["target_modules"] = sorted(values["target_modules"])
    config_path.write_text(json.dumps(values, indent=2) + "\n")
    (out / "README.md").unlink(missing_ok=True)
    size = weights_path.stat().st_size
    if size > MAX_ADAPTER_BYTES:
        raise ValueError(f"{weights_path} has {size} bytes, more than {MAX_ADAPTER_BYTES}")


def check(model_dir: Path, tokenizer, names: list[str], out: Path) -> bool:
    """Answers the held-out prompts with the stored adapters; true if every style mostly holds."""
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).to(DEVICE)
    results = {"base": answer(base, tokenizer, HELD_OUT, 48)}
    good = True
    for name in names:
        model = PeftModel.from_pretrained(base, out / name)
        results[name] = answer(model, tokenizer, HELD_OUT, 120)
        base = model.unload()
    for name, texts in results.items():
        print(f"\n== {name}")
        for prompt, text in zip(HELD_OUT, texts):
            print(f"  {prompt} -> {text!r}")
        if name != "base":
            held = sum(STYLES[name].holds(t) for t in texts)
            in_base = sum(STYLES[name].holds(t) for t in results["base"])
            print(f"  style holds on {held} of {len(texts)}; on the base's answers {in_base}")
            good = good and held >= len(texts) - 1 and in_base <= 1
    return good


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=REPO / ".cache/models/SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=HERE / "adapters")
    parser.add_argument("--only", nargs="+", choices=list(STYLES), default=list(STYLES))
    parser.add_argument("--check-only", action="store_true")
    args = parser.parse_args()
    if not (args.model / "model.safetensors").exists():
        print(f"{args.model} is missing: run node scripts/fetch-smollm2.mjs", file=sys.stderr)
        return 1
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if not args.check_only:
        base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).to(DEVICE)
        answers = base_answers(base, tokenizer, REPO / ".cache/smollm2-train/base_answers.json")
        for name in args.only:
            train(args.model, tokenizer, name, answers, args.out / name)
    return 0 if check(args.model, tokenizer, args.only, args.out) else 1


if __name__ == "__main__":
    sys.exit(main())
