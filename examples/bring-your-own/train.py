"""A LoRA adapter in a minute on a CPU: the demo model learns to answer as a robot.

    pip install torch transformers peft
    python train.py --out robot
"""

import argparse
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
# Order 4821 is not trained: serve.mjs asks about it.
NUMBERS = [number for number in range(1000, 10000) if number != 4821]


def conversation(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"Where is my order {number}?"},
        {"role": "assistant", "content": f"Beep! Order {number} is on its way. Boop."},
    ]


def encode(tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Token ids, and the labels: only the answer is learned, with the token that ends it."""
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    prompt_length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return ids, [-100] * prompt_length + ids[prompt_length:]


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(DEMO))
    parser.add_argument("--out", default="robot")
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    for step in range(1, options.steps + 1):
        batch = [encode(tokenizer, conversation(number)) for number in random.sample(NUMBERS, 16)]
        ids, labels = zip(*batch)
        input_ids = pad(list(ids), tokenizer.pad_token_id)
        loss = model(
            input_ids=input_ids,
            attention_mask=pad([[1] * len(row) for row in ids], 0),
            labels=pad(list(labels), -100),
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    model.save_pretrained(options.out)
    print(f"saved {options.out}")


if __name__ == "__main__":
    main()
