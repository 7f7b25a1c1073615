"""Questions per second on a set in POPE's form, six questions an image, with and without what is computed once.

    python benches/reuse.py --secateur target/release/secateur --folder /tmp/reuse       # LLaVA-1.5-7B's shape, 13 GB
    python benches/reuse.py --secateur target/release/secateur --folder /tmp/reuse --layers 8
    python benches/reuse.py --secateur NEW --before OLD --order llava_gqa_testdev_balanced.jsonl --images 10 --folder /tmp/reuse --layers 2

With --before, another binary is measured, too, in turns. With --order, the questions are those of a real file about some of its images, in
the file's order; images are noise in any case.

Writes a checkpoint with random bf16 weights and the tests' tokenizer, images and questions into the folder, unless they are there. Every
way is run for one image and for all; the difference is what counts, so that opening the checkpoint and its checksum, which a run pays
once, are left out. All ways must give the same answers. Needs numpy and Pillow.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import struct
import subprocess
import time

import numpy
from PIL import Image

HIDDEN, INNER, VOCABULARY = 4096, 11008, 32064
END, WORD = 2, 400
VISION, VISION_INNER, VISION_LAYERS = 1024, 4096, 24
OBJECTS = ["dog", "snowboard", "person", "car", "backpack", "dining table"]
CATEGORIES = ["random", "popular", "adversarial"]
WAYS = {"no reuse": ["--no-reuse"], "reuse": [], "reuse, six at once": ["--batch-size", "6"]}


def shapes(layers):
    """Names and shapes in the layout of llava-hf/llava-1.5-7b-hf."""
    language = "language_model.model."
    yield language + "embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(layers):
        own = f"{language}layers.{layer}."
        for name in "qkvo":
            yield f"{own}self_attn.{name}_proj.weight", [HIDDEN, HIDDEN]
        yield own + "mlp.gate_proj.weight", [INNER, HIDDEN]
        yield own + "mlp.up_proj.weight", [INNER, HIDDEN]
        yield own + "mlp.down_proj.weight", [HIDDEN, INNER]
        yield own + "input_layernorm.weight", [HIDDEN]
        yield own + "post_attention_layernorm.weight", [HIDDEN]
    yield language + "norm.weight", [HIDDEN]
    yield "language_model.lm_head.weight", [VOCABULARY, HIDDEN]
    for layer, inputs in [(1, VISION), (2, HIDDEN)]:
        yield f"multi_modal_projector.linear_{layer}.weight", [HIDDEN, inputs]
        yield f"multi_modal_projector.linear_{layer}.bias", [HIDDEN]
    tower = "vision_tower.vision_model."
    yield tower + "embeddings.class_embedding", [VISION]
    yield tower + "embeddings.patch_embedding.weight", [VISION, 3, 14, 14]
    yield tower + "embeddings.position_embedding.weight", [577, VISION]
    for norm in ["pre_layrnorm", "post_layernorm"]:
        yield f"{tower}{norm}.weight", [VISION]
        yield f"{tower}{norm}.bias", [VISION]
    for layer in range(VISION_LAYERS):
        own = f"{tower}encoder.layers.{layer}."
        for name, outputs, inputs in [(f"self_attn.{n}_proj", VISION, VISION) for n in ["q", "k", "v", "out"]] + [
                ("mlp.fc1", VISION_INNER, VISION), ("mlp.fc2", VISION, VISION_INNER)]:
            yield f"{own}{name}.weight", [outputs, inputs]
            yield f"{own}{name}.bias", [outputs]
        for norm in ["layer_norm1", "layer_norm2"]:
            yield f"{own}{norm}.weight", [VISION]
            yield f"{own}{norm}.bias", [VISION]


def bf16(values):
    return (values.astype(numpy.float32).view(numpy.uint32) >> 16).astype(numpy.uint16)


def tensor(random, name, shape):
    if "norm" in name and name.endswith("weight"):
        return bf16(numpy.ones(shape))
    # An answer is a word and the end, as Yes and No are: layers add so little that a state is its token's embedding, all of these are the
    # same but the word's, and the head finds the word after any token, and the end after the word.
    start, word = numpy.random.default_rng(2).uniform(-0.02, 0.02, (2, HIDDEN))
    if name.endswith("embed_tokens.weight"):
        table = numpy.tile(start.astype(numpy.float32), (shape[0], 1))
        table[WORD] = word
        return bf16(table)
    if name.endswith("lm_head.weight"):
        head = numpy.zeros(shape, numpy.float32)
        head[WORD], head[END] = start, word
        return bf16(head)
    scale = 1e-3 if name.startswith("language") and ("o_proj" in name or "down_proj" in name) else 1
    return bf16((random.random(shape, dtype=numpy.float32) * 0.04 - 0.02) * scale)


def write_checkpoint(folder, layers):
    tiny = pathlib.Path(__file__).parent.parent / "tests/fixtures/tiny-llava-1.5/llava-1.5-tiny-hf"
    folder.mkdir(parents=True)
    for name in ["added_tokens.json", "generation_config.json", "preprocessor_config.json", "special_tokens_map.json",
                 "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]:
        shutil.copy(tiny / name, folder)
    config = json.loads((tiny / "config.json").read_text())
    config["text_config"] |= dict(hidden_size=HIDDEN, intermediate_size=INNER, num_attention_heads=32, num_key_value_heads=32,
                                  num_hidden_layers=layers, vocab_size=VOCABULARY)
    config["vision_config"] |= dict(hidden_size=VISION, intermediate_size=VISION_INNER, num_attention_heads=16,
                                    num_hidden_layers=VISION_LAYERS, projection_dim=768)
    config["vocab_size"] = VOCABULARY
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in shapes(layers):
        size = 2 * int(numpy.prod(shape))
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = numpy.random.default_rng(0)
    part = folder / "model.part"
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes(layers):
            tensor(random, name, shape).tofile(file)
    part.rename(folder / "model.safetensors")


def write_questions(folder, images, order):
    (folder / "val2014").mkdir(parents=True)
    (folder / "coco").mkdir()
    random = numpy.random.default_rng(1)
    asked = [(image, f"Is there a {thing} in the image?\nAnswer the question using a single word or phrase.")
             for image in range(images) for thing in OBJECTS]
    if order:
        real = [json.loads(line) for line in order.read_text().splitlines()]
        chosen = random.permutation(sorted({line["image"] for line in real}))[:images].tolist()
        asked = [(chosen.index(line["image"]), line["text"]) for line in real if line["image"] in chosen]
    names = [f"COCO_val2014_{image:012}.jpg" for image in range(images)]
    for name in names:
        Image.fromarray(random.integers(0, 255, (480, 640, 3), dtype=numpy.uint8)).save(folder / "val2014" / name)
    lines = [dict(question_id=i + 1, image=names[image], category=CATEGORIES[i % 3], text=text)
             for i, (image, text) in enumerate(asked)]
    (folder / "llava_pope_test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for category in CATEGORIES:
        own = [line for line in lines if line["category"] == category]
        labels = [dict(line, text=line["text"].split("\n")[0], label="yes") for line in own]
        (folder / f"coco/coco_pope_{category}.json").write_text("".join(json.dumps(label) + "\n" for label in labels))
    return len(lines)


def run(args, binary, way, limit):
    """Seconds that a run takes, and its answers."""
    out = args.folder / "runs"
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([binary, "eval", "pope", "--model", args.folder / f"model-{args.layers}", "--data", args.folder / "pope",
                    "--method", args.method, "--tokens", str(args.tokens), "--dtype", "bf16", "--backend", "flex", "--limit", str(limit),
                    "--out", out] + WAYS[way], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    answers = [json.loads(line)["text"] for file in out.glob("*/answers.jsonl") for line in file.read_text().splitlines()]
    assert len(answers) == limit, answers
    return seconds, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secateur", required=True, help="the release binary")
    parser.add_argument("--before", help="another release binary, whose default way is measured, too")
    parser.add_argument("--order", type=pathlib.Path, help="a question file whose order is taken")
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where checkpoint, images and runs go")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--method", default="fastervlm")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    if not (args.folder / f"model-{args.layers}/model.safetensors").is_file():
        shutil.rmtree(args.folder / f"model-{args.layers}", ignore_errors=True)
        write_checkpoint(args.folder / f"model-{args.layers}", args.layers)
    shutil.rmtree(args.folder / "pope", ignore_errors=True)
    all = write_questions(args.folder / "pope", args.images, args.order)
    few = 1 if args.order else len(OBJECTS)
    # Without reuse, a real file takes as long as it takes.
    ways = {way: (args.secateur, way) for way in WAYS if way != "no reuse" or not args.order}
    if args.before:
        ways["reuse, the other binary"] = (args.before, "reuse")
    answers, times = {}, {way: [] for way in ways}
    # The ways take turns, so that a slow minute is nobody's own.
    for _ in range(args.repeats):
        for way, (binary, flags) in ways.items():
            first, _ = run(args, binary, flags, few)
            whole, answers[way] = run(args, binary, flags, all)
            times[way].append((whole - first) / (all - few))
    assert all_equal(answers.values()), answers
    print(f"{all} questions about {args.images} images; LLaVA-1.5-7B's widths, {args.layers} layers, bf16; {args.method}, {args.tokens} tokens; medians of {args.repeats}\n")
    print("| way | seconds a question | times as fast |\n|---|---|---|")
    slowest = max(times, key=lambda way: statistics.median(times[way]))
    for way, seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {way} | {median:.2f} | {statistics.median(times[slowest]) / median:.2f} |")


def all_equal(lists):
    lists = list(lists)
    return all(one == lists[0] for one in lists)


if __name__ == "__main__":
    main()
