"""Autograd sees a load as it sees `copy_` under `no_grad`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = {
    "contiguous": torch.zeros(3, 3),
    "transposed": torch.zeros(3, 3).t(),
    "strided": torch.zeros(3, 6)[:, ::2],
}


def _linear(tmp_path: Path, weight: torch.Tensor) -> tuple[torch.nn.Linear, Path]:
    model = torch.nn.Linear(3, 3, bias=False, dtype=weight.dtype)
    model.weight = torch.nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    folder = write_model(tmp_path / "c", {"weight": torch.ones(3, 3)}, count=1)
    return model, folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_through_a_graph_that_saved_an_overwritten_parameter_fails(
    tmp_path: Path, layout: str, dtype: torch.dtype
) -> None:
    model, folder = _linear(tmp_path, LAYOUTS[layout].to(dtype))
    output = model(torch.ones(1, 3, dtype=dtype, requires_grad=True)).sum()
    windlass.load_sharded_checkpoint(model, folder)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_backward_through_a_graph_that_saved_an_overwritten_buffer_fails(tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.register_buffer("scale", torch.zeros(3))
    output = (torch.ones(3, requires_grad=True) * model.scale).sum()
    folder = write_model(tmp_path / "c", {"scale": torch.ones(3)}, count=1)
    windlass.load_sharded_checkpoint(model, folder)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_backward_after_the_load_gives_gradients_of_the_loaded_values(tmp_path: Path) -> None:
    model, folder = _linear(tmp_path, torch.zeros(3, 3))
    windlass.load_sharded_checkpoint(model, folder)
    (model(torch.ones(1, 3)) ** 2).sum().backward()
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad, torch.full((3, 3), 6.0))


def test_parameters_that_require_grad_are_filled_outside_no_grad(tmp_path: Path) -> None:
    model, folder = _linear(tmp_path, torch.zeros(3, 3))
    assert torch.is_grad_enabled()
    windlass.load_sharded_checkpoint(model, folder)
    assert model.weight.requires_grad
    assert model.weight.is_leaf
    assert torch.equal(model.weight, torch.ones(3, 3))


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    model, folder = _linear(tmp_path, torch.zeros(3, 3))
    model.requires_grad_(requires_grad=False)
    windlass.load_sharded_checkpoint(model, folder)
    assert not model.weight.requires_grad


def test_gradients_are_left_alone(tmp_path: Path) -> None:
    model, folder = _linear(tmp_path, torch.zeros(3, 3))
    model.weight.grad = torch.full((3, 3), 5.0)
    windlass.load_sharded_checkpoint(model, folder)
    assert torch.equal(model.weight.grad, torch.full((3, 3), 5.0))


def test_optimizer_goes_on_with_the_filled_parameters(tmp_path: Path) -> None:
    model, folder = _linear(tmp_path, torch.zeros(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    windlass.load_sharded_checkpoint(model, folder)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, torch.zeros(3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_version_counter_of_an_empty_parameter_is_bumped(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.zeros(0, 3, dtype=dtype))
    folder = write_model(tmp_path / "c", {"weight": torch.zeros(0, 3)}, count=1)
    windlass.load_sharded_checkpoint(model, folder)
    assert model.weight._version > 0


def test_version_counter_of_a_parameter_that_is_not_loaded_stays(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 3)
    versions = model.weight._version, model.bias._version
    folder = write_model(tmp_path / "c", {"weight": torch.ones(3, 3)}, count=1)
    windlass.load_sharded_checkpoint(model, folder, strict=False)
    assert model.bias._version == versions[1]
    assert model.weight._version > versions[0]


def test_loading_inside_no_grad_works(tmp_path: Path) -> None:
    state = {"weight": random_tensor((3, 3), torch.float32, 3)}
    model, _ = _linear(tmp_path, torch.zeros(3, 3))
    folder = write_model(tmp_path / "d", state, count=1)
    with torch.no_grad():
        windlass.load_sharded_checkpoint(model, folder)
    assert same_bits(model.weight, state["weight"])
