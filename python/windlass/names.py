"""Names of tensors and texts of metadata: what may stand in a file."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.errors import InvalidName


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return metadata as a dict of its own.

    Raises:
        InvalidName: it is no mapping; a key or value is not text, or not text that UTF-8 can hold.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        message = f"metadata: expected a mapping of text, found {type(metadata).__name__}"
        raise InvalidName(message)
    for key, value in metadata.items():
        for text in (key, value):
            _check_text(f"metadata `{key}`", text)
    return dict(metadata)


def check_name(name: object) -> None:
    """Raise for a tensor's name that is not text.

    Raises:
        InvalidName: it is something else, or not text that UTF-8 can hold.
    """
    _check_text(f"tensor `{name}`", name)


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        message = f"{what}: expected text, found {type(text).__name__}"
        raise InvalidName(message)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{what!a}: not text that UTF-8 can hold: {error.reason}"
        raise InvalidName(message) from error
