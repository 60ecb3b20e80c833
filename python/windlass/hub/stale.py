"""Which files of a repository belong to the checkpoint that a new one replaces (pure)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WEIGHTS = re.compile(r"(?P<stem>[^/]+?)(?:-\d{5}-of-\d{5})?(?P<format>\.(?:safetensors|bin))")
_VARIANT_INDEX = re.compile(
    r"(?P<stem>[^/.]+)(?P<format>\.(?:safetensors|bin))\.index\.(?P<variant>.+)\.json"
)


def find_stale(there: Iterable[str], new: Iterable[str]) -> list[str]:
    """Return what of a repository a reader could take for a part of the new checkpoint.

    Those are the single file, the shards and the index of every stem and format that the new files
    have, as far as they are not among the new files. Left there, an old single file would be
    loaded instead of new shards.

    Args:
        there: files of the repository.
        new: files that are there afterwards in any case.

    Example:
        >>> there = ["config.json", "model.safetensors", "adapter_model.safetensors"]
        >>> find_stale(there, ["model-00001-of-00002.safetensors"])
        ['model.safetensors']
    """
    new = set(new)
    families = {_family(name) for name in new} - {None}
    return [name for name in there if name not in new and _family(name) in families]


def _family(name: str) -> tuple[str, str] | None:
    """Return stem and format of the checkpoint that a file is a part of."""
    if found := _VARIANT_INDEX.fullmatch(name):  # As transformers calls the index of a variant.
        return f"{found['stem']}.{found['variant']}", found["format"]
    found = _WEIGHTS.fullmatch(name.removesuffix(".index.json"))
    return (found["stem"], found["format"]) if found else None
