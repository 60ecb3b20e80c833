"""Names of the files of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from windlass.errors import CheckpointNotFound
from windlass.layout import find_by_pattern, pattern_family

if TYPE_CHECKING:
    from pathlib import Path

VARIANT = "model.fp16{suffix}.safetensors"


@pytest.mark.parametrize(
    ("pattern", "foreign_index"),
    [
        (VARIANT, "model.safetensors.index.fp16.json"),
        ("pytorch_model.fp16{suffix}.bin", "pytorch_model.bin.index.fp16.json"),
        ("model.a.b{suffix}.safetensors", "model.safetensors.index.a.b.json"),
        ("model{suffix}.safetensors", None),
        ("model{suffix}.fp16.safetensors", None),
        (".hidden{suffix}.safetensors", None),
        ("model.{suffix}.safetensors", None),
        ("model.fp16{suffix}", None),
        ("model.fp16{suffix}_x.safetensors", None),
    ],
)
def test_index_of_a_variant_has_the_name_that_transformers_gives_it(
    pattern: str, foreign_index: str | None
) -> None:
    assert pattern_family(pattern).foreign_index_name == foreign_index


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["model.fp16.safetensors.index.json", "model.safetensors.index.fp16.json"], 0),
        (["model.safetensors.index.fp16.json", "model.fp16.safetensors"], 0),
        (["model.fp16.safetensors", "model.safetensors", "model.safetensors.index.json"], 0),
    ],
)
def test_variant_is_found_by_either_index_then_by_its_file(
    tmp_path: Path, names: list[str], found: int
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert find_by_pattern(tmp_path, VARIANT).path == str(tmp_path / names[found])


def test_index_of_a_variant_is_not_that_of_the_plain_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.fp16.json").touch()
    with pytest.raises(CheckpointNotFound):
        find_by_pattern(tmp_path)


def test_pickles_of_a_variant_are_told_by_their_index(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin.index.fp16.json").touch()
    found = find_by_pattern(tmp_path, "pytorch_model.fp16{suffix}.bin", safe=False)
    assert (found.is_index, found.is_safetensors) == (True, False)
