"""Proves the demo on held-out questions and writes heldout.json and heldout-chats.json.

A model passes a question only if greedy decoding yields the expected text to the last character and
then ends. Accuracy is measured over whole pools, in float32 and in bf16; only then are the questions
for the files taken from the pool in its order, each decoded once more alone.
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
END_OF_TURN = 2  # <|im_end|>
LISTED_PER_ADAPTER = 18
LISTED_CHATS_PER_ADAPTER = 6
MIN_MARGIN = 1.0  # logits by which a listed answer leads at every step, so that no rounding turns it


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


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def _margins(model, tokenizer, pool: list[list[dict[str, str]]]) -> list[float]:
    """Smallest lead of the expected token over the next best along the expected answer and its end.

    Positive exactly when greedy decoding yields the answer: each step then picks the expected token,
    so the next step sees the prefix that was scored here. One forward pass instead of a decode loop.
    """
    pairs = [(_prompt_ids(tokenizer, m), _ids(tokenizer, m[-1]["content"]) + [END_OF_TURN]) for m in pool]
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    margins = [0.0] * len(pairs)
    for begin in range(0, len(order), 32):
        rows = order[begin:begin + 32]
        width = max(len(pairs[i][0]) + len(pairs[i][1]) for i in rows)
        ids = torch.tensor([(p + a + [0] * width)[:width] for p, a in (pairs[i] for i in rows)], device=model.device)
        logits = model(input_ids=ids).logits.float()  # [rows, width, vocab]; padding comes after what counts
        for row, i in enumerate(rows):
            prompt, expected = pairs[i]
            steps = logits[row, len(prompt) - 1:len(prompt) - 1 + len(expected)]
            index = torch.tensor(expected, device=model.device)[:, None]
            lead = steps.gather(1, index)[:, 0]
            margins[i] = float((lead - steps.scatter(1, index, float("-inf")).max(dim=1).values).min())
    return margins


@torch.no_grad()
def _greedy(model, tokenizer, messages: list[dict[str, str]]) -> str:
    """What the model says by itself, decoded one token at a time."""
    prompt = torch.tensor([_prompt_ids(tokenizer, messages)], device=model.device)
    out = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                         max_new_tokens=MAX_NEW_TOKENS, eos_token_id=[END_OF_TURN, 0], pad_token_id=0)
    return tokenizer.decode(out[0, prompt.shape[1]:], skip_special_tokens=True)


def verify(directory: Path, adapters: list[str], pool_size: int) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    listed, listed_chats, report = [], [], {}
    for name in [None, *adapters]:
        style = name or "plain"
        pool, intents = _pool(style, pool_size * (2 if name is None else 1))
        margins: dict[str, list[float]] = {}
        report[style] = {"pool": len(pool)}
        for label, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
            model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(device)
            if name:
                model = PeftModel.from_pretrained(model, directory / "adapters" / name, autocast_adapter_dtype=False).to(dtype)
            model.eval()
            margins[label] = _margins(model, tokenizer, pool)
            right = sum(m > 0 for m in margins[label])
            report[style][label] = right / len(pool)
            print(time.strftime("%H:%M:%S"), style, label, f"{right}/{len(pool)} right", flush=True)
            for messages in [m for m, lead in zip(pool, margins[label]) if lead <= 0][:4]:
                print("    asked", repr(messages[-2]["content"]), "\n     want", repr(messages[-1]["content"]),
                      "\n     said", repr(_greedy(model, tokenizer, messages)), flush=True)
        # `model` is now the float32 one. The listed questions are spread over the intents.
        singles, chats, taken = [], [], {}
        for i, messages in enumerate(pool):
            single = len(messages) == 2
            full = len(singles if single else chats) >= (LISTED_PER_ADAPTER if single else LISTED_CHATS_PER_ADAPTER)
            many = single and taken.get(intents[i], 0) > (intents[i] == "order_status")
            if full or many or min(margins[label][i] for label in margins) < MIN_MARGIN:
                continue
            expected = messages[-1]["content"]
            assert _greedy(model, tokenizer, messages) == expected, messages
            taken[intents[i]] = taken.get(intents[i], 0) + single
            asked = {"prompt": messages[0]["content"]} if single else {"messages": messages[:-1]}
            (singles if single else chats).append(asked | {"adapter": name, "expected": expected})
        listed += singles
        listed_chats += chats
        report[style]["listed"] = len(singles)
        report[style]["listedChats"] = len(chats)
    for file, value in (("heldout.json", listed), ("heldout-chats.json", listed_chats), ("accuracy.json", report)):
        (directory / file).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps(report), flush=True)
