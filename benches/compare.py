"""What `secateur bench` measures, measured with transformers on PyTorch: the same shape, prompt and budgets, random weights.

    python benches/compare.py --secateur target/release/secateur            # LLaVA-1.5-7B in bf16, both attentions
    python benches/compare.py --secateur target/release/secateur --dtype f32 --layers 8

Both run on this machine in one go, in turns, and a Markdown table with ratios comes out. Needs torch and transformers 4.37 or later.
"""

import argparse
import datetime
import gc
import json
import pathlib
import platform
import statistics
import subprocess
import time

import torch
import transformers
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import no_init_weights


def filled(make, dtype):
    """A model whose weights are random: pages that were never written would be read from one page of zeros."""
    torch.set_default_dtype(dtype)
    with no_init_weights():
        model = make()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
    return model.eval()


def median_ms(work, repeats):
    times = []
    for round in range(repeats + 1):
        start = time.perf_counter()
        work()
        if round > 0:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


@torch.inference_mode()
def pytorch(args, attention, dtype):
    """Rows like those of `secateur bench`."""
    tower = filled(lambda: CLIPVisionModel(CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336, patch_size=14)), dtype)
    projector = filled(lambda: torch.nn.Sequential(
        torch.nn.Linear(1024, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 4096)), dtype)
    config = LlamaConfig(num_hidden_layers=args.layers, attn_implementation=attention)
    llama = filled(lambda: LlamaForCausalLM(config), dtype)
    image = torch.randn(1, 3, 336, 336, dtype=dtype)
    rows = []
    vision = median_ms(lambda: tower(image, output_hidden_states=True).hidden_states[-2], args.repeats)
    for tokens in [576] + args.budgets:
        features = torch.randn(1, tokens, 1024, dtype=dtype)
        project = median_ms(lambda: projector(features), args.repeats)
        embeds = torch.randn(1, tokens + args.prompt_tokens, 4096, dtype=dtype) * 0.1
        prefills, steps = [], []
        for round in range(args.repeats + 1):
            start = time.perf_counter()
            # As generate() does, only the last position's logits are wanted.
            out = llama.model(inputs_embeds=embeds, use_cache=True)
            llama.lm_head(out.last_hidden_state[:, -1])
            prefill = time.perf_counter() - start
            cache = out.past_key_values
            start = time.perf_counter()
            for _ in range(args.new_tokens - 1):
                out = llama(input_ids=torch.tensor([[300]]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
            step = (time.perf_counter() - start) / (args.new_tokens - 1)
            if round > 0:
                prefills.append(1e3 * prefill)
                steps.append(1e3 * step)
        rows.append(dict(tokens=tokens, vision_ms=vision, project_ms=project, prefill_ms=statistics.median(prefills),
                         decode_ms_per_token=statistics.median(steps)))
    del tower, projector, llama
    gc.collect()
    return rows


def secateur(args):
    command = [args.secateur, "bench", "--shape", "llava-1.5-7b", "--layers", str(args.layers), "--dtype", args.dtype, "--backend",
               "flex", "--budgets", ",".join(map(str, args.budgets)), "--prompt-tokens", str(args.prompt_tokens), "--new-tokens",
               str(args.new_tokens), "--repeats", str(args.repeats), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])["rows"]


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", required=True, help="the release binary")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--budgets", type=lambda text: [int(n) for n in text.split(",")], default=[64, 29])
    parser.add_argument("--prompt-tokens", type=int, default=40)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="writes the run to this file, for `results.py`")
    parser.add_argument("--processor", help="its name in the tables; by default as the system has it")
    args = parser.parse_args()
    dtype = dict(bf16=torch.bfloat16, f32=torch.float32)[args.dtype]
    # In turns: an hour in which the machine is slow is nobody's own.
    rounds, theirs = [secateur(args)], {}
    for attention in ["eager", "sdpa"]:
        theirs[attention] = pytorch(args, attention, dtype)
        rounds.append(secateur(args))
    ours = [{name: statistics.median(row[name] for row in rows) if name.endswith(("_ms", "_token")) else rows[0][name] for name in rows[0]}
            for rows in zip(*rounds)]
    print(f"LLaVA-1.5-7B's widths, {args.layers} layers, {args.dtype}; {args.prompt_tokens} tokens of text, medians of {args.repeats}; "
          f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads\n")
    print("| visual tokens | stage | Secateur, ms | PyTorch eager, ms | PyTorch SDPA, ms | Secateur ÷ the better |")
    print("|---|---|---|---|---|---|")
    stages = []
    first = lambda row: row["vision_ms"] + row["project_ms"] + row.get("prune_ms", 0) + row["prefill_ms"]
    for own, *others in zip(ours, theirs["eager"], theirs["sdpa"]):
        for name, read in [("vision", lambda row: row["vision_ms"]), ("projector", lambda row: row["project_ms"]),
                           ("prefill", lambda row: row["prefill_ms"]), ("first token", first),
                           ("a token after it", lambda row: row["decode_ms_per_token"])]:
            a, b, c = read(own), *map(read, others)
            print(f"| {own['tokens']} | {name} | {a:.0f} | {b:.0f} | {c:.0f} | {a / min(b, c):.2f} |")
            stages.append(dict(tokens=own["tokens"], stage=name, secateur_ms=round(a), eager_ms=round(b), sdpa_ms=round(c)))
    if args.json:
        args.json.write_text(json.dumps(dict(
            date=datetime.date.today().isoformat(), processor=args.processor or processor(), shape="llava-1.5-7b", layers=args.layers,
            dtype=args.dtype, prompt_tokens=args.prompt_tokens, repeats=args.repeats, torch=torch.__version__,
            transformers=transformers.__version__, threads=torch.get_num_threads(), stages=stages), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
