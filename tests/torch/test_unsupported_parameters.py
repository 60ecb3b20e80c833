"""Parameters that windlass would fill wrongly are refused by name; nothing else is touched."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from builders.bits import fingerprint
from builders.sharded import write_model
from torch import nn
from windlass.errors import UnsupportedParameter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Tagged(torch.Tensor):
    """A tensor subclass."""


class Special(nn.Parameter):
    """A parameter subclass, as bitsandbytes has."""


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(3, 3), 0.1, 0, torch.qint8)


PARAMETERS: dict[str, Callable[[], nn.Parameter]] = {
    "tensor subclass": lambda: nn.Parameter(torch.zeros(3, 3).as_subclass(Tagged)),
    "parameter subclass": lambda: Special(torch.zeros(3, 3)),
    "sparse": lambda: nn.Parameter(torch.eye(3).to_sparse()),
    "quantized": lambda: nn.Parameter(_quantized(), requires_grad=False),
    "expanded": lambda: nn.Parameter(torch.zeros(3).expand(3, 3)),
}


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "plain": lambda tensor: tensor,
    "cast": lambda tensor: tensor.view(torch.int32),
    "strided": lambda tensor: tensor.t(),
}


def _refused(model: nn.Module, folder: Path, name: str, *, strict: bool) -> None:
    before = fingerprint(model)
    with pytest.raises(UnsupportedParameter, match=name):
        windlass.load_sharded_checkpoint(model, folder, strict=strict)
    assert fingerprint(model) == before


def _checkpoint(folder: Path) -> Path:
    state = {"0.weight": torch.ones(3, 3), "0.bias": torch.ones(3), "1.odd": torch.ones(3, 3)}
    return write_model(folder, state)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", PARAMETERS)
def test_parameter_is_refused_by_name(tmp_path: Path, kind: str, *, strict: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ParameterDict({"odd": PARAMETERS[kind]()}))
    _refused(model, _checkpoint(tmp_path / "c"), r"1\.odd", strict=strict)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", ["tensor subclass", "sparse", "expanded"])
def test_buffer_is_refused_by_name(tmp_path: Path, kind: str, *, strict: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Module())
    model[1].register_buffer("odd", PARAMETERS[kind]().detach())
    _refused(model, _checkpoint(tmp_path / "c"), r"1\.odd", strict=strict)


@pytest.mark.parametrize("left", [0, 8])
@pytest.mark.parametrize("kind", VIEWS)
def test_tensor_without_all_of_its_storage_is_refused_by_name(
    tmp_path: Path, kind: str, left: int
) -> None:
    odd = VIEWS[kind](torch.zeros(3, 3))
    odd.untyped_storage().resize_(left)
    model = nn.Sequential(nn.Linear(3, 3), nn.Module())
    model[1].register_buffer("odd", odd)
    before = fingerprint(model[0])
    with pytest.raises(UnsupportedParameter, match=r"1\.odd.*freed, or made smaller"):
        windlass.load_sharded_checkpoint(model, _checkpoint(tmp_path / "c"))
    assert fingerprint(model[0]) == before


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("strict", [True, False])
def test_dtensor_is_refused_by_name(tmp_path: Path, *, strict: bool) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    shard = distribute_tensor(torch.zeros(3, 3), init_device_mesh("cpu", (2,)), [Shard(0)])
    model = nn.Sequential(nn.Linear(3, 3), nn.ParameterDict({"odd": nn.Parameter(shard)}))
    _refused(model, _checkpoint(tmp_path / "c"), r"1\.odd", strict=strict)


def test_subclass_in_a_module_with_its_own_loading_goes_torchs_way(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = nn.Parameter(torch.zeros(3, 3).as_subclass(Tagged))

        def _load_from_state_dict(self, *args: object) -> None:
            super()._load_from_state_dict(*args)

    model = nn.Sequential(nn.Linear(3, 3), Own())
    windlass.load_sharded_checkpoint(model, _checkpoint(tmp_path / "c"))
    assert torch.equal(model[1].odd.as_subclass(torch.Tensor), torch.ones(3, 3))


def test_conjugated_view_is_filled_with_the_files_values(tmp_path: Path) -> None:
    """Writing its bytes without regard to the lazy sign would give the conjugate."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3, dtype=torch.complex64).conj())
    state = {"weight": torch.tensor([1 + 2j, 3j, 4])}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state, count=1))
    assert torch.equal(model.weight.detach().resolve_conj(), state["weight"])


def test_negated_view_is_filled_with_the_files_values(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_buffer("weight", torch.zeros(3, dtype=torch.complex64).conj().imag)
    assert model.weight.is_neg()
    state = {"weight": torch.tensor([1.0, -2.0, 3.0])}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state, count=1))
    assert torch.equal(model.weight.resolve_neg(), state["weight"])
