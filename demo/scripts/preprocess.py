"""The picture pipeline of open_clip (torchvision on PIL), and the tokenizer, as the shipped files describe them."""

import io

import numpy as np
from PIL import Image

SIDE = 96
MEAN, STD = 0.498, 0.502  # EfficientNet-Lite was trained on (x - 127) / 128


def pixels(data):
    """Encoded picture to [3, 96, 96]: shortest edge to 96 (bicubic), centre crop, scaled and normalised."""
    picture = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data
    width, height = picture.size
    short = min(width, height)
    if short != SIDE:
        size = (int(SIDE * width / short), int(SIDE * height / short))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((edge - SIDE) / 2) for edge in picture.size)
    picture = picture.crop((left, top, left + SIDE, top + SIDE)).convert("RGB")
    array = np.asarray(picture, dtype=np.float32) / np.float32(255)
    return ((array - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


def tokens(tokenizer, texts):
    """input_ids and attention_mask, padded to the longest of the batch."""
    rows = tokenizer.encode_batch(list(texts))
    longest = max(len(r.ids) for r in rows)
    pad = lambda values: np.array([v + [0] * (longest - len(v)) for v in values], dtype=np.int64)
    return {"input_ids": pad([r.ids for r in rows]), "attention_mask": pad([r.attention_mask for r in rows])}
