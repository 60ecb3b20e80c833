"""Tokens for the hub, and the name that the argument once had."""

from __future__ import annotations

import warnings


def take_token(
    token: str | bool | None,  # noqa: FBT001  (True: the token of the login)
    use_auth_token: str | bool | None = None,  # noqa: FBT001
) -> str | bool | None:
    """Return a token that was given by its name or by its old one.

    Raises:
        ValueError: by both.
    """
    if use_auth_token is None:
        return token
    warnings.warn("use_auth_token is deprecated, use token", FutureWarning, stacklevel=3)
    if token is not None:
        message = "token and its old name use_auth_token are both given; give token alone"
        raise ValueError(message)
    return use_auth_token
