#!/usr/bin/env python3
"""What `secateur bench` measures on a 4-bit GGUF file, and llama.cpp on the same file, in turns.

    python benches/gguf.py --secateur target/release/secateur --llama-bench BUILD/bin/llama-bench --folder DIR

The file has LLaVA-1.5-7B's shape, random weights and llama.cpp's mixture Q4_K_M; it is written to the folder first, 4 GB. llama.cpp runs
as it comes and with `--repack 0`, its faster way for prompts on some processors. Secateur runs with bf16 products, and with
`--activations int8`. Needs numpy and gguf from PyPI.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

# This script has the library's name.
sys.path.pop(0)
import gguf
import numpy

VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, VISION, BLOCKS = 32000, 4096, 11008, 32, 32, 1024, 23
PROMPTS = {576: 616, 64: 104, 29: 69}
KINDS = {"Q4_K": gguf.GGMLQuantizationType.Q4_K, "Q6_K": gguf.GGMLQuantizationType.Q6_K}
RANDOM = numpy.random.default_rng(1)


def blocks(kind, rows, columns):
    """Random blocks whose values are about as large as those of a model: most bits are random, scales of scales are not."""
    size = {"Q4_K": 144, "Q6_K": 210}[kind]
    data = RANDOM.integers(0, 256, (rows, columns // 256, size), dtype=numpy.uint8)
    scale = numpy.frombuffer(numpy.float16(4e-5 if kind == "Q4_K" else 2e-5).tobytes(), dtype=numpy.uint8)
    if kind == "Q4_K":
        data[..., 0:2], data[..., 2:4] = scale, numpy.frombuffer(numpy.float16(2e-4).tobytes(), dtype=numpy.uint8)
    else:
        data[..., 208:210] = scale
    return data.reshape(rows, -1)


def is_finer(layer):
    return layer < LAYERS // 8 or layer >= 7 * LAYERS // 8 or (layer - LAYERS // 8) % 3 == 2


def write_decoder(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llava-1.5-7b, random")
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(15)
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = special + [chr(0x4E00 + i) for i in range(VOCABULARY - len(special))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(special) + [-float(i) for i in range(VOCABULARY - len(special))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - len(special)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    matrices = [("token_embd", "Q4_K", VOCABULARY, HIDDEN), ("output", "Q6_K", VOCABULARY, HIDDEN)]
    for layer in range(LAYERS):
        finer = "Q6_K" if is_finer(layer) else "Q4_K"
        matrices += [(f"blk.{layer}.{name}", kind, rows, columns) for name, kind, rows, columns in [
            ("attn_q", "Q4_K", HIDDEN, HIDDEN), ("attn_k", "Q4_K", HIDDEN, HIDDEN), ("attn_v", finer, HIDDEN, HIDDEN),
            ("attn_output", "Q4_K", HIDDEN, HIDDEN), ("ffn_gate", "Q4_K", INNER, HIDDEN), ("ffn_up", "Q4_K", INNER, HIDDEN),
            ("ffn_down", finer, HIDDEN, INNER)]]
    for name, kind, rows, columns in matrices:
        writer.add_tensor(f"{name}.weight", blocks(kind, rows, columns), raw_dtype=KINDS[kind])
    norms = ["output_norm"] + [f"blk.{layer}.{name}" for layer in range(LAYERS) for name in ["attn_norm", "ffn_norm"]]
    for name in norms:
        writer.add_tensor(f"{name}.weight", numpy.ones(HIDDEN, dtype=numpy.float32))
    finish(writer)


def write_encoder(path):
    writer = gguf.GGUFWriter(path, "clip")
    for key in ["clip.has_vision_encoder", "clip.has_llava_projector"]:
        writer.add_bool(key, True)
    writer.add_bool("clip.use_gelu", False)
    writer.add_string("clip.projector_type", "mlp")
    for key, value in [("image_size", 336), ("patch_size", 14), ("embedding_length", VISION), ("feed_forward_length", 4 * VISION),
                       ("projection_dim", HIDDEN), ("attention.head_count", 16), ("block_count", BLOCKS)]:
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.48145466, 0.4578275, 0.40821073])
    writer.add_array("clip.vision.image_std", [0.26862954, 0.26130258, 0.27577711])

    def layer(name, *shape):
        dtype = numpy.float16 if len(shape) > 1 else numpy.float32
        weight = RANDOM.uniform(-0.02, 0.02, shape).astype(dtype) if len(shape) > 1 else numpy.ones(shape, dtype=dtype)
        writer.add_tensor(f"{name}.weight", weight)
        writer.add_tensor(f"{name}.bias", numpy.zeros(shape[0], dtype=numpy.float32))

    writer.add_tensor("v.class_embd", numpy.zeros(VISION, dtype=numpy.float32))
    writer.add_tensor("v.patch_embd.weight", RANDOM.uniform(-0.02, 0.02, (VISION, 3, 14, 14)).astype(numpy.float16))
    writer.add_tensor("v.position_embd.weight", RANDOM.uniform(-0.02, 0.02, (577, VISION)).astype(numpy.float16))
    layer("v.pre_ln", VISION)
    for block in range(BLOCKS):
        for name in ["attn_q", "attn_k", "attn_v", "attn_out"]:
            layer(f"v.blk.{block}.{name}", VISION, VISION)
        layer(f"v.blk.{block}.ln1", VISION)
        layer(f"v.blk.{block}.ln2", VISION)
        layer(f"v.blk.{block}.ffn_down", 4 * VISION, VISION)
        layer(f"v.blk.{block}.ffn_up", VISION, 4 * VISION)
    layer("mm.0", HIDDEN, VISION)
    layer("mm.2", HIDDEN, HIDDEN)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def secateur(args, decoder, encoder, more):
    """Milliseconds by prompt, and of a token, of one round; peak memory in GiB."""
    command = [args.secateur, "bench", "--model", decoder, "--mmproj", encoder, "--method", "fastervlm", "--budgets", "64,29",
               "--repeats", "1", "--new-tokens", "16", "--dtype", "bf16", "--json", *more]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rows = {row["visual_tokens"]: row for row in result["rows"]}
    times = {PROMPTS[tokens]: row["prefill_ms"] for tokens, row in rows.items()}
    return {**times, "token": rows[64]["decode_ms_per_token"], "tower": rows[576]["vision_ms"], "GiB": result["peak_bytes"] / 2**30}


def llama(args, decoder, more):
    command = [args.llama_bench, "-m", decoder, "-p", ",".join(str(rows) for rows in PROMPTS.values()), "-n", "16", "-r", "1",
               "-t", str(args.threads), "-o", "json", *more]
    runs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    times = {run["n_prompt"]: run["avg_ns"] / 1e6 for run in runs if run["n_prompt"]}
    return {**times, "token": next(run["avg_ns"] / 1e6 / run["n_gen"] for run in runs if run["n_gen"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    decoder, encoder = args.folder / "llava-7b-random-Q4_K_M.gguf", args.folder / "mmproj-llava-7b-random.gguf"
    if not decoder.exists():
        write_decoder(decoder)
    if not encoder.exists():
        write_encoder(encoder)
    ways = {
        "llama.cpp as it comes": lambda: llama(args, decoder, []),
        "llama.cpp --repack 0": lambda: llama(args, decoder, ["--repack", "0"]),
        "Secateur, bf16": lambda: secateur(args, decoder, encoder, []),
        "Secateur, int8": lambda: secateur(args, decoder, encoder, ["--activations", "int8"]),
    }
    rounds = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, run in ways.items():
            rounds[way].append(run())
    heads = [*PROMPTS.values(), "token", "tower", "GiB"]
    print("| medians in ms | " + " | ".join(str(head) for head in heads) + " |\n|" + "---|" * (len(heads) + 1))
    for way, found in rounds.items():
        cell = lambda head: f"{statistics.median(one[head] for one in found):,.1f}" if head in found[0] else ""
        print(f"| {way} | " + " | ".join(cell(head) for head in heads) + " |")


if __name__ == "__main__":
    main()
