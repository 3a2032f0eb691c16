#!/usr/bin/env python3
"""JPEGs of the size of a web caption dataset, cut from real photographs: the pictures that the parity figures are measured on.

    pictures.py OUT N [--photos DIR]

Each of N files is a random cut of a photograph, scaled to a short side of 400 to 600 pixels, with sensor noise, saved at quality 75
to 95; four in five 4:2:0, the rest 4:2:2 and 4:4:4, some progressive, some with restart markers. Seeded: the same photographs and
versions write the same bytes. Without --photos the photographs of two Debian packages of backgrounds are taken (`apt-get download`).

Needs numpy and Pillow.
"""

import argparse
import pathlib
import random
import subprocess
import sys

import numpy as np
from PIL import Image, ImageFile

SEED = 7
PACKAGES = ["gnome-backgrounds", "mate-backgrounds"]
SUBSAMPLINGS = ["4:2:0"] * 8 + ["4:2:2", "4:4:4"]
# A photograph, and not a logo or a thumbnail.
MIN_BYTES = 150_000

Image.MAX_IMAGE_PIXELS = None
ImageFile.MAXBLOCK = 1 << 24


def debian_photographs(folder):
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob("*.deb")):
        try:
            subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"no photographs: {error}; name a folder of large JPEGs with --photos (ANCHORITE_BENCH_PHOTOS)")
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, folder / "files"], check=True)
    return folder / "files"


def photographs(folder):
    kinds = (".jpg", ".jpeg", ".png", ".webp")
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in kinds and p.stat().st_size > MIN_BYTES)
    return found or sys.exit(f"no photograph of over {MIN_BYTES} bytes in {folder}")


def cut(photograph, rng, noise):
    """A cut of the photograph, scaled and noisy; None if the photograph is too small for it."""
    short, aspect = rng.randint(400, 600), rng.uniform(1.0, 1.8)
    width, height = (short, int(short * aspect)) if rng.random() < 0.3 else (int(short * aspect), short)
    zoom = rng.uniform(1, max(1.01, min(photograph.width / width, photograph.height / height) * 0.6))
    box_width, box_height = int(width * zoom), int(height * zoom)
    if box_width > photograph.width or box_height > photograph.height:
        return None
    left, top = rng.randint(0, photograph.width - box_width), rng.randint(0, photograph.height - box_height)
    small = photograph.crop((left, top, left + box_width, top + box_height)).resize((width, height), Image.Resampling.LANCZOS)
    levels = np.asarray(small).astype(float) + noise.normal(0, rng.uniform(0, 5), (height, width, 3))
    return Image.fromarray(levels.clip(0, 255).astype("uint8"))


def save_options(rng):
    options = {"quality": rng.randint(75, 95), "subsampling": rng.choice(SUBSAMPLINGS), "optimize": rng.random() < 0.3}
    if rng.random() < 0.15:
        options["progressive"] = True
    if rng.random() < 0.1:
        options["restart_marker_blocks"] = rng.choice([1, 7, 50])
    return options


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("n", type=int)
    arguments.add_argument("--photos", type=pathlib.Path)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sources = photographs(options.photos or debian_photographs(options.out.parent / "photographs"))
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    made = 0
    for turn in range(100):
        for source in sources:
            if made == options.n:
                return
            picture = cut(Image.open(source).convert("RGB"), rng, noise)
            if picture is not None:
                picture.save(options.out / f"{made:04}.jpg", **save_options(rng))
                made += 1
    sys.exit(f"only {made} pictures could be cut")


if __name__ == "__main__":
    main()
