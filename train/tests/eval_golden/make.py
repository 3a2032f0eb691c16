"""Computes an evaluation independently of the program, with NumPy and PyTorch, and writes golden.json beside this file.

numpy 2.4.6, torch 2.15.0, Python 3.11. Run: python make.py
Embeddings are stored as the float32 values that the program gets too; everything else is float64.
"""
import hashlib
import json
import pathlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
DIM, CLASSES, TEMPLATES, N, SCALE = 8, 9, 3, 60, 20.0
SEED, RESAMPLES, CONFIDENCE = 7, 200, 0.9
rng = np.random.default_rng(0)


def unit32(x):
    x = np.asarray(x, dtype=np.float64)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def splitmix(state):
    mask = (1 << 64) - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def draws(name, resample, n):
    first = hashlib.sha256(f"{SEED}/{name}/{resample}".encode()).digest()[:8]
    stream = splitmix(int.from_bytes(first, "little"))
    return np.array([(next(stream) * n) >> 64 for _ in range(n)])


def softmax(x):
    return torch.softmax(torch.from_numpy(x), dim=1).numpy()


def figures(scores, labels, scale):
    n, k = scores.shape
    order = np.argsort(-scores, axis=1, kind="stable")
    predicted = order[:, 0]
    confidence = softmax(scores * scale).max(axis=1)
    right = predicted == labels
    out = {"top1": right.mean()}
    if k > 5:
        out["top5"] = (order[:, :5] == labels[:, None]).any(axis=1).mean()
    out["mean_per_class"] = np.mean([right[labels == c].mean() for c in np.unique(labels)])
    f1 = []
    for c in np.union1d(labels, predicted):
        tp = np.sum((predicted == c) & (labels == c))
        f1.append(2 * tp / (np.sum(predicted == c) + np.sum(labels == c)))
    out["macro_f1"] = np.mean(f1)
    ece, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    out["ece"] = ece
    return {key: float(value) for key, value in out.items()}


def recalls(ranks, prefix):
    return {f"{prefix}_r{k}": float(np.mean(ranks < k)) for k in (1, 5, 10)}


def interval(values):
    tail = (1 - CONFIDENCE) / 2
    return [float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))]


def with_intervals(name, n, of):
    whole = of(np.arange(n))
    resampled = [of(draws(name, r, n)) for r in range(RESAMPLES)]
    columns = {key: [r[key] for r in resampled] for key in whole}
    return {key: [whole[key], *interval(columns[key])] for key in whole}, columns


def model(noise, seed):
    local = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(CLASSES, DIM))
    prompts = unit32(centres[:, None] + 0.3 * local.normal(size=(CLASSES, TEMPLATES, DIM)))
    images = unit32(centres[LABELS] + noise * local.normal(size=(N, DIM)))
    captions = unit32(images[OWNER].astype(np.float64) + 0.5 * noise * local.normal(size=(len(OWNER), DIM)))
    return prompts, images, captions


def evaluate(prompts, images, captions):
    head = unit32(unit32(prompts).astype(np.float64).mean(axis=1)).astype(np.float64)
    cosines = images.astype(np.float64) @ head.T
    sets, columns = {}, {}

    def add(name, n, of):
        sets[name], columns[name] = with_intervals(name, n, of)

    add("all", N, lambda i: figures(cosines[i], LABELS[i], SCALE))
    some = np.flatnonzero(np.isin(LABELS, SUBSET))
    position = {c: p for p, c in enumerate(SUBSET)}
    sub = cosines[some][:, SUBSET]
    sub_labels = np.array([position[c] for c in LABELS[some]])
    add("subset", len(some), lambda i: figures(sub[i], sub_labels[i], SCALE))
    pooled = np.stack([cosines[:, members].max(axis=1) for members in MAP], axis=1)
    inside = np.flatnonzero([any(c in m for m in MAP) for c in LABELS])
    map_labels = np.array([next(p for p, m in enumerate(MAP) if c in m) for c in LABELS[inside]])
    add("mapped", len(inside), lambda i: figures(pooled[inside][i], map_labels[i], SCALE))
    text = captions.astype(np.float64) @ images.astype(np.float64).T
    order = np.argsort(-text, axis=1, kind="stable")
    t2i = np.array([np.flatnonzero(order[c] == OWNER[c])[0] for c in range(len(OWNER))])
    order = np.argsort(-text.T, axis=1, kind="stable")
    i2t = np.array([np.flatnonzero(OWNER[order[i]] == i)[0] for i in range(N)])
    a, ac = with_intervals("captions", len(t2i), lambda i: recalls(t2i[i], "text_to_image"))
    b, bc = with_intervals("captions", len(i2t), lambda i: recalls(i2t[i], "image_to_text"))
    sets["captions"], columns["captions"] = a | b, ac | bc
    shared = ["top1", "mean_per_class", "macro_f1", "ece"]
    mean = {k: np.mean([columns[s][k] for s in ("subset", "mapped")], axis=0) for k in shared}
    average = {k: [np.mean([sets[s][k][0] for s in ("subset", "mapped")]), *interval(mean[k])] for k in shared}
    return sets, columns, average, mean


def probe(images, l2, train, test):
    x = torch.from_numpy(images[train].astype(np.float64))
    y = torch.from_numpy(LABELS[train])
    w = torch.zeros(CLASSES, DIM, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([w, b], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ w.T + b, y) + 0.5 * l2 * (w * w).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    scores = (torch.from_numpy(images[test].astype(np.float64)) @ w.T + b).detach().numpy()
    return float(closure()), figures(scores, LABELS[test], 1.0)


LABELS = rng.integers(0, CLASSES, size=N)
OWNER = np.concatenate([np.arange(N), rng.integers(0, N, size=20)])
SUBSET, MAP = [7, 2, 5], [[0, 1], [3], [8, 4, 6]]
models, kept = [], []
for name, noise, seed in (("base", 1.6, 11), ("tuned", 1.1, 12)):
    prompts, images, captions = model(noise, seed)
    sets, columns, average, mean = evaluate(prompts, images, captions)
    loss, probe_figures = probe(images, 1e-2, np.arange(0, 40), np.arange(40, N))
    models.append({
        "name": name, "prompts": prompts.tolist(), "images": images.tolist(), "captions": captions.tolist(), "sets": sets,
        "average": average, "probe": {"loss": loss, **probe_figures},
    })
    kept.append((columns, mean))
differences = {}
for on, metric in (("all", "top1"), ("mapped", "macro_f1"), ("captions", "image_to_text_r5")):
    d = np.array(kept[1][0][on][metric]) - np.array(kept[0][0][on][metric])
    value = models[1]["sets"][on][metric][0] - models[0]["sets"][on][metric][0]
    p = min(1.0, 2 * min(np.mean(d <= 0), np.mean(d >= 0)))
    differences[f"{on}/{metric}"] = [value, *interval(d), p]
d = kept[1][1]["top1"] - kept[0][1]["top1"]
differences["group/top1"] = [models[1]["average"]["top1"][0] - models[0]["average"]["top1"][0], *interval(d),
                             min(1.0, 2 * min(np.mean(d <= 0), np.mean(d >= 0)))]
golden = {
    "dim": DIM, "classes": CLASSES, "templates": TEMPLATES, "scale": SCALE, "seed": SEED, "resamples": RESAMPLES, "confidence": CONFIDENCE,
    "labels": LABELS.tolist(), "owner": OWNER.tolist(), "subset": SUBSET, "map": MAP, "models": models, "differences": differences,
}
(HERE / "golden.json").write_text(json.dumps(golden) + "\n")
