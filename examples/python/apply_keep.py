"""Answers a question with the tokens that `secateur prune` keeps.

    python apply_keep.py MODEL IMAGE QUESTION keep.json [tokens.safetensors]

Without tokens.safetensors, which `prune --out` writes, the kept patches are gathered here; pooled tokens are only in that file.
"""

import json
import sys

import torch
from safetensors.torch import load_file

from llava import Llava


@torch.inference_mode()
def main(name, image, question, keep, tokens=None):
    llava = Llava(name)
    with open(keep) as file:
        kept = json.load(file)["kept"][0]
    seen, layer = llava.see(image)
    visual = load_file(tokens)["tokens"][0] if tokens else llava.project(seen, layer)[0, kept]
    before, behind = llava.embed(question)
    embeds = torch.cat([before, visual, behind])[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    ids = llava.model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, do_sample=False, max_new_tokens=16)
    text = llava.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    end = llava.tokenizer.eos_token_id
    print(json.dumps({"output_ids": [id for id in ids[0].tolist() if id != end], "text": text}))


if __name__ == "__main__":
    main(*sys.argv[1:])
