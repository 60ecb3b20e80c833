"""A file of the hub → its place in the cache: counted while it comes, then checked."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from windlass.hub.integrity import check_hash
from windlass.hub.library import ASKED_BY, hub_library
from windlass.hub.proxies import through
from windlass.hub.refusals import translated
from windlass.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from windlass.hub.request import Request


class Cancelled(Exception):
    """Other work has failed, so that this one need not go on."""


class Tally:
    """Bytes that several downloads have brought so far, told to one listener.

    `update` raises `Cancelled` in every thread once `cancel` has been called.

    Args:
        listen: given how many bytes the first download will bring, returns whom to tell.
    """

    def __init__(self, listen: Callable[[int], Callable[[int], object] | None]) -> None:
        self._lock, self._listen = threading.Lock(), listen
        self._listener: Callable[[int], object] | None = None
        self._begun = self._cancelled = False
        self._done = 0

    def begin(self, total: int) -> None:
        """Find out whom to tell, if this is the first download."""
        with self._lock:
            if not self._begun:
                self._begun, self._listener = True, self._listen(total)

    def cancel(self) -> None:
        """Let every download stop at its next bytes."""
        self._cancelled = True

    def update(self, num_bytes: int) -> None:
        """Count bytes, or take some back, when a download has to begin again."""
        if self._cancelled:
            raise Cancelled
        with self._lock:
            self._done += num_bytes
            if self._listener:
                self._listener(self._done)


def download(request: Request, filename: str) -> str:
    """Return where a file of a repository is in the cache, after fetching it if need be.

    Raises:
        HubError: one of its classes, for whatever the hub, the network or the cache refuse.
    """
    with ExitStack() as bars:

        def listen(total: int) -> Callable[[int], object] | None:
            return bars.enter_context(track(total, request.progress, verb="fetching"))

        return download_counted(request, filename, Tally(listen))


def download_counted(request: Request, filename: str, tally: Tally) -> str:
    """Do as `download`, and count what comes."""
    counter = _counter(tally)
    with through(request.proxies), translated(request, filename):
        path: str = hub_library().hf_hub_download(
            request.source,
            filename,
            subfolder=request.subfolder or None,
            revision=request.revision,
            cache_dir=request.cache_dir,
            token=request.token,
            force_download=request.force_download,
            local_files_only=request.local_files_only,
            tqdm_class=counter,
            **ASKED_BY,
        )
    if counter.used:
        check_hash(path, request.name)
    return path


def is_known_absent(request: Request, filename: str) -> bool:
    """Whether the hub has said before that the wanted revision has no such file."""
    found = _look_into_cache(request, filename)
    return found is not None and not isinstance(found, str)


def is_cached(request: Request, filename: str) -> bool:
    """Whether a file of the wanted revision is in the cache."""
    return isinstance(_look_into_cache(request, filename), str)


def _look_into_cache(request: Request, filename: str) -> object:
    """Return the path of a file, a mark for one that does not exist, or `None`."""
    with translated(request, filename):
        return hub_library().try_to_load_from_cache(
            request.source,
            request.within(filename),
            cache_dir=request.cache_dir,
            revision=request.revision,
        )


def is_snapshot_cached(request: Request) -> bool:
    """Whether anything of the wanted revision is in the cache."""
    constants = hub_library("huggingface_hub.constants")
    name = hub_library("huggingface_hub.file_download").repo_folder_name
    cache = os.path.expanduser(request.cache_dir or constants.HF_HUB_CACHE)
    folder = os.path.join(cache, name(repo_id=request.source, repo_type="model"))
    revision = request.revision or constants.DEFAULT_REVISION
    try:
        with open(os.path.join(folder, "refs", revision), encoding="utf-8") as file:
            revision = file.read()
    except OSError:
        pass  # Then it is a commit, or nothing is cached.
    return os.path.isdir(os.path.join(folder, "snapshots", revision))


def _counter(tally: Tally) -> type[_Counter]:
    """Return a class of bars for one download: they count instead of drawing."""

    class OneFile(_Counter):
        pass

    OneFile.tally, OneFile.used = tally, False
    return OneFile


class _Counter:
    """What huggingface_hub takes for a bar of tqdm. It makes one only when bytes are to come."""

    tally: Tally
    used: bool

    def __init__(
        self, *_: object, total: int | None = None, initial: int = 0, **__: object
    ) -> None:
        type(self).used = True
        self.total, self.n = total, initial
        self.tally.begin(total or 0)

    def update(self, n: int = 1) -> None:
        self.n += n
        self.tally.update(n)

    def update_transfer(self, n: int) -> None:
        """Bytes on the wire, which differ from those of the file where chunks are shared."""

    def set_postfix_str(self, *_: object, **__: object) -> None:
        """A bar would show the speed."""

    set_transfer_postfix_str = set_postfix_str

    def refresh(self, *_: object, **__: object) -> None:
        """A bar would draw itself."""

    def close(self) -> None:
        """A bar would leave the screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
