"""Writes numpy-golden.json: what numpy's legacy RandomState draws, for numpy-random.test.ts."""

import json
import pathlib

import numpy as np


def slora(adapters, alpha, rate, cv, duration, low, high):
    """The draws of S-LoRA's generator, in its order."""
    random = np.random.RandomState(42)
    count = int(rate * duration)
    ids = (random.power(alpha, count) * adapters).astype(int)
    inputs = random.randint(low, high, count)
    outputs = random.randint(low, high, count)
    gaps = random.gamma(1 / (cv * cv), cv * cv / rate, count)
    return {
        "options": {
            "adapters": adapters,
            "alpha": alpha,
            "rate": rate,
            "cv": cv,
            "duration": duration,
            "input": [low, high],
            "output": [low, high],
        },
        "ids": ids.tolist(),
        "inputs": inputs.tolist(),
        "outputs": outputs.tolist(),
        "times": np.cumsum(gaps).tolist(),
    }


def draws(seed):
    """40 of each kind from one state, in this order."""
    random = np.random.RandomState(seed)
    return {
        "seed": seed,
        "double": random.random_sample(40).tolist(),
        "integer": random.randint(8, 512, 40).tolist(),
        "wide": random.randint(0, 4_000_000_000, 40, dtype=np.int64).tolist(),
        "single": random.randint(7, 8, 40).tolist(),
        "exponential": random.standard_exponential(40).tolist(),
        "normal": random.standard_normal(39).tolist(),
        "power": random.power(0.3, 40).tolist(),
        "gamma": {str(shape): random.gamma(shape, 2.5, 40).tolist() for shape in (0.0625, 0.25, 1, 1.7, 9)},
    }


golden = {
    "numpy": np.__version__,
    "draws": [draws(42), draws(4294967295)],
    "traces": [
        slora(5, 1, 2, 1, 60, 8, 512),
        slora(2000, 1, 2, 1, 60, 8, 512),
        slora(200, 0.3, 2, 4, 60, 8, 512),
        slora(32, 0.6, 2, 0.5, 60, 8, 33),
    ],
}
path = pathlib.Path(__file__).with_name("numpy-golden.json")
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
