"""What errors of saves say: where to, what, and before anything is made."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import windlass
import windlass.numpy
from builders.saves import file_names
from windlass.errors import InvalidName, SaveFailed, SharedTensors, UnsupportedTensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE = {"x": torch.ones(2)}
WAYS: dict[str, Callable[..., object]] = {
    "file": windlass.save_file,
    "folder": windlass.save_torch_state_dict,
    "background": windlass.save_async,
}


def _nested() -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):  # Once in a process: it is a prototype.
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


BAD: dict[str, tuple[Callable[[], dict[str, Any]], type[Exception], str]] = {
    "meta": (lambda: {"w": torch.ones(2, device="meta")}, UnsupportedTensor, "tensor `w`"),
    "nested": (lambda: {"w": _nested()}, UnsupportedTensor, "a nested one"),
    "jagged": (
        lambda: {"w": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)},
        UnsupportedTensor,
        "a nested one",
    ),
    "name": (lambda: {"a\0b": torch.ones(2)}, InvalidName, "NUL"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", BAD)
def test_refused_tensor_is_named_with_where_it_was_to_go(
    tmp_path: Path, kind: str, way: str
) -> None:
    make, error, word = BAD[kind]
    with pytest.raises(error, match=word) as caught:
        WAYS[way](make(), tmp_path / "there")
    assert str(caught.value).startswith(f"`{tmp_path / 'there'}`: ")
    assert file_names(tmp_path) == []


def test_shared_tensors_are_named_with_where_they_were_to_go(tmp_path: Path) -> None:
    tied = torch.nn.Module()
    tied.a = tied.b = torch.nn.Parameter(torch.ones(4))
    tied.c = torch.nn.Parameter(tied.a.detach()[:2])
    saves = [
        lambda: windlass.save_file(tied.state_dict(), tmp_path / "there"),
        lambda: windlass.save_model(tied, tmp_path / "there", on_overlap="error"),
        lambda: windlass.save_torch_model(tied, tmp_path / "there", on_overlap="error"),
    ]
    for save in saves:
        with pytest.raises(SharedTensors) as caught:
            save()
        assert str(caught.value).count(f"`{tmp_path / 'there'}`: ") == 1


def test_refused_array_is_named_with_where_it_was_to_go(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTensor, match=f"^`{tmp_path}/there`: tensor `w`"):
        windlass.numpy.save_file({"w": np.array([object()])}, tmp_path / "there")


@pytest.mark.parametrize("path", ["a\0b", ""])
@pytest.mark.parametrize("way", WAYS)
def test_path_that_is_none_is_refused(way: str, path: str) -> None:
    with pytest.raises(SaveFailed, match="expected a path, found"):
        WAYS[way](ONE, path)


def test_system_errors_name_the_file_and_not_its_temporary_name(tmp_path: Path) -> None:
    target = tmp_path / "none" / "one.safetensors"
    with pytest.raises(SaveFailed, match=r"one\.safetensors") as caught:
        windlass.save_file(ONE, target)
    assert caught.value.filename == str(target)
    assert "windlass-" not in str(caught.value)


@pytest.mark.parametrize("length", [229, 255])
def test_name_as_long_as_names_can_be_is_saved(tmp_path: Path, length: int) -> None:
    for target in (tmp_path / ("n" * length), tmp_path / ("ä" * (length // 2))):
        windlass.save_file(ONE, target)
        windlass.save_file(ONE, target)
        assert windlass.load_file(target)["x"].tolist() == [1, 1]
    assert len(file_names(tmp_path)) == 2


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize("length", [244, 245, 255])
def test_shards_with_names_as_long_as_names_can_be_are_saved(
    tmp_path: Path, length: int, ending: str
) -> None:
    stem = "n" * (length - len("-00001-of-00002") - len(ending))
    state = {"a": torch.ones(3), "b": torch.zeros(3)}
    for _ in range(2):
        windlass.save_torch_state_dict(
            state,
            tmp_path,
            filename_pattern=f"{stem}{{suffix}}{ending}",
            max_shard_size=12,
            safe_serialization=ending == ".safetensors",
        )
    shards = [path for path in tmp_path.iterdir() if path.suffix == ending]
    assert [len(path.name) for path in shards] == [length, length]
    load = windlass.load_file if ending == ".safetensors" else torch.load
    loaded = {name: one for path in shards for name, one in load(path).items()}
    assert {name: one.tolist() for name, one in loaded.items()} == {"a": [1] * 3, "b": [0] * 3}


def test_shards_with_names_that_are_too_long_are_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    pattern = "n" * (256 - len("-00001-of-00002.safetensors")) + "{suffix}.safetensors"
    state = {"a": torch.ones(3), "b": torch.zeros(3)}
    with pytest.raises(SaveFailed, match="File name too long"):
        windlass.save_torch_state_dict(state, tmp_path, filename_pattern=pattern, max_shard_size=12)
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("way", ["folder", "background"])
@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"lock_timeout": -1}, ValueError),
        ({"lock_timeout": float("nan")}, ValueError),
        ({"filename_pattern": "{suffix}"}, ValueError),
        ({"filename_pattern": ".{suffix}"}, ValueError),
        ({"filename_pattern": "../m{suffix}"}, ValueError),
        ({"progress": 3}, TypeError),
    ],
)
def test_option_that_is_none_is_refused_before_anything_is_made(
    tmp_path: Path, way: str, option: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(option))):
        WAYS[way](ONE, tmp_path / "there", **option)
    assert file_names(tmp_path) == []


def test_memory_for_the_copy_can_be_told_as_text(tmp_path: Path) -> None:
    windlass.save_async(ONE, tmp_path, max_snapshot_bytes="1KB").result()
    with pytest.raises(windlass.errors.SnapshotTooLarge, match="max_snapshot_bytes is 7"):
        windlass.save_async(ONE, tmp_path, max_snapshot_bytes=7)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_recovery_refuses_a_time_that_is_none(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(ValueError, match="lock_timeout"):
        windlass.recover(tmp_path, lock_timeout=timeout)
