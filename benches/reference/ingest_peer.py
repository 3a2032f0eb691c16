#!/usr/bin/env python3
"""The peer of the ingest figures, asked line by line: open_clip with torch's DataLoader, as its own recipes use it.

    ingest_peer.py export OUT        writes a ViT-B/32 with random weights as ONNX, in the Hugging Face layout, and ends
    ingest_peer.py products OUT      writes matrix products as ONNX graphs, the second factor constant, and ends
    ingest_peer.py serve PICTURES    answers the questions below on stdin with one number a line

`images T`: seconds for one pass over the pictures, from file to unit vectors, with T workers and T torch threads.
`captions T`: seconds for 256 captions of 8 to 16 tokens.
`transform KIND N`: milliseconds of CPU a picture for N of them, on one thread, for jpeg, png or webp.
`tars`: writes the pictures with captions into four tars of the WebDataset kind in PICTURES-tars, and gives their number.
`clip-retrieval T`: seconds for those tars in the runner of the package of that name: its reader with T workers, its mapper and writer;
only the loading of a checkpoint is replaced, by the same random weights.

Speed does not depend on weights. Needs torch, open_clip, transformers, onnx, Pillow, webdataset, pandas, pyarrow, fsspec, what tokens.py
needs, and clip-retrieval (whose own dependencies are not: its pins exclude current versions of these).
"""

import importlib.util
import io
import json
import pathlib
import random
import sys
import tarfile
import tempfile
import time
import types

import open_clip
import torch
from PIL import Image

import tokens

SEED = 7
BATCH = 32
CAPTIONS = 256
SHARDS = 4
WORDS = "a photo of the red green small large dog cat house tree river on under near with man woman child street car".split()


def captions():
    rng = random.Random(SEED)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(6, 14))) for _ in range(CAPTIONS)]


class Tower(torch.nn.Module):
    def __init__(self, tower, projection):
        super().__init__()
        self.tower, self.projection = tower, projection

    def forward(self, x):
        return self.projection(self.tower(x).pooler_output)


def export(out):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(SEED)
    text = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={"patch_size": 32}, attn_implementation="eager")).eval()
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    towers = [
        ("vision", Tower(model.vision_model, model.visual_projection), torch.zeros(2, 3, 224, 224), "pixel_values", "image_embeds", {0: "batch"}),
        ("text", Tower(model.text_model, model.text_projection), torch.tensor([[49406, 5, 49407]] * 2), "input_ids", "text_embeds", {0: "batch", 1: "sequence"}),
    ]
    for name, tower, example, takes, gives, axes in towers:
        with torch.no_grad():
            torch.onnx.export(tower, (example,), str(out / f"onnx/{name}_model.onnx"), input_names=[takes], output_names=[gives],
                              dynamic_axes={takes: axes, gives: {0: "batch"}}, dynamo=False, opset_version=17)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    (out / "preprocessor_config.json").write_text(json.dumps({
        "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": mean, "image_std": std, "do_convert_rgb": True}))
    (out / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 512, "text_config": {"max_position_embeddings": 77}}))
    merges = [tuple(line.split()) for line in tokens.merge_lines(open_clip.tokenizer.default_bpe())]
    (out / "tokenizer.json").write_text(tokens.clip_tokenizer(merges).to_str(), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps({**tokens.CLIP_SPECIALS, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))
    (out / "captions.json").write_text(json.dumps(captions()))


class Pictures(torch.utils.data.Dataset):
    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, at):
        return self.transform(Image.open(self.files[at]))


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


