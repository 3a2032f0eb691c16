"""Drives a running server with the package in `python/` and with OpenAI's own client, unmodified.

    python python_clients_drive.py anchorite|openai|busy|ingest SERVER_URL PICTURE_FILE

The server holds the test pool `fruit` of `api/tests/support/`. Every check is an assert; prints the names of the checks that ran.
"""

import pathlib
import sys
import threading

CAPTIONS = ["a red apple", "a green apple", "a blue boat on the sea", "one red apple on a table", "a yellow star", "a yellow sun"]
FROM_TEXT = {"directions": [{"from": "text", "to": "text"}], "select": {"k": 6, "near_duplicate": False}}


def search(client, picture):
    assert [h.caption for h in client.search(CAPTIONS[4], k=2, side="text")][0] == CAPTIONS[4]
    by_path, by_bytes = client.search(picture, k=1), client.search(picture.read_bytes(), k=1, include=["image", "vectors"])
    assert by_path[0].key == by_bytes[0].key == "pair-0", by_path
    assert by_bytes[0].image == picture.read_bytes() == client.image(0) == client.image("pair-0")
    assert client.search(by_bytes[0].vectors["image"], k=1)[0].id == 0
    assert [hits[0].id for hits in client.search_many([{"id": 2}, {"key": "pair-4"}], k=1)] == [2, 4]


def choose(client, picture):
    import io

    import pyarrow.parquet

    like, unlike = {"image": picture}, {"id": 2, "weight": -0.5}
    assert [h.id for h in client.search({"blend": [like, {"image": picture.read_bytes()}]}, k=2)] == [0, 3]
    blended = client.search({"blend": [like, unlike]}, k=8)
    assert blended[0].id == 0 and blended[-1].id == 2, blended
    distinct = client.search(picture, k=8, near_duplicate=0.95, columns=["rank"])
    assert 0 in [h.id for h in distinct] and 3 not in [h.id for h in distinct] and distinct[0].fields == {"rank": 0}
    pages = list(client.pages(picture, k=7, page=3))
    assert [len(page) for page in pages] == [3, 3, 1] and [h.id for p in pages for h in p] == [h.id for h in client.search(picture, k=7)]
    table = pyarrow.parquet.read_table(io.BytesIO(client.manifest([blended[0], "pair-4", {"id": 5, "query": "sun"}], generation=1)))
    assert sorted(table["key"].to_pylist()) == ["pair-0", "pair-4", "pair-5"] and all(table["kept"].to_pylist())


def embed(client, picture):
    import numpy

    [text] = client.embed([CAPTIONS[0]])
    assert abs(numpy.linalg.norm(numpy.asarray(text)) - 1) < 1e-5
    assert client.search(text, k=1, side="text")[0].id == 0
    [image] = client.embed_images([picture])
    assert client.search(image, k=1)[0].id == 0
    assert client.models()[0]["dim"] == len(image)


def anchors(client, picture):
    import numpy

    found = client.anchors([picture], policy={"select": {"k": 1}}, include=["image", "pixels", "fields", "vectors"])
    assert (found.found, len(found), found.generation) == ([1], 1, 1)
    row = found.table.to_pylist()[0] if "pixels" not in found.table.column_names else found.table.drop_columns(["pixels"]).to_pylist()[0]
    assert row["image"] == picture.read_bytes() and row["key"] == "pair-0" and '"CC0"' in row["fields"]
    [pixels] = found.pixels()
    assert numpy.asarray(pixels).shape == (3, 3, 3) and numpy.asarray(pixels).max() > 0
    both = client.anchors(["words without a picture", CAPTIONS[0]], policy={**FROM_TEXT, "select": {"k": 1}}, include=["pixels"])
    assert both.pixels()[0] is None and numpy.array_equal(both.pixels()[1], pixels), "a null keeps its place"
    stream = client.stream_anchors(CAPTIONS, policy={**FROM_TEXT, "select": {"k": 1}}, queries_per_batch=2)
    assert [batch.num_rows for batch in stream] == [2, 2, 2] and stream.head["search"] == "exact"


def iterate(client, picture):
    batches = [CAPTIONS[:2], CAPTIONS[2:5], CAPTIONS[5:]]

    def keys(epoch, batches=batches, **options):
        with client.iter_anchors(batches, policy=FROM_TEXT, k=2, seed=1, epoch=epoch, **options) as all:
            return [row for one in all for row in zip(one.table["name"].to_pylist(), one.table["key"].to_pylist())]

    assert keys(0) == keys(0, prefetch=1) == keys(0, batches=[CAPTIONS]), "batching changes nothing"
    assert len(keys(0)) == 12 and any(keys(0) != keys(epoch) for epoch in range(1, 5))
    one_by_one = client.iter_anchors(iter(batches), policy=FROM_TEXT, k=1)
    assert [one.queries for one in one_by_one] == batches, "in order"


