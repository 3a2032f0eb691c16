"""milvus-lite over the same vectors, asked by its own client, one query at a time. The last line it prints is JSON.

usage: peer_milvus.py FOLDER DIM K SECONDS ; FOLDER holds base.f32 and queries.f32, row after row
"""

import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time

import numpy as np
from pymilvus import DataType, MilvusClient

folder, dim, k, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
base = np.fromfile(f"{folder}/base.f32", dtype=np.float32).reshape(-1, dim)
queries = np.fromfile(f"{folder}/queries.f32", dtype=np.float32).reshape(-1, dim)
scratch = tempfile.mkdtemp()
client = MilvusClient(os.path.join(scratch, "bench.db"))


def made(kind, params):
    """A collection with this index, or None where this milvus-lite has no such index."""
    try:
        if client.has_collection("bench"):
            client.drop_collection("bench")
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        index = client.prepare_index_params()
        index.add_index("vector", index_type=kind, metric_type="COSINE", params=params)
        client.create_collection("bench", schema=schema, index_params=index)
        for first in range(0, len(base), 2000):
            part = base[first : first + 2000]
            client.insert("bench", [{"id": first + i, "vector": v} for i, v in enumerate(part)])
        client.flush("bench")
        client.load_collection("bench")
        client.search("bench", [queries[0]], limit=k)
        return kind
    except Exception as error:  # noqa: BLE001  each version refuses what it lacks in its own way
        print(f"{kind}: {error}", file=sys.stderr)
        return None


kind = made("HNSW", {"M": 16, "efConstruction": 100}) or made("IVF_FLAT", {"nlist": 512}) or made("FLAT", {})
search = {"params": {"HNSW": {"ef": 64}, "IVF_FLAT": {"nprobe": 32}}.get(kind, {})}


def ask(query):
    return [hit["id"] for hit in client.search("bench", [query], limit=k, search_params=search)[0]]


rows = [ask(query) for query in queries[:200]]
took, start = [], time.perf_counter()
while time.perf_counter() - start < seconds:
    asked = time.perf_counter()
    ask(queries[len(took) % len(queries)])
    took.append(time.perf_counter() - asked)
rate = len(took) / (time.perf_counter() - start)
version = importlib.metadata.version("milvus-lite")
print(json.dumps({"version": version, "index": kind, "rate": rate, "p50_ms": 1e3 * sorted(took)[len(took) // 2], "rows": rows}))
client.close()
shutil.rmtree(scratch, ignore_errors=True)
