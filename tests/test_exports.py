"""What `windlass` exports is what it names, and all of it is documented."""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType

import pytest
import windlass
import windlass.hub
import windlass.modeling_utils
import windlass.numpy
import windlass.torch
from windlass import errors

MODULES = (windlass, windlass.torch, windlass.numpy, windlass.modeling_utils, windlass.hub, errors)
PROMISED = {"Checkpoint", "load_file", "load_sharded_checkpoint", "safe_open"}
FROM_TYPING = {"TYPE_CHECKING", "annotations"}


def _public(module: ModuleType) -> set[str]:
    names = {name for name in dir(module) if not name.startswith("_")} - FROM_TYPING
    return {name for name in names if not isinstance(getattr(module, name), ModuleType)}


def test_promised_names_are_there() -> None:
    assert PROMISED | set(errors.__all__) <= set(windlass.__all__)


def test_all_is_the_public_names() -> None:
    assert {name for name in windlass.__all__ if not name.startswith("__")} == _public(windlass)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_without_repeats(module: ModuleType) -> None:
    assert list(module.__all__) == sorted(set(module.__all__))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_name_of_all_exists_and_is_listed_by_dir(module: ModuleType) -> None:
    assert set(module.__all__) <= set(dir(module))
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module: ModuleType) -> None:
    assert module.__doc__
    names = [name for name in module.__all__ if not name.startswith("__")]
    assert [name for name in names if not getattr(module, name).__doc__] == []


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        windlass.no_such_name  # noqa: B018


def test_version_is_that_of_the_distribution() -> None:
    assert windlass.__version__ == version("windlass")
