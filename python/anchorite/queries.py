"""What a caller asks with, as JSON takes it."""

import base64
import os


def one(query):
    """A query as a dict: words, picture bytes, a picture's path, a vector, or a dict whose `image` may be bytes or a path."""
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
        return query
    return {"embedding": vector(query)}


def picture(source):
    """A picture file's bytes in base64."""
    if isinstance(source, os.PathLike):
        with open(source, "rb") as file:
            source = file.read()
    return base64.b64encode(bytes(source)).decode("ascii")


def vector(values):
    """Numbers of any kind as floats."""
    return [float(value) for value in values]
