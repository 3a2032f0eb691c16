#!/usr/bin/env python3
"""The peer of the ingest figures, asked line by line: open_clip with torch's DataLoader, as its own recipes use it.

    ingest_peer.py export OUT                writes a ViT-B/32 with random weights as ONNX, in the Hugging Face layout, and ends
    ingest_peer.py serve PICTURES THREADS    answers `images`, `captions`, `gemm`, `transform KIND` on stdin with one number a line

`images`: seconds for one pass over the pictures, from file to unit vectors, workers and torch threads as many as THREADS.
`captions`: seconds for 512 captions of 8 to 16 tokens. `gemm`: GFLOP/s of a float32 matrix product. `transform KIND`: milliseconds of CPU
a picture, on one thread, for jpeg, png or webp.

Speed does not depend on weights. Needs torch, open_clip, transformers, onnx, Pillow and what tokens.py needs.
"""

import io
import json
import pathlib
import random
import sys
import time

import open_clip
import torch
from PIL import Image

import tokens

SEED = 7
BATCH = 32
CAPTIONS = 512
WORDS = "a photo of the red green small large dog cat house tree river on under near with man woman child street car".split()


def captions():
    rng = random.Random(SEED)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(6, 14))) for _ in range(CAPTIONS)]


class Tower(torch.nn.Module):
    def __init__(self, tower, projection):
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, x):
        return self.projection(self.tower(x).pooler_output)


def export(out):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(SEED)
    text = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={"patch_size": 32}, attn_implementation="eager")).eval()
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    towers = [
        ("vision", Tower(model.vision_model, model.visual_projection), torch.zeros(2, 3, 224, 224), "pixel_values", "image_embeds", {0: "batch"}),
        ("text", Tower(model.text_model, model.text_projection), torch.tensor([[49406, 5, 49407]] * 2), "input_ids", "text_embeds", {0: "batch", 1: "sequence"}),
    ]
    for name, tower, example, takes, gives, axes in towers:
        with torch.no_grad():
            torch.onnx.export(tower, (example,), str(out / f"onnx/{name}_model.onnx"), input_names=[takes], output_names=[gives],
                              dynamic_axes={takes: axes, gives: {0: "batch"}}, dynamo=False, opset_version=17)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    (out / "preprocessor_config.json").write_text(json.dumps({
        "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": mean, "image_std": std, "do_convert_rgb": True}))
    (out / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 512, "text_config": {"max_position_embeddings": 77}}))
    merges = [tuple(line.split()) for line in tokens.merge_lines(open_clip.tokenizer.default_bpe())]
    (out / "tokenizer.json").write_text(tokens.clip_tokenizer(merges).to_str(), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps({**tokens.CLIP_SPECIALS, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))
    (out / "captions.json").write_text(json.dumps(captions()))


class Pictures(torch.utils.data.Dataset):
    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, at):
        return self.transform(Image.open(self.files[at]))


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def serve(folder, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    model.eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    files = sorted(folder.glob("*.jpg"))
    loader = torch.utils.data.DataLoader(Pictures(files, transform), batch_size=BATCH, num_workers=threads, persistent_workers=True)
    words = captions()

    def images():
        for batch in loader:
            unit(model.encode_image(batch))

    def texts():
        for at in range(0, len(words), BATCH):
            unit(model.encode_text(tokenizer(words[at:at + BATCH])))

    def gemm():
        a, b = torch.rand(2048, 768), torch.rand(768, 3072)
        best = 1e9
        for _ in range(20):
            begun = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - begun)
        return 2 * 2048 * 768 * 3072 / best / 1e9

    def transformed(kind):
        encoded = []
        for file in files[:50]:
            if kind == "jpeg":
                encoded.append(file.read_bytes())
                continue
            out = io.BytesIO()
            Image.open(file).convert("RGB").save(out, kind, **({"quality": 85} if kind == "webp" else {}))
            encoded.append(out.getvalue())
            (folder.parent / f"{folder.name}-{kind}").mkdir(exist_ok=True)
            (folder.parent / f"{folder.name}-{kind}" / f"{file.stem}.{kind}").write_bytes(encoded[-1])
        best = 1e9
        for _ in range(3):
            begun = time.thread_time()
            for data in encoded:
                transform(Image.open(io.BytesIO(data)))
            best = min(best, time.thread_time() - begun)
        return best * 1e3 / len(encoded)

    def seconds(work):
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    with torch.no_grad():
        images()
        texts()
        print("ready", flush=True)
        for line in sys.stdin:
            match line.split():
                case ["images"]:
                    print(seconds(images), flush=True)
                case ["captions"]:
                    print(seconds(texts), flush=True)
                case ["gemm"]:
                    print(gemm(), flush=True)
                case ["transform", kind]:
                    torch.set_num_threads(1)
                    print(transformed(kind), flush=True)
                    torch.set_num_threads(threads)


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(pathlib.Path(sys.argv[2]))
    else:
        serve(pathlib.Path(sys.argv[2]), int(sys.argv[3]))
