"""A small CLIP of random weights in the layout that anchorite reads, with the demo's tokenizer: what `anchorite pretrain` is measured on.

    python small_clip.py DEMO_MODEL_DIR OUT_DIR

ViT of width 128, 4 layers, 64 px pictures in patches of 16; text of width 128, 3 layers, 12 tokens; 128 values; exported by transformers'
own TorchScript path. Made with torch 2.15, transformers 5.23, onnx 1.23. The weights do not matter: pretraining starts from noise of its own.
"""

import json
import os
import shutil
import sys

import torch
from transformers import CLIPConfig, CLIPModel

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../encoder/tests/fixtures/models"))
from make_exports import Image, Text, export  # noqa: E402

demo, out = sys.argv[1:3]
SIZE, TOKENS, VOCAB, BOS, EOS = 64, 12, 30522, 101, 102
torch.manual_seed(0)
clip = CLIPModel(CLIPConfig(
    text_config={"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": VOCAB,
                 "max_position_embeddings": TOKENS, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0},
    vision_config={"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": SIZE,
                   "patch_size": 16},
    projection_dim=128, attn_implementation="eager")).eval()
ids = torch.tensor([[BOS, 5000, 6000, EOS], [BOS, 7000, 8000, EOS]])
export(Image(clip), torch.randn(2, 3, SIZE, SIZE), f"{out}/onnx/vision_model.onnx", ["pixel_values"], ["image_embeds"])
export(Text(clip), ids, f"{out}/onnx/text_model.onnx", ["input_ids"], ["text_embeds"])
for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
    shutil.copy(f"{demo}/{name}", f"{out}/{name}")
config = json.load(open(f"{out}/tokenizer_config.json"))
config["model_max_length"] = TOKENS
json.dump(config, open(f"{out}/tokenizer_config.json", "w"), indent=1)
picture = json.load(open(f"{demo}/preprocessor_config.json"))
picture["size"], picture["crop_size"] = {"shortest_edge": SIZE}, {"height": SIZE, "width": SIZE}
json.dump(picture, open(f"{out}/preprocessor_config.json", "w"), indent=1)
json.dump({"model_type": "clip", "projection_dim": 128, "text_config": {"max_position_embeddings": TOKENS}}, open(f"{out}/config.json", "w"), indent=1)
