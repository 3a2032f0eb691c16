"""Jobs that fill a pool: what a server says of one."""

from dataclasses import dataclass, field
from typing import Any, Dict, Optional

from .errors import AnchoriteError

#: States in which a job is not over.
OPEN = ("queued", "running")


class JobFailed(AnchoriteError):
    """A job that was waited for did not end as `done`. What it accepted before is in the pool."""

    def __init__(self, job):
        error = job.error or {}
        super().__init__(f"job {job.id} is {job.state}: {error.get('message', 'it was ended')}")
        self.job = job
        self.code = error.get("code")


@dataclass(frozen=True)
class Job:
    """A job of filling a pool. `state` is queued, running, done, failed, cancelled or interrupted; `progress` and `report` are dicts as
    `GET /v1/jobs/{id}` has them; `answer` is all of that."""

    id: str
    pool: str
    state: str
    progress: Optional[Dict[str, Any]]
    report: Optional[Dict[str, Any]]
    error: Optional[Dict[str, Any]]
    answer: Dict[str, Any] = field(repr=False)

    @property
    def over(self):
        return self.state not in OPEN

    @classmethod
    def of(cls, answer):
        return cls(answer=answer, **{name: answer[name] for name in ("id", "pool", "state", "progress", "report", "error")})
