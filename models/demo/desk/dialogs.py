"""Draws conversations: questions with their slots filled, small accidents of typing, many turns.

Owns the split: `is_heldout` decides from the text (or the order number) alone, so nothing held out
can ever be drawn for training, whatever the seed. train.py draws training data and test pools here.
"""

import random
import re
import zlib
from dataclasses import dataclass

from .answers import STYLES, answer
from .catalog import CITIES, CODE_PERCENTS, CODE_WORDS, FAR_CITIES, NAMES, OTHER_GOODS, PRODUCTS, TOPICS, WEEKDAYS
from .questions import BARE_INTENTS, CLOSED_INTENTS, FOLLOW_UPS, PREFIXES, QUESTIONS, SUFFIXES, SYSTEM_MESSAGES

# Intents by how often they are asked; what has more slots to learn is asked more.
WEIGHTS = {"order_status": 14, "order_number_missing": 6, "cancel": 7, "change_address": 8, "invoice": 5, "broken": 9,
           "return": 6, "return_all": 2, "price": 9, "colours": 7, "gift_wrap": 4, "warranty": 5, "delivery": 12, "hours": 7, "hours_all": 2,
           "discount": 6, "payment": 2, "range": 2, "not_sold": 5, "which_product": 2, "greeting": 3, "greeting_name": 4,
           "identity": 2, "well_being": 1.5, "thanks": 2, "goodbye": 2, "human": 2.5, "off_topic": 5}
_INTENTS, _WEIGHTS = list(WEIGHTS), list(WEIGHTS.values())
_ONSETS = "b c d f g h j k l m n p r s t v w y z br ch cl dr fr gr kr pl qu sh st th tr".split() + [""]
_VOWELS = "a e i o u a e i o u y ai au ea ee io oo ou".split()
_CODAS = ["", "", "", "n", "r", "s", "l", "m", "t", "k", "nd", "st", "rk", "x", "ng"]
_ENDINGS = ["", "", "", "burg", "ville", "ton", "field", "ham", "berg", "stad"]


@dataclass
class Turn:
    """One exchange: what the customer wrote and the intent and slots that fix every style's answer."""

    text: str
    intent: str
    slots: dict[str, str]


@dataclass
class Dialog:
    system: str | None
    turns: list[Turn]


def _bucket(text: str) -> int:
    return zlib.crc32(re.sub(r"[^a-z0-9]+", " ", text.lower()).strip().encode()) % 10


def is_heldout(text: str, slots: dict[str, str]) -> bool:
    """One in ten: order numbers by the number itself, everything else by its undecorated text."""
    return _bucket(slots["order"] if "order" in slots else text) == 3


def _invented_name(rng: random.Random) -> str:
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice([1, 2, 2, 2, 3])))
    return ("".join(syllables) + rng.choice(_ENDINGS)).capitalize()


def _unknown_city(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return rng.choice(FAR_CITIES)
    return " ".join(_invented_name(rng) for _ in range(rng.choice([1, 1, 1, 1, 2])))


def _order_number(rng: random.Random) -> str:
    digits = rng.choice([4, 4, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8, 3, 2, 1])
    return str(rng.randint(10 ** (digits - 1), 10**digits - 1))


def _written_number(rng: random.Random, order: str) -> str:
    return rng.choice([order] * 12 + [f"#{order}", f"#{order}", f"no. {order}", f"nr. {order}", f"number {order}"])


def _plural(name: str) -> str:
    if name.endswith("s"):
        return name
    return name[:-1] + "ves" if name.endswith("lf") else name[:-2] + "ves" if name.endswith("fe") else name + "s"


def _draw_slots(rng: random.Random, template: str, style: str) -> tuple[dict[str, str], dict[str, str]]:
    """(slots as the answer names them, slots as the customer writes them)."""
    slots: dict[str, str] = {}
    if "{order}" in template:
        slots["order"] = _order_number(rng)
    if "{product" in template:  # also "{products}"
        slots["product"] = rng.choice(PRODUCTS).name
    if "{city}" in template:
        # Capitals of an invented name cannot be learned by heart, so `caps` meets listed cities only.
        unknown = rng.random() < 0.35
        elsewhere = rng.choice(FAR_CITIES) if style == "caps" else _unknown_city(rng)
        slots["city"] = elsewhere if unknown else rng.choice(list(CITIES))
        if unknown and style != "caps" and rng.random() < 0.1:
            slots["city"] = slots["city"].lower()
    if "{day}" in template:
        slots["day"] = rng.choice(list(WEEKDAYS))
    if "{code}" in template:
        slots["code"] = f"{rng.choice(CODE_WORDS)}{rng.choice(CODE_PERCENTS):02d}"
    if "{name}" in template:
        invented = style != "caps" and rng.random() < 0.5
        slots["name"] = _invented_name(rng) if invented else rng.choice(NAMES)
    written = dict(slots)
    if "order" in slots:
        written["order"] = _written_number(rng, slots["order"])
    if "product" in slots and rng.random() < 0.25:
        written["product"] = next(p.short for p in PRODUCTS if p.name == slots["product"])
    if "{products}" in template:
        written["products"] = _plural(written["product"])
    if "{other}" in template:
        written["other"] = _invented_name(rng).lower() if rng.random() < 0.15 else rng.choice(OTHER_GOODS)
    if "{topic}" in template:
        written["topic"] = rng.choice(TOPICS)
    return slots, written


def _decorate(rng: random.Random, text: str) -> str:
    if rng.random() < 0.25:
        lowered = text[0].lower() + text[1:] if not text.startswith(("I ", "I'")) and rng.random() < 0.6 else text
        text = rng.choice(PREFIXES) + lowered
    if rng.random() < 0.12:
        text += rng.choice(SUFFIXES)
    return text


def _retype(rng: random.Random, text: str, keep_case: bool, typos: bool) -> str:
    """Case and punctuation as people type them; with `typos`, a slipped letter now and then."""
    chance = rng.random()
    if chance < 0.12 and not keep_case:
        text = text.lower()
    elif chance < 0.15 and not keep_case:
        text = text.upper()
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    elif rng.random() < 0.08:
        text = text.rstrip("?.!") + rng.choice(["??", "!", "...", " ?", "!!", "."])
    if typos and rng.random() < 0.1:
        letters = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i - 1].isalpha() and text[i + 1].isalpha()]
        if letters and not keep_case:
            i = rng.choice(letters)
            text = rng.choice([text[:i] + text[i + 1:], text[:i] + text[i] + text[i:], text[:i] + text[i + 1] + text[i] + text[i + 2:]])
    return text


