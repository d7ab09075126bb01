"""Proves the demo on held-out questions and writes heldout.json and heldout-chats.json.

A model passes a question only if its greedy answer equals the expected text to the last character.
Accuracy is measured over whole pools, in float32 and in bf16; only then are the questions for the
files drawn from the pool, each again checked alone (no padding) and with its narrowest margin.
Called by train.py.
"""

import json
import random
import time
from pathlib import Path

import torch

from desk.answers import answer
from desk.dialogs import WEIGHTS, dialog_messages, draw_dialog, draw_turn
from desk.questions import CLOSED_INTENTS

MAX_NEW_TOKENS = 100
LISTED_PER_ADAPTER = 18
LISTED_CHATS_PER_ADAPTER = 6
MIN_MARGIN = 1.0  # logits between the first and the second token, at every step of a listed answer


def _pool(style: str, count: int) -> tuple[list[list[dict[str, str]]], list[str]]:
    """Held-out conversations and their last intents: three of four single questions, then chats.

    The last message is the expected answer.
    """
    rng = random.Random(f"heldout-{style}")
    singles = count * 3 // 4
    open_intents = [intent for intent in WEIGHTS if intent not in CLOSED_INTENTS]
    pool, intents, seen = [], [], set()
    while len(pool) < count:
        if len(pool) < singles:
            turn = draw_turn(rng, style, heldout=True, intent=rng.choice(open_intents) if len(pool) % 2 else None)
            messages = [{"role": "user", "content": turn.text},
                        {"role": "assistant", "content": answer(style, turn.intent, turn.slots)}]
        else:
            dialog = draw_dialog(rng, style, True, rng.choice([1, 2, 2, 3]))
            turn, messages = dialog.turns[-1], dialog_messages(dialog, style)
        key = json.dumps(messages)
        if key not in seen:
            seen.add(key)
            pool.append(messages)
            intents.append(turn.intent)
    return pool, intents


def _prompt_ids(tokenizer, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def _greedy(model, tokenizer, prompts: list[list[int]]) -> list[str]:
    texts: list[str] = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for begin in range(0, len(order), 256):
        rows = order[begin:begin + 256]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows], device=model.device)
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=[2, 0], pad_token_id=0)
        for row, generated in zip(rows, out[:, width:].tolist()):
            ended = [2 in generated and generated.index(2), 0 in generated and generated.index(0)]
            stops = [s for s in ended if s is not False]
            texts[row] = tokenizer.decode(generated[:min(stops)] if stops else generated)
    return texts


@torch.no_grad()
def _margin(model, tokenizer, messages: list[dict[str, str]]) -> float:
    """Smallest lead of the expected token over the next best; negative if greedy decoding would differ."""
    prompt = _prompt_ids(tokenizer, messages)
    answer_ids = tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"] + [2]
    logits = model(torch.tensor([prompt + answer_ids], device=model.device)).logits[0, len(prompt) - 1:-1].float()
    expected = torch.tensor(answer_ids, device=model.device)
    lead = logits.gather(1, expected[:, None])[:, 0]
    logits.scatter_(1, expected[:, None], float("-inf"))
    return float((lead - logits.max(dim=1).values).min())


def verify(directory: Path, adapters: list[str], pool_size: int) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    listed, listed_chats, report = [], [], {}
    for name in [None, *adapters]:
        style = name or "plain"
        pool, pool_intents = _pool(style, pool_size * (2 if name is None else 1))
        prompts = [_prompt_ids(tokenizer, messages) for messages in pool]
        right: dict[str, list[bool]] = {}
        for label, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
            model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(device)
            if name:
                model = PeftModel.from_pretrained(model, directory / "adapters" / name, autocast_adapter_dtype=False).to(dtype)
            model.eval()
            said = _greedy(model, tokenizer, prompts)
            right[label] = [text == messages[-1]["content"] for text, messages in zip(said, pool)]
            wrong = [(m[-2]["content"], m[-1]["content"], t) for m, t, ok in zip(pool, said, right[label]) if not ok]
            report.setdefault(style, {"pool": len(pool)})[label] = sum(right[label]) / len(pool)
            print(time.strftime("%H:%M:%S"), style, label, f"{sum(right[label])}/{len(pool)} right", flush=True)
            for question, expected, got in wrong[:4]:
                print("   ", repr(question), "\n      want", repr(expected), "\n      said", repr(got), flush=True)
        # `model` is now the float32 one. Spread the listed questions over the intents.
        singles, chats, taken = [], [], {}
        for messages, intent, ok16, ok32 in zip(pool, pool_intents, right["bf16"], right["float32"]):
            if not (ok16 and ok32):
                continue
            single = len(messages) == 2
            if len(singles if single else chats) >= (LISTED_PER_ADAPTER if single else LISTED_CHATS_PER_ADAPTER):
                continue
            if (single and taken.get(intent, 0) >= 1 + (intent == "order_status")) or _margin(model, tokenizer, messages) < MIN_MARGIN:
                continue
            taken[intent] = taken.get(intent, 0) + single
            if single:
                singles.append({"prompt": messages[0]["content"], "adapter": name, "expected": messages[-1]["content"]})
            else:
                chats.append({"messages": messages[:-1], "adapter": name, "expected": messages[-1]["content"]})
        listed += singles
        listed_chats += chats
        report[style]["listed"] = [len(singles), len(chats)]
    (directory / "heldout.json").write_text(json.dumps(listed, ensure_ascii=False, indent=1) + "\n")
    (directory / "heldout-chats.json").write_text(json.dumps(listed_chats, ensure_ascii=False, indent=1) + "\n")
    (directory / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report), flush=True)
