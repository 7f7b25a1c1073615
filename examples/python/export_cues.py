"""Writes the cues of an image and a question, for `secateur prune`.

    python export_cues.py MODEL IMAGE QUESTION cues.safetensors
"""

import sys

import torch
from safetensors.torch import save_file

from llava import Llava


@torch.inference_mode()
def main(name, image, question, out):
    llava = Llava(name)
    seen, layer = llava.see(image)
    _, behind = llava.embed(question)
    # Counted from the end, a layer's attention has the number of its output. (There is one output more, that of the embeddings.)
    attention = seen.attentions[layer][:, :, 0, 1:]
    cues = {
        "features": seen.hidden_states[layer][:, 1:],
        "projected": llava.project(seen, layer),
        "cls_attention": attention[None],
        "prompt_embeds": behind,
    }
    save_file({name: cue.float().contiguous() for name, cue in cues.items()}, out)
    print(f"{out}: " + ", ".join(f"{name} {list(cue.shape)}" for name, cue in cues.items()))


if __name__ == "__main__":
    main(*sys.argv[1:5])
