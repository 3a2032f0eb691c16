"""Anchors ahead of the training loop: the next batches are asked for while a step computes."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor


class AnchorIterator:
    """Yields one `Anchors` for each batch of queries, in order. At most `prefetch` batches are asked for or held ahead.

    Close it, or use it in a `with`, to end a loop early: waiting threads then stop at once."""

    def __init__(self, fetch, batches, prefetch):
        if prefetch < 1:
            raise ValueError("prefetch is at least 1")
        self._fetch = fetch
        self._batches = iter(batches)
        self._prefetch = prefetch
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=prefetch, thread_name_prefix="anchorite")
        self._ahead = deque()

    def _fill(self):
        while len(self._ahead) < self._prefetch:
            try:
                queries = list(next(self._batches))
            except StopIteration:
                return
            self._ahead.append(self._pool.submit(self._fetch, queries, self._stop))

    def __iter__(self):
        return self

    def __next__(self):
        if self._stop.is_set():
            raise StopIteration
        try:
            self._fill()
            if not self._ahead:
                self.close()
                raise StopIteration
            anchors = self._ahead.popleft().result()
            self._fill()
            return anchors
        except BaseException:
            self.close()
            raise

    def close(self):
        """Asks for nothing more. Answers on their way are thrown away."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._ahead.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
