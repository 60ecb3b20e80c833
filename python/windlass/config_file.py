"""Configuration files: where one is, and what is in it."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from windlass.errors import ConfigNotFound, InvalidConfigFile, NotSupported
from windlass.layout import looks_local

if TYPE_CHECKING:
    from collections.abc import Iterable

    from windlass.types import PathLike

logger = logging.getLogger(__name__)

#: Version of transformers whose files these are: what `transformers_version` in them says.
FORMAT_VERSION = "4.46.3"

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"

#: What tells an adapter (PEFT) from a model.
ADAPTER_CONFIG = "adapter_config.json"

#: Arguments that say where a file is; they are the same for every file of a model.
_PLACE = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "resume_download",
    "revision",
    "subfolder",
    "token",
)

_VERSIONED = re.compile(r"config\.(.*)\.json")
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/")


class Found(NamedTuple):
    """A file that holds a configuration.

    Attributes:
        path: where it is.
        is_local: whether the user named it, or a folder with it; else it is the hub's.
        commit: commit of the hub's repository, where the path tells.
    """

    path: str
    is_local: bool
    commit: str | None


def take_place(options: dict[str, Any]) -> dict[str, Any]:
    """Take from options what says where a file is; what is left concerns the configuration.

    Raises:
        NotSupported: `gguf_file` is given.
    """
    if options.get("gguf_file") is not None:
        message = "gguf_file: GGUF files are not read yet; convert the model to safetensors"
        raise NotSupported(message)
    if options.pop("trust_remote_code", None) is True:
        logger.warning("trust_remote_code has no effect here: no code is loaded with a config")
    for name in ("_from_pipeline", "_from_auto"):
        options.pop(name, None)
    given = {name: options.pop(name) for name in _PLACE if name in options}
    return {name: value for name, value in given.items() if value is not None}


def read_config(
    pretrained: PathLike, name: str, place: dict[str, Any], commit: str | None = None
) -> tuple[dict[str, Any], Found]:
    """Return the fields of a configuration, and where they were found.

    Args:
        pretrained: a folder, the file itself, or the id of a repository of the hub.
        name: name of the file in the folder or repository.
        place: see `take_place`.
        commit: commit of the repository, if that is known.

    Raises:
        ConfigNotFound: there is no such file.
        InvalidConfigFile: it is not JSON, or not an object.
        HubError: the hub does not give it; see `windlass.hub.cached_file`.
    """
    found = _find(os.fspath(pretrained), name, place, commit)
    fields = read_json_object(found.path)
    logger.info("configuration file %s", found.path)
    if not found.is_local:
        _point_to_repository(fields, os.fspath(pretrained))
    return fields, found


def read_json_object(path: PathLike) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        ConfigNotFound: there is no such file.
        InvalidConfigFile: it is not JSON in UTF-8, or not an object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
    except FileNotFoundError as error:
        message = f"`{os.fspath(path)}`: no such file"
        raise ConfigNotFound(message) from error
    except RecursionError as error:
        message = f"`{os.fspath(path)}`: expected a JSON file, found values nested without end"
        raise InvalidConfigFile(message) from error
    except ValueError as error:  # Of JSON, or of UTF-8.
        message = f"`{os.fspath(path)}`: expected a JSON file, found text that is none: {error}"
        raise InvalidConfigFile(message) from error
    if not isinstance(fields, dict):
        message = f"`{os.fspath(path)}`: expected a JSON object, found {type(fields).__name__}"
        raise InvalidConfigFile(message)
    return fields


def choose_version(names: Iterable[str]) -> str:
    """Return which of `config.<version>.json` is for the newest version that is known here.

    Example:
        >>> choose_version(["config.4.9.0.json", "config.4.40.0.json", "config.5.0.0.json"])
        'config.4.40.0.json'
    """
    known = _parts(FORMAT_VERSION)
    versions = {_parts(match[1]): name for name in names if (match := _VERSIONED.search(name))}
    fitting = [version for version in versions if version and version <= known]
    return versions[max(fitting)] if fitting else CONFIG_FILE


def _find(pretrained: str, name: str, place: dict[str, Any], commit: str | None) -> Found:
    subfolder = place.get("subfolder", "")
    if os.path.isfile(itself := os.path.join(subfolder, pretrained)):
        return Found(itself, is_local=True, commit=commit)
    if os.path.isdir(pretrained):
        path = os.path.join(pretrained, subfolder, name)
        if not os.path.isfile(path):
            message = f"`{path}`: no such file; the folder should have a `{name}`"
            raise ConfigNotFound(message)
        return Found(path, is_local=True, commit=commit)
    if re.match(r"https?://", pretrained):
        message = f"`{pretrained}`: expected a folder, a file or an id; download the file first"
        raise ConfigNotFound(message)
    if looks_local(pretrained):
        message = f"`{pretrained}`: there is no such folder, and no such file"
        raise ConfigNotFound(message)
    path = importlib.import_module("windlass.hub").cached_file(pretrained, name, **place)
    snapshot = _SNAPSHOT.search(path.replace(os.sep, "/"))
    return Found(path, is_local=False, commit=snapshot[1] if snapshot else commit)


def _point_to_repository(fields: dict[str, Any], repo_id: str) -> None:
    """Say of code that a configuration names which repository it is in."""
    for key, value in (fields.get("auto_map") or {}).items():
        fields["auto_map"][key] = (
            [_with_repository(part, repo_id) for part in value]
            if isinstance(value, list)
            else _with_repository(value, repo_id)
        )
    for pipeline in (fields.get("custom_pipelines") or {}).values():
        if "impl" in pipeline:
            pipeline["impl"] = _with_repository(pipeline["impl"], repo_id)


def _with_repository(reference: str | None, repo_id: str) -> str | None:
    return reference if reference is None or "--" in reference else f"{repo_id}--{reference}"


def _parts(version: str) -> tuple[int, ...]:
    """Return a version's numbers; none for one that is not released."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
