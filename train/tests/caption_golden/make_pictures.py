"""From picture files to tokens: what transformers makes of encoded pictures with the captioner of make.py, its own preprocessing included.

transformers 5.23.0, torch 2.15.0, Pillow 13.0.0, Python 3.11. Run after make.py, in this folder: python make_pictures.py
Pictures: three of 40 x 28, 16 x 33 and 90 x 64 pixels, as PNG, so that every one is scaled in both directions, down and up, and out of its shape.
"""
import base64
import io
import json
import pathlib

import numpy as np
import torch
from PIL import Image

import make

HERE = pathlib.Path(__file__).parent


def processor():
    settings = json.loads((HERE / "vit-gpt2/preprocessor_config.json").read_text())
    settings.pop("image_processor_type")
    try:
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil as Processor
    except ImportError:
        from transformers import ViTImageProcessor as Processor
    return Processor(**settings)


def picture(width, height, seed):
    """Smooth waves of all three channels with a hard edge."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = [127.5 + 120 * np.sin((c + 1) * x / (3 + seed) + (seed - c) * y / 4) for c in range(3)]
    values = np.stack(channels, axis=-1)
    values[height // 3 : height // 2, width // 4 :] = [250, 20 * seed, 10]
    out = io.BytesIO()
    Image.fromarray(values.round().astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


files = [picture(40, 28, 1), picture(16, 33, 2), picture(90, 64, 3)]
pixels = processor()([Image.open(io.BytesIO(f)) for f in files], return_tensors="pt")["pixel_values"].float()
ways = {"greedy": {"num_beams": 1}, "beam3": {"num_beams": 3}}
generated = {name: make.model.generate(pixels, do_sample=False, max_new_tokens=14, **options).tolist() for name, options in ways.items()}
print(type(processor()).__name__, pixels.shape, generated)
rounded = [[round(float(v), 5) for v in p.flatten()] for p in pixels]
golden = {"eos": make.EOS, "pictures": [base64.b64encode(f).decode() for f in files], "pixels": rounded, "generated": generated}
(HERE / "golden_pictures.json").write_text(json.dumps(golden) + "\n")
