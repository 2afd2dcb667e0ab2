"""Background work: one worker, jobs in line, progress that any page can ask for.

A job outlives the page that started it. Pages know a job by its id, which is random; whoever has
the id may watch and stop it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from merging.errors import Cancelled, MergeError
from merging.system import shortage

log = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "stopped"]
Work = Callable[["Job"], Any]
_KEEP = 50  # finished jobs that can still be looked at
MOST_WAITING = 8  # beside the one that runs


@dataclass
class Job:
    """One piece of work. The worker writes it; everybody else reads.

    Attributes:
        key: what it works on; one job per key is waiting or running at a time.
        details: what the page that draws it needs to know, set when it is submitted.
        disk_bytes: what it will still write.
        progress: the last value that the work reported.
        error: one line, where the state is "failed".
    """

    id: str
    key: str
    title: str
    details: Any = None
    disk_bytes: int = 0
    state: State = "waiting"
    progress: Any = None
    result: Any = None
    error: str = ""
    started_s: float = 0.0
    finished_s: float = 0.0
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        """True once nothing will change any more."""
        return self.state in ("done", "failed", "stopped")

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        if not self.started_s:
            return 0.0
        return (self.finished_s or time.monotonic()) - self.started_s

    def report(self, progress: Any) -> None:
        """Called by the work; keeps the last progress."""
        self.progress = progress


class Jobs:
    """Runs one job at a time on a thread of its own, first come first served.

    Args:
        called: what the jobs are, to people.
    """

    def __init__(self, called: str = "merges") -> None:
        self._called = called
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._work: dict[str, Work] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(
        self, key: str, title: str, work: Work, details: Any = None, disk_bytes: int = 0
    ) -> Job:
        """Puts work in line and returns its job; the job at hand if one of this key is not over.

        Raises:
            MergeError: the line is as long as it may get.
        """
        with self._changed:
            at_hand = self.active(key)
            if at_hand is not None:
                return at_hand
            if sum(job.state == "waiting" for job in self._jobs.values()) >= MOST_WAITING:
                raise MergeError(
                    f"{MOST_WAITING} {self._called} wait already; start {title} when one of them "
                    "is over."
                )
            job = Job(secrets.token_hex(8), key, title, details, disk_bytes)
            self._jobs[job.id] = job
            self._work[job.id] = work
            self._forget_old()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def get(self, job_id: str | None) -> Job | None:
        """The job of this id; None if it is unknown or long gone."""
        return self._jobs.get(job_id) if isinstance(job_id, str) else None

    def active(self, key: str) -> Job | None:
        """The job of this key that waits or runs, if there is one."""
        jobs = list(self._jobs.values())
        return next((job for job in jobs if job.key == key and not job.is_over), None)

    def running(self) -> Job | None:
        """The job that is being worked on."""
        return next((job for job in list(self._jobs.values()) if job.state == "running"), None)

    def pending(self) -> list[Job]:
        """The jobs that are not over, in line."""
        return [job for job in list(self._jobs.values()) if not job.is_over]

    def claimed_bytes(self) -> int:
        """What all that wait or run will still write."""
        return sum(job.disk_bytes for job in list(self._jobs.values()) if not job.is_over)

    def position(self, job: Job) -> int:
        """How many jobs come before this one: 0 when it is running or over."""
        with self._changed:
            before = 0
            for other in self._jobs.values():
                if other.id == job.id:
                    break
                before += not other.is_over
            return before if job.state == "waiting" else 0

    def stop(self, job_id: str | None) -> None:
        """Asks a job to stop; one that still waits is over at once."""
        job = self.get(job_id)
        if job is None or job.is_over:
            return
        job.cancel.set()
        with self._changed:
            if job.state == "waiting":
                self._finish(job, "stopped")

    def wait(self, job: Job, timeout: float) -> None:
        """Returns when the job changes state, or after `timeout` seconds; at once if it is over."""
        with self._changed:
            state = job.state
            self._changed.wait_for(lambda: job.is_over or job.state != state, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Stops everything and waits for the worker, so that nothing half-made is left behind."""
        self._closed = True
        for job in list(self._jobs.values()):
            self.stop(job.id)
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None)
                job = self._next()
                if job is None:
                    return
                job.state, job.started_s = "running", time.monotonic()
                work = self._work.pop(job.id)
                self._changed.notify_all()
            self._do(job, work)

    def _do(self, job: Job, work: Work) -> None:
        state: State = "done"
        try:
            job.result = work(job)
        except Cancelled:
            state = "stopped"
        except MergeError as error:
            state, job.error = "failed", str(error)
        except Exception as error:
            state, reason = "failed", shortage.in_words(error)
            if reason is None:
                log.exception("job %s (%s) failed", job.id, job.title)
            job.error = str(reason or f"Something went wrong on our side (log id {job.id}).")
        with self._changed:
            self._finish(job, state)

    def _next(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "waiting"), None)

    def _finish(self, job: Job, state: State) -> None:
        job.finished_s = time.monotonic()
        job.state = state
        self._work.pop(job.id, None)
        self._changed.notify_all()

    def _forget_old(self) -> None:
        over = [job.id for job in self._jobs.values() if job.is_over]
        for job_id in over[: max(0, len(over) - _KEEP)]:
            del self._jobs[job_id]
