"""What huggingface_hub raises → what windlass raises: which file, and what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from windlass.errors import (
    AccessDenied,
    CorruptDownload,
    FileNotInRepository,
    HubError,
    HubUnavailable,
    InvalidRepositoryId,
    NotCached,
    RateLimited,
    RepositoryNotFound,
    RevisionNotFound,
)
from windlass.hub.library import hub_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from windlass.hub.request import Request

_LOG_IN = "run `hf auth login`, or give token="
_DAMAGED = "Consistency check failed"

#: Class of huggingface_hub → ours, with what is to be said; the first that fits counts.
_BY_CLASS: dict[str, tuple[type[HubError], str]] = {
    "HFValidationError": (
        InvalidRepositoryId,
        "`{source}` is no folder, and no id of a repository (`name` or `maker/name`): {error}",
    ),
    "GatedRepoError": (
        AccessDenied,
        "`{source}` is gated: ask for access on its page at the hub, then "
        + _LOG_IN
        + " (the hub says {status})",
    ),
    "RepositoryNotFoundError": (
        RepositoryNotFound,
        "there is no folder and no repository `{source}`, or it is private: check the name; if it "
        "is private, " + _LOG_IN + " (the hub says {status})",
    ),
    "RevisionNotFoundError": (
        RevisionNotFound,
        "the repository `{source}` has no branch, tag or commit {revision!r}",
    ),
    "RemoteEntryNotFoundError": (FileNotInRepository, "the hub has no {what}"),
    "OfflineModeIsEnabled": (
        HubUnavailable,
        "{what}: offline mode is on; unset HF_HUB_OFFLINE to reach the hub",
    ),
    "FileMetadataError": (HubUnavailable, "{what}: the answer is not that of a hub: {error}"),
}

#: Statuses of answers → class, with what is to be said.
_BY_STATUS: tuple[tuple[range, type[HubError], str], ...] = (
    (
        range(401, 404, 2),
        AccessDenied,
        "{what}: the hub refuses ({status}): the token is missing, wrong, or lacks the right; "
        + _LOG_IN
        + " with one that has it. {error}",
    ),
    (
        range(429, 430),
        RateLimited,
        "{what}: the hub has had too many requests (429), also after waiting and asking again; try "
        "later, or " + _LOG_IN + " for a higher limit",
    ),
    (
        range(500, 600),
        HubUnavailable,
        "{what}: the hub does not work at the moment ({status}); try later",
    ),
    (range(600), HubError, "{what}: the hub refuses ({status}). {error}"),
)


@contextmanager
def translated(request: Request, filename: str | None = None) -> Iterator[None]:
    """Raise what huggingface_hub raises inside as one of the classes of `windlass.errors`.

    Args:
        request: what is asked of the hub.
        filename: the file that is asked for; without one, something is sent.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        refusal = _refusal(request, filename, error)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(request: Request, filename: str | None, error: Exception) -> HubError | None:
    """Return what to raise instead; `None` for what has nothing to do with the hub."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # Threads that send large files wrap what went wrong.
    what = request.name if filename is None else f"`{request.within(filename)}` of {request.name}"
    if _is_a(error, "LocalEntryNotFoundError"):
        return _not_cached(request, what, error)
    if refusal := _said_by_hub(request, what, error):
        return refusal
    if _DAMAGED in str(error):
        return CorruptDownload(
            f"{what} arrived with another size than the hub had said, and was thrown away; load "
            f"again to fetch it again ({_first_line(error)})"
        )
    if _is_of_http(error):
        return HubUnavailable(
            f"{what}: the connection to the hub failed: {_first_line(error)}. Load again: files "
            "that are complete stay in the cache."
        )
    return None


def _said_by_hub(request: Request, what: str, error: Any) -> HubError | None:  # noqa: ANN401
    """Return what an error of huggingface_hub's own means, by its class or the hub's status."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    facts = {
        "what": what,
        "source": request.source,
        "revision": request.revision or "main",
        "status": status,
        "error": getattr(error, "server_message", None) or _first_line(error),
    }
    for name, (kind, words) in _BY_CLASS.items():
        if _is_a(error, name):
            return kind(words.format(**facts))
    for statuses, kind, words in _BY_STATUS:
        if status in statuses:
            return kind(words.format(**facts))
    return None


def _not_cached(request: Request, what: str, error: Exception) -> HubError:
    """Tell why a file that is not cached could not be fetched."""
    cause = error.__cause__
    if getattr(cause, "response", None) is not None or _is_a(cause, "FileMetadataError"):
        return _said_by_hub(request, what, cause) or HubError(f"{what}: {cause}")
    reason = f"the hub could not be reached: check the connection ({_first_line(cause or error)})"
    if request.local_files_only:
        reason = "local_files_only=True was given"
    elif _is_a(cause, "OfflineModeIsEnabled"):
        reason = (
            "offline mode is on: unset HF_HUB_OFFLINE, or fetch it once where there is a connection"
        )
    return NotCached(f"{what} is not in the cache, and {reason}")


def _is_a(error: object, name: str) -> bool:
    return isinstance(error, getattr(hub_library("huggingface_hub.errors"), name))


def _is_of_http(error: Exception) -> bool:
    """Whether this is an error of the library that makes the requests."""
    return type(error).__module__.partition(".")[0] in {"httpx", "httpx2", "httpcore", "requests"}


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
