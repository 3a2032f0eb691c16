"""Zero-shot accuracy, calibration and recall from stored embeddings, by NumPy in float64: an independent reading of the same definitions.

Usage: eval_numpy.py DIR     DIR has images.npy [n, d], head.npy [classes, d] (not normalized), labels.npy [n], scale.txt
"""

import json
import pathlib
import sys
import time

import numpy as np


def main():
    folder = pathlib.Path(sys.argv[1])
    images, head = (np.load(folder / f"{name}.npy").astype(np.float64) for name in ("images", "head"))
    labels, scale = np.load(folder / "labels.npy"), float((folder / "scale.txt").read_text())
    start = time.perf_counter()
    images, head = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, head))
    scores = images @ head.T
    own = scores[np.arange(len(labels)), labels]
    rank = (scores > own[:, None]).sum(1)
    predicted = scores.argmax(1)
    shifted = np.exp(scale * (scores - scores.max(1, keepdims=True)))
    confidence = 1.0 / shifted.sum(1)
    bins = np.clip(np.ceil(confidence * 15).astype(int), 1, 15)
    right = predicted == labels
    ece = sum(abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(1, 16)) / len(labels)
    per_class = np.mean([right[labels == c].mean() for c in np.unique(labels)])
    met = np.union1d(labels, predicted)
    f1 = np.mean([2 * (right & (labels == c)).sum() / ((labels == c).sum() + (predicted == c).sum()) for c in met])
    print(json.dumps({"top1": (rank == 0).mean(), "top5": (rank < 5).mean(), "mean_per_class": per_class, "macro_f1": f1, "ece": ece,
                      "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
