"""A LLaVA-1.5 checkpoint in transformers' layout: what both examples do with it."""

import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, LlavaForConditionalGeneration

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


class Llava:
    """The model, and a prompt around one image."""

    def __init__(self, name):
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.processor = CLIPImageProcessor.from_pretrained(name)
        # Attention is asked for, which faster implementations do not give.
        self.model = LlavaForConditionalGeneration.from_pretrained(name, attn_implementation="eager").float().eval()

    @torch.inference_mode()
    def see(self, path):
        """The tower's output for an image, and the number of the layer whose features the projector reads."""
        image = Image.open(path).convert("RGB")
        # LLaVA pads an image to a square with the mean colour.
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(255 * x) for x in self.processor.image_mean))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        pixels = self.processor(square, return_tensors="pt")["pixel_values"]
        seen = self.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
        return seen, self.model.config.vision_feature_layer

    def project(self, seen, layer):
        """The embeddings of all patches, [1, N, D]."""
        return self.model.multi_modal_projector(seen.hidden_states[layer][:, 1:])

    def embed(self, question):
        """The embeddings of the prompt before and behind the image, [P, D] each."""
        before, behind = f"{SYSTEM}USER: ", f"\n{question} ASSISTANT:"
        ids = [
            self.tokenizer(before, return_tensors="pt").input_ids[0],
            self.tokenizer(behind, add_special_tokens=False, return_tensors="pt").input_ids[0],
        ]
        table = self.model.get_input_embeddings()
        return [table(part) for part in ids]
