"""What is wanted of a folder or repository, whole and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from windlass.spellings import take_token, warn_of_resume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass.types import PathLike, Progress


class Access(TypedDict, total=False):
    """How files are fetched; see `cached_file` for each."""

    subfolder: str
    revision: str | None
    cache_dir: PathLike | None
    token: bool | str | None
    force_download: bool
    local_files_only: bool
    proxies: Mapping[str, str] | None
    progress: Progress
    use_auth_token: bool | str | None
    resume_download: bool | None


@dataclass(frozen=True)
class Request:
    """A folder or repository, and how its files are fetched.

    Attributes:
        source: local folder, or id of a repository on the hub.
    """

    source: str
    subfolder: str = ""
    revision: str | None = None
    cache_dir: str | None = None
    token: bool | str | None = None
    force_download: bool = False
    local_files_only: bool = False
    proxies: Mapping[str, str] | None = None
    progress: Progress = None

    @property
    def is_local(self) -> bool:
        """Whether the source is a folder of this machine."""
        return os.path.isdir(self.source)

    @property
    def name(self) -> str:
        """The source as messages call it."""
        at = f" at revision {self.revision!r}" if self.revision else ""
        return f"`{self.source}`{at}"

    def within(self, filename: str) -> str:
        """Name a file by its way from the top of the repository."""
        return f"{self.subfolder}/{filename}" if self.subfolder else filename


def make_request(source: PathLike, access: Access) -> Request:
    """Return a request, with old spellings understood.

    Raises:
        TypeError: an argument of no known name.
        ValueError: arguments that contradict each other.
    """
    rest: dict[str, Any] = dict(access)
    warn_of_resume(rest.pop("resume_download", None))
    rest["token"] = take_token(access.get("token"), rest.pop("use_auth_token", None))
    if rest.get("force_download") and rest.get("local_files_only"):
        message = "force_download=True fetches again what local_files_only=True must not fetch"
        raise ValueError(message)
    if rest.get("cache_dir") is not None:
        rest["cache_dir"] = os.fspath(rest["cache_dir"])
    rest["subfolder"] = rest.get("subfolder") or ""
    return Request(os.fspath(source), **rest)
