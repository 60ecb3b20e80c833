"""Which file is loaded: a folder's, the hub's, or the one that a path names.

safetensors before pickles, a single file before an index: the order of transformers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from windlass.config_file import ADAPTER_CONFIG
from windlass.errors import CheckpointNotFound, HubError, NotCached, NotSupported, UnknownFormat
from windlass.layout import (
    PICKLE_FILE,
    SAFE_FILE,
    CheckpointFile,
    add_variant,
    classify,
    is_there,
    looks_local,
)
from windlass.torch.pretrained.unsupported import hint_at_formats, refuse_format

if TYPE_CHECKING:
    from windlass.torch.sources import Source

#: What a safetensors file may call the framework that wrote it, to be loaded as it is.
_FORMATS = (None, "pt", "mlx")

#: Endings that say what is in a file.
_KNOWN_ENDINGS = (".safetensors", ".bin", ".json")

#: How files of `torch.save` begin: archives, and the pickles of before torch 1.6.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")

#: Where safetensors have their first brace, after the length of the header.
_SAFE_BRACE = 8


class HubOptions(NamedTuple):
    """Where files of a repository come from; see `windlass.hub.cached_file`."""

    subfolder: str = ""
    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    force_download: bool = False
    local_files_only: bool = False
    proxies: dict[str, str] | None = None


class Wanted(NamedTuple):
    """Which weights are looked for.

    Attributes:
        variant: what stands between the stem of a file and its ending.
        use_safetensors: safetensors only, pickles only, or with `None` the first that is there.
    """

    variant: str | None
    use_safetensors: bool | None

    @property
    def names(self) -> list[str]:
        """File names, in the order in which they are tried."""
        names = [] if self.use_safetensors is False else _family(SAFE_FILE, self.variant)
        return names if self.use_safetensors else names + _family(PICKLE_FILE, self.variant)


def check_variant(variant: object) -> str | None:
    """Return a variant as it is.

    Raises:
        ValueError: it cannot be a part of a file name.
    """
    if variant is None:
        return None
    if not isinstance(variant, str) or not variant or "/" in variant or "\\" in variant:
        message = f"variant should be a part of a file name such as 'fp16', found {variant!r}"
        raise ValueError(message)
    return variant


def _family(name: str, variant: str | None) -> list[str]:
    """Return the single file and its index, for a variant also by the name the hub gives it."""
    single = add_variant(name, variant)
    indexes = (add_variant(f"{name}.index.json", variant), f"{single}.index.json")
    return [single, *dict.fromkeys(indexes)]


def find_weights(path: str | os.PathLike[str], wanted: Wanted, hub: HubOptions) -> CheckpointFile:
    """Find the file that says what the checkpoint holds; of a repository, fetch all it needs.

    Raises:
        CheckpointNotFound: there is none.
        NotCached: nothing is to be fetched, and none is in the cache.
        NotSupported: TensorFlow, Flax or GGUF.
        ValueError: the file that is named is not what `wanted` asks for.
    """
    path = os.fspath(path)
    refuse_format(path)
    if is_on_hub(path):
        return _find_on_hub(path, wanted, hub)
    inside = os.path.join(path, hub.subfolder)
    if os.path.isdir(inside):
        return _find_in_folder(inside, wanted)
    if os.path.exists(path) and not os.path.isdir(path):
        return _take_named(path, wanted)
    message = f"`{inside}`: there is no such folder, and no such file"
    raise CheckpointNotFound(message)


def is_on_hub(path: str) -> bool:
    """Whether a text is the id of a repository: nothing of that name is on this machine."""
    return not os.path.exists(path) and not looks_local(path)


def _take_named(path: str, wanted: Wanted) -> CheckpointFile:
    """Take the file that a path names.

    Raises:
        ValueError: it is not what the other arguments ask for.
    """
    file = classify(path)
    if not path.endswith(_KNOWN_ENDINGS) and _is_pickle(path):
        file = file._replace(is_safetensors=False)
    if wanted.use_safetensors is not None and wanted.use_safetensors != file.is_safetensors:
        message = (
            f"use_safetensors={wanted.use_safetensors} contradicts the file that is named, "
            f"`{path}`: leave it out"
        )
        raise ValueError(message)
    if wanted.variant and wanted.variant not in os.path.basename(path).split("."):
        message = (
            f"variant={wanted.variant!r} contradicts the file that is named, `{path}`: leave it out"
        )
        raise ValueError(message)
    return file


def _is_pickle(path: str) -> bool:
    """Whether a file begins as torch's do: as a zip archive, or a pickle. Its name may be any."""
    try:
        with open(path, "rb") as file:
            start = file.read(_SAFE_BRACE + 1)
    except OSError:
        return False  # Whoever opens it says what is wrong with it.
    return start.startswith(_PICKLE_STARTS) and start[_SAFE_BRACE:] != b"{"


def _find_in_folder(folder: str, wanted: Wanted) -> CheckpointFile:
    for name in wanted.names:
        if is_there(os.path.join(folder, name)):
            return classify(os.path.join(folder, name))
    names = set(os.listdir(folder))
    raise CheckpointNotFound(_not_found(folder, wanted, names))


def _not_found(where: str, wanted: Wanted, names: set[str]) -> str:
    """Say what was looked for, and what there is instead."""
    message = f"`{where}` has none of {wanted.names}."
    plain = [name for name in Wanted(None, None).names if name in names]
    if wanted.variant and plain:
        message += f" It has {plain}, without the variant {wanted.variant!r}: leave variant out."
    elif wanted.use_safetensors is not None and plain:
        message += f" It has {plain}: leave use_safetensors out."
    if ADAPTER_CONFIG in names:
        message += " It holds an adapter (PEFT), which is not loaded yet: load it with peft."
    return message + hint_at_formats(names)


def _find_on_hub(repo: str, wanted: Wanted, hub: HubOptions) -> CheckpointFile:
    from windlass.hub import cached_file, cached_shards, is_offline, list_files

    options = hub._asdict()
    for name in wanted.names:
        found = cached_file(repo, name, missing="none", **options)
        if found is None:
            continue
        file = classify(found)
        if file.is_index:
            cached_shards(repo, found, **options)
        return file
    if is_offline(local_files_only=hub.local_files_only):
        message = (
            f"`{repo}`: none of {wanted.names} is in the cache, and nothing is fetched: offline "
            "mode is on, or local_files_only=True was given"
        )
        raise NotCached(message)
    try:
        names = list_files(repo, **options)
    except HubError:
        names = set()  # That none is there, the hub has said before.
    raise CheckpointNotFound(_not_found(repo, wanted, names))


def refuse_foreign_format(source: Source) -> None:
    """Raise for safetensors of another framework, whose weights may be laid out otherwise.

    Raises:
        NotSupported: TensorFlow or Flax wrote them.
        UnknownFormat: the metadata name a framework that nobody knows.
    """
    table = getattr(source, "table", None)
    if table is None:
        return
    for shard, path in enumerate(table.shard_names()):
        found = (table.shard_metadata(shard) or {}).get("format")
        if found in _FORMATS:
            continue
        if found in ("tf", "flax"):
            message = (
                f"`{path}`: its weights are those of {found}, and are not converted yet; save the "
                "model with torch first"
            )
            raise NotSupported(message)
        message = f"`{path}`: expected the format 'pt' in its metadata, found {found!r}"
        raise UnknownFormat(message)
