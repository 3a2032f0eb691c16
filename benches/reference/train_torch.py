"""PyTorch's side of the training benchmark.

train_torch.py export CASE FOLDER     writes a randomly initialised CLIP as vision_model.onnx and text_model.onnx
train_torch.py train CASE BATCH       trains the same shapes eagerly with fused AdamW; each line on stdin asks for one step, whose
                                      seconds and loss are answered as JSON; "end" answers the process's peak memory in bytes
"""

import json
import os
import sys
import time

THREADS = 2
CASES = {
    "small": {"vision": (192, 6, 3, 768), "text": (192, 4, 3, 768), "image": 64, "patch": 8, "tokens": 32, "vocab": 8192, "dim": 192},
    "b32": {"vision": (768, 12, 12, 3072), "text": (512, 12, 8, 2048), "image": 224, "patch": 32, "tokens": 77, "vocab": 49408, "dim": 512},
}


def build(case):
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.set_num_threads(THREADS)
    torch.manual_seed(3)
    c = CASES[case]

    def tower(shape):
        width, layers, heads, inner = shape
        return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}

    model = CLIPModel(CLIPConfig(
        text_config={**tower(c["text"]), "vocab_size": c["vocab"], "max_position_embeddings": c["tokens"],
                     "eos_token_id": c["vocab"] - 1, "bos_token_id": c["vocab"] - 2},
        vision_config={**tower(c["vision"]), "image_size": c["image"], "patch_size": c["patch"]},
        projection_dim=c["dim"], attn_implementation="sdpa"))
    # Equal tensors (zero biases, unit gains) would be merged by the exporter.
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 1e-3)
    return model


def export(case, folder):
    import torch

    model, c = build(case).eval(), CASES[case]

    class Image(torch.nn.Module):
        def forward(self, pixel_values):
            return model.visual_projection(model.vision_model(pixel_values).pooler_output)

    class Text(torch.nn.Module):
        def forward(self, input_ids):
            return model.text_projection(model.text_model(input_ids).pooler_output)

    ids = torch.zeros(2, c["tokens"], dtype=torch.long)
    ids[:, -1] = c["vocab"] - 1
    image, text = Image(), Text()
    image.model, text.model = model, model
    os.makedirs(folder, exist_ok=True)
    for module, example, name, given, out in (
            (image, torch.zeros(2, 3, c["image"], c["image"]), "vision_model", "pixel_values", "image_embeds"),
            (text, ids, "text_model", "input_ids", "text_embeds")):
        with torch.no_grad():
            torch.onnx.export(module, (example,), f"{folder}/{name}.onnx", input_names=[given], output_names=[out], opset_version=17,
                              dynamo=False, dynamic_axes={given: {0: "batch"}, out: {0: "batch"}})
    with open(f"{folder}/config.json", "w") as f:
        json.dump({"model_type": "clip", "projection_dim": c["dim"], "text_config": {"max_position_embeddings": c["tokens"]}}, f)


def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


def train(case, batch):
    import torch

    model, c = build(case).train(), CASES[case]
    scale = torch.nn.Parameter(torch.tensor(1.5))
    parameters = [p for n, p in model.named_parameters() if n != "logit_scale"] + [scale]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-6, weight_decay=0.1, fused=True)
    pixels = torch.sin(torch.arange(batch * 3 * c["image"] ** 2) * 0.37).reshape(batch, 3, c["image"], c["image"])
    ids = (torch.arange(batch * c["tokens"]) * 7 % (c["vocab"] - 3)).reshape(batch, c["tokens"])
    ids[:, -1] = c["vocab"] - 1
    target = torch.arange(batch)
    for line in sys.stdin:
        if line.strip() == "end":
            print(json.dumps({"peak": peak(), "version": torch.__version__}), flush=True)
            return
        start = time.perf_counter()
        cpu = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        i = torch.nn.functional.normalize(model.visual_projection(model.vision_model(pixels).pooler_output), dim=1)
        t = torch.nn.functional.normalize(model.text_projection(model.text_model(ids).pooler_output), dim=1)
        logits = scale.exp() * i @ t.T
        loss = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
        loss.backward()
        optimizer.step()
        answer = {"loss": loss.item(), "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)


if sys.argv[1] == "export":
    export(sys.argv[2], sys.argv[3])
else:
    train(sys.argv[2], int(sys.argv[3]))
