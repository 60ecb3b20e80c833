"""Saving and loading do not depend on the device on which torch makes new tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from torch import nn
from windlass.torch.engine import _saturates, casts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STATE = {
    "a": torch.arange(6.0).view(2, 3),
    "strided": torch.arange(6.0).view(2, 3).t(),
    "imaginary": torch.ones(2, 2, dtype=torch.complex64).conj(),
    "none": torch.empty(0),
    "scalar": torch.tensor(2.5),
}
SAVES: dict[str, Callable[[Path], object]] = {
    "save": lambda path: path.write_bytes(windlass.save(STATE)),
    "save_file": lambda path: windlass.save_file(STATE, path),
    "save_file with a cast": lambda path: windlass.save_file(STATE, path, dtype=torch.float64),
    "save_file with 8-bit floats": lambda path: _save_small(path, torch.float8_e4m3fn),
    "save_async": lambda path: _from_folder(path, windlass.save_async(STATE, path.parent)),
    "save_async of pickles": lambda path: _from_pickles(path, asynchronous=True),
    "pickles": lambda path: _from_pickles(path, asynchronous=False),
    "save_model": lambda path: windlass.save_model(_model(), path),
}


def _save_small(path: Path, dtype: torch.dtype) -> None:
    casts.cache_clear()
    assert _saturates() in (True, False)
    windlass.save_file({"a": STATE["a"]}, path, dtype=dtype)


def _from_folder(path: Path, handle: windlass.SaveHandle) -> None:
    handle.result()
    assert path.exists()


def _from_pickles(path: Path, *, asynchronous: bool) -> None:
    if asynchronous:
        windlass.save_async(STATE, path.parent, safe_serialization=False).result()
    else:
        windlass.save_torch_state_dict(STATE, path.parent, safe_serialization=False)
    with torch.device("cpu"):
        windlass.save_file(torch.load(path.parent / "pytorch_model.bin"), path)


def _model(dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Module()
    for name, tensor in STATE.items():
        kept = tensor.dtype if tensor.is_complex() else dtype
        model.register_buffer(name, torch.empty(tensor.shape, dtype=kept, device="cpu"))
    return model


def _filled(path: Path, dtype: torch.dtype, *, assign: bool = False) -> dict[str, torch.Tensor]:
    model = _model(dtype)
    windlass.load_sharded_checkpoint(model, path, assign=assign)
    return model.state_dict()


def _opened(path: Path) -> dict[str, torch.Tensor]:
    with windlass.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


LOADS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    "load": lambda path: windlass.load(path.read_bytes()),
    "mapped": windlass.load_file,
    "owned": lambda path: windlass.load_file(path, memory="owned"),
    "safe_open": _opened,
    "load_sharded_checkpoint": lambda path: _filled(path, torch.float32),
    "with a cast": lambda path: _filled(path, torch.float64),
    "staged": lambda path: _filled(path, torch.complex64),
    "assigned": lambda path: _filled(path, torch.float32, assign=True),
    "load_state_dict_from_file": windlass.load_state_dict_from_file,
    "stream": lambda path: {name: one.clone() for name, one in windlass.Checkpoint(path).stream()},
}


@pytest.fixture(params=["context", "default"])
def on_meta(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "context":
        with torch.device("meta"):
            yield
        return
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("save", SAVES)
def test_values_are_saved(tmp_path: Path, save: str) -> None:
    path = tmp_path / "model.safetensors"
    SAVES[save](path)
    for name, tensor in windlass.load_file(path).items():
        assert tensor.device.type == "cpu"
        if save != "save_model":
            assert torch.equal(tensor, STATE[name].resolve_conj().to(tensor.dtype)), name


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("load", LOADS)
def test_values_are_loaded(tmp_path: Path, load: str) -> None:
    path = tmp_path / "model.safetensors"
    windlass.save_file(STATE, path)
    found = LOADS[load](path)
    assert found.keys() == STATE.keys()
    for name, tensor in found.items():
        assert tensor.device.type == "cpu"
        assert torch.equal(tensor, STATE[name].resolve_conj().to(tensor.dtype)), name
