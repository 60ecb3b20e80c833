"""`device_map`: one device for the whole model, whatever torch's default is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from builders.pretrained import MODELS, assert_same_state, saved

if TYPE_CHECKING:
    from pathlib import Path

Labels = MODELS.TinyForLabels


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("form", [True, False], ids=["safetensors", "pickle"])
def test_device_that_is_named_goes_before_the_default(
    tmp_path: Path, dtype: str | None, *, form: bool
) -> None:
    saved(tmp_path).save_pretrained(tmp_path / "form", safe_serialization=form)
    wanted = Labels.from_pretrained(tmp_path, torch_dtype=dtype).state_dict()
    with torch.device("meta"):
        again = Labels.from_pretrained(tmp_path / "form", torch_dtype=dtype, device_map="cpu")
    assert_same_state(again.state_dict(), wanted)


def test_modules_that_all_go_to_one_device_are_one_device(tmp_path: Path) -> None:
    model = saved(tmp_path)
    again = Labels.from_pretrained(tmp_path, device_map={"tiny": "cpu", "classifier": "cpu"})
    assert_same_state(again.state_dict(), model.state_dict())
    assert again.hf_device_map == {"": torch.device("cpu")}


def test_map_that_leaves_weights_out_names_them(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match=r"device_map.*classifier\.weight"):
        Labels.from_pretrained(tmp_path, device_map={"tiny": "cpu", "class": "cpu"})


@pytest.mark.parametrize("device_map", ["cuda", "cuda:0", torch.device("cuda"), {"": "cuda"}])
def test_device_that_the_machine_lacks_is_told(
    tmp_path: Path, device_map: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device_map=.*cuda.*0 devices"):
        Labels.from_pretrained(tmp_path, device_map=device_map)


def test_truth_is_no_device(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ValueError, match="device_map=True"):
        Labels.from_pretrained(tmp_path, device_map=True)
