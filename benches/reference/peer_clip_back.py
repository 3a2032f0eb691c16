"""clip-retrieval's back end from its wheel, unmodified, over a faiss HNSW index of ready vectors. Prints the address it listens on.

usage: peer_clip_back.py FOLDER DIM NAME ; FOLDER holds base.f32, row after row

Its model is left out: requests bring their embeddings, for which the service itself asks no model, but it imports torch. What the package's
front door imports besides is left out by not passing through it.
"""

import importlib
import importlib.machinery
import logging
import pathlib
import sys
import types

import faiss
import numpy as np
import pandas as pd
from flask import Flask
from flask_cors import CORS
from flask_restful import Api
from werkzeug.serving import make_server

folder, dim, name = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.modules["torch"] = types.ModuleType("torch")
spec = importlib.machinery.PathFinder.find_spec("clip_retrieval")
package = types.ModuleType("clip_retrieval")
package.__path__ = list(spec.submodule_search_locations)
sys.modules["clip_retrieval"] = package
clip_back = importlib.import_module("clip_retrieval.clip_back")

base = np.fromfile(folder / "base.f32", dtype=np.float32).reshape(-1, dim)
stored = folder / f"hnsw32-{len(base)}.faiss"
if stored.exists():
    index = faiss.read_index(str(stored))
else:
    index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    index.add(base)
    faiss.write_index(index, str(stored))
index.hnsw.efSearch = 64
metadata = folder / f"metadata-{len(base)}"
metadata.mkdir(exist_ok=True)
captions = [f"the caption of row {row}, about as long as captions are" for row in range(len(base))]
urls = [f"https://example.invalid/{row}.jpg" for row in range(len(base))]
pd.DataFrame({"url": urls, "caption": captions}).to_parquet(metadata / "0.parquet")

resource = clip_back.ClipResource(
    device="cpu", model=None, preprocess=None, tokenizer=None, model_txt_mclip=None, safety_model=None, violence_detector=None,
    metadata_provider=clip_back.ParquetMetadataProvider(metadata), image_index=index, text_index=None, ivf_old_to_new_mapping=None,
    columns_to_return=["url", "image_path", "caption", "NSFW"], metadata_is_ordered_by_ivf=False, aesthetic_embeddings=None,
)
app = Flask(__name__)
Api(app).add_resource(clip_back.KnnService, "/knn-service", resource_class_kwargs={"clip_resources": {name: resource}})
CORS(app)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
# As `app.run` does: the development server, a thread a request.
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
