"""The layouts beside `make.py`'s: a merged decoder (`use_cache_branch`), BLIP, and nucleus draws.

transformers 5.23.0, torch 2.15.0, onnx 1.23.2, Python 3.11. Run after make.py, in this folder: python make_more.py
The merged decoder is put together from make.py's two as optimum's merge_decoders does it: weights once, outside; one `If` on
`use_cache_branch`, whose branches are the two graphs. Nucleus draws are transformers' own, but for the random numbers: those are rand_chacha's
ChaCha8 (seed ^ picture, stream = number of the caption), so that tokens can be compared one by one.
"""
import json
import pathlib
import struct
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from transformers import BlipConfig, BlipForConditionalGeneration

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent


# --- merged ---

def float_value(name):
    axes = 3 if name.endswith("logits") else 4
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}_{axis}" for axis in range(axes)])


def renamed(graph, prefix, keep):
    """The graph with its inner names prefixed; inputs and weights keep theirs."""
    name = lambda n: n if not n or n in keep else prefix + n
    nodes = []
    for node in graph.node:
        node = onnx.NodeProto.FromString(node.SerializeToString())
        node.input[:] = [name(n) for n in node.input]
        node.output[:] = [name(n) for n in node.output]
        node.name = prefix + node.name
        nodes.append(node)
    outputs = [float_value(name(o.name)) for o in graph.output]
    return helper.make_graph(nodes, prefix + "branch", [], outputs)


def weights_once(first, past):
    """One list of weights for both graphs, equal ones shared under one name; and each graph's names for them."""
    stored, by_bytes, names = [], {}, []
    for graph, prefix in ((first, "a_"), (past, "b_")):
        own = {}
        for tensor in graph.initializer:
            key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
            if key not in by_bytes:
                copy = onnx.TensorProto.FromString(tensor.SerializeToString())
                copy.name = by_bytes[key] = prefix + tensor.name
                stored.append(copy)
            own[tensor.name] = by_bytes[key]
        names.append(own)
    return stored, names


def merged(folder):
    first, past = (onnx.load(folder / f"{n}.onnx") for n in ("decoder_model", "decoder_with_past_model"))
    stored, names = weights_once(first.graph, past.graph)
    branches = []
    for graph, own, prefix in ((first.graph, names[0], "first_"), (past.graph, names[1], "past_")):
        for node in graph.node:
            node.input[:] = [own.get(n, n) for n in node.input]
        keep = {i.name for i in graph.input} | set(own.values())
        branches.append(renamed(graph, prefix, keep))
    inputs = [i for i in past.graph.input] + [helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])]
    outputs = [float_value(o.name) for o in past.graph.output]
    choose = helper.make_node("If", ["use_cache_branch"], [o.name for o in past.graph.output], then_branch=branches[1], else_branch=branches[0])
    graph = helper.make_graph([choose], "merged", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=past.opset_import, ir_version=past.ir_version, producer_name="make_more.py")


# --- BLIP ---

