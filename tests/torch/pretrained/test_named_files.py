"""A path that names the weights file itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.pretrained import MODELS, assert_same_state, saved
from windlass import errors

if TYPE_CHECKING:
    from pathlib import Path

Labels = MODELS.TinyForLabels


@pytest.mark.parametrize("use_safetensors", [True, False])
def test_other_format_than_that_of_the_file_is_refused(
    tmp_path: Path, *, use_safetensors: bool
) -> None:
    saved(tmp_path).save_pretrained(tmp_path, safe_serialization=not use_safetensors)
    name = "pytorch_model.bin" if use_safetensors else "model.safetensors"
    with pytest.raises(ValueError, match=f"use_safetensors={use_safetensors} contradicts"):
        Labels.from_pretrained(tmp_path / name, use_safetensors=use_safetensors)
    Labels.from_pretrained(tmp_path / name, use_safetensors=not use_safetensors)


def test_other_variant_than_that_of_the_file_is_refused(tmp_path: Path) -> None:
    saved(tmp_path).save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(ValueError, match="variant='nonsense' contradicts"):
        Labels.from_pretrained(tmp_path / "model.fp16.safetensors", variant="nonsense")
    Labels.from_pretrained(tmp_path / "model.fp16.safetensors", variant="fp16")


def test_file_in_a_subfolder_takes_the_config_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "sub")
    monkeypatch.chdir(tmp_path)
    again = Labels.from_pretrained("model.safetensors", subfolder="sub")
    assert_same_state(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["epoch3.ckpt", "weights", "model.pth"])
@pytest.mark.parametrize("is_zip", [True, False], ids=["archive", "of before 1.6"])
def test_pickle_is_told_by_what_is_in_it(tmp_path: Path, name: str, *, is_zip: bool) -> None:
    model = saved(tmp_path)
    torch.save(model.state_dict(), tmp_path / name, _use_new_zipfile_serialization=is_zip)
    again = Labels.from_pretrained(tmp_path / name)
    assert_same_state(again.state_dict(), model.state_dict())
    with pytest.raises(ValueError, match="use_safetensors=True"):
        Labels.from_pretrained(tmp_path / name, use_safetensors=True)


def test_safetensors_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    model = saved(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    old = int.from_bytes(data[:8], "little")
    size = (old // 256 + 1) * 256 + 0x80  # The length of a header that begins as pickles do.
    header = data[8 : 8 + old].ljust(size)
    (tmp_path / "x.ckpt").write_bytes(size.to_bytes(8, "little") + header + data[8 + old :])
    again = Labels.from_pretrained(tmp_path / "x.ckpt")
    assert_same_state(again.state_dict(), model.state_dict())


def test_file_that_is_neither_is_told(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(b"something else, and long enough")
    with pytest.raises(errors.InvalidHeader, match=r"x\.ckpt"):
        Labels.from_pretrained(tmp_path / "x.ckpt")


def test_weights_that_are_named_may_lie_beside_an_adapter(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    again = Labels.from_pretrained(tmp_path / "model.safetensors")
    assert_same_state(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("option", [{}, {"config": MODELS.TinyConfig()}], ids=["own", "given"])
@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "a/b/c"])
def test_wrong_folder_is_told_without_the_library_of_the_hub(
    path: str, option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Labels.from_pretrained(path, **option)
