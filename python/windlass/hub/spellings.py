"""Old names of arguments: understood, with a warning."""

from __future__ import annotations

import warnings


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
    if use_auth_token is None:
        return token
    warn_of_old("use_auth_token", "token")
    if token is not None:
        message = "token and its old name use_auth_token are both given; give token alone"
        raise ValueError(message)
    return use_auth_token


def warn_of_resume(resume_download: object) -> None:
    """Say, where `resume_download` is given, that downloads are resumed anyway."""
    if resume_download is not None:
        message = "resume_download is deprecated and does nothing: downloads always resume"
        warnings.warn(message, FutureWarning, stacklevel=4)


def warn_of_old(old: str, new: str) -> None:
    """Say that an argument has another name today."""
    message = f"{old} is deprecated, use {new}"
    warnings.warn(message, FutureWarning, stacklevel=4)
