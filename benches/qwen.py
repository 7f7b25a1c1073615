"""What `secateur bench` measures of Qwen2.5-VL, measured with transformers on PyTorch: the same shape, image and budgets, random weights.

    python benches/qwen.py --secateur target/release/secateur               # the 3B shape in bf16, an image of 1,296 tokens

Both run on this machine in one go, in turns (Secateur, PyTorch, Secateur, …), and a Markdown table with ratios comes out. transformers computes attention
by SDPA. Needs torch and transformers 4.57.
"""

import argparse
import gc
import json
import pathlib
import platform
import statistics
import subprocess
import time

import torch
import transformers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

SIDE = 72
"""Patches a side of the image: 36 x 36 merged tokens."""


def model(args):
    """The 3B shape with random weights: pages that were never written would be read from one page of zeros."""
    text = dict(hidden_size=2048, intermediate_size=11008, num_hidden_layers=args.layers, num_attention_heads=16, num_key_value_heads=2,
                vocab_size=151936, tie_word_embeddings=True, max_position_embeddings=128000, rope_theta=1e6, rms_norm_eps=1e-6,
                rope_scaling=dict(type="mrope", mrope_section=[16, 24, 24]))
    vision = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=2048, patch_size=14, spatial_merge_size=2,
                  window_size=112, fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2, temporal_patch_size=2)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with transformers.modeling_utils.no_init_weights():
        made = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-0.02, 0.02)
    return made.eval()


@torch.inference_mode()
def pytorch(args, made):
    """One round: milliseconds of the tower, and of the prompt and a token after it for each budget."""
    grid = torch.tensor([[1, SIDE, SIDE]])
    pixels = torch.randn(SIDE * SIDE, 1176, dtype=torch.bfloat16)
    start = time.perf_counter()
    made.model.visual(pixels, grid_thw=grid)
    found = dict(vision=1e3 * (time.perf_counter() - start))
    for tokens in [SIDE * SIDE // 4] + args.budgets:
        rows = tokens + args.prompt_tokens
        embeds = torch.randn(1, rows, 2048, dtype=torch.bfloat16) * 0.1
        positions = torch.arange(rows).view(1, 1, -1).expand(3, 1, -1)
        start = time.perf_counter()
        # As generate() does, only the last position's logits are wanted.
        out = made.model.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=True)
        made.lm_head(out.last_hidden_state[:, -1])
        found["prefill", tokens] = 1e3 * (time.perf_counter() - start)
        start = time.perf_counter()
        for step in range(args.new_tokens - 1):
            embeds = made.get_input_embeddings()(torch.tensor([[300]]))
            positions = torch.full((3, 1, 1), rows + step)
            out = made.model.language_model(inputs_embeds=embeds, position_ids=positions, past_key_values=out.past_key_values, use_cache=True)
            made.lm_head(out.last_hidden_state[:, -1])
        found["token", tokens] = 1e3 * (time.perf_counter() - start) / (args.new_tokens - 1)
    return found


def secateur(args):
    """One round of `secateur bench`, and its peak of memory."""
    command = [args.secateur, "bench", "--shape", "qwen2.5-vl-3b", "--layers", str(args.layers), "--dtype", "bf16", "--backend", "flex",
               "--budgets", ",".join(map(str, args.budgets)), "--method", args.method, "--prompt-tokens", str(args.prompt_tokens),
               "--new-tokens", str(args.new_tokens), "--repeats", "1", "--json"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(ended.stdout.splitlines()[-1])["rows"]
    found = dict(vision=rows[0]["vision_ms"], cue=rows[1]["vision_ms"])
    for row in rows:
        tokens = row["tokens"]
        found["prefill", tokens], found["token", tokens] = row["prefill_ms"], row["decode_ms_per_token"]
    return found


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", required=True, help="the release binary")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--budgets", type=lambda text: [int(n) for n in text.split(",")], default=[128])
    parser.add_argument("--method", default="fastervlm")
    parser.add_argument("--prompt-tokens", type=int, default=40)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    made = model(args)
    # The first round of each warms up.
    pytorch(args, made)
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(secateur(args))
        theirs.append(pytorch(args, made))
        gc.collect()
    middle = lambda rounds, key: statistics.median(found[key] for found in rounds)
    print(f"Qwen2.5-VL-3B's shape, {args.layers} layers, bf16, an image of {SIDE * SIDE // 4} tokens; {args.prompt_tokens} tokens of text, medians of "
          f"{args.repeats}; torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, {processor()}\n")
    print("| visual tokens | stage | Secateur, ms | PyTorch SDPA, ms | Secateur ÷ PyTorch |\n|---|---|---|---|---|")
    rows = [("", "tower", "vision", "vision"), ("", f"tower with what {args.method} reads", "cue", "vision")]
    for tokens in [SIDE * SIDE // 4] + args.budgets:
        rows += [(tokens, "prompt", ("prefill", tokens), ("prefill", tokens)), (tokens, "a token after it", ("token", tokens), ("token", tokens))]
    for tokens, name, own, their in rows:
        a, b = middle(ours, own), middle(theirs, their)
        print(f"| {tokens} | {name} | {a:.0f} | {b:.0f} | {a / b:.2f} |")


if __name__ == "__main__":
    main()
