#!/usr/bin/env python3
"""What open_clip's pipeline makes of every picture in a folder: the reference that `encoder::image` is compared with.

    preprocess.py DIR OUT.json [--config FILE] [--rounds N] [--open-clip]

For each file: SHA-256 of the decoded RGB bytes (Pillow's `Image.open(...).convert("RGB")`), of the u8 crop (resized and cut, before
normalisation) and of the normalised f32 values (channel-major, little-endian), or `"error"` where Pillow refuses. Then the best of
N rounds of CPU milliseconds per picture (processor time, so that a busy machine does not count against it), one thread, for this
script's own path and, with --open-clip, for `open_clip.image_transform`.

FILE is an open_clip `preprocess_cfg.json`; without it CLIP's own (224, bicubic, shortest, OpenAI's mean and deviation).

Needs numpy and Pillow; --open-clip also needs open_clip_torch, and then every result is compared with its own transform, bit for
bit (`"open_clip_differs"` lists the files that are not equal; it was empty for every file this was run on).
The picture is converted to RGB *before* the resize (as Hugging Face and webdataset do). open_clip's own transform converts after it,
which differs for pictures with alpha or a palette unless the caller has converted them; pass it converted ones.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL
from PIL import Image

CLIP = {
    "size": 224,
    "mode": "RGB",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "random": Image.Resampling.BICUBIC}


def decode(data):
    """Bytes to an RGB picture."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def keep_ratio(width, height, target_width, target_height, pick):
    ratio = pick(height / target_height, width / target_width)
    # Pillow refuses an edge of no pixels; we keep one.
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def resized_size(width, height, config):
    target_height, target_width = config["size"]
    mode = config["resize_mode"]
    if mode == "squash":
        return target_width, target_height
    if mode == "longest":
        return keep_ratio(width, height, target_width, target_height, max)
    if target_height != target_width:
        return keep_ratio(width, height, target_width, target_height, min)
    edge = target_height
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def centre(picture, width, height, fill):
    """torchvision's CenterCrop (and open_clip's CenterCropOrPad): pad, then cut at Python's round."""
    left, top = max(0, width - picture.width) // 2, max(0, height - picture.height) // 2
    if width > picture.width or height > picture.height:
        padded = Image.new("RGB", (max(width, picture.width), max(height, picture.height)), (fill,) * 3)
        padded.paste(picture, (left, top))
        picture = padded
    left, top = round((picture.width - width) / 2.0), round((picture.height - height) / 2.0)
    return picture.crop((left, top, left + width, top + height))


def crop_u8(picture, config):
    """An RGB picture to the u8 crop (height, width, 3)."""
    height, width = config["size"]
    # open_clip does not hand its interpolation on for a rectangle.
    bicubic = config["resize_mode"] == "shortest" and height != width
    resample = Image.Resampling.BICUBIC if bicubic else FILTERS[config["interpolation"]]
    resized = picture.resize(resized_size(*picture.size, config), resample)
    fill = config["fill_color"] if config["resize_mode"] == "longest" else 0
    return np.asarray(centre(resized, width, height, fill))


def normalise(crop, config):
    """torchvision's ToTensor and Normalize, in their order of operations."""
    values = crop.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean = np.array(config["mean"], np.float32)[:, None, None]
    std = np.array(config["std"], np.float32)[:, None, None]
    return np.ascontiguousarray((values - mean) / std)


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def load_config(path):
    config = dict(CLIP)
    if path:
        config.update({key: value for key, value in json.loads(pathlib.Path(path).read_text()).items() if value is not None})
    if isinstance(config["size"], int):
        config["size"] = [config["size"]] * 2
    return config


def describe(data, config):
    try:
        picture = decode(data)
        crop = crop_u8(picture, config)
    except Exception as error:  # Pillow raises whatever its plugins raise
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "width": picture.width,
        "height": picture.height,
        "decoded": sha256(np.asarray(picture)),
        "crop": sha256(crop),
        "values": sha256(normalise(crop, config).astype("<f4")),
    }


def best_ms(run, files, rounds):
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for data in files:
            run(data)
        best = min(best, (time.process_time() - start) / len(files) * 1000)
    return round(best, 4)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("dir", type=pathlib.Path)
    arguments.add_argument("out", type=pathlib.Path)
    arguments.add_argument("--config", type=pathlib.Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--open-clip", action="store_true")
    options = arguments.parse_args()
    config = load_config(options.config)
    files = {path.name: path.read_bytes() for path in sorted(options.dir.iterdir()) if path.is_file()}
    result = {"config": config, "versions": {"python": sys.version.split()[0], "pillow": PIL.__version__, "numpy": np.__version__}}
    result["versions"]["libjpeg_turbo"] = PIL.features.version("libjpeg_turbo")
    result["files"] = {name: describe(data, config) for name, data in files.items()}
    good = [data for name, data in files.items() if "error" not in result["files"][name]]
    result["cpu_ms_per_picture"] = {"pillow_numpy": best_ms(lambda data: normalise(crop_u8(decode(data), config), config), good, options.rounds)}
    if options.open_clip:
        add_open_clip(result, files, good, config, options.rounds)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def add_open_clip(result, files, good, config, rounds):
    import importlib.metadata

    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    torch.set_num_threads(1)
    size = config["size"][0] if config["size"][0] == config["size"][1] else tuple(config["size"])
    transform = image_transform_v2(PreprocessCfg(**{**config, "size": size}), is_train=False)
    differs = []
    for name, data in files.items():
        if "error" not in result["files"][name] and sha256(transform(decode(data)).numpy()) != result["files"][name]["values"]:
            differs.append(name)
    for package in ("open_clip_torch", "torch", "torchvision"):
        result["versions"][package] = importlib.metadata.version(package)
    result["open_clip_differs"] = differs
    result["cpu_ms_per_picture"]["open_clip"] = best_ms(lambda data: transform(decode(data)), good, rounds)


if __name__ == "__main__":
    import PIL.features

    main()
