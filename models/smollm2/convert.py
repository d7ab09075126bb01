"""Turns the SmolLM2-135M-Instruct GGUF into a Hugging Face directory.

Owns the mapping from GGUF names, layouts and metadata to config.json, tokenizer.json and
model.safetensors. Weights are dequantized in float32 and stored once as bfloat16 (round to nearest
even). Needs only PyPI `gguf` and `numpy`. Called by scripts/fetch-smollm2.mjs, which reads the
"progress DONE TOTAL" lines (bytes of safetensors) on stdout and renames the finished directory.

    python convert.py SmolLM2-135M-Instruct.Q4_1.gguf OUT_DIR
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

# Projections of one block: GGUF name -> Hugging Face name.
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL


def hugging_face_name(gguf_name: str) -> str:
    if gguf_name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if gguf_name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = gguf_name.split(".")
    return f"model.layers.{layer}.{BLOCK_NAMES[part]}.weight"


def undo_rope_permutation(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """[heads * head_dim, in]: interleaved pairs (2i, 2i+1) back to halves (i, i + head_dim/2)."""
    rows, cols = weight.shape
    half = rows // num_heads // 2
    return weight.reshape(num_heads, half, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 -> the upper 16 bits, rounded to nearest even. Weights here are finite."""
    if not np.isfinite(values).all():
        raise ValueError("the GGUF holds a weight that is not finite")
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path: Path, reader: GGUFReader, num_heads: int, num_kv_heads: int) -> None:
    tensors = sorted(reader.tensors, key=lambda tensor: hugging_face_name(tensor.name))
    header = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        shape = [int(n) for n in reversed(tensor.shape)]  # GGUF lists the fastest dimension first
        end = offset + 2 * int(np.prod(shape))
        header[hugging_face_name(tensor.name)] = {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensor data starts 8-byte aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        done = 0
        for tensor in tensors:
            weight = dequantize(tensor.data, tensor.tensor_type)
            if ".attn_q." in tensor.name:
                weight = undo_rope_permutation(weight, num_heads)
            elif ".attn_k." in tensor.name:
                weight = undo_rope_permutation(weight, num_kv_heads)
            data = to_bfloat16(weight).tobytes()
            file.write(data)
            done += len(data)
            print(f"progress {done} {offset}", flush=True)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    gguf_path, out = Path(sys.argv[1]), Path(sys.argv[2])
    reader = GGUFReader(gguf_path)

    def field(name: str):
        if name not in reader.fields:
            raise KeyError(f"{gguf_path}: metadata field {name} is missing")
        return reader.fields[name].contents()

    if field("general.architecture") != "llama":
        raise ValueError(f"{gguf_path}: expected architecture llama")
    if field("tokenizer.ggml.pre") != "smollm":
        raise ValueError(f"{gguf_path}: expected pre-tokenizer smollm")
    num_heads = int(field("llama.attention.head_count"))
    num_kv_heads = int(field("llama.attention.head_count_kv"))
    context_length = int(field("llama.context_length"))
    tokens = field("tokenizer.ggml.tokens")
    bos, eos = int(field("tokenizer.ggml.bos_token_id")), int(field("tokenizer.ggml.eos_token_id"))
    unk, pad = (int(field(f"tokenizer.ggml.{n}_token_id")) for n in ("unknown", "padding"))

    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "hidden_act": "silu",
            "hidden_size": int(field("llama.embedding_length")),
            "initializer_range": 0.041666666666666664,
            "intermediate_size": int(field("llama.feed_forward_length")),
            "max_position_embeddings": context_length,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": num_heads,
            "num_hidden_layers": int(field("llama.block_count")),
            "num_key_value_heads": num_kv_heads,
            "pad_token_id": pad,
            # The GGUF's float32 9.99999975e-06 is what 1e-05 becomes on the way.
            "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_scaling": None,
            "rope_theta": float(field("llama.rope.freq_base")),
            "tie_word_embeddings": True,  # the GGUF has no output.weight
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": int(field("llama.vocab_size")),
        },
    )
    write_json(
        out / "generation_config.json",
        {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad},
    )

    added = [
        {
            "id": token_id,
            "content": tokens[token_id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token_id, kind in enumerate(field("tokenizer.ggml.token_type"))
        if kind == CONTROL_TOKEN
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    write_json(
        out / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            # llama.cpp's "smollm": every digit is a token of its own, then the GPT-2 pattern.
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {**byte_level, "use_regex": True},
                ],
            },
            "post_processor": None,
            "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: token_id for token_id, token in enumerate(tokens)},
                "merges": field("tokenizer.ggml.merges"),
            },
        },
    )
    write_json(
        out / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added
            },
            "bos_token": tokens[bos],
            "chat_template": field("tokenizer.chat_template"),
            "clean_up_tokenization_spaces": False,
            "eos_token": tokens[eos],
            "model_max_length": context_length,
            "pad_token": tokens[pad],
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": tokens[unk],
        },
    )
    write_safetensors(out / "model.safetensors", reader, num_heads, num_kv_heads)


if __name__ == "__main__":
    main()
