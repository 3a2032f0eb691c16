"""Makes webdataset/ and img2dataset_*/ here with the real writers.

python -m venv v && v/bin/pip install img2dataset==1.47.0 webdataset pillow && v/bin/python make_webdataset.py

webdataset/    webdataset.TarWriter: plain and gzip, folders in keys, captions in a JSON field, other members;
               keys.json: names and how webdataset.tariterators.base_plus_ext splits them
img2dataset_*/ img2dataset against a file server on the loopback interface, in its three output formats;
               of six URLs one is not there and one is no picture
"""

import functools
import http.server
import io
import json
import shutil
import sys
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path

import webdataset
from img2dataset import download
from PIL import Image
from webdataset.tariterators import base_plus_ext

here = Path(__file__).parent


def picture(i, kind="JPEG"):
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (40 * i % 256, 90, 255 - 30 * i)).save(out, kind)
    return out.getvalue()


def fresh(name):
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def with_webdataset():
    folder = fresh("webdataset")
    kinds = ["jpg", "png", "webp", "jpeg"]
    pillow = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
    for name in ["cc3m-train-0000.tar", "cc3m-train-0001.tar.gz"]:
        with webdataset.TarWriter(str(folder / name)) as out:
            for i, kind in enumerate(kinds):
                sample = {"__key__": f"part/{i:09}", kind: picture(i, pillow[kind]), "txt": f"caption {i}\n", "cls": i}
                out.write(sample)
    with webdataset.TarWriter(str(folder / "json.tar")) as out:
        text = {"caption": "in the json", "width": 16, "score": 0.5, "good": True, "nested": {"a": 1}, "nothing": None}
        out.write({"__key__": "a", "jpg": picture(0), "json": text})
        out.write({"__key__": "b", "jpg": picture(1), "json": {"TEXT": "by another name", "id": "row-b"}})
        out.write({"__key__": "c", "jpg": picture(2), "json": {"TEXT": "not read", "id": "row-c"}, "txt": "the txt wins"})
        out.write({"__key__": "d", "jpg": picture(3)})
        out.write({"__key__": "e", "txt": "no picture"})
    names = ["a.jpg", "a/b.jpg", "a/b.c.jpg", "a.b/c.jpg", "a.b/c", "plain", ".hidden.jpg", "x/.hidden", "A.JPG", "a b.seg.PNG",
             "a..jpg", "a.", "deep/er/0001.txt", "x/__y__.json", "a/b/"]  # fmt: skip
    split = lambda n: next(([k, e.lower()] for k, e in [base_plus_ext(n)] if k is not None), None)
    (folder / "keys.json").write_text(json.dumps([[n, split(n)] for n in names], indent=1) + "\n")


def with_img2dataset():
    with tempfile.TemporaryDirectory() as web, tempfile.TemporaryDirectory() as out:
        for i in range(4):
            (Path(web) / f"{i}.jpg").write_bytes(picture(i))
        (Path(web) / "broken.jpg").write_bytes(b"no picture")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=web)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        names = ["0.jpg", "1.jpg", "gone.jpg", "2.jpg", "broken.jpg", "3.jpg"]
        urls = Path(out) / "urls.tsv"
        lines = [f"caption of {n}\thttp://127.0.0.1:{server.server_port}/{n}" for n in names]
        urls.write_text("\n".join(["caption\turl", *lines]) + "\n")
        for kind in ["webdataset", "files", "parquet"]:
            target = Path(out) / kind
            download(
                url_list=str(urls), input_format="tsv", url_col="url", caption_col="caption", output_format=kind,
                output_folder=str(target), processes_count=1, thread_count=1, image_size=16, resize_mode="no",
                number_sample_per_shard=4, enable_wandb=False, disallowed_header_directives=[],
            )  # fmt: skip
            folder = here / f"img2dataset_{kind}"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(target, folder, ignore=shutil.ignore_patterns("_tmp"))
        server.shutdown()


if __name__ == "__main__":
    with_webdataset()
    with_img2dataset()
    versions = {name: version(name) for name in ["webdataset", "img2dataset", "pillow", "pyarrow"]} | {"python": sys.version.split()[0]}
    (here / "versions_webdataset.json").write_text(json.dumps(versions, indent=1) + "\n")
