"""Writes the llama.cpp peer's files from the very weights that lorax-js reads.

From the Hugging Face directory: model-BF16.gguf (the same bfloat16 numbers) and model-Q8_0.gguf;
from PEFT directories: one GGUF LoRA (float16) each. llama.cpp keeps q and k rows in rotary pairs,
so these rows are permuted, in the model and in the adapters' B. Needs PyPI gguf and numpy.

    python make-gguf.py [--model DIR] [--adapters DIR] [--out DIR]
"""

import argparse
import json
import struct
from pathlib import Path
from typing import Iterator

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

REPO = Path(__file__).resolve().parents[2]
BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMAL_TOKEN, CONTROL_TOKEN = 1, 3


def read_bfloat16(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32 array) of each tensor of a bfloat16 safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    for name, info in header.items():
        if info["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {info['dtype']}, expected BF16")
        begin, end = info["data_offsets"]
        bits = np.frombuffer(data[begin:end].tobytes(), dtype="<u2")
        yield name, (bits.astype("<u4") << 16).view("<f4").reshape(info["shape"])


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{BLOCK_NAMES[module]}.weight"


def permute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """[heads * head_dim, n]: halves (i, i + head_dim/2) to neighbours (2i, 2i+1)."""
    half = rows.shape[0] // num_heads // 2
    return rows.reshape(num_heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def heads_of(name: str, config: dict) -> int | None:
    """How many heads' rows to permute; None where the rows stay."""
    if ".q_proj." in name:
        return config["num_attention_heads"]
    return config["num_key_value_heads"] if ".k_proj." in name else None


def write(writer: gguf.GGUFWriter, path: Path) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    Path(f"{path}.tmp").rename(path)  # a file under its final name is whole
    print(f"{path} {path.stat().st_size / 1e6:.1f} MB", flush=True)


def write_model(model: Path, path: Path, matrix_type: Type, file_type: gguf.LlamaFileType) -> None:
    config = json.loads((model / "config.json").read_text())
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    chat_template = json.loads((model / "tokenizer_config.json").read_text())["chat_template"]
    writer = gguf.GGUFWriter(f"{path}.tmp", "llama")
    writer.add_name(model.name)
    writer.add_file_type(file_type)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])

    vocab = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    if [token_id for _, token_id in vocab] != list(range(config["vocab_size"])):
        raise ValueError(f"{model / 'tokenizer.json'}: ids are not 0 .. vocab_size - 1")
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocab])
    kinds = [CONTROL_TOKEN if i in special else NORMAL_TOKEN for i in range(len(vocab))]
    writer.add_token_types(kinds)
    writer.add_token_merges(tokenizer["model"]["merges"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat_template)

    for name, values in read_bfloat16(model / "model.safetensors"):
        heads = heads_of(name, config)
        if heads is not None:
            values = permute(values, heads)
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            data = quantize(values, matrix_type)
            writer.add_tensor(gguf_name(name), data, raw_dtype=matrix_type)
    write(writer, path)


def write_adapter(adapter: Path, config: dict, path: Path) -> None:
    adapter_config = json.loads((adapter / "adapter_config.json").read_text())
    for field in ("use_rslora", "rank_pattern", "alpha_pattern"):
        if adapter_config.get(field):
            raise ValueError(f"{adapter}: {field} has no form in a GGUF LoRA")
    writer = gguf.GGUFWriter(f"{path}.tmp", "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(adapter_config["lora_alpha"]))
    for name, values in read_bfloat16(adapter / "adapter_model.safetensors"):
        base_name, side = name.removeprefix("base_model.model.").rsplit(".lora_", 1)
        heads = heads_of(name, config)
        if side == "B.weight" and heads is not None:
            values = permute(values, heads)  # B's rows are the projection's rows
        suffix = "lora_a" if side == "A.weight" else "lora_b"
        writer.add_tensor(f"{gguf_name(base_name + '.weight')}.{suffix}", values.astype("<f2"))
    write(writer, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=REPO / ".cache/models/SmolLM2-135M-Instruct")
    parser.add_argument("--adapters", type=Path, default=REPO / ".cache/bench/adapters")
    parser.add_argument("--out", type=Path, default=REPO / ".cache/bench/gguf")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for matrix_type, file_type in (
        (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
        (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    ):
        path = args.out / f"model-{matrix_type.name}.gguf"
        if not path.exists():
            write_model(args.model, path, matrix_type, file_type)
    config = json.loads((args.model / "config.json").read_text())
    for adapter in sorted(args.adapters.glob("*/adapter_config.json")):
        path = args.out / f"{adapter.parent.name}.lora.gguf"
        if not path.exists():
            write_adapter(adapter.parent, config, path)


if __name__ == "__main__":
    main()
