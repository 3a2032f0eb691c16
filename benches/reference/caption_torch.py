"""A captioner with random weights: exports it in optimum's layout, or generates with transformers, one batch for each line asked.

Usage: caption_torch.py export DIR | merge DIR TO | run THREADS     (merge: both decoders in one file, as optimum's merge_decoders does it)
ViT (224 px, patch 16, width 256, 6 layers) and GPT-2 (width 256, 6 layers, 8,192 words) with cross-attention; eager attention, greedy, 24 tokens.
"""

import json
import pathlib
import sys
import time
import warnings

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, ViTConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

warnings.filterwarnings("ignore")
LAYERS, WORDS, PICTURES, TOKENS, SIDE = 6, 8192, 8, 24, 224
BOS, EOS = WORDS - 2, WORDS - 1


def build():
    torch.manual_seed(0)
    vit = ViTConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1024, image_size=SIDE, patch_size=16)
    gpt = GPT2Config(n_embd=256, n_layer=LAYERS, n_head=8, vocab_size=WORDS, n_positions=64, bos_token_id=BOS, eos_token_id=EOS,
                     add_cross_attention=True, is_decoder=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, gpt)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, EOS, EOS
    model = VisionEncoderDecoderModel(config).eval().requires_grad_(False)
    for parameter in model.decoder.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    return model


def pictures():
    return torch.sin(torch.arange(PICTURES * 3 * SIDE * SIDE, dtype=torch.float64) * 0.37).float().reshape(PICTURES, 3, SIDE, SIDE)


class Part(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.run = forward

    def forward(self, *inputs):
        return self.run(*inputs)


def present(out):
    return (out.logits, *[t for layer in out.past_key_values.self_attention_cache.layers for t in (layer.keys, layer.values)])


def export(folder):
    model = build()
    onnx = folder / "onnx"
    onnx.mkdir(parents=True, exist_ok=True)

    def past_of(past):
        pairs = [(past[2 * i], past[2 * i + 1]) for i in range(LAYERS)]
        return EncoderDecoderCache(DynamicCache(pairs), DynamicCache())

    class Encoder(Part):
        def __init__(self):
            super().__init__(lambda pixels: self.model.encoder(pixels).last_hidden_state)
            self.model = model

    class Decoder(Part):
        def __init__(self):
            super().__init__(lambda ids, hidden: present(self.model.decoder(input_ids=ids, encoder_hidden_states=hidden, use_cache=True)))
            self.model = model

    class WithPast(Part):
        def __init__(self):
            super().__init__(lambda ids, hidden, *past: present(
                self.model.decoder(input_ids=ids, encoder_hidden_states=hidden, past_key_values=past_of(past), use_cache=True)))
            self.model = model

    names = [f"{i}.{kind}" for i in range(LAYERS) for kind in ("key", "value")]
    save = lambda module, args, name, inputs, outputs, axes: torch.onnx.export(
        module.eval(), args, str(onnx / name), input_names=inputs, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)
    pixels, ids = pictures(), torch.randint(0, WORDS, (PICTURES, 3))
    hidden = Encoder()(pixels)
    save(Encoder(), (pixels,), "encoder_model.onnx", ["pixel_values"], ["last_hidden_state"], {"pixel_values": {0: "b"}, "last_hidden_state": {0: "b"}})
    axes = {"input_ids": {0: "b", 1: "s"}, "encoder_hidden_states": {0: "b"}, "logits": {0: "b", 1: "s"}} | {f"present.{n}": {0: "b", 2: "t"} for n in names}
    outputs = ["logits"] + [f"present.{n}" for n in names]
    save(Decoder(), (ids, hidden), "decoder_model.onnx", ["input_ids", "encoder_hidden_states"], outputs, axes)
    first = Decoder()(ids, hidden)
    axes |= {f"past_key_values.{n}": {0: "b", 2: "p"} for n in names}
    save(WithPast(), (ids[:, :1], hidden, *first[1:]), "decoder_with_past_model.onnx",
         ["input_ids", "encoder_hidden_states"] + [f"past_key_values.{n}" for n in names], outputs, axes)
    words = {f"w{i}": i for i in range(BOS)} | {"<s>": BOS, "</s>": EOS}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 2, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    (folder / "config.json").write_text(json.dumps({"model_type": "vision-encoder-decoder", "decoder_start_token_id": BOS, "eos_token_id": EOS}))


def merge(folder, to):
    """The folder with one decoder in place of two, by the script of the golden files."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "train/tests/caption_golden"))
    import make_more
    import onnx

    (to / "onnx").mkdir(parents=True, exist_ok=True)
    onnx.save(make_more.merged(folder / "onnx"), to / "onnx/decoder_model_merged.onnx")
    for name in ("onnx/encoder_model.onnx", "tokenizer.json", "preprocessor_config.json", "config.json"):
        (to / name).write_bytes((folder / name).read_bytes())


def run(threads):
    torch.set_num_threads(threads)
    model, pixels = build(), pictures()
    for line in sys.stdin:
        if line.strip() == "end":
            return
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(pixels, do_sample=False, num_beams=1, max_new_tokens=TOKENS)
        ids = [row[1:] for row in out.tolist()]
        ids = [row[:row.index(EOS) + 1] if EOS in row else row for row in ids]
        print(json.dumps({"wall": time.perf_counter() - start, "ids": ids}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["export"]:
        export(pathlib.Path(sys.argv[2]))
    elif sys.argv[1:2] == ["merge"]:
        merge(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    elif sys.argv[1:2] == ["run"]:
        run(int(sys.argv[2]))
    else:
        sys.exit(__doc__)
