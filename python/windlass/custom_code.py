"""Classes of the user's own: their code, saved beside the config for transformers to load."""

from __future__ import annotations

import ast
import logging
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_AUTO_CLASS = re.compile(r"(TF|Flax)?Auto[A-Z]\w*")


def check_auto_class(auto_class: str | type) -> str:
    """Return the name of an auto class.

    Raises:
        ValueError: transformers has no class of such a name: `AutoConfig`, `AutoModelFor…`.

    Example:
        >>> check_auto_class("AutoModelForCausalLM")
        'AutoModelForCausalLM'
    """
    name = auto_class if isinstance(auto_class, str) else auto_class.__name__
    if not _AUTO_CLASS.fullmatch(name):
        message = f"auto_class: expected the name of an auto class of transformers, found {name!r}"
        raise ValueError(message)
    return name


def save_custom_code(thing: Any, folder: str, config: Any = None) -> list[str]:  # noqa: ANN401
    """Copy the module that defines an object's class, and what it imports from beside it.

    Args:
        thing: the object; its class has been registered for an auto class.
        folder: where to.
        config: whose `auto_map` is to name the class.

    Returns:
        The copies. None for a class of `__main__`, of which there is no file that can be imported.
    """
    kind = type(thing)
    source = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if kind.__module__ == "__main__" or source is None:
        logger.warning(
            "%s is defined in %s, which is no module: its code is not saved",
            kind.__name__,
            kind.__module__,
        )
        return []
    if config is not None:
        name = f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
        config.auto_map = {**(getattr(config, "auto_map", None) or {}), thing._auto_class: name}
    return [shutil.copy(path, folder) for path in _with_neighbours(source)]


def _with_neighbours(source: str) -> list[str]:
    """Return a module's file, and those that it imports relatively, at any remove."""
    paths = [source]
    for path in paths:
        folder = os.path.dirname(path)
        for name in _relative_imports(path):
            neighbour = os.path.join(folder, f"{name}.py")
            if neighbour not in paths and os.path.isfile(neighbour):
                paths.append(neighbour)
    return paths


def _relative_imports(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]
