"""Opens a model that anchorite exported as Python does: the towers with onnxruntime, model.safetensors with transformers, and compares.

    python check_export.py MODEL_DIR --vision-heads 2 --text-heads 2 --eos 102

Prints the greatest difference of a component of unit embeddings; fails above 1e-5, or when a tensor of CLIPModel has no weight of its name.
For exports whose towers came from transformers' TorchScript path. Run with onnxruntime 1.32, transformers 5.23, torch 2.15, safetensors 0.8.
"""

import argparse
import json
import os

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--vision-heads", type=int, default=2)
parser.add_argument("--text-heads", type=int, default=2)
parser.add_argument("--eos", type=int, required=True)
args = parser.parse_args()

weights = load_file(os.path.join(args.model, "model.safetensors"))


def layers(tower):
    return 1 + max(int(n.split(".layers.")[1].split(".")[0]) for n in weights if n.startswith(f"{tower}.encoder.layers."))


size = json.load(open(os.path.join(args.model, "preprocessor_config.json")))["crop_size"]["height"]
table = weights["text_model.embeddings.token_embedding.weight"]
positions = weights["text_model.embeddings.position_embedding.weight"]
patch = weights["vision_model.embeddings.patch_embedding.weight"]
config = CLIPConfig(
    text_config={"hidden_size": table.shape[1], "vocab_size": table.shape[0], "max_position_embeddings": positions.shape[0],
                 "intermediate_size": weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0], "num_hidden_layers": layers("text_model"),
                 "num_attention_heads": args.text_heads, "eos_token_id": args.eos},
    vision_config={"hidden_size": patch.shape[0], "patch_size": patch.shape[2], "image_size": size,
                   "intermediate_size": weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
                   "num_hidden_layers": layers("vision_model"), "num_attention_heads": args.vision_heads},
    projection_dim=weights["visual_projection.weight"].shape[0], attn_implementation="eager")
clip = CLIPModel(config).eval()
missing, unexpected = clip.load_state_dict(weights, strict=False)
assert not missing and not unexpected, (missing, unexpected)

rng = np.random.default_rng(0)
pictures = rng.standard_normal((3, 3, size, size), dtype=np.float32)
ids = rng.integers(1, 90, (3, 6))
ids[:, -1] = args.eos


def run(tower, feed):
    found = onnxruntime.InferenceSession(os.path.join(args.model, "onnx", tower)).run(None, feed)[0]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def unit(found):
    return torch.nn.functional.normalize(found, dim=1).numpy()


with torch.no_grad():
    images = clip.visual_projection(clip.vision_model(torch.tensor(pictures)).pooler_output)
    texts = clip.text_projection(clip.text_model(torch.tensor(ids)).pooler_output)
worst = max(
    np.abs(run("vision_model.onnx", {"pixel_values": pictures}) - unit(images)).max(),
    np.abs(run("text_model.onnx", {"input_ids": ids}) - unit(texts)).max(),
)
stated = json.load(open(os.path.join(args.model, "config.json")))["logit_scale"]
assert abs(clip.logit_scale.item() - stated) < 1e-5, (clip.logit_scale.item(), stated)
print(f"{len(weights)} tensors, greatest difference {worst:.1e}")
assert worst <= 1e-5
