"""Exports a tiny captioner with random weights in the layouts of Hugging Face's optimum, and writes what transformers generates with it.

transformers 5.23.0, torch 2.15.0, onnx 1.23.2, Python 3.11. Run: python make.py
Layouts: encoder_model.onnx with decoder_model.onnx and decoder_with_past_model.onnx; `plain/` has the decoder without a cache only.
"""
import json
import pathlib
import warnings

import numpy as np
import torch
from transformers import GPT2Config, ViTConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
WIDTH, LAYERS, HEADS, VOCABULARY, IMAGE = 16, 2, 2, 40, 16
BOS, EOS = 38, 39
torch.manual_seed(0)

vit = ViTConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=HEADS, intermediate_size=32, image_size=IMAGE, patch_size=8)
gpt = GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=32, vocab_size=VOCABULARY, n_positions=32, bos_token_id=BOS,
                 eos_token_id=EOS, add_cross_attention=True, is_decoder=True, initializer_range=0.5, attn_implementation="eager")
config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, gpt)
config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, EOS, EOS
model = VisionEncoderDecoderModel(config).eval()
model.requires_grad_(False)
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=0.6)
pixels = torch.randn(5, 3, IMAGE, IMAGE)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model.encoder(pixel_values).last_hidden_state


def present(cache):
    out = []
    for layer in cache.self_attention_cache.layers:
        out += [layer.keys, layer.values]
    return out


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, input_ids, encoder_hidden_states):
        out = self.model.decoder(input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=True)
        return (out.logits, *present(out.past_key_values))


class DecoderWithPast(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, input_ids, encoder_hidden_states, *past):
        pairs = [(past[2 * i], past[2 * i + 1]) for i in range(LAYERS)]
        cache = EncoderDecoderCache(DynamicCache(pairs), DynamicCache())
        out = self.model.decoder(input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, past_key_values=cache, use_cache=True)
        return (out.logits, *present(out.past_key_values))


def export(module, args, path, inputs, outputs, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(module, args, str(path), input_names=inputs, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)


names = [f"{i}.{kind}" for i in range(LAYERS) for kind in ("key", "value")]
hidden = Encoder()(pixels)
ids = torch.randint(0, VOCABULARY, (5, 3))
folder = HERE / "vit-gpt2" / "onnx"
export(Encoder(), (pixels,), folder / "encoder_model.onnx", ["pixel_values"], ["last_hidden_state"], {"pixel_values": {0: "b"}, "last_hidden_state": {0: "b"}})
axes = {"input_ids": {0: "b", 1: "s"}, "encoder_hidden_states": {0: "b", 1: "e"}, "logits": {0: "b", 1: "s"}}
axes |= {f"present.{n}": {0: "b", 2: "t"} for n in names}
export(Decoder(), (ids, hidden), folder / "decoder_model.onnx", ["input_ids", "encoder_hidden_states"], ["logits"] + [f"present.{n}" for n in names], axes)
first = Decoder()(ids, hidden)
axes |= {f"past_key_values.{n}": {0: "b", 2: "p"} for n in names}
export(DecoderWithPast(), (ids[:, :1], hidden, *first[1:]), folder / "decoder_with_past_model.onnx",
       ["input_ids", "encoder_hidden_states"] + [f"past_key_values.{n}" for n in names], ["logits"] + [f"present.{n}" for n in names], axes)

generated = {}
for name, options in {
    "greedy": dict(num_beams=1), "beam3": dict(num_beams=3), "beam4_n2": dict(num_beams=4, num_return_sequences=2),
    "beam4_penalty": dict(num_beams=4, length_penalty=2.0), "beam3_early": dict(num_beams=3, early_stopping=True),
    "greedy_repetition": dict(num_beams=1, repetition_penalty=1.5), "greedy_ngram": dict(num_beams=1, no_repeat_ngram_size=2),
    "beam3_ngram": dict(num_beams=3, no_repeat_ngram_size=2),
}.items():
    out = model.generate(pixels, do_sample=False, max_new_tokens=14, **options)
    generated[name] = out.tolist()
    print(name, [len(set(r)) for r in out.tolist()], (out == EOS).any(dim=1).tolist())
json.dump({"pixels": [round(float(v), 6) for v in pixels.flatten()], "shape": list(pixels.shape), "bos": BOS, "eos": EOS,
           "max_new_tokens": 14, "generated": generated}, open(HERE / "golden.json", "w"))
(HERE / "vit-gpt2" / "config.json").write_text(json.dumps({"model_type": "vision-encoder-decoder", "decoder_start_token_id": BOS, "eos_token_id": EOS, "pad_token_id": EOS}) + "\n")
