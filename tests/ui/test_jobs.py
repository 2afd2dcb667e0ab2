"""Background work: one at a time, in line, stopped on request, and errors in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from merging.errors import Cancelled, MergeError
from ui.jobs import MOST_WAITING, Job, Jobs


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close()


def until_stopped(job: Job) -> None:
    if job.cancel.wait(20):
        raise Cancelled("stopped")


def begun(jobs: Jobs, key: str, work: Callable[[Job], None] = until_stopped) -> Job:
    """A job that its worker is at."""
    running = threading.Event()

    def noted(job: Job) -> None:
        running.set()
        work(job)

    job = jobs.submit(key, key, noted)
    assert running.wait(20)
    return job


def finish(jobs: Jobs, job: Job) -> Job:
    for _ in ("waiting", "running"):
        jobs.wait(job, 20)
    assert job.is_over
    return job


def test_result_and_progress_are_kept(jobs: Jobs) -> None:
    def work(job: Job) -> int:
        job.report("half")
        return 7

    job = finish(jobs, jobs.submit("a", "a", work))
    assert (job.state, job.result, job.progress) == ("done", 7, "half")
    assert jobs.get(job.id) is job


def test_a_job_s_time_is_that_of_its_work() -> None:
    assert Job("id", "a", "a").seconds == 0.0
    assert Job("id", "a", "a", started_s=2.0, finished_s=5.5).seconds == 3.5


def test_one_job_per_key(jobs: Jobs) -> None:
    first = jobs.submit("a", "a", until_stopped)
    assert jobs.submit("a", "a", until_stopped) is first
    assert jobs.active("a") is first
    jobs.stop(first.id)
    finish(jobs, first)
    assert jobs.active("a") is None


def test_second_waits_with_its_position_and_runs_next(jobs: Jobs) -> None:
    first = jobs.submit("a", "a", until_stopped)
    second = jobs.submit("b", "b", lambda job: "second")
    third = jobs.submit("c", "c", lambda job: "third")
    assert [jobs.position(job) for job in (first, second, third)][1:] == [1, 2]
    jobs.stop(first.id)
    assert finish(jobs, second).result == "second"
    assert finish(jobs, third).result == "third"
    assert first.state == "stopped"


def test_stopping_a_waiting_job_never_runs_it(jobs: Jobs) -> None:
    ran = []
    first = jobs.submit("a", "a", until_stopped)
    second = jobs.submit("b", "b", ran.append)
    jobs.stop(second.id)
    assert second.state == "stopped"
    jobs.stop(first.id)
    finish(jobs, first)
    finish(jobs, jobs.submit("c", "c", lambda job: None))
    assert ran == []


def test_stop_ends_a_job_that_would_go_on(jobs: Jobs) -> None:
    job = begun(jobs, "a")
    jobs.stop(job.id)
    assert finish(jobs, job).state == "stopped"


def test_user_errors_keep_their_words(jobs: Jobs) -> None:
    def work(job: Job) -> None:
        raise MergeError("the disk is full")

    job = finish(jobs, jobs.submit("a", "a", work))
    assert (job.state, job.error) == ("failed", "the disk is full")


def test_defects_are_logged_under_an_id(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    job = finish(jobs, jobs.submit("a", "a", lambda job: 1 / 0))
    assert job.state == "failed"
    assert job.id in job.error
    assert "division" not in job.error
    assert job.id in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_worker_survives_a_defect(jobs: Jobs) -> None:
    finish(jobs, jobs.submit("a", "a", lambda job: 1 / 0))
    assert finish(jobs, jobs.submit("b", "b", lambda job: "fine")).result == "fine"


@pytest.mark.parametrize("job_id", ["", None, "unknown", 7])
def test_unknown_ids_are_nobody(jobs: Jobs, job_id) -> None:
    assert jobs.get(job_id) is None
    jobs.stop(job_id)


def test_close_stops_what_runs_and_what_waits() -> None:
    jobs = Jobs()
    cleaned = threading.Event()

    def work(job: Job) -> None:
        try:
            until_stopped(job)
        finally:
            cleaned.set()

    first, second = begun(jobs, "a", work), jobs.submit("b", "b", work)
    jobs.close()
    assert cleaned.is_set()
    assert (first.state, second.state) == ("stopped", "stopped")


def test_old_jobs_are_forgotten(jobs: Jobs) -> None:
    first = finish(jobs, jobs.submit("0", "0", lambda job: None))
    for number in range(1, 60):
        finish(jobs, jobs.submit(str(number), "x", lambda job: None))
    assert jobs.get(first.id) is None


def test_line_has_an_end(jobs: Jobs) -> None:
    begun(jobs, "a")
    waiting = [jobs.submit(f"{n}", f"{n}", until_stopped) for n in range(MOST_WAITING)]
    with pytest.raises(MergeError, match="start late when one of them is over"):
        jobs.submit("late", "late", until_stopped)
    assert jobs.submit("0", "0", until_stopped) is waiting[0]  # a second click finds the first
    jobs.stop(waiting[-1].id)
    assert jobs.submit("late", "late", until_stopped).state == "waiting"


def test_room_is_claimed_until_a_job_is_over(jobs: Jobs) -> None:
    first = jobs.submit("a", "a", until_stopped, disk_bytes=5)
    second = jobs.submit("b", "b", until_stopped, disk_bytes=7)
    assert jobs.claimed_bytes() == 12
    first.disk_bytes = 2  # three are written
    assert jobs.claimed_bytes() == 9
    jobs.stop(second.id)
    assert jobs.claimed_bytes() == 2
    jobs.stop(first.id)
    finish(jobs, first)
    assert jobs.claimed_bytes() == 0
