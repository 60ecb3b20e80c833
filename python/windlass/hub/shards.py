"""All shards of an index: in their folder, or fetched together, with one bar for all."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from windlass._rust import read_index
from windlass.errors import FileNotInRepository, ShardNotFound
from windlass.hub.download import Cancelled, Tally, download_counted
from windlass.hub.files import cached_file, commit_of
from windlass.hub.library import ASKED_BY, hub_library
from windlass.hub.proxies import through
from windlass.hub.refusals import translated
from windlass.hub.request import Access, Request, make_request
from windlass.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from typing import Unpack

    from windlass.types import PathLike

T = TypeVar("T")

#: How many shards are fetched at a time.
THREADS = 8


def cached_shards(
    path_or_repo_id: PathLike, index_file: PathLike, **access: Unpack[Access]
) -> list[str]:
    """Return the paths of all shards that an index names, in its order of names.

    Shards of a repository that are not cached are fetched several at a time, all from the commit
    of the index, with one progress bar. What has arrived whole stays in the cache if another one
    fails.

    Args:
        path_or_repo_id: a folder, or the id of a repository.
        index_file: path of the index, as `cached_file` gives it; or its name in that folder or
            repository.
        **access: as for `cached_file`.

    Raises:
        ShardNotFound: the index names a file that is not there.
        InvalidIndex, UnsafeShardName: the index is not one, or names files elsewhere.
        HubError: as for `cached_file`.

    Example:
        >>> shards = cached_shards(folder, "model.safetensors.index.json")
        >>> [os.path.basename(shard) for shard in shards]
        ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    request = make_request(path_or_repo_id, access)
    index = os.fspath(index_file)
    if not os.path.isfile(index):
        index = cached_file(path_or_repo_id, index, **access)
    names = sorted(set(read_index(index)[0].values()))
    if request.is_local:
        return [_beside(index, name, request) for name in names]
    return _fetch(replace(request, revision=commit_of(index) or request.revision), index, names)


def _beside(index: str, name: str, request: Request) -> str:
    path = os.path.join(request.source, request.subfolder, name)
    if not os.path.isfile(path):
        raise ShardNotFound(_not_there(index, name, request))
    return path


def _fetch(request: Request, index: str, names: Sequence[str]) -> list[str]:
    """Fetch what is not cached; return where all of it is."""
    with through(request.proxies), ThreadPoolExecutor(THREADS) as pool:
        request = replace(request, proxies=None)  # They are set for all threads.

        def each(work: Callable[[str], T]) -> list[Callable[[], T]]:
            return [partial(_of_index, work, index, name, request) for name in names]

        sizes = _together(pool, each(lambda name: _missing_bytes(request, name)))
        with track(sum(sizes), request.progress, verb="fetching") as told:
            tally = Tally(lambda _: told)
            work = each(lambda name: download_counted(request, name, tally))
            return _together(pool, work, tally.cancel)


def _of_index(work: Callable[[str], T], index: str, name: str, request: Request) -> T:
    try:
        return work(name)
    except FileNotInRepository as error:
        raise ShardNotFound(_not_there(index, name, request)) from error


def _missing_bytes(request: Request, name: str) -> int:
    """Return how many bytes are to be fetched for a file; 0 if that cannot be told yet."""
    if request.local_files_only:
        return 0
    with translated(request, name):
        library = hub_library()
        cached = library.try_to_load_from_cache(
            request.source,
            request.within(name),
            cache_dir=request.cache_dir,
            revision=request.revision,
        )
        if isinstance(cached, str) and not request.force_download:
            return 0
        if library.is_offline_mode():
            return 0
        url = library.hf_hub_url(
            request.source, name, subfolder=request.subfolder or None, revision=request.revision
        )
        found = library.get_hf_file_metadata(
            url, token=request.token, retry_on_errors=True, **ASKED_BY
        )
        return found.size or 0


def _together(
    pool: ThreadPoolExecutor,
    work: Sequence[Callable[[], T]],
    cancel: Callable[[], None] = lambda: None,
) -> list[T]:
    """Do all of it at once; at the first error, or Ctrl-C, let the rest stop, and raise it."""
    futures = [pool.submit(one) for one in work]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            _raise_reason(future)
        return [future.result() for future in futures]
    except BaseException:
        cancel()
        for future in futures:
            future.cancel()
        raise


def _raise_reason(future: Future[T]) -> None:
    """Raise what went wrong in a thread, unless it only stopped because of another."""
    error = future.exception()
    if error is not None and not isinstance(error, Cancelled):
        raise error


def _not_there(index: str, name: str, request: Request) -> str:
    return (
        f"index `{os.path.basename(index)}` of {request.name} names the shard `{name}`, which is "
        "not there"
    )
