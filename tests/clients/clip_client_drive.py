"""Drives a running server with clip-retrieval's own client, unmodified.

    python clip_client_drive.py CLIP_CLIENT_PY SERVER_URL INDEX WORDS PICTURE_FILE EMBEDDING_JSON

Prints one JSON object: what the client returned for words, a picture file, an embedding, and an unknown index. CLIP_CLIENT_PY is
the module out of the wheel `clip-retrieval` 2.45.0, loaded by itself because importing the package pulls in faiss and flask.
"""

import importlib.util
import json
import sys


def load(path):
    spec = importlib.util.spec_from_file_location("clip_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(module_path, server, index, words, picture, embedding_file):
    clip_client = load(module_path)
    service = f"{server}/knn-service"

    def client(name=index, **settings):
        return clip_client.ClipClient(url=service, indice_name=name, **settings)

    with open(embedding_file, encoding="utf-8") as file:
        embedding = json.load(file)
    text_side = {"modality": clip_client.Modality.TEXT}
    answers = {
        "text": client(**text_side, num_images=3).query(text=words),
        "text_defaults": client().query(text=words),
        "image": client(num_images=2, deduplicate=False).query(image=picture),
        "image_deduplicated": client(num_images=2).query(image=picture),
        "embedding": client(**text_side, num_images=1).query(embedding_input=embedding),
        "unknown_index": client("no-such-index").query(text=words),
        "wrong_dimension": client().query(embedding_input=embedding + [0.0]),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
