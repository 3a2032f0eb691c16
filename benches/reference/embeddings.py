#!/usr/bin/env python3
"""What Python onnxruntime makes of picture-caption pairs with a model in the Hugging Face ONNX layout.

    embeddings.py MODEL PAIRS.parquet N OUT

Takes N pairs evenly from PAIRS (columns `image` of struct<bytes, path>, `caption`) and writes OUT/pictures/0000 ..., OUT/captions.json,
and OUT/image.f32 and OUT/text.f32: raw outputs of the towers, row after row, little-endian. Preprocessing is Pillow's (preprocess.py),
tokens are Python tokenizers'; one item a run, so that a dynamically quantized tower does not see its neighbours.

Needs numpy, Pillow, onnxruntime, tokenizers, pyarrow.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime
import preprocess
import pyarrow.parquet
import tokenizers


def reference_config(model):
    """The model's preprocessor_config.json in the terms of preprocess.py."""
    said = json.loads((model / "preprocessor_config.json").read_text())
    assert said["resample"] == 3 and said["do_center_crop"] and said["size"]["shortest_edge"] == said["crop_size"]["height"]
    edge = said["crop_size"]["height"]
    return {**preprocess.CLIP, "size": [edge, edge], "mean": said["image_mean"], "std": said["image_std"]}


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main():
    model, pairs, n, out = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    table = pyarrow.parquet.read_table(pairs, columns=["image", "caption"])
    rows = [table.slice(i * table.num_rows // n, 1).to_pylist()[0] for i in range(n)]
    config = reference_config(model)
    vision, text = session(model / "onnx/vision_model.onnx"), session(model / "onnx/text_model.onnx")
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    images, texts = [], []
    for i, row in enumerate(rows):
        data = row["image"]["bytes"]
        (out / "pictures" / f"{i:04}").write_bytes(data)
        pixels = preprocess.normalise(preprocess.crop_u8(preprocess.decode(data), config), config)
        images.append(vision.run(["image_embeds"], {"pixel_values": pixels[None]})[0][0])
        ids = np.array([tokenizer.encode(row["caption"]).ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        wanted = {name.name for name in text.get_inputs()}
        texts.append(text.run(["text_embeds"], {k: v for k, v in feed.items() if k in wanted})[0][0])
    (out / "captions.json").write_text(json.dumps([row["caption"] for row in rows]))
    for name, vectors in (("image", images), ("text", texts)):
        (out / f"{name}.f32").write_bytes(np.asarray(vectors, "<f4").tobytes())
    print(json.dumps({"onnxruntime": onnxruntime.__version__, "tokenizers": tokenizers.__version__}))


if __name__ == "__main__":
    main()
