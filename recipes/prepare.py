"""Prepares the published evaluation sets for `anchorite eval`: pictures as they were published, labels as the class lists count them.

Usage: prepare.py SET SOURCE OUT [--wnids LOC_synset_mapping.txt] [--rows N]

    SOURCE (as unpacked)  ──►  OUT/SET/*.parquet (image, label), OUT/SET.toml (for eval.toml), and the lists that it names

SET is one of
  imagenet        val/nXXXXXXXX/*.JPEG, or Kaggle's: val/*.JPEG beside LOC_val_solution.csv
  imagenet-v2     0/ ... 999/, as in imagenetv2-matched-frequency-format-val
  imagenet-r, imagenet-a, imagenet-sketch      nXXXXXXXX/*
  objectnet       images/FOLDER/*.png and mappings/, as in objectnet-1.0
  caltech101, oxford_pets, stanford_cars, oxford_flowers, food101, fgvc_aircraft, sun397, dtd, eurosat, ucf101
                  CoOp's folder of that set, with its split_zhou_*.json and its pictures; for fgvc_aircraft, which has no such file, its makers' data/

OpenAI's names of ImageNet's classes (imagenet-names.txt beside this script, as open_clip has them) are put into OUT too. `--wnids` is ImageNet's own list (a synset id and its words a line, in the order of the ids); the first six need it. Needs pyarrow, and Pillow for ObjectNet.
"""

import argparse
import csv
import io
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
BORDER = 2  # ObjectNet's red frame, in pixels
ROWS = 1_000  # of a file
NAMES = (pathlib.Path(__file__).parent / "imagenet-names.txt").read_text().splitlines()
COOP = {
    "caltech101": ("101_ObjectCategories", "a photo of a {}.", "mean_per_class"),
    "oxford_pets": ("images", "a photo of a {}, a type of pet.", "mean_per_class"),
    "stanford_cars": ("", "a photo of a {}.", "top1"),
    "oxford_flowers": ("jpg", "a photo of a {}, a type of flower.", "mean_per_class"),
    "food101": ("images", "a photo of {}, a type of food.", "top1"),
    "fgvc_aircraft": ("images", "a photo of a {}, a type of aircraft.", "mean_per_class"),
    "sun397": ("SUN397", "a photo of a {}.", "top1"),
    "dtd": ("images", "{} texture.", "top1"),
    "eurosat": ("2750", "a centered satellite photo of {}.", "top1"),
    "ucf101": ("UCF-101-midframes", "a photo of a person doing {}.", "top1"),
}


def pictures(folder):
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)


def folders(folder):
    return sorted(p for p in folder.iterdir() if p.is_dir())


def wnids(path):
    if not path:
        sys.exit("this set needs --wnids LOC_synset_mapping.txt")
    ids = [line.split()[0] for line in pathlib.Path(path).read_text().splitlines() if line.strip()]
    if ids != sorted(set(ids)):
        sys.exit(f"{path}: its synset ids are not in order, each once")
    return ids


# Each: SOURCE to (rows of bytes and label, lines for eval.toml, lists by file name).

def imagenet(source, ids):
    number = {wnid: at for at, wnid in enumerate(ids)}
    flat = source / "LOC_val_solution.csv"
    if flat.is_file():
        with flat.open() as file:
            of = {r["ImageId"]: r["PredictionString"].split()[0] for r in csv.DictReader(file)}
        rows = ((p.read_bytes(), number[of[p.stem]]) for p in pictures(source / "val"))
    else:
        top = source / "val" if (source / "val").is_dir() else source
        rows = by_wnid(top, number)
    return rows, {}, {}


def by_wnid(top, number):
    for folder in folders(top):
        if folder.name not in number:
            sys.exit(f"{folder}: no synset of the list")
        yield from ((p.read_bytes(), number[folder.name]) for p in pictures(folder))


def imagenet_v2(source, ids):
    """Its folders are numbers, and sorted as text they come in another order."""
    names = sorted((f for f in folders(source) if f.name.isdigit()), key=lambda f: int(f.name))
    return ((p.read_bytes(), int(f.name)) for f in names for p in pictures(f)), {}, {}


def subset(name):
    def prepare(source, ids):
        number = {wnid: at for at, wnid in enumerate(ids)}
        met = [number[f.name] for f in folders(source) if f.name in number]
        rows = by_wnid(source, number)
        return rows, {"subset": f"{name}.json", "labels": "classes"}, {f"{name}.json": sorted(met)}
    return prepare


def sketch(source, ids):
    return by_wnid(source / "sketch" if (source / "sketch").is_dir() else source, {w: n for n, w in enumerate(ids)}), {}, {}


