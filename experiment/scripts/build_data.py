"""Builds the benchmark of arf-mini from named packages: pool.parquet and bench.parquet, as split.parquet says.

Usage: build_data.py CACHE_DIR DATA_DIR

    sources.json ──fetch, SHA-256──► packages ──packages.py──► pictures and words
    split.parquet ──which, what for──┴──render──► 96 px ──► DATA/pool.parquet, DATA/bench.parquet

npm and apt-get are asked for the pinned versions (Debian 12); what is in CACHE_DIR with the right hash is not fetched again. Python
packages: requirements.txt. Some ten minutes of one core. Ends with an error where a picture of the split is in no package; prints a digest of
all pixels and words, which is the same on every machine with these versions.
"""

import hashlib
import importlib.util
import io
import json
import multiprocessing
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

import packages

HERE = pathlib.Path(__file__).parent
SIDE, INNER = 96, 90  # the drawing fills INNER of SIDE pixels
LARGE = ("noto", "noto-v1", "twemoji")
WIDTH = 112  # an SVG is drawn so wide before it is trimmed and scaled; 160 for the LARGE
VISIBLE = 8  # of 255: what is fainter is trimmed
DIGEST = "cd9d817291bee9f45c39ce034b259d62d2e97ea09fa9669fe2e879188b3f1469"


def fetch(cache):
    """With the bundled model's own fetcher, from this list."""
    spec = importlib.util.spec_from_file_location("fetch_sources", HERE.parent.parent / "demo/scripts/fetch_sources.py")
    fetcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetcher)
    for source in packages.SOURCES.values():
        fetcher.fetch(source, cache)


def render(picture):
    """PNG bytes: trimmed to what is drawn, on white, scaled to the square; None if nothing shows."""
    try:
        drawn = Image.open(io.BytesIO(rasterised(picture))).convert("RGBA")
    except (ValueError, OSError):
        return None
    box = drawn.getchannel("A").point(lambda a: 255 if a > VISIBLE else 0).getbbox()
    if not box:
        return None
    drawn = drawn.crop(box)
    flat = Image.new("RGB", drawn.size, "white")
    flat.paste(drawn, (0, 0), drawn)
    scale = INNER / max(flat.size)
    size = [max(1, round(edge * scale)) for edge in flat.size]
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    kernel = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    canvas.paste(flat.resize(size, kernel), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


def rasterised(picture):
    if not picture.is_svg:
        return picture.data
    width = 160 if picture.id.split("/")[0] in LARGE else WIDTH
    return bytes(resvg_py.svg_to_bytes(svg_string=picture.data.decode("utf-8", "replace"), width=width, skip_system_fonts=True))


def one(picture):
    return picture.id, picture.caption, picture.keywords, render(picture)


def rendered(cache, wanted):
    """By id, of those that are wanted: caption, keywords, PNG."""
    found, seen = {}, set()

    def pictures():
        for picture in packages.every_picture(cache):
            if picture.id in wanted and picture.id not in seen:
                seen.add(picture.id)
                yield picture

    with multiprocessing.Pool(2) as workers:
        for id_, *rest in workers.imap(one, pictures(), chunksize=64):
            found[id_] = rest
    missing = sorted(set(wanted) - {i for i, rest in found.items() if rest[2]})
    if missing:
        sys.exit(f"{len(missing)} pictures of the split are in no package or show nothing: {missing[:10]}")
    return found


def write(rows, found, path):
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "id": [r["id"] for r in rows],
        "image": pa.array([{"bytes": found[r["id"]][2], "path": r["id"].replace("/", "_") + ".png"} for r in rows], picture),
        "caption": [found[r["id"]][0] for r in rows],
        "keywords": [found[r["id"]][1] for r in rows],
        **{name: [r[name] for r in rows] for name in ("label", "split", "style", "source", "license")},
    }
    names = [name for name in columns if name != "image"]
    features = {name: {"dtype": "string", "_type": "Value"} for name in names} | {"image": {"_type": "Image"}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(table, unfinished, compression="zstd", row_group_size=1000)
    unfinished.rename(path)
    print(f"{path}: {len(rows)} rows, {path.stat().st_size / 1e6:.1f} MB")


def digest(rows, found):
    total = hashlib.sha256()
    for row in sorted(rows, key=lambda r: r["id"]):
        caption, keywords, png = found[row["id"]]
        pixels = hashlib.sha256(Image.open(io.BytesIO(png)).tobytes()).hexdigest()
        total.update(json.dumps([row["id"], caption, keywords, pixels]).encode())
    return total.hexdigest()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    cache, data = map(pathlib.Path, sys.argv[1:])
    fetch(cache)
    rows = pq.read_table(HERE.parent / "split.parquet").to_pylist()
    found = rendered(cache, {r["id"] for r in rows})
    data.mkdir(parents=True, exist_ok=True)
    write([r for r in rows if r["split"] == "pool"], found, data / "pool.parquet")
    write([r for r in rows if r["split"] != "pool"], found, data / "bench.parquet")
    made = digest(rows, found)
    print(f"digest {made}")
    if made != DIGEST:
        sys.exit(f"the pictures or words are not those that the results were made with (expected {DIGEST}): other versions of Python's packages?")


if __name__ == "__main__":
    main()
