"""Exact search by peers: NumPy's matrix product alone and with its best ten, faiss IndexFlatIP. Prints one JSON line.

usage: peers_exact.py FOLDER DIM ROUNDS THREADS ; FOLDER holds base.f32 and queries.f32, row after row
"""

import json
import os
import sys
import time

folder, dim, rounds, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = threads

import numpy as np  # noqa: E402  the threads must be set before

base = np.fromfile(f"{folder}/base.f32", dtype=np.float32).reshape(-1, dim)
queries = np.fromfile(f"{folder}/queries.f32", dtype=np.float32).reshape(-1, dim)


def best(work):
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def product():
    for start in range(0, len(queries), 64):
        queries[start : start + 64] @ base.T


def top_ten():
    for start in range(0, len(queries), 64):
        scores = queries[start : start + 64] @ base.T
        np.argpartition(scores, -10, axis=1)[:, -10:]


said = {"numpy": np.__version__, "product": best(product), "top": best(top_ten)}
try:
    import faiss

    faiss.omp_set_num_threads(int(threads))
    index = faiss.IndexFlatIP(dim)
    index.add(base)
    said |= {"faiss": faiss.__version__, "flat": best(lambda: index.search(queries, 10))}
except ImportError:
    pass
print(json.dumps(said))
