"""Client of an anchorite server: search, anchors for training loops, embeddings.

    from anchorite import Client
    Client("http://localhost:7801").search("a red apple")
"""

from .anchors import Anchors
from .client import Client, Hit
from .errors import AnchoriteError, IncompleteAnswer, ServerError, Unreachable
from .jobs import Job, JobFailed
from .prefetch import AnchorIterator

__all__ = ["AnchorIterator", "AnchoriteError", "Anchors", "Client", "Hit", "IncompleteAnswer", "Job", "JobFailed", "ServerError", "Unreachable"]
__version__ = "0.1.0"