def objectnet(source, ids):
    """Objects are mapped to ImageNet's classes by words; ImageNet's words are numbered in another order than everyone's, which a third file mends."""
    at = source / "mappings"
    label_of = json.loads((at / "folder_to_objectnet_label.json").read_text())
    everyones = {str(v): int(k) for k, v in json.loads((at / "pytorch_to_imagenet_2012_id.json").read_text()).items()}
    words = (at / "imagenet_to_label_2012_v2").read_text().splitlines()
    number = {line.strip(): everyones[str(line_number)] for line_number, line in enumerate(words)}
    to_imagenet = json.loads((at / "objectnet_to_imagenet_1k.json").read_text())
    known = {label: [number[word.strip()] for word in names.split(";")] for label, names in to_imagenet.items()}
    rows = ((uncut(p), label_of[f.name]) for f in folders(source / "images") for p in pictures(f) if label_of[f.name] in known)
    return rows, {"map": "objectnet.json", "outside": "drop"}, {"objectnet.json": known}


def uncut(path):
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    out = io.BytesIO()
    picture.crop((BORDER, BORDER, width - BORDER, height - BORDER)).save(out, "PNG")
    return out.getvalue()


def split_zhou(name, source):
    """Test pictures with their labels, and the names in the labels' order, by CoOp's own split."""
    found = sorted(source.glob("split_zhou_*.json"))
    if not found:
        sys.exit(f"{source}: no split_zhou_*.json; CoOp's DATASETS.md says where it is")
    split = json.loads(found[0].read_text())
    words = {}
    for _, label, word in split["train"] + split["val"] + split["test"]:
        if words.setdefault(label, word) != word:
            sys.exit(f"class {label} is called {words[label]!r} and {word!r}")
    if sorted(words) != list(range(len(words))):
        sys.exit(f"the labels of {name} are not 0 to {len(words) - 1}")
    return [(path, label) for path, label, _ in split["test"]], [words[label] for label in sorted(words)]


def aircraft(source):
    """The same of FGVC-Aircraft, whose makers' split CoOp takes: a picture's number and its variant a line."""
    names = [line.strip() for line in (source / "variants.txt").read_text().splitlines() if line.strip()]
    number = {name: at for at, name in enumerate(names)}
    lines = (source / "images_variant_test.txt").read_text().splitlines()
    pairs = [line.strip().split(" ", 1) for line in lines if line.strip()]
    return [(f"{picture}.jpg", number[variant]) for picture, variant in pairs], names


def coop(name):
    def prepare(source, ids):
        folder, template, metric = COOP[name]
        test, names = aircraft(source) if name == "fgvc_aircraft" else split_zhou(name, source)
        names = [word.replace("_", " ") for word in names]
        rows = (((source / folder / path).read_bytes(), label) for path, label in test)
        own = {f"classes.{name}": {"names": f"{name}-names.txt", "templates": [template]}, "metric": metric}
        return rows, own, {f"{name}-names.txt": names}
    return prepare


SETS = {
    "imagenet": imagenet, "imagenet-v2": imagenet_v2, "imagenet-r": subset("imagenet-r"), "imagenet-a": subset("imagenet-a"),
    "imagenet-sketch": sketch, "objectnet": objectnet, **{name: coop(name) for name in COOP},
}


def write(rows, folder, most):
    folder.mkdir(parents=True, exist_ok=True)
    waiting, files, total = [], 0, 0

    def flush():
        nonlocal files
        labels = [label for _, label in waiting]
        kind = pa.string() if isinstance(labels[0], str) else pa.int64()
        table = pa.table({"image": pa.array([b for b, _ in waiting], pa.binary()), "label": pa.array(labels, kind)})
        pq.write_table(table, folder / f"{files:05}.parquet", compression="none")
        files += 1
        waiting.clear()

    for row in rows:
        waiting.append(row)
        total += 1
        if len(waiting) >= most:
            flush()
    if waiting:
        flush()
    if not total:
        sys.exit("no picture was found: is SOURCE the unpacked folder?")
    return total


def toml(name, lines):
    text, lines = "", dict(lines)
    classes = "imagenet"
    for key in [k for k in lines if k.startswith("classes.")]:
        classes = key.removeprefix("classes.")
        text += f"[{key}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.pop(key).items())
    metric = lines.pop("metric", "top1")
    group = "ID" if name == "imagenet" else "zero-shot" if name in COOP else "shift"
    entries = {"name": name, "group": group, "sources": [f"{name}/*.parquet"], "classes": classes, **lines}
    text += "[[sets]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in entries.items())
    return text + f"# reported as {metric}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--wnids")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of a file")
    args = parser.parse_args()
    ids = [] if args.set in COOP else wnids(args.wnids)
    rows, lines, lists = SETS[args.set](args.source, ids)
    total = write(rows, args.out / args.set, args.rows)
    if len(ids) == len(NAMES):
        lists = lists | {"imagenet-names.txt": NAMES}
    for name, content in lists.items():
        text = "\n".join(content) if name.endswith(".txt") else json.dumps(content)
        (args.out / name).write_text(text + "\n")
    (args.out / f"{args.set}.toml").write_text(toml(args.set, lines))
    print(f"{total} pictures in {args.out / args.set}; put {args.set}.toml into eval.toml")


if __name__ == "__main__":
    main()
