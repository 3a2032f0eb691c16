"""Requests with retries: one session a thread, errors as the server words them."""

import pathlib
import threading
import time

import requests

from .errors import ServerError, Unreachable

#: Answers that say: later.
BUSY = (429, 503)
#: The longest that one retry waits, in seconds, whatever the server says.
LONGEST_WAIT = 30.0


class Transport:
    def __init__(self, url, key, timeout, retries):
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._local = threading.local()

    def _session(self):
        # A session is not meant for several threads at once.
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        return self._local.session

    def send(self, method, path, stop=None, headers=None, stream=False, **body):
        """The answer, 200 or 202. Waits and asks again while the server is busy, or where a connection fails before it answers.

        `stop` is an Event that ends the waiting early."""
        headers = {**self._headers, **(headers or {})}
        for attempt in range(self.retries + 1):
            last = attempt == self.retries or (stop is not None and stop.is_set())
            # A file is opened anew for each attempt, so that a second one sends it from its start.
            data = body.get("data")
            opened = open(data, "rb") if isinstance(data, pathlib.Path) else None
            try:
                reply = self._session().request(
                    method, self.url + path, headers=headers, timeout=self.timeout, stream=stream, **{**body, **({"data": opened} if opened else {})}
                )
            except (requests.ConnectionError, requests.Timeout) as error:
                if last:
                    raise Unreachable(f"{self.url} does not answer: {error}") from error
                pause(0.1 * 2**attempt, stop)
                continue
            finally:
                if opened:
                    opened.close()
            if reply.status_code in (200, 202):
                return reply
            if last or reply.status_code not in BUSY:
                raise refused(reply)
            pause(retry_after(reply, attempt), stop)
            reply.close()
        raise AssertionError("the last attempt returns or raises")


def retry_after(reply, attempt):
    try:
        return float(reply.headers["Retry-After"])
    except (KeyError, ValueError):
        return 0.1 * 2**attempt


def pause(seconds, stop):
    seconds = min(seconds, LONGEST_WAIT)
    if stop is None:
        time.sleep(seconds)
    else:
        stop.wait(seconds)


def refused(reply):
    try:
        error = reply.json()["error"]
        return ServerError(reply.status_code, error["code"], error["message"], error["request_id"])
    except (ValueError, KeyError, TypeError):
        text = reply.text[:200] or reply.reason
        return ServerError(reply.status_code, "unknown", text, reply.headers.get("x-request-id"))
