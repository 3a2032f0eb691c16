"""Anchors as they come from the server: an Arrow stream with what it says of itself in its schema."""

import json

import pyarrow as pa

from .errors import IncompleteAnswer

MEDIA_TYPE = "application/vnd.apache.arrow.stream"


class Anchors:
    """The anchors of one batch of queries.

    table       pyarrow.Table: query (place in the batch), name, rank, score, id, key, content, caption, group, validation, and what was
                included: image, pixels, fields (JSON), image_vector, text_vector
    queries     the batch as it was given
    head        what the server says: pool, generation, encoder, model, search, report, queries
    """

    def __init__(self, queries, head, table):
        self.queries = queries
        self.head = head
        self.table = table

    generation = property(lambda self: self.head["generation"], doc="The pool's generation.")
    encoder = property(lambda self: self.head["encoder"], doc="The encoder's fingerprint.")
    found = property(lambda self: [q["found"] for q in self.head["queries"]], doc="Anchors of each query.")

    def __len__(self):
        return self.table.num_rows

    def pixels(self):
        """What the model takes of each anchor: float32 buffers of shape (3, height, width), None where the pool kept no picture."""
        shape = tuple(self.table.schema.field("pixels").type.shape)
        return [tensor for chunk in self.table["pixels"].chunks for tensor in _tensors(chunk, shape)]


def _tensors(chunk, shape):
    storage = chunk.storage
    size = shape[0] * shape[1] * shape[2]
    # Of a fixed-size list the values of null rows are there too, so that places are multiples of the size.
    values = memoryview(storage.values.buffers()[1]).cast("B").cast("f")
    first = storage.offset
    for place, valid in enumerate(storage.is_valid().to_pylist()):
        start = (first + place) * size
        yield values[start : start + size].cast("B").cast("f", shape) if valid else None


class Reader:
    """Record batches as they arrive."""

    def __init__(self, reply):
        self._reply = reply
        try:
            self._reader = pa.ipc.open_stream(reply.raw)
        except pa.ArrowInvalid as error:
            reply.close()
            raise IncompleteAnswer(f"the answer is no Arrow stream: {error}") from error
        self.head = json.loads(self._reader.schema.metadata[b"anchorite.anchors"])
        self.schema = self._reader.schema

    def __iter__(self):
        """Each batch once it is there; raises when the stream ends before its end."""
        read = 0
        try:
            while True:
                try:
                    batch = self._reader.read_next_batch()
                except StopIteration:
                    break
                read += 1
                yield batch
        except (pa.ArrowInvalid, OSError) as error:
            raise IncompleteAnswer(f"the stream broke after {read} of {self.head['batches']} batches: {error}") from error
        finally:
            self._reply.close()
        if read != self.head["batches"]:
            raise IncompleteAnswer(f"the stream ended after {read} of {self.head['batches']} batches")

    def table(self):
        """All batches."""
        return pa.Table.from_batches(list(self), schema=self.schema)
