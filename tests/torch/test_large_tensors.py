"""Tensors whose memory is had in huge pages: their bytes are those of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import windlass

if TYPE_CHECKING:
    from pathlib import Path

#: `LARGE_BYTES` of `rust/core/src/sys/huge_pages.rs`.
LARGE_BYTES = 4 << 20

#: Sizes below, at, and well above the one from which huge pages are asked for, none of them even.
LENGTHS = [1, LARGE_BYTES // 2 - 1, LARGE_BYTES // 2, 3 * LARGE_BYTES // 2 + 5]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Give tensors of two bytes an element, all of them different."""
    numbers = torch.arange(max(LENGTHS), dtype=torch.int32).to(torch.int16)
    return {str(position): (numbers + position)[:n] for position, n in enumerate(LENGTHS)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Path:
    """Give a folder with a sharded checkpoint of them."""
    folder = tmp_path_factory.mktemp("large")
    windlass.save_torch_state_dict(state, folder, max_shard_size="8MB")
    return folder


def _assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_new_tensors_have_the_bytes_of_the_file(
    folder: Path, state: dict[str, torch.Tensor]
) -> None:
    _assert_equal(windlass.Checkpoint(folder).load(), state)


def test_new_tensors_can_be_resized_as_any_other(folder: Path) -> None:
    name = str(len(LENGTHS) - 1)
    tensor = windlass.Checkpoint(folder).load([name])[name]
    assert tensor.resize_(2 * len(tensor)).untyped_storage().resizable()


def test_parts_of_tensors_have_the_bytes_of_the_file(
    folder: Path, state: dict[str, torch.Tensor]
) -> None:
    found = windlass.Checkpoint(folder).load({name: slice(1, None, 2) for name in state})
    _assert_equal(found, {name: tensor[1::2] for name, tensor in state.items()})


def test_snapshot_has_the_values_of_the_call(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    now = {name: tensor.clone() for name, tensor in state.items()}
    now["turned"] = now["3"][: 3 * LARGE_BYTES // 2].view(3, -1).t()
    expected = {name: tensor.clone() for name, tensor in now.items()}
    handle = windlass.save_async(now, tmp_path)
    for tensor in now.values():
        tensor.zero_()
    handle.result()
    _assert_equal(windlass.Checkpoint(tmp_path).load(), expected)