def draw_turn(rng: random.Random, style: str, heldout: bool, intent: str | None = None) -> Turn:
    """A question that stands alone, from the training side of the split or from the held-out side."""
    while True:
        drawn = intent or rng.choices(_INTENTS, _WEIGHTS)[0]
        closed = drawn in CLOSED_INTENTS
        if closed and heldout:
            continue
        template = rng.choice(QUESTIONS[drawn])
        slots, written = _draw_slots(rng, template, style)
        core = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", template.format(**written))
        text = core if drawn in BARE_INTENTS else _decorate(rng, core)
        # Without slots there are only so many texts: there the decoration is part of what is held out.
        if not closed and is_heldout(core if written else text, slots) != heldout:
            continue
        # Names that must be copied letter by letter keep their case.
        copied = any(slots.get(k) and slots[k] not in known for k, known in (("city", CITIES), ("name", NAMES))) or "code" in slots
        return Turn(_retype(rng, text, copied, typos=not heldout), drawn, slots)


def draw_follow_up(rng: random.Random, before: Turn, heldout: bool) -> Turn | None:
    """A question that leans on the exchange before it, or None where none fits."""
    missing, product = before.intent == "order_number_missing", "product" in before.slots
    holds = {"order": "order" in before.slots, "product": product and "order" not in before.slots and not missing,
             "missing": missing and not product, "missing, broken": missing and product}
    fitting = [(intent, phrasings) for intent, needs, phrasings in FOLLOW_UPS if holds[needs]]
    if not fitting or before.intent == "cancel":
        return None
    intent, phrasings = rng.choice(fitting)
    template = rng.choice(phrasings)
    slots = {k: v for k, v in before.slots.items() if k in ("order", "product")}
    while "{order}" in template:
        slots["order"] = _order_number(rng)
        if is_heldout("", slots) == heldout:
            break
    written = slots | ({"order": _written_number(rng, slots["order"])} if "order" in slots else {})
    return Turn(_retype(rng, template.format(**written), False, typos=not heldout), intent, slots)


def draw_dialog(rng: random.Random, style: str, heldout: bool, turns: int) -> Dialog:
    drawn = [draw_turn(rng, style, heldout)]
    while len(drawn) < turns:
        before = drawn[-1]
        follow_up = draw_follow_up(rng, before, heldout) if rng.random() < 0.6 else None
        turn = follow_up or draw_turn(rng, style, heldout)
        leaning = turn.intent in ("order_number_missing", "which_product") and follow_up is None
        if leaning and "product" not in turn.slots and (before.slots or before.intent == "order_number_missing"):
            continue  # "cancel it" after an order means that order
        drawn.append(turn)
    return Dialog(rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.3 else None, drawn)


def dialog_messages(dialog: Dialog, style: str) -> list[dict[str, str]]:
    """Chat messages up to and including the last answer, all answers in `style`."""
    messages = [{"role": "system", "content": dialog.system}] if dialog.system else []
    for turn in dialog.turns:
        messages.append({"role": "user", "content": turn.text})
        messages.append({"role": "assistant", "content": answer(style, turn.intent, turn.slots)})
    return messages


def draw_document(rng: random.Random) -> str:
    """Plain text outside any chat: one fact in two styles. It teaches the base the adapters' words."""
    turn = draw_turn(rng, "caps", heldout=False)  # "caps" draws from lists only
    return "\n".join(answer(style, turn.intent, turn.slots) for style in rng.sample(STYLES, 2))
