"""transformers + PEFT as a peer of the benchmark: one JSON command a line in, one answer a line out.

    python transformers_peer.py --model DIR --adapters DIR
bfloat16, the library's defaults otherwise. All prompts of a case have one length, so a batch needs no
padding; it is decoded greedily with a KV cache, and over several adapters it is PEFT's own mixed
batch (`adapter_names`). Adapters are loaded when a command first needs them, and base-only commands
run on a model without them. Commands and answers: README.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM


class Peer:
    def __init__(self, model_dir: Path, adapters_dir: Path | None):
        self.model_dir = model_dir
        self.base = self.load()
        self.vocab_size = self.base.config.vocab_size
        self.mixed = None  # the base again, wrapped by PEFT
        configs = adapters_dir.glob("*/adapter_config.json") if adapters_dir else []
        self.adapter_dirs = sorted(path.parent for path in configs)

    def load(self):
        return AutoModelForCausalLM.from_pretrained(self.model_dir, dtype=torch.bfloat16).eval()

    def model_for(self, num_adapters: int):
        if num_adapters == 0:
            return self.base
        if num_adapters > len(self.adapter_dirs):
            raise ValueError(f"{num_adapters} adapters asked for, {len(self.adapter_dirs)} there")
        if self.mixed is None:
            first, *others = self.adapter_dirs
            # PEFT would raise adapters to float32; bfloat16 like the base is its faster way
            options = {"autocast_adapter_dtype": False}
            self.mixed = PeftModel.from_pretrained(self.load(), first, first.name, **options).eval()
            for adapter in others:
                self.mixed.load_adapter(adapter, adapter.name, **options)
        return self.mixed

    def prompts(self, length: int, sequences: int) -> torch.Tensor:
        """[sequences, length] ordinary token ids; the llama.cpp peer uses the same."""
        i = torch.arange(length)
        s = torch.arange(sequences)[:, None]
        return 1000 + (i * 7919 + s * 104729 + i * i) % (self.vocab_size - 1000)

    def forward_arguments(self, num_adapters: int, sequences: int) -> dict:
        if num_adapters == 0:
            return {}
        names = [self.adapter_dirs[s % num_adapters].name for s in range(sequences)]
        return {"adapter_names": names}

    @torch.inference_mode()
    def prefill(self, prompt: int, adapters: int = 0) -> dict:
        model = self.model_for(adapters)
        ids = self.prompts(prompt, 1)
        extra = self.forward_arguments(adapters, 1)
        cpu_before = time.process_time()
        started = time.perf_counter()
        logits = model(ids, use_cache=True, logits_to_keep=1, **extra).logits
        logits[0, -1].argmax().item()
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_before
        return {
            "tokensPerSecond": prompt / seconds,
            "promptTokens": prompt,
            "cpuSeconds": cpu_seconds,
        }

    @torch.inference_mode()
    def decode(self, sequences: int, tokens: int, prompt: int, adapters: int = 0) -> dict:
        """A plain loop over forward(), which costs less than generate()."""
        model = self.model_for(adapters)
        extra = self.forward_arguments(adapters, sequences)
        out = model(self.prompts(prompt, sequences), use_cache=True, logits_to_keep=1, **extra)
        last = out.logits[:, -1].argmax(-1, keepdim=True)  # [sequences, 1]
        cpu_before = time.process_time()
        started = time.perf_counter()
        for _ in range(tokens - 1):
            out = model(last, past_key_values=out.past_key_values, use_cache=True, **extra)
            last = out.logits[:, -1].argmax(-1, keepdim=True)
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_before
        return {
            "tokensPerSecond": sequences * (tokens - 1) / seconds,
            "generated": sequences * tokens,
            "cpuSeconds": cpu_seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, help="folder of PEFT directories")
    args = parser.parse_args()

    def reply(answer: dict) -> None:
        print(json.dumps(answer), flush=True)

    peer = Peer(args.model, args.adapters)
    versions = f"{transformers.__version__} bf16, torch {torch.__version__}"
    reply({"ready": f"transformers {versions}, {torch.get_num_threads()} threads"})
    for line in sys.stdin:
        command = json.loads(line)
        run = {"prefill": peer.prefill, "decode": peer.decode}[command.pop("case")]
        try:
            reply(run(**command))
        except Exception as error:  # the driver shows it and goes on with the other peers
            reply({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