class ClipRetrieval:
    """The four modules of its inference, without the package around them, which wants faiss, flask, wandb and more."""

    def __init__(self, model, transform, tokenizer):
        self.transform, self.tokenizer = transform, tokenizer
        # What they import for other models: `load_clip` is the checkpoint's loader, the other is for multilingual text.
        sys.modules["all_clip"] = types.SimpleNamespace(load_clip=lambda **_: (model, transform, tokenizer))
        sys.modules["sentence_transformers"] = types.SimpleNamespace(SentenceTransformer=None)
        folder = pathlib.Path(importlib.util.find_spec("clip_retrieval").submodule_search_locations[0]) / "clip_inference"
        self.reader, self.mapper, self.writer, self.runner = (self.load(folder / f"{n}.py") for n in ("reader", "mapper", "writer", "runner"))

    @staticmethod
    def load(path):
        spec = importlib.util.spec_from_file_location(f"clip_retrieval_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def run(self, tars, workers):
        class Logger:
            start = end = staticmethod(lambda: None)

            def __call__(self, _):
                pass

        with tempfile.TemporaryDirectory() as out:
            runner = self.runner.Runner(
                lambda sampler: self.reader.WebdatasetReader(sampler, self.transform, self.tokenizer, tars, BATCH, workers),
                lambda: self.mapper.ClipMapper(True, True, False, False, "", False, ""),
                lambda part: self.writer.NumpyWriter(part, out, True, True, False, 1),
                lambda _: Logger(),
                1,
            )
            runner(0)


def write_tars(files, words, folder):
    folder.mkdir(exist_ok=True)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for at in range(shard, len(files), SHARDS):
                for suffix, data in (("jpg", files[at].read_bytes()), ("txt", words[at % len(words)].encode())):
                    info = tarfile.TarInfo(f"{at:06}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return len(files)


def encoded(files, kind, folder):
    """The pictures as files of another kind, kept beside their folder for the other side."""
    if kind == "jpeg":
        return [file.read_bytes() for file in files]
    out = folder.parent / f"{folder.name}-{kind}"
    out.mkdir(exist_ok=True)
    for file in files:
        path = out / f"{file.stem}.{kind}"
        if not path.exists():
            Image.open(file).convert("RGB").save(path, kind, **({"quality": 85} if kind == "webp" else {}))
    return [(out / f"{file.stem}.{kind}").read_bytes() for file in files]


def products(out):
    """The large square, and the products of a ViT-B/32's MLP for 32 and 16 pictures of 50 tokens."""
    import onnx
    from onnx import TensorProto, helper

    out.mkdir(parents=True, exist_ok=True)
    for m, k, n in ((2048, 2048, 2048), (1600, 768, 3072), (1600, 3072, 768), (800, 768, 3072)):
        weights = onnx.numpy_helper.from_array(torch.rand(k, n).numpy(), "b")
        takes = helper.make_tensor_value_info("a", TensorProto.FLOAT, [m, k])
        gives = helper.make_tensor_value_info("c", TensorProto.FLOAT, [m, n])
        graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [takes], [gives], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(out / f"{m}x{k}x{n}.onnx"))


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Server:
    def __init__(self, folder):
        torch.manual_seed(SEED)
        self.folder, self.files = folder, sorted(folder.glob("*.jpg"))
        self.model, _, self.transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer("ViT-B-32")
        self.words, self.tars = captions(), folder.with_name(f"{folder.name}-tars")
        self.loop = ClipRetrieval(self.model, self.transform, self.tokenizer)

    def images(self, threads):
        loader = torch.utils.data.DataLoader(Pictures(self.files, self.transform), batch_size=BATCH, num_workers=threads)
        for batch in loader:
            unit(self.model.encode_image(batch))

    def texts(self):
        for at in range(0, len(self.words), BATCH):
            unit(self.model.encode_text(self.tokenizer(self.words[at:at + BATCH])))

    def transformed(self, kind, count):
        data = encoded(self.files[:count], kind, self.folder)
        begun = time.thread_time()
        for picture in data:
            self.transform(Image.open(io.BytesIO(picture)))
        return (time.thread_time() - begun) * 1e3 / len(data)

    def answer(self, question):
        match question.split():
            case ["images", threads]:
                torch.set_num_threads(int(threads))
                return seconds(lambda: self.images(int(threads)))
            case ["captions", threads]:
                torch.set_num_threads(int(threads))
                return seconds(self.texts)
            case ["transform", kind, count]:
                torch.set_num_threads(1)
                return self.transformed(kind, int(count))
            case ["tars"]:
                return write_tars(self.files, self.words, self.tars)
            case ["clip-retrieval", threads]:
                torch.set_num_threads(int(threads))
                tars = sorted(str(path) for path in self.tars.glob("*.tar"))
                return seconds(lambda: self.loop.run(tars, int(threads)))


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(pathlib.Path(sys.argv[2]))
    elif sys.argv[1] == "products":
        products(pathlib.Path(sys.argv[2]))
    else:
        server = Server(pathlib.Path(sys.argv[2]))
        print("ready", flush=True)
        with torch.no_grad():
            for line in sys.stdin:
                print(server.answer(line), flush=True)
