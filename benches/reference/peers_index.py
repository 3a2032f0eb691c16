#!/usr/bin/env python3
"""One peer index, driven line by line: hnswlib, faiss (flat and SQ8), ScaNN or usearch.

    peers_index.py PEER FOLDER DIM THREADS

FOLDER has base.f32 and a file for each kind of queries, such as image.f32 (little-endian rows of DIM values). Reads one JSON request per line and answers with one:

    {"do": "build"}                                  -> wall and CPU seconds, bytes on disk, seconds to load it again
    {"do": "search", "queries": "image", "ef": 64, "k": 10, "threads": 1}
                                                     -> CPU and wall seconds for all queries, and the ids found

Building uses THREADS threads, searching as many as asked for. CPU seconds are those of the whole process, so that a busy machine and stray
threads do not blur them. `ef` is the beam width; for ScaNN the number of leaves, searched with the given `reorder`.

Needs numpy and the peer.
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402 (the environment comes first)

M, EF_CONSTRUCTION = 16, 100


class Hnswlib:
    def __init__(self, dim, threads):
        import hnswlib

        self.lib, self.dim, self.threads = hnswlib, dim, threads
        self.version = getattr(hnswlib, "__version__", "0.8.0")

    def build(self, base):
        self.index = self.lib.Index(space="ip", dim=self.dim)
        self.index.init_index(max_elements=len(base), M=M, ef_construction=EF_CONSTRUCTION, random_seed=7)
        self.index.add_items(base, num_threads=self.threads)

    def save(self, path):
        self.index.save_index(str(path))

    def load(self, path):
        self.index = self.lib.Index(space="ip", dim=self.dim)
        self.index.load_index(str(path))

    def search(self, queries, ef, _reorder, k, threads):
        self.index.set_ef(ef)
        return self.index.knn_query(queries, k=k, num_threads=threads)[0]


class Faiss:
    def __init__(self, dim, threads, sq8=False):
        import faiss

        self.lib, self.dim, self.threads, self.sq8 = faiss, dim, threads, sq8
        self.version = faiss.__version__

    def build(self, base):
        self.lib.omp_set_num_threads(self.threads)
        metric = self.lib.METRIC_INNER_PRODUCT
        if self.sq8:
            self.index = self.lib.IndexHNSWSQ(self.dim, self.lib.ScalarQuantizer.QT_8bit, M, metric)
            self.index.train(base)
        else:
            self.index = self.lib.IndexHNSWFlat(self.dim, M, metric)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(base)

    def save(self, path):
        self.lib.write_index(self.index, str(path))

    def load(self, path):
        self.index = self.lib.read_index(str(path))

    def search(self, queries, ef, _reorder, k, threads):
        self.lib.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, k)[1]


class Usearch:
    def __init__(self, dim, threads):
        import usearch
        from usearch.index import Index

        self.make = lambda: Index(
            ndim=dim, metric="ip", dtype="f16", connectivity=M, expansion_add=EF_CONSTRUCTION, expansion_search=64
        )
        self.threads, self.version = threads, usearch.__version__

    def build(self, base):
        self.index = self.make()
        self.index.add(np.arange(len(base), dtype=np.uint64), base, threads=self.threads)

    def save(self, path):
        self.index.save(str(path))

    def load(self, path):
        self.index = self.make()
        self.index.load(str(path))

    def search(self, queries, ef, _reorder, k, threads):
        self.index.expansion_search = ef
        return self.index.search(queries, k, threads=threads).keys


class Scann:
    def __init__(self, _dim, threads):
        from importlib.metadata import version

        import scann

        self.lib, self.threads, self.version = scann, threads, version("scann")

    def build(self, base):
        builder = self.lib.scann_ops_pybind.builder(base, 10, "dot_product").set_n_training_threads(self.threads)
        leaves = round(2 * len(base) ** 0.5)
        tree = builder.tree(num_leaves=leaves, num_leaves_to_search=leaves // 10, training_sample_size=len(base))
        self.index = tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()

    def save(self, path):
        path.mkdir(exist_ok=True)
        self.index.serialize(str(path))

    def load(self, path):
        self.index = self.lib.scann_ops_pybind.load_searcher(str(path))

    def search(self, queries, ef, reorder, k, threads):
        search = self.index.search_batched if threads == 1 else self.index.search_batched_parallel
        if threads > 1:
            self.index.set_num_threads(threads)
        return search(queries, final_num_neighbors=k, pre_reorder_num_neighbors=reorder, leaves_to_search=ef)[0]


PEERS = {
    "hnswlib": Hnswlib,
    "faiss-flat": Faiss,
    "faiss-sq8": lambda dim, threads: Faiss(dim, threads, sq8=True),
    "usearch-f16": Usearch,
    "scann": Scann,
}


def size(path):
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    out = work()
    return out, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def main():
    name, folder, dim, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    # Libraries print to stdout; answers must stay alone there.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    read = lambda part: np.fromfile(folder / f"{part}.f32", "<f4").reshape(-1, dim)  # noqa: E731
    peer = PEERS[name](dim, threads)
    queries = {path.stem: read(path.stem) for path in folder.glob("*.f32") if path.stem != "base"}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "build":
            base, path = read("base"), folder / f"{name}.index"
            _, said = timed(lambda: peer.build(base))
            peer.save(path)
            said["disk"] = size(path)
            said["open"] = min(timed(lambda: peer.load(path))[1]["wall"] for _ in range(3))
            said["version"] = peer.version
            del base  # a million rows of every peer at once would not fit
        else:
            found, said = timed(lambda: peer.search(queries[asked["queries"]], asked["ef"], asked["reorder"], asked["k"], asked["threads"]))
            said["found"] = np.asarray(found).astype(np.int64).tolist()
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
