"""The Hub's cache: the folder that huggingface_hub keeps, so that whatever program fetched a model,
it is fetched once.

A repository has a folder with `blobs`, its files by what they hold, and `snapshots`, a folder per
commit with links to them.
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import (
    HfApi,
    constants,
    hf_hub_download,
    scan_cache_dir,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import silent_tqdm

from merging.hub.files import RemoteFile

_PARTIAL = ".amalgam.incomplete"  # the ending by which huggingface_hub's own tools know such files


@dataclass(frozen=True)
class Hub:
    """Where models are fetched from, and kept.

    Attributes:
        endpoint: the Hub's address; None for huggingface_hub's own (HF_ENDPOINT).
        cache: None for huggingface_hub's own (HF_HUB_CACHE, or below HF_HOME).
    """

    endpoint: str | None = None
    cache: Path | None = None

    @property
    def api(self) -> HfApi:
        """The library's client of this endpoint."""
        return HfApi(endpoint=self.endpoint)

    @property
    def folder(self) -> Path:
        """The cache's folder; it may not be there yet."""
        return Path(self.cache or constants.HF_HUB_CACHE).expanduser().resolve()

    def free_bytes(self) -> int:
        """Free bytes of the disk that the cache is on."""
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Snapshot:
    """One repository at one commit, in a cache.

    Attributes:
        commit: 40 hexadecimal digits.
    """

    hub: Hub
    repo: str
    commit: str

    @property
    def storage(self) -> Path:
        """The folder of the repository, all its commits."""
        return self.hub.folder / repo_folder_name(repo_id=self.repo, repo_type="model")

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return self.storage / "snapshots" / self.commit

    def blob(self, file: RemoteFile) -> Path:
        """Where the bytes of a large file lie once all are here."""
        return self.storage / "blobs" / file.sha256

    def partial(self, file: RemoteFile) -> Path:
        """Where they gather until then."""
        return self.blob(file).with_name(f"{file.sha256}{_PARTIAL}")

    def has(self, file: RemoteFile) -> bool:
        """True where the whole file is here."""
        path = try_to_load_from_cache(
            self.repo, file.name, cache_dir=self.hub.folder, revision=self.commit
        )
        return isinstance(path, str)

    def bytes_here(self, file: RemoteFile) -> int:
        """Bytes of a file that need not be fetched any more."""
        if self.has(file):
            return file.size_bytes
        if not file.sha256:
            return 0
        for path in (self.blob(file), self.partial(file)):
            if path.is_file():
                return min(path.stat().st_size, file.size_bytes)
        return 0

    def link(self, file: RemoteFile) -> Path:
        """Puts a file into the snapshot; one whose bytes are not here yet is fetched."""
        path = hf_hub_download(
            self.repo,
            file.name,
            revision=self.commit,
            cache_dir=self.hub.folder,
            endpoint=self.hub.endpoint,
            tqdm_class=silent_tqdm,
        )
        return Path(path)

    def remove(self) -> None:
        """Deletes this commit's files, but those that another commit has, too. What is left of
        fetching the repository goes as well, unless somebody is fetching it."""
        try:
            everything = scan_cache_dir(self.hub.folder)
        except CacheNotFound:
            return
        own = frozenset(repo for repo in everything.repos if repo.repo_path == self.storage)
        replace(everything, repos=own).delete_revisions(self.commit).execute()
        for partial in (self.storage / "blobs").glob(f"*{_PARTIAL}"):
            with partial.open("rb") as handle, suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink(missing_ok=True)
