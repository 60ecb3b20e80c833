"""Old names of arguments: understood, with a warning."""

from __future__ import annotations

import warnings
from typing import TypeVar

T = TypeVar("T")


def take_token(
    token: bool | str | None,  # noqa: FBT001  (True: the token that was logged in with)
    use_auth_token: bool | str | None = None,  # noqa: FBT001
) -> bool | str | None:
    """Return the token, also where it was given by its old name `use_auth_token`.

    Args:
        token: a token; `True` for that of the login; `False` for none; `None` for that of the
            login if there is one.
        use_auth_token: the same, as it was called before.

    Raises:
        ValueError: both are given.

    Example:
        >>> take_token("hf_secret")
        'hf_secret'
    """
    return take_renamed(token, use_auth_token, "token", "use_auth_token", depth=5)


def take_renamed(value: T, old_value: T, name: str, old: str, depth: int = 4) -> T:
    """Return an argument, also where it was given by its old name.

    Args:
        value: what was given by the name of today.
        old_value: what was given by the old one.
        name: the name of today.
        old: the old name.
        depth: frames from here to the one that is warned of, as `warnings.warn` counts.

    Raises:
        ValueError: both are given.
    """
    if old_value is None:
        return value
    warn_of_old(old, name, depth=depth)
    if value is not None:
        message = f"{name} and its old name {old} are both given; give {name} alone"
        raise ValueError(message)
    return old_value


def warn_of_resume(resume_download: object) -> None:
    """Say, where `resume_download` is given, that downloads are resumed anyway."""
    if resume_download is not None:
        message = "resume_download is deprecated and does nothing: downloads always resume"
        warnings.warn(message, FutureWarning, stacklevel=4)


def warn_of_old(old: str, new: str, *, depth: int = 4) -> None:
    """Say that an argument has another name today."""
    message = f"{old} is deprecated, use {new}"
    warnings.warn(message, FutureWarning, stacklevel=depth)