def laziness(client, picture):
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield CAPTIONS[:1]

    with client.iter_anchors(endless(), policy=FROM_TEXT, prefetch=3) as anchors:
        next(anchors)
        assert len(taken) <= 4, f"{len(taken)} batches were taken"
    assert list(anchors) == [], "closed"


def refusals(client, picture):
    from anchorite import Client, ServerError, Unreachable

    for call, code in [
        (lambda: client.search("a", k=0), "k_out_of_range"),
        (lambda: client.anchors(["a"]), "query_refused"),
        (lambda: next(client.iter_anchors([["a"]])), "query_refused"),
        (lambda: client.embed(["a"], model="nope"), "model_not_found"),
        (lambda: client.search("a", pool="nope"), "pool_not_found"),
    ]:
        try:
            call()
        except ServerError as error:
            assert error.code == code and error.request_id and error.message, error
        else:
            raise AssertionError(f"no {code}")
    try:
        Client("http://127.0.0.1:1", retries=0).pools()
    except Unreachable:
        pass
    else:
        raise AssertionError("nobody listens there")


def ingest(client, picture):
    """On a server that takes jobs: `boats` has three pictures below its folder, and `picture` is a parquet file."""
    from anchorite import JobFailed, ServerError

    before, seen = client.pools()[0]["rows"], []
    job = client.ingest("boats", poll=0.01, progress=seen.append)
    assert (job.state, job.report["accepted"], client.pools()[0]["rows"]) == ("done", 3, before + 3), job
    assert seen[-1] == job and job.progress["rows_done"] == 3, seen
    assert client.ingest(["boats"], poll=0.01).report["already_present"] == 3
    sent = client.ingest(upload=picture, poll=0.01, no_pictures=True)
    assert sent.report["accepted"] > 0 and sent.answer["request"]["no_pictures"] is True, sent
    assert client.ingest(upload=picture.read_bytes(), poll=0.01).report["accepted"] == 0
    later = client.ingest("boats", wait=False)
    assert client.wait_for(later.id, poll=0.01).id == later.id == client.jobs()[0].id
    for call, kind, code in [
        (lambda: client.ingest("boats", max_rejects=-1), ServerError, "json_fields"),
        (lambda: client.ingest("../boats"), ServerError, "ingest_sources"),
        (lambda: client.cancel(later.id), ServerError, "job_over"),
        (lambda: client.ingest("boats", read_again=True, on_change="reject", ready_vectors=True, poll=0.01), JobFailed, "source"),
    ]:
        try:
            call()
        except (ServerError, JobFailed) as error:
            assert isinstance(error, kind) and error.code == code, error
        else:
            raise AssertionError(f"no {code}")


def busy(client, picture):
    """The server takes one request at a time: the others are asked again until they are answered."""
    results, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: results.append(client.search(CAPTIONS[0], side="text")[0].id)))
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results == [0] * 4, results


def openai(url, picture):
    import base64
    import math

    from openai import NotFoundError, OpenAI, UnprocessableEntityError

    client = OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    [model] = client.models.list().data
    answer = client.embeddings.create(model=model.id, input=CAPTIONS[:2])
    assert [one.index for one in answer.data] == [0, 1] and answer.usage.prompt_tokens > 0
    for one in answer.data:
        assert abs(math.hypot(*one.embedding) - 1) < 1e-5
    plain = client.embeddings.create(model=model.id, input=CAPTIONS[0], encoding_format="float")
    assert max(abs(a - b) for a, b in zip(plain.data[0].embedding, answer.data[0].embedding)) < 1e-6, "base64 is its default"
    uri = "data:image/jpeg;base64," + base64.b64encode(picture.read_bytes()).decode()
    image = client.embeddings.create(model=model.id, input=[uri], extra_body={"modality": "image"})
    assert len(image.data[0].embedding) == len(plain.data[0].embedding)
    for call, kind, code in [
        (lambda: client.embeddings.create(model="gpt", input="a"), NotFoundError, "model_not_found"),
        (lambda: client.embeddings.create(model=model.id, input=[[1, 2]]), UnprocessableEntityError, "token_ids"),
    ]:
        try:
            call()
        except kind as error:
            assert error.code == code, error
        else:
            raise AssertionError(f"no {code}")


def main(which, url, picture):
    picture = pathlib.Path(picture)
    if which == "openai":
        openai(url, picture)
        return print("openai")
    from anchorite import Client

    client = Client(url, retries=200 if which == "busy" else 2)
    special = {"busy": [busy], "ingest": [ingest]}
    checks = special.get(which) or [search, choose, embed, anchors, iterate, laziness, refusals]
    for check in checks:
        check(client, picture)
        print(check.__name__)


if __name__ == "__main__":
    main(*sys.argv[1:])
