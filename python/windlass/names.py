"""Names of tensors and texts of metadata: what may stand in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from windlass.errors import InvalidName, UnsupportedTensor


def named_values(tensors: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """Return the names and values of a mapping.

    Raises:
        UnsupportedTensor: it is none.
    """
    if not isinstance(tensors, Mapping):
        message = f"expected a mapping of names to tensors, found {type(tensors).__name__}"
        raise UnsupportedTensor(message)
    return tensors.items()


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
            check_text(f"metadata `{key}`", text)
    return dict(metadata)


def check_name(name: object) -> None:
    """Raise for a name that no tensor of a safetensors file can have.

    Raises:
        InvalidName: it is not text, or not text that UTF-8 can hold; it is empty, holds a NUL, or
            is `__metadata__`.
    """
    if type(name) is not str or not name.isascii():  # There may be very many names.
        check_text(f"tensor `{name}`", name)
    if not name or name == "__metadata__" or "\0" in str(name):
        reason = "is empty" if not name else "holds a NUL" if "\0" in str(name) else "is reserved"
        message = f"tensor `{name}`: the name {reason}"
        raise InvalidName(message)


def check_text(what: str, text: object) -> None:
    """Raise for what is not text.

    Raises:
        InvalidName: it is something else, or not text that UTF-8 can hold.
    """
    if not isinstance(text, str):
        message = f"{what}: expected text, found {type(text).__name__}"
        raise InvalidName(message)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{what!a}: not text that UTF-8 can hold: {error.reason}"
        raise InvalidName(message) from error
