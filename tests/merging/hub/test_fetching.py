"""Fetching a model: whole or not at all, resumed, ended, shared."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from merging import demo
from merging.errors import BadCheckpoint, Cancelled, MergeError, NotEnoughSpace
from merging.hub.cache import Hub
from merging.hub.fetching import Progress, check_space, fetch
from merging.hub.listing import Repository, of_repository
from merging.hub.references import parse
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = "model.safetensors"


@pytest.fixture
def repository(hub: Hub) -> Repository:
    repository = of_repository(parse("org/add"), hub).repository
    assert repository is not None
    return repository


def is_whole(repository: Repository) -> bool:
    same = demo.folder("add") / WEIGHTS
    file = repository.snapshot.folder / WEIGHTS
    return file.exists() and file.read_bytes() == same.read_bytes()


def test_a_model_is_fetched_and_told_of(repository: Repository) -> None:
    told = []
    folder = fetch(repository, told.append)
    assert is_whole(repository)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in demo.folder("add").iterdir()} - {"README.md"}
    assert told[-1].done == told[-1].total == sum(f.size_bytes for f in repository.files)
    assert repository.missing_bytes == 0


def test_what_is_here_is_not_fetched_again(repository: Repository, server: HubServer) -> None:
    fetch(repository)
    server.requests.clear()
    fetch(repository)
    assert server.requests == []


def test_a_line_that_breaks_goes_on_where_it_was(repository: Repository, server: HubServer) -> None:
    server.cuts[WEIGHTS] = [2_000_000, 1_500_000]
    fetch(repository)
    parts = [part for _, path, part in server.requests if path.endswith(WEIGHTS) and part]
    starts = [int(part.removeprefix("bytes=").rstrip("-")) for part in parts if part[-1] == "-"]
    assert len(starts) == 2 and 0 < starts[0] <= 2_000_000 < starts[1] <= 3_500_000
    assert is_whole(repository)


def test_ended_in_the_middle_it_keeps_what_came_and_resumes(
    repository: Repository, server: HubServer
) -> None:
    stop = threading.Event()
    server.stops[WEIGHTS] = 3_000_000
    errors: list[BaseException] = []
    came = threading.Event()

    def note(progress: Progress) -> None:
        if progress.done > 2_500_000:
            came.set()

    def work() -> None:
        try:
            fetch(repository, note, stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert came.wait(30)
    stop.set()
    server.go.set()
    thread.join(30)
    assert isinstance(errors[0], Cancelled)
    assert not (repository.snapshot.folder / WEIGHTS).exists()
    assert 0 < repository.missing_bytes < 5_531_808
    fetch(repository)
    assert is_whole(repository)


_ALONE = r"""
import os, sys
from pathlib import Path
from merging.hub.cache import Hub
from merging.hub.fetching import fetch
from merging.hub.listing import of_repository
from merging.hub.references import parse
listing = of_repository(parse("org/add"), Hub(sys.argv[1], Path(sys.argv[2])))
fetch(listing.repository, lambda at: os.write(1, b"%d\n" % at.done))
"""


def test_killed_in_the_middle_it_is_no_model_and_goes_on(hub: Hub, server: HubServer) -> None:
    server.stops[WEIGHTS] = 3_000_000
    arguments = [sys.executable, "-c", _ALONE, server.url, str(hub.cache)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert next((line for line in process.stdout if int(line) > 2_900_000), "")
        process.kill()
    server.go.set()
    repository = of_repository(parse("org/add"), hub).repository
    assert repository is not None
    assert not (repository.snapshot.folder / WEIGHTS).exists()
    assert repository.missing_bytes < 3_000_000
    server.requests.clear()
    fetch(repository)
    assert is_whole(repository)
    parts = [part for _, path, part in server.requests if path.endswith(WEIGHTS) and part]
    assert len(parts) == 1 and int(parts[0].removeprefix("bytes=").rstrip("-")) > 2_000_000


def test_bytes_that_are_others_are_dropped(repository: Repository, server: HubServer) -> None:
    server.altered.add(WEIGHTS)
    with pytest.raises(BadCheckpoint, match="not what the Hub says it is"):
        fetch(repository)
    assert not (repository.snapshot.folder / WEIGHTS).exists()
    server.altered.clear()
    fetch(repository)
    assert is_whole(repository)


def test_a_server_without_ranges_sends_all_again(repository: Repository, server: HubServer) -> None:
    server.ranges, server.cuts[WEIGHTS] = False, [2_000_000]
    fetch(repository)
    assert is_whole(repository)


def test_two_who_fetch_one_model_fetch_it_once(repository: Repository, server: HubServer) -> None:
    server.stops[WEIGHTS] = 1_000_000
    threads = [threading.Thread(target=fetch, args=(repository,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert server.stopped.wait(30)
    server.go.set()
    for thread in threads:
        thread.join(30)
    assert is_whole(repository)
    assert server.fetched().count(WEIGHTS) == 1


def test_a_full_disk_is_told_before_anything_is_fetched() -> None:
    check_space("m", 0, 0)
    check_space("m", 10**9, 2 * 10**9)
    with pytest.raises(NotEnoughSpace, match=r"^m: 1\.00 GB are still .* 1\.00 GB are free"):
        check_space("m", 10**9, 10**9)


def test_a_hub_that_is_gone_is_one_line_and_what_came_is_kept(
    hub: Hub, repository: Repository, server: HubServer
) -> None:
    weights = tuple(file for file in repository.files if file.sha256)
    server.cuts[WEIGHTS] = [2_000_000, *[0] * 10]
    with pytest.raises(MergeError, match="the Hub cannot be reached") as error:
        fetch(replace(repository, files=weights), pause_s=0)
    assert "\n" not in str(error.value)
    assert len(server.cuts[WEIGHTS]) == 11 - 6
    assert 0 < repository.missing_bytes < 5_531_808


def test_what_somebody_is_fetching_is_not_removed(
    repository: Repository, server: HubServer, hub: Hub
) -> None:
    other = "f" * 40
    server.repositories["org/add"].commits[other] = other
    second = of_repository(parse(f"org/add@{other}"), hub).repository
    assert second is not None
    server.stops[WEIGHTS] = 2_000_000
    thread = threading.Thread(target=fetch, args=(repository,))
    thread.start()
    assert server.stopped.wait(30)
    second.snapshot.remove()
    server.go.set()
    thread.join(30)
    assert is_whole(repository)
    assert server.fetched().count(WEIGHTS) == 1


def test_removed_files_are_gone_and_other_commits_keep_theirs(
    repository: Repository, server: HubServer, hub: Hub
) -> None:
    other = "f" * 40
    server.repositories["org/add"].commits[other] = other
    fetch(repository)
    second = of_repository(parse(f"org/add@{other}"), hub).repository
    assert second is not None
    fetch(second)
    repository.snapshot.remove()
    assert not repository.snapshot.folder.exists()
    assert is_whole(second)
    second.snapshot.remove()
    left = [path for path in Path(hub.folder).rglob("*") if path.suffix == ".safetensors"]
    assert left == [] and not second.snapshot.storage.exists()
