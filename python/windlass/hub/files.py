"""One file of a folder, or of a repository on the hub, by its name."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

from windlass.errors import FileNotInRepository, HubError, HubUnavailable, NotCached
from windlass.hub.download import download, is_cached, is_known_absent, is_snapshot_cached
from windlass.hub.library import ASKED_BY, hub_api, hub_library
from windlass.hub.proxies import through
from windlass.hub.refusals import translated
from windlass.hub.request import Access, Request, make_request

if TYPE_CHECKING:
    from typing import Unpack

    from windlass.types import PathLike

Missing: TypeAlias = Literal["raise", "none"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})(?:/|$)")


@overload
def cached_file(
    path_or_repo_id: PathLike,
    filename: str,
    *,
    missing: Literal["raise"] = "raise",
    **access: Unpack[Access],
) -> str: ...


@overload
def cached_file(
    path_or_repo_id: PathLike,
    filename: str,
    *,
    missing: Missing,
    **access: Unpack[Access],
) -> str | None: ...


def cached_file(
    path_or_repo_id: PathLike,
    filename: str,
    *,
    missing: Missing = "raise",
    **access: Unpack[Access],
) -> str | None:
    """Return the path of a file: in a local folder, or in the hub's cache, fetched if need be.

    huggingface_hub does what concerns the hub: cache, offline mode (`HF_HUB_OFFLINE`), endpoint
    (`HF_ENDPOINT`), retries, and going on where a connection broke. Besides, the hash of what has
    been fetched is compared with the one that the hub gives.

    Args:
        path_or_repo_id: a folder, or the id of a repository (`name` or `organisation/name`).
        filename: name of the file.
        missing: whether a file that is not there is an error or `None`. Anything else that is
            wrong is an error either way, and so is a hub that does not answer. Offline, or with
            `local_files_only`, a file counts as not there if others of its revision are cached.
        **access: any of these. `subfolder`: folder within the folder or repository.
            `revision`: branch, tag, commit or `refs/pr/N`; the default is `main`.
            `cache_dir`: folder of the cache, if it is not that of huggingface_hub.
            `token`: a token; `True` for that of the login; `False` for none; `None` for that of the
            login if there is one.
            `force_download`: whether to fetch again what is cached.
            `local_files_only`: whether to take only what is cached.
            `proxies`: proxies by protocol or by protocol and host, as
            `{"https": "proxy.example:3128"}`; for the whole process while the call lasts.
            `progress`: as for `load_sharded_checkpoint`, of what is fetched.
            `use_auth_token`, `resume_download`: old; the first is `token`, the second does nothing.

    Raises:
        FileNotInRepository: there is no such file (only with `missing="raise"`).
        RepositoryNotFound, RevisionNotFound, AccessDenied, HubUnavailable, NotCached,
            CorruptDownload, InvalidRepositoryId: see `windlass.errors`.
        ModuleNotFoundError: an id is given, and huggingface_hub is not installed.
        ValueError: arguments that contradict each other.

    Example:
        >>> cached_file(folder, "model.safetensors") == str(folder / "model.safetensors")
        True
        >>> cached_file(folder, "no-such-file.json", missing="none") is None
        True
    """
    if missing not in ("raise", "none"):
        message = f'missing should be "raise" or "none", found {missing!r}'
        raise ValueError(message)
    request = make_request(path_or_repo_id, access)
    try:
        return _local_file(request, filename) if request.is_local else _fetch(request, filename)
    except FileNotInRepository:
        if missing == "raise":
            raise
    except (NotCached, HubUnavailable) as error:
        if is_known_absent(request, filename) and not request.force_download:
            if missing == "raise":
                raise FileNotInRepository(_was_absent(request, filename)) from error
        elif missing == "raise" or not _counts_as_missing(request, error):
            raise
    return None


def is_offline(*, local_files_only: bool = False) -> bool:
    """Tell whether nothing is asked of the hub: offline mode, or because the caller wants it so."""
    return local_files_only or bool(hub_library().is_offline_mode())


def list_files(repo_id: str, **access: Unpack[Access]) -> set[str]:
    """Return the names of the files of a repository, or of its subfolder, as the hub lists them.

    Args:
        repo_id: the id of a repository.
        **access: as for `cached_file`.

    Raises:
        HubError: one of its classes, for whatever the hub or the network refuse.
    """
    request = make_request(repo_id, access)
    with through(request.proxies), translated(request):
        names = hub_api().list_repo_files(
            request.source, revision=request.revision, token=request.token
        )
    start = request.within("")
    return {name.removeprefix(start) for name in names if name.startswith(start)}


def has_file(path_or_repo_id: PathLike, filename: str, **access: Unpack[Access]) -> bool:
    """Tell whether a folder, or a repository on the hub, has a file, without fetching it.

    Offline, or with `local_files_only=True`, the answer is whether the file is cached.

    Args:
        path_or_repo_id: a folder, or the id of a repository.
        filename: name of the file.
        **access: as for `cached_file`.

    Raises:
        RepositoryNotFound, RevisionNotFound, AccessDenied, HubUnavailable, InvalidRepositoryId:
            see `windlass.errors`.

    Example:
        >>> has_file(folder, "model.safetensors"), has_file(folder, "flax_model.msgpack")
        (True, False)
    """
    request = make_request(path_or_repo_id, access)
    if request.is_local:
        return os.path.isfile(_local_path(request, filename))
    library = hub_library()
    if is_offline(local_files_only=request.local_files_only):
        return is_cached(request, filename)
    try:
        with through(request.proxies), translated(request, filename):
            url = library.hf_hub_url(
                request.source,
                filename,
                subfolder=request.subfolder or None,
                revision=request.revision,
            )
            library.get_hf_file_metadata(url, token=request.token, retry_on_errors=True, **ASKED_BY)
    except FileNotInRepository:
        return False
    return True


def commit_of(path: PathLike) -> str | None:
    """Return the commit that a path in the hub's cache belongs to, `None` for any other path.

    Given as `revision=`, it makes sure that further files are of the same commit, and spares the
    hub the question which one that is.

    Example:
        >>> commit_of(folder / "config.json") is None
        True
    """
    found = _SNAPSHOT.search(os.fspath(path).replace(os.sep, "/"))
    return found[1] if found else None


def _local_path(request: Request, filename: str) -> str:
    return os.path.join(request.source, request.subfolder, filename)


def _local_file(request: Request, filename: str) -> str:
    path = _local_path(request, filename)
    if not os.path.isfile(path):
        message = f"there is no file `{request.within(filename)}` in the folder `{request.source}`"
        raise FileNotInRepository(message)
    return path


def _fetch(request: Request, filename: str) -> str:
    """Return where a file is in the cache; what a commit is known to lack is not asked for again.

    Raises:
        FileNotInRepository: there is no such file.
    """
    is_commit = _COMMIT.fullmatch(request.revision or "") is not None
    if is_commit and not request.force_download and is_known_absent(request, filename):
        raise FileNotInRepository(_was_absent(request, filename))
    return download(request, filename)


def _was_absent(request: Request, filename: str) -> str:
    return f"the hub had no `{request.within(filename)}` of {request.name} before"


def _counts_as_missing(request: Request, error: HubError) -> bool:
    """Whether a file that is not cached can be taken for one that does not exist.

    A hub that does not answer says nothing of its files: only who asks none counts on the cache.
    """
    if not isinstance(error, NotCached):
        return False
    return is_offline(local_files_only=request.local_files_only) and is_snapshot_cached(request)
