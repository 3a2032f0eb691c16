"""Text->image recall@10 of the shipped model on the shipped held-out pairs, next to chance.

Usage: evaluate.py DEMO_DIR [--sheet OUT.png]

Reads only what is in the repository. A caption counts when its own picture is among the ten nearest by cosine, first of all
shipped pictures, then of the held-out pictures alone. --sheet draws the eight best pictures for each line of queries.txt.
"""

import collections
import io
import json
import pathlib
import sys

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from tokenizers import Tokenizer

import preprocess

K = 10
BATCH = 64


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Encoder:
    def __init__(self, model):
        open_tower = lambda name: onnxruntime.InferenceSession(str(model / "onnx" / name), providers=["CPUExecutionProvider"])
        self.vision, self.text = open_tower("vision_model.onnx"), open_tower("text_model.onnx")
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def images(self, files):
        batch = lambda some: {"pixel_values": np.stack([preprocess.pixels(f) for f in some])}
        return self.embed(self.vision, batch, files)

    def texts(self, texts):
        return self.embed(self.text, lambda some: preprocess.tokens(self.tokenizer, some), texts)

    def embed(self, tower, batch, items):
        return unit(np.concatenate([tower.run(None, batch(items[i:i + BATCH]))[0] for i in range(0, len(items), BATCH)]))


def ranks(asked, images, own):
    """How many pictures are nearer to each caption than its own."""
    scores = asked @ images.T
    return (scores > scores[np.arange(len(own)), own][:, None]).sum(axis=1)


def report(name, found, pool):
    print(f"{name}: recall@{K} {100 * (found < K).mean():.1f} % of {len(found)} captions among {pool} pictures"
          f" (chance {100 * K / pool:.2f} %); recall@1 {100 * (found < 1).mean():.1f} %; median rank {int(np.median(found)) + 1}")


def sheet(path, queries, rows, images, encoder):
    scores = encoder.texts(queries) @ images.T
    page = Image.new("RGB", (8 * 112 + 170, len(queries) * 118), "white")
    draw = ImageDraw.Draw(page)
    for line, query in enumerate(queries):
        draw.text((4, line * 118 + 45), query[:28], fill="black")
        for place, i in enumerate(np.argsort(-scores[line], kind="stable")[:8]):
            at = (170 + place * 112, line * 118)
            page.paste(Image.open(io.BytesIO(rows[i]["image"]["bytes"])).convert("RGB"), at)
            mark = "*" if rows[i]["split"] == "heldout" else ""
            draw.text((at[0], at[1] + 98), f"{scores[line, i]:.2f} {rows[i]['caption'][:13]}{mark}", fill="black")
    page.save(path)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    demo = pathlib.Path(sys.argv[1])
    rows = pq.read_table(demo / "pairs.parquet").to_pylist()
    place = {r["id"]: i for i, r in enumerate(rows)}
    tests = json.loads((demo / "heldout.json").read_text())
    own = np.array([place[t["id"]] for t in tests])
    encoder = Encoder(demo / "model")
    images = encoder.images([r["image"]["bytes"] for r in rows])
    asked = encoder.texts([t["caption"] for t in tests])
    found = ranks(asked, images, own)
    report("held-out captions against all pictures", found, len(rows))
    for style, members in by_style(rows, own).items():
        print(f"    {style}: {100 * (found[members] < K).mean():.1f} % of {len(members)}")
    report("held-out captions against held-out pictures", ranks(asked, images[own], np.arange(len(own))), len(own))
    train = np.array([i for i, r in enumerate(rows) if r["split"] == "train"])
    report("training captions against all pictures", ranks(encoder.texts([rows[i]["caption"] for i in train]), images, train), len(rows))
    if "--sheet" in sys.argv:
        queries = (demo / "queries.txt").read_text().split("\n")[:-1]
        sheet(sys.argv[sys.argv.index("--sheet") + 1], queries, rows, images, encoder)


def by_style(rows, own):
    members = collections.defaultdict(list)
    for i, row in enumerate(own):
        members[rows[row]["style"]].append(i)
    return dict(sorted(members.items()))


if __name__ == "__main__":
    main()
