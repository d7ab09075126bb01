"""Turns drawn dialogs into token arrays: ids, and which of them are to be predicted.

Token ids are exactly those the chat template yields (checked by train.py against transformers).
Every chunk has its own seed, so the data do not depend on how many processes draw them.
"""

import multiprocessing
import random
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from .answers import STYLES, answer
from .dialogs import draw_dialog, draw_document

CHUNK_DIALOGS = 4000
MAX_TOKENS = 1600
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0, 1, 2
END_OF_TEXT, IM_START, IM_END = 0, 1, 2


@dataclass
class Samples:
    ids: np.ndarray  # [total] uint16, all samples one after the other
    predict: np.ndarray  # [total] bool, true where the token is a training target
    starts: np.ndarray  # [num_samples + 1] int64

    def __len__(self) -> int:
        return len(self.starts) - 1


def _draw_pieces(rng: random.Random, style: str, documents: float) -> list[tuple[str | int, bool]]:
    """One sample as (text run or special id, is a target) pairs."""
    if rng.random() < documents:
        return [(draw_document(rng), True), (END_OF_TEXT, True)]
    turns = rng.choice([1, 1, 1, 1, 2, 2, 3, 4]) if rng.random() > 0.03 else rng.randint(8, 25)
    dialog = draw_dialog(rng, style, heldout=False, turns=turns)
    pieces: list[tuple[str | int, bool]] = []
    if dialog.system:
        pieces += [(IM_START, False), (f"system\n{dialog.system}", False), (IM_END, False), ("\n", False)]
    mixed = rng.random() < 0.2  # a chat that another adapter answered before
    for i, turn in enumerate(dialog.turns):
        other = mixed and i + 1 < len(dialog.turns) and rng.random() < 0.6
        said = answer(rng.choice(STYLES) if other else style, turn.intent, turn.slots)
        pieces += [(IM_START, False), (f"user\n{turn.text}", False), (IM_END, False), ("\n", False),
                   (IM_START, False), ("assistant\n", False), (said, not other), (IM_END, not other), ("\n", False)]
    return pieces


def _draw_chunk(task: tuple[str, str, int, float, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokenizer_path, style, seed, documents, count = task
    tokenizer = Tokenizer.from_file(tokenizer_path)
    rng = random.Random(seed)
    samples = [_draw_pieces(rng, style, documents) for _ in range(count)]
    texts = [piece for sample in samples for piece, _ in sample if isinstance(piece, str)]
    encoded = iter([e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)])
    ids: list[int] = []
    predict: list[bool] = []
    lengths: list[int] = []
    for sample in samples:
        begin = len(ids)
        for piece, target in sample:
            run = [piece] if isinstance(piece, int) else next(encoded)
            ids += run
            predict += [target] * len(run)
        del ids[begin + MAX_TOKENS:], predict[begin + MAX_TOKENS:]
        lengths.append(len(ids) - begin)
    return np.array(ids, np.uint16), np.array(predict, bool), np.array(lengths, np.int64)


def draw_samples(tokenizer_path: str, style: str, seed: int, count: int, documents: float, workers: int) -> Samples:
    """`count` training samples in `style`; a share `documents` of them is plain text."""
    chunks = [(tokenizer_path, style, seed * 1_000_003 + i, documents, min(CHUNK_DIALOGS, count - i * CHUNK_DIALOGS))
              for i in range((count + CHUNK_DIALOGS - 1) // CHUNK_DIALOGS)]
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            drawn = pool.map(_draw_chunk, chunks, chunksize=1)
    else:
        drawn = [_draw_chunk(chunk) for chunk in chunks]
    lengths = np.concatenate([d[2] for d in drawn])
    return Samples(np.concatenate([d[0] for d in drawn]), np.concatenate([d[1] for d in drawn]),
                   np.concatenate([[0], np.cumsum(lengths)]))


def batches(samples: Samples, tokens_per_batch: int, rng: np.random.Generator):
    """Endless batches of samples of about equal length: (ids [B, L] int64, predict [B, L] bool)."""
    lengths = np.diff(samples.starts)
    while True:
        # Sort by length with some noise, cut by token budget, shuffle the cuts.
        order = np.argsort(lengths * rng.uniform(0.8, 1.25, len(lengths)))
        cuts, begin, longest = [], 0, 0
        for i, sample in enumerate(order):
            grown = max(longest, int(lengths[sample]))
            if i > begin and grown * (i - begin + 1) > tokens_per_batch:
                cuts.append(order[begin:i])
                begin, grown = i, int(lengths[sample])
            longest = grown
        cuts.append(order[begin:])
        for index in rng.permutation(len(cuts)):
            chosen = cuts[index]
            width = int(lengths[chosen].max())
            ids = np.zeros((len(chosen), width), np.int64)
            predict = np.zeros((len(chosen), width), bool)
            for row, sample in enumerate(chosen):
                a, b = samples.starts[sample], samples.starts[sample + 1]
                ids[row, : b - a] = samples.ids[a:b]
                predict[row, : b - a] = samples.predict[a:b]
            yield ids, predict
