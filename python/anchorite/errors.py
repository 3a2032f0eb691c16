"""Why a call failed."""


class AnchoriteError(Exception):
    """Any failure of this package."""


class Unreachable(AnchoriteError):
    """The server did not answer, or the connection broke."""


class IncompleteAnswer(AnchoriteError):
    """A stream of anchors ended before its end: the server failed on the way, or the connection broke."""


class ServerError(AnchoriteError):
    """The server refused or failed. `code` is stable: programs match on it."""

    def __init__(self, status, code, message, request_id):
        super().__init__(f"{message} (status {status}, {code}, request {request_id})")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
