"""Code of registered classes is saved beside the config, where transformers loads it from."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from windlass import PretrainedConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from oracle.client import Oracle

_CONFIG = """
import windlass
from .widths import WIDTH

class MineConfig(windlass.PretrainedConfig):
    model_type = "mine"

    def __init__(self, width=WIDTH, **kwargs):
        super().__init__(**kwargs)
        self.width = width
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return a module of the user's own that imports a neighbour, which imports another."""
    folder = tmp_path / "mine_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "configuration.py").write_text(_CONFIG)
    (folder / "widths.py").write_text("from . import more\nfrom .more import WIDTH\n")
    (folder / "more.py").write_text("WIDTH = 3\n")
    (folder / "unused.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import mine_package.configuration as module  # type: ignore[import-not-found]

    yield module
    for name in [name for name in sys.modules if name.startswith("mine_package")]:
        del sys.modules[name]


def test_module_and_its_neighbours_are_copied(package: ModuleType, tmp_path: Path) -> None:
    package.MineConfig.register_for_auto_class()
    package.MineConfig(width=5).save_pretrained(tmp_path / "saved")
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert names == ["config.json", "configuration.py", "more.py", "widths.py"]
    fields = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert fields["auto_map"] == {"AutoConfig": "configuration.MineConfig"}


def test_files_are_those_that_446_saves(
    package: ModuleType, tmp_path: Path, oracle: Oracle
) -> None:
    case = {"path": str(tmp_path), "folder": str(tmp_path / "theirs")}
    theirs = oracle.ask_one("config.save_custom", case).value
    package.MineConfig.register_for_auto_class()
    package.MineConfig(width=5).save_pretrained(tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == theirs
    ours = (tmp_path / "ours" / "config.json").read_text()
    assert ours == (tmp_path / "theirs" / "config.json").read_text()


def test_unregistered_class_is_not_copied(package: ModuleType, tmp_path: Path) -> None:
    package.MineConfig().save_pretrained(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["config.json"]


def test_class_of_no_module_is_saved_without_its_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = type("Loose", (PretrainedConfig,), {"__module__": "__main__"})
    kind.register_for_auto_class("AutoConfig")
    kind().save_pretrained(tmp_path)
    assert "no module" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("name", ["AutoConfig", "AutoModelForCausalLM", "TFAutoModel"])
def test_only_names_of_auto_classes_are_taken(name: str) -> None:
    kind = type("Mine", (PretrainedConfig,), {})
    kind.register_for_auto_class(name)
    assert kind._auto_class == name
    assert PretrainedConfig._auto_class is None
    with pytest.raises(ValueError, match="auto class"):
        kind.register_for_auto_class(f"Not{name}")
