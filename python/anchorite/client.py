"""`Client`: an anchorite server's routes as methods."""

import array
import base64
import json
import os
import pathlib
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Optional
from urllib.parse import quote

from . import queries as asked
from .anchors import MEDIA_TYPE, Anchors, Reader
from .jobs import Job, JobFailed
from .prefetch import AnchorIterator
from .transport import Transport

#: The media type of an upload.
PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class Hit:
    """A pair that was found. `id` is its row, `key` its stable name; the rest is there when it was included."""

    id: int
    score: float
    key: Optional[str] = None
    has_image: Optional[bool] = None
    caption: Optional[str] = None
    fields: Optional[Dict[str, Any]] = None
    image: Optional[bytes] = field(default=None, repr=False)
    vectors: Optional[Dict[str, list]] = field(default=None, repr=False)
    source: Optional[Dict[str, Any]] = None


class Client:
    """A server at `url`. Threads may share one.

    key       bearer key, where the server has keys
    pool      the pool that methods ask unless told otherwise; the server's first one by default
    timeout   seconds to connect, and to wait for the next bytes
    retries   how often a busy server, or one that cannot be reached, is asked again
    """

    def __init__(self, url="http://localhost:7801", key=None, pool=None, timeout=(5, 120), retries=5):
        self.pool = pool
        self._transport = Transport(url, key, timeout, retries)

    def search(self, query=None, *, k=10, pool=None, include=("caption",), **options):
        """The hits of one query, best first. `query` is words, picture bytes, a picture's path, a vector or a dict
        (`{"id": 7}`, `{"key": "..."}`, `{"blend": [{"text": "a boat"}, {"id": 7, "weight": -0.5}]}`); `options` are the other fields of
        `POST /v1/search`, such as `near_duplicate=0.95`, `columns=["url"]`, `filter={...}`."""
        body = asked.one(query) if query is not None else {}
        return self._search({**body, **options}, k, pool, include)[0]

    def search_many(self, queries, *, k=10, pool=None, include=("caption",), **options):
        """The hits of each query, in one request."""
        return self._search({"queries": [asked.one(q) for q in queries], **options}, k, pool, include)

    def pages(self, query, *, k=1000, page=100, pool=None, include=("caption",), **options):
        """The hits of one query, page after page: pieces of the one list of `k` hits, asked for as they are taken. A pool that goes on to
        another generation in between is a `ServerError` with the code `generation_gone`."""
        body = {**asked.one(query), **options, "k": k, "page": page, "include": list(include)}
        body = self._of_pool(body, pool)
        while True:
            answer = self._json("POST", "/v1/search", body)
            yield [_hit(h) for h in answer["results"][0]["hits"]]
            if answer.get("next") is None:
                return
            body["cursor"] = answer["next"]

    def _search(self, body, k, pool, include):
        body = self._of_pool({**body, "k": k, "include": list(include)}, pool)
        return [[_hit(h) for h in result["hits"]] for result in self._json("POST", "/v1/search", body)["results"]]

    def manifest(self, pairs, *, pool=None, generation=None):
        """The bytes of a manifest file of these pairs: row numbers, keys, `Hit`s, or dicts with `id` or `key`, `query` and `score`."""
        body = {"pairs": [asked.pair(p) for p in pairs], **({} if generation is None else {"generation": generation})}
        return self._transport.send("POST", "/v1/manifest", json=self._of_pool(body, pool)).content

    def anchors(self, queries, *, policy=None, sample=None, include=(), pool=None):
        """The anchors of a batch of queries, whole. `policy` is what `anchorite anchors --print-policy` prints, or a part of it; `sample` is
        `{"k": 4, "seed": 0, "epoch": 0}` to draw from each query's candidates."""
        return self._anchors(list(queries), policy, sample, include, pool, None)

    def stream_anchors(self, queries, *, policy=None, sample=None, include=(), pool=None, queries_per_batch=16):
        """The same as record batches while they arrive; `.head` of what it returns says what answered."""
        return self._reader(list(queries), policy, sample, include, pool, None, queries_per_batch)

    def iter_anchors(self, batches, *, policy=None, k=None, seed=0, epoch=0, include=(), pool=None, prefetch=2):
        """For training loops: `Anchors` for each batch of queries, `prefetch` of them asked for ahead. With `k`, that many are drawn of each
        query's candidates by seed and epoch; without, the policy's anchors come as they are."""
        sample = None if k is None else {"k": k, "seed": seed, "epoch": epoch}

        def fetch(queries, stop):
            return self._anchors(queries, policy, sample, include, pool, stop)

        return AnchorIterator(fetch, batches, prefetch)

    def _anchors(self, queries, policy, sample, include, pool, stop):
        reader = self._reader(queries, policy, sample, include, pool, stop, 16)
        return Anchors(queries, reader.head, reader.table())

    def _reader(self, queries, policy, sample, include, pool, stop, queries_per_batch):
        body = {"queries": [asked.one(q) for q in queries], "include": list(include), "queries_per_batch": queries_per_batch}
        body.update({name: value for name, value in (("policy", policy), ("sample", sample)) if value is not None})
        headers = {"Accept": MEDIA_TYPE}
        body = self._of_pool(body, pool)
        return Reader(self._transport.send("POST", "/v1/anchors", stop=stop, headers=headers, stream=True, json=body))

    def embed(self, texts, *, model=None):
        """One vector of unit length for each text: `array.array('f')`, which numpy and torch take without a copy."""
        return self._embed(list(texts), "text", model)

    def embed_images(self, images, *, model=None):
        """The same for pictures: bytes or paths."""
        return self._embed([asked.picture(image) for image in images], "image", model)

    def _embed(self, inputs, modality, model):
        model = model or self.pool or self.models()[0]["id"]
        body = {"model": model, "input": inputs, "modality": modality, "encoding_format": "base64"}
        return [_floats(one["embedding"]) for one in self._json("POST", "/v1/embeddings", body)["data"]]

    def ingest(self, sources=None, *, upload=None, pool=None, wait=True, progress=None, poll=0.5, **options):
        """Fills a pool and returns the `Job`. `sources` is a path below the server's folder of sources, or several; `upload` is a parquet
        file to send instead, as a path or bytes. `options` are the other fields of `POST /v1/pools/{pool}/ingest`.

        With `wait` it returns when the pool answers with the rows; a job that ends otherwise raises `JobFailed`. `progress` is called with
        the `Job` every `poll` seconds while it waits."""
        if (sources is None) == (upload is None):
            raise ValueError("give either sources or upload")
        path = f"/v1/pools/{pool or self.pool or self.pools()[0]['name']}/ingest"
        if upload is None:
            sources = [sources] if isinstance(sources, (str, os.PathLike)) else sources
            body = {"sources": [os.fspath(source) for source in sources], **options}
            job = Job.of(self._transport.send("POST", path, json=body).json())
        else:
            job = Job.of(self._upload(path, upload, options))
        return self.wait_for(job.id, progress=progress, poll=poll) if wait else job

    def _upload(self, path, upload, options):
        data = upload if isinstance(upload, (bytes, bytearray)) else pathlib.Path(upload)
        params = {"options": json.dumps(options)} if options else None
        return self._transport.send("POST", path, headers={"Content-Type": PARQUET}, params=params, data=data).json()

    def wait_for(self, id, *, progress=None, poll=0.5):
        """The job when it is done; `JobFailed` when it ended otherwise."""
        while True:
            job = self.job(id)
            if progress is not None:
                progress(job)
            if job.over:
                break
            time.sleep(poll)
        if job.state != "done":
            raise JobFailed(job)
        return job

    def job(self, id):
        """A job as it is now."""
        return Job.of(self._json("GET", f"/v1/jobs/{quote(id, safe='')}"))

    def jobs(self):
        """The server's jobs, newest first."""
        return [Job.of(job) for job in self._json("GET", "/v1/jobs")["jobs"]]

    def cancel(self, id):
        """Asks a job to end; what it has by then is kept."""
        return Job.of(self._json("DELETE", f"/v1/jobs/{quote(id, safe='')}"))

    def models(self):
        """The models that embed."""
        return self._json("GET", "/v1/models")["data"]

    def pools(self):
        """The pools of the server."""
        return self._json("GET", "/v1/pools")["pools"]

    def image(self, id, *, pool=None):
        """The stored picture of a pair, by row number or key."""
        name = pool or self.pool or self.pools()[0]["name"]
        by = "key" if isinstance(id, str) else "id"
        path = f"/v1/pools/{name}/pairs/{quote(str(id), safe='')}/image?by={by}"
        return self._transport.send("GET", path).content

    def _json(self, method, path, body=None):
        return self._transport.send(method, path, **({} if body is None else {"json": body})).json()

    def _of_pool(self, body, pool):
        pool = pool or self.pool
        return {**body, "pool": pool} if pool else body


def _hit(hit):
    if hit.get("image") is not None:
        hit = {**hit, "image": base64.b64decode(hit["image"])}
    # A newer server may say more of a hit than this package knows.
    return Hit(**{name: value for name, value in hit.items() if name in Hit.__dataclass_fields__})


def _floats(text):
    values = array.array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        values.byteswap()
    return values

