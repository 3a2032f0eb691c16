"""Makes more fixtures with the real tools, and lets the tools that read a layout say what it holds.

pip install datasets==5.2.0 pillow pandas pyarrow numpy fsspec open_clip_torch==3.3.0 braceexpand webdataset && pip install --no-deps clip-retrieval==2.45.0
python make_tools.py

hf_large/      Hugging Face `datasets`: large binary and large string, two shards
imagefolder/   pictures with metadata.jsonl; read.json is what `load_dataset("imagefolder")` reads
open_clip/     pairs.csv (tabs, as open_clip's default has it) and pairs.tsv; read.json is what its CsvDataset reads
clip_written/  clip-retrieval's own NumpyWriter, two partitions
vectors/       ready vectors: Hugging Face `datasets` (lists of float32, as `map` adds them) and pandas (lists of float64), one null
checksums/     pyarrow with a checksum in every page
"""

import io
import json
import os
import shutil
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
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


def large():
    folder = fresh("hf_large")
    features = datasets.Features(
        {"jpg": datasets.Value("large_binary"), "caption": datasets.Value("large_string"), "url": datasets.Value("large_string")}
    )
    rows = [{"jpg": jpeg(i), "caption": f"large picture {i}", "url": f"http://host.invalid/{i}"} for i in range(5)]
    table = datasets.Dataset.from_list(rows, features=features)
    for shard in range(2):
        part = table.shard(2, shard, contiguous=True)
        part.to_parquet(str(folder / f"train-{shard:05}-of-00002.parquet"))


def imagefolder():
    folder = fresh("imagefolder")
    (folder / "cats").mkdir()
    names = ["cats/0.jpg", "1.jpg", "2.jpg"]
    for i, name in enumerate(names):
        (folder / name).write_bytes(jpeg(i))
    rows = [{"file_name": name, "text": f"in a folder {i}", "width": 16 + i} for i, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    (folder / "read.json").write_text(json.dumps([[row["text"], row["width"]] for row in read]) + "\n")


def open_clip():
    from open_clip_train.data import CsvDataset

    folder = fresh("open_clip")
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    captions = ["a plain caption", 'with "quotes", a comma', "naïve café 日本"]
    frame = pd.DataFrame({"filepath": [f"{i}.jpg" for i in range(3)], "title": captions})
    frame.to_csv(folder / "pairs.csv", sep=",", index=False)
    frame.to_csv(folder / "pairs.tsv", sep="\t", index=False)
    os.chdir(folder)
    read = {}
    for name, sep in [("pairs.csv", ","), ("pairs.tsv", "\t")]:
        rows = CsvDataset(name, lambda image: image, "filepath", "title", sep=sep, tokenizer=lambda texts: texts)
        read[name] = [rows[i][1] for i in range(len(rows))]
    (folder / "read.json").write_text(json.dumps(read) + "\n")


def clip_retrieval():
    # The package's own __init__ imports its server; its writer is one file.
    place = Path(find_spec("clip_retrieval").submodule_search_locations[0]) / "clip_inference" / "writer.py"
    spec = spec_from_file_location("writer", place)
    writer_module = module_from_spec(spec)
    spec.loader.exec_module(writer_module)

    folder = fresh("clip_written")
    rng = np.random.default_rng(11)
    for part, count in [(0, 3), (1, 2)]:
        writer = writer_module.NumpyWriter(part, str(folder), enable_text=True, enable_image=True, enable_metadata=True, output_partition_count=2)
        unit = lambda: (lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True))(rng.normal(size=(count, 8)).astype("float32"))
        writer(
            {
                "image_embs": unit(),
                "text_embs": unit(),
                "image_filename": [f"0000{part}{i}" for i in range(count)],
                "text": [f"written {part}{i}" for i in range(count)],
                "metadata": [json.dumps({"width": 16 + i, "url": f"http://host.invalid/{part}{i}"}) for i in range(count)],
            }
        )
        writer.flush()


def vectors():
    folder = fresh("vectors")
    rng = np.random.default_rng(13)
    rows = lambda: rng.normal(size=(4, 8)).astype("float32")
    images, texts = rows(), rows()
    table = datasets.Dataset.from_dict({"caption": [f"ready {i}" for i in range(4)]})
    table = table.map(lambda row, i: {"image_embedding": images[i], "text_embedding": texts[i]}, with_indices=True)
    table.to_parquet(str(folder / "datasets.parquet"))
    lists = [list(map(float, row)) for row in images]
    lists[2] = None
    pd.DataFrame({"id": range(4), "embedding": lists, "title": [f"panda {i}" for i in range(4)]}).to_parquet(folder / "pandas.parquet")
    (folder / "first.json").write_text(json.dumps((images[0] / np.linalg.norm(images[0])).tolist()) + "\n")


def checksums():
    folder = fresh("checksums")
    table = pa.table({"image": [jpeg(i) for i in range(3)], "caption": [f"summed {i}" for i in range(3)]})
    pq.write_table(table, folder / "pairs.parquet", write_page_checksum=True, compression="none", use_dictionary=False)


if __name__ == "__main__":
    large()
    vectors()
    checksums()
    imagefolder()
    clip_retrieval()
    open_clip()
    names = ["datasets", "numpy", "pandas", "pyarrow", "pillow", "open_clip_torch", "clip-retrieval"]
    (here / "versions_tools.json").write_text(json.dumps({name: version(name) for name in names}, indent=1) + "\n")
