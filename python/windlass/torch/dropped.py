"""Which names a save dropped, and what stands for them: the record in the metadata.

safetensors and the hub write `{dropped: kept}` flat among whatever else the metadata says, and so
does windlass, for all who read it there. Where that would read back as anything else, because the
caller has a key of that name, or a value that happens to be the name of a tensor, the metadata says
it a second time under a key of its own, which goes before.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Key of the exact record: a JSON map of dropped name → name that stands for it.
DROPPED_KEY = "windlass.dropped"


def record_dropped(
    facts: Mapping[str, Any], dropped: Mapping[str, str], stored: Collection[str]
) -> dict[str, Any]:
    """Return metadata that also says which names were dropped.

    A fact goes before a dropped name that is called like it. A record among the facts, brought
    along from another file, is left out.

    Args:
        facts: what else the metadata says.
        dropped: name that is not stored → name that stands for it.
        stored: all names that are stored.
    """
    facts = {key: value for key, value in facts.items() if key != DROPPED_KEY}
    told = {**{name: kept for name, kept in dropped.items() if _is_flat(name)}, **facts}
    if _read_flat(told, stored) != dropped:
        told[DROPPED_KEY] = json.dumps(dict(dropped))
    return told


def read_dropped(metadata: Mapping[str, Any], stored: Collection[str]) -> dict[str, str]:
    """Take from the metadata the names that are not stored, and what stands for them."""
    exact = _parse(metadata.get(DROPPED_KEY))
    return _read_flat(metadata, stored) if exact is None else _valid(exact, stored)


def _read_flat(metadata: Mapping[str, Any], stored: Collection[str]) -> dict[str, str]:
    return _valid({key: kept for key, kept in metadata.items() if _is_flat(key)}, stored)


def _is_flat(name: str) -> bool:
    """Whether a key of the metadata may be a dropped name: some have another meaning."""
    return name != "format" and not name.startswith("windlass.")


def _valid(record: Mapping[str, Any], stored: Collection[str]) -> dict[str, str]:
    return {
        name: kept
        for name, kept in record.items()
        if isinstance(kept, str) and kept in stored and name not in stored
    }


def _parse(text: object) -> dict[str, Any] | None:
    """Return the exact record; None if there is none, or none that a save wrote."""
    try:
        record = json.loads(text) if isinstance(text, str) else None
    except (RecursionError, ValueError):
        return None
    return record if isinstance(record, dict) else None
