"""The package's iterator beside a step that takes 100 ms (it sleeps, as a host does while its accelerator works). Prints JSON.

usage: iterate_anchors.py PACKAGE_FOLDER SERVER_URL FOLDER DIM STEPS POLICY_JSON ; FOLDER holds queries.f32, row after row
"""

import json
import sys
import time

package, url, folder, dim, steps, policy = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), json.loads(sys.argv[6])
sys.path.insert(0, package)

import numpy as np  # noqa: E402
from anchorite import Client  # noqa: E402

queries = list(np.fromfile(f"{folder}/queries.f32", dtype=np.float32).reshape(-1, dim)[:512])
waits = []
with Client(url).iter_anchors((queries for _ in range(steps + 1)), policy=policy, include=["image"], prefetch=2) as anchors:
    # The first batch is asked for before there is a step to hide behind.
    assert len(next(anchors)) > 512
    start = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(anchors)
        waits.append(time.perf_counter() - asked)
        assert len(batch.table["image"]) > 512
        time.sleep(0.1)
    seconds = time.perf_counter() - start
print(json.dumps({"steps": steps, "seconds": seconds, "median_wait_ms": 1e3 * sorted(waits)[len(waits) // 2], "worst_wait_ms": 1e3 * max(waits)}))