def blip(folder):
    torch.manual_seed(4)
    text = dict(vocab_size=40, hidden_size=16, encoder_hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                max_position_embeddings=32, bos_token_id=38, eos_token_id=2, sep_token_id=39, pad_token_id=0, projection_dim=16)
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16)).eval()
    model.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.6)
    pixels = torch.randn(4, 3, 16, 16)

    class Vision(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model.vision_model

        def forward(self, pixel_values):
            return self.model(pixel_values).last_hidden_state

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model.text_decoder

        def forward(self, input_ids, attention_mask, encoder_hidden_states, encoder_attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=encoder_hidden_states,
                              encoder_attention_mask=encoder_attention_mask, use_cache=False, return_dict=True).logits

    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    export = lambda module, args, name, inputs, outputs, axes: torch.onnx.export(
        module.eval(), args, str(folder / "onnx" / name), input_names=inputs, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False)
    hidden = Vision()(pixels)
    export(Vision(), (pixels,), "vision_model.onnx", ["pixel_values"], ["last_hidden_state"], {"pixel_values": {0: "b"}, "last_hidden_state": {0: "b"}})
    ids = torch.randint(1, 38, (4, 3))
    frames = torch.ones(hidden.shape[:2], dtype=torch.long)
    names = ["input_ids", "attention_mask", "encoder_hidden_states", "encoder_attention_mask"]
    axes = {"input_ids": {0: "b", 1: "s"}, "attention_mask": {0: "b", 1: "s"}, "encoder_hidden_states": {0: "b"}, "encoder_attention_mask": {0: "b"}}
    export(Text(), (ids, torch.ones_like(ids), hidden, frames), "text_decoder_model.onnx", names, ["logits"], axes | {"logits": {0: "b", 1: "s"}})
    model.eval()
    generated = {}
    for name, options in {"greedy": dict(num_beams=1), "beam3": dict(num_beams=3), "greedy_ngram": dict(num_beams=1, no_repeat_ngram_size=2)}.items():
        out = model.generate(pixels, do_sample=False, max_new_tokens=12, **options)
        generated[name] = out.tolist()
        print("blip", name, out.tolist())
    (folder / "config.json").write_text(json.dumps({"model_type": "blip", "text_config": {"bos_token_id": 38, "eos_token_id": 2, "sep_token_id": 39, "pad_token_id": 0}}) + "\n")
    for name in ("preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_bytes((HERE / "vit-gpt2" / name).read_bytes())
    return {"pixels": [round(float(v), 6) for v in pixels.flatten()], "shape": list(pixels.shape), "eos": 39, "generated": generated}


# --- nucleus ---

MASK = (1 << 32) - 1
rotate = lambda x, n: ((x << n) | (x >> (32 - n))) & MASK


class ChaCha8:
    """rand_chacha 0.9's ChaCha8Rng::seed_from_u64 with set_stream, as f64 draws of rand 0.9."""

    def __init__(self, seed, stream):
        key, state = b"", seed
        for _ in range(8):
            state = (state * 6364136223846793005 + 11634580027462260723) & ((1 << 64) - 1)
            word, turn = (((state >> 18) ^ state) >> 27) & MASK, state >> 59
            key += struct.pack("<I", ((word >> turn) | (word << (32 - turn) if turn else 0)) & MASK)
        self.key, self.stream, self.counter, self.words = struct.unpack("<8I", key), stream, 0, []

    def block(self):
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key, self.counter & MASK, self.counter >> 32, self.stream & MASK, self.stream >> 32]
        x = list(start)
        def quarter(a, b, c, d):
            x[a] = (x[a] + x[b]) & MASK; x[d] = rotate(x[d] ^ x[a], 16)
            x[c] = (x[c] + x[d]) & MASK; x[b] = rotate(x[b] ^ x[c], 12)
            x[a] = (x[a] + x[b]) & MASK; x[d] = rotate(x[d] ^ x[a], 8)
            x[c] = (x[c] + x[d]) & MASK; x[b] = rotate(x[b] ^ x[c], 7)
        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        self.counter += 1
        self.words += [(a + b) & MASK for a, b in zip(x, start)]

    def uniform(self):
        while len(self.words) < 2:
            self.block()
        low, high = self.words[:2]
        self.words = self.words[2:]
        return ((high << 32 | low) >> 11) * 2.0**-53


def nucleus(captions, seed, top_p, temperature):
    """model.generate's sampling with our random numbers in torch.multinomial's place."""
    import make
    golden = json.load(open(HERE / "golden.json"))
    pixels = torch.tensor(golden["pixels"]).reshape(golden["shape"])
    names = [int(np.float32(p[0, 0, 0]).view(np.uint32)) for p in pixels.numpy()]
    draws = [ChaCha8(seed ^ name, number) for name in names for number in range(captions)]

    def multinomial(probabilities, num_samples):
        chosen = []
        for row, random in zip(probabilities.double(), draws):
            order = sorted(range(len(row)), key=lambda i: (-row[i].item(), i))
            left, at = random.uniform() * row.sum().item(), order[0]
            for at in order:
                left -= row[at].item()
                if left < 0:
                    break
            chosen.append([at])
        return torch.tensor(chosen)

    original, torch.multinomial = torch.multinomial, multinomial
    out = make.model.generate(pixels, do_sample=True, top_k=0, top_p=top_p, temperature=temperature, num_return_sequences=captions, max_new_tokens=14)
    torch.multinomial = original
    print("nucleus", out.tolist())
    return {"captions": captions, "seed": seed, "top_p": top_p, "temperature": temperature, "generated": out.tolist()}


def main():
    golden = {"blip": blip(HERE / "blip")}
    model = merged(HERE / "vit-gpt2" / "onnx")
    onnx.checker.check_model(model)
    (HERE / "merged").mkdir(exist_ok=True)
    onnx.save(model, HERE / "merged" / "decoder_model_merged.onnx")
    golden["nucleus"] = [nucleus(2, 7, 0.9, 2.0), nucleus(1, 8, 0.5, 1.0)]
    json.dump(golden, open(HERE / "golden_more.json", "w"))


if __name__ == "__main__":
    main()
