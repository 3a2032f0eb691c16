"""Makes the fixtures in this folder with the real writers.

python -m venv v && v/bin/pip install datasets==5.2.0 pillow numpy pandas pyarrow && v/bin/python make.py

hf/          Hugging Face `datasets`: bytes in the parquet, paths beside it, a list of captions
img2dataset/ img2dataset's parquet layout (schema as img2dataset 1.47.0 writes it), one row failed
clip/        clip-retrieval's `inference` layout (npy float16 + metadata), two partitions, an all-null column
"""

import io
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

here = Path(__file__).parent


def jpeg(i):
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (40 * i % 256, 90, 255 - 30 * i)).save(out, "JPEG")
    return out.getvalue()


def fresh(name):
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def hugging_face():
    folder = fresh("hf")
    features = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = [{"image": {"bytes": jpeg(i), "path": None}, "caption": f"picture number {i}", "label": i % 2} for i in range(5)]
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(str(folder / "train-00000-of-00001.parquet"))

    # Paths: what `datasets` keeps when a picture comes from a file and is not embedded.
    (folder / "pictures").mkdir()
    for i in range(2):
        (folder / "pictures" / f"{i}.jpg").write_bytes(jpeg(i))
    rows = [{"image": {"bytes": None, "path": f"pictures/{i}.jpg"}, "caption": f"beside {i}", "label": 0} for i in range(3)]
    schema = features.arrow_schema
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "paths.parquet")

    several = datasets.Features({"image": datasets.Image(), "text": datasets.Sequence(datasets.Value("string"))})
    captions = [["first", "second"], ["", " ", "third"], [], None]
    rows = [{"image": {"bytes": jpeg(i), "path": f"{i}.jpg"}, "text": c} for i, c in enumerate(captions)]
    datasets.Dataset.from_list(rows, features=several).to_parquet(str(folder / "lists.parquet"))


def img2dataset():
    folder = fresh("img2dataset")
    schema = pa.schema(
        [
            ("caption", pa.string()), ("url", pa.string()), ("key", pa.string()), ("status", pa.string()),
            ("error_message", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
            ("original_width", pa.int32()), ("original_height", pa.int32()), ("exif", pa.string()),
            ("sha256", pa.string()), ("jpg", pa.binary()),
        ]
    )  # fmt: skip
    good = lambda i: dict(
        caption=f"caption {i}", url=f"http://host.invalid/{i}.jpg", key=f"{i:09}", status="success", error_message=None,
        width=16, height=12, original_width=16, original_height=12, exif="{}", sha256="0" * 64, jpg=jpeg(i),
    )  # fmt: skip
    failed = dict.fromkeys(schema.names) | dict(
        caption="lost", url="http://host.invalid/x.jpg", key="000000002", status="failed_to_download", error_message="404"
    )
    rows = [good(0), good(1), failed, good(3)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "00000.parquet")


def clip_retrieval():
    folder = fresh("clip")
    rng = np.random.default_rng(7)
    for part, count in [("0", 3), ("1", 2)]:
        for kind in ["img_emb", "text_emb"]:
            (folder / kind).mkdir(exist_ok=True)
            rows = rng.normal(size=(count, 8)).astype("float32")
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            np.save(folder / kind / f"{kind}_{part}.npy", rows.astype("float16"))
        (folder / "metadata").mkdir(exist_ok=True)
        frame = pd.DataFrame(
            {
                "image_path": [f"00000{part}{i}" for i in range(count)],
                "caption": [f"sample {part}{i}" for i in range(count)],
                "nested.width": list(range(count)),
                "error_message": [None] * count,
            }
        )
        frame.to_parquet(folder / "metadata" / f"metadata_{part}.parquet")


hugging_face()
img2dataset()
clip_retrieval()
versions = {m.__name__: m.__version__ for m in [datasets, np, pd, pa]}
(here / "versions.json").write_text(json.dumps(versions | {"pillow": Image.__version__}, indent=1) + "\n")
