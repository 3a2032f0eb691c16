"""What a caller asks with, as JSON takes it."""

import array
import base64
import os
import sys


def one(query):
    """A query as a dict: words, picture bytes, a picture's path, a vector, or a dict whose `image` may be bytes or a path,
    also those of its `blend`."""
    if isinstance(query, str):
        return {"text": query}
    if isinstance(query, (bytes, bytearray, memoryview, os.PathLike)):
        return {"image": picture(query)}
    if isinstance(query, dict):
        query = dict(query)
        if query.get("image") is not None and not isinstance(query["image"], str):
            query["image"] = picture(query["image"])
        if query.get("embedding") is not None:
            query["embedding"] = vector(query["embedding"])
        if query.get("blend") is not None:
            query["blend"] = [one(part) for part in query["blend"]]
        return query
    return {"embedding": vector(query)}


def pair(chosen):
    """A pair of a manifest as a dict: a row number, a key, a hit, or a dict."""
    if isinstance(chosen, dict):
        return chosen
    if isinstance(chosen, str):
        return {"key": chosen}
    if isinstance(chosen, int):
        return {"id": chosen}
    return {"id": chosen.id, "score": chosen.score}


def picture(source):
    """A picture file's bytes in base64."""
    if isinstance(source, os.PathLike):
        with open(source, "rb") as file:
            source = file.read()
    return base64.b64encode(bytes(source)).decode("ascii")


def vector(values):
    """Numbers of any kind, as base64 of little-endian float32."""
    values = array.array("f", values)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode("ascii")
