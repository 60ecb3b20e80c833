"""Parameters on a GPU are filled through a bounded staging buffer, and aliases found. Needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
import windlass.torch
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model, write_safe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("view", ["contiguous", "transposed"])
def test_parameters_on_a_gpu_are_filled(tmp_path: Path, dtype: torch.dtype, view: str) -> None:
    values = random_tensor((1500, 1500), torch.int16, 1).to(torch.float32)
    memory = torch.zeros(1500, 1500, dtype=dtype, device="cuda")
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(memory if view == "contiguous" else memory.t())
    address = model.weight.data_ptr()
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", {"weight": values}, 1))
    assert model.weight.data_ptr() == address
    assert same_bits(model.weight.cpu(), values.to(dtype))


def test_model_on_two_devices_is_filled(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 300).cuda())
    state = {
        name: random_tensor(tuple(t.shape), t.dtype, n)
        for n, (name, t) in enumerate(model.state_dict().items())
    }
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert all(same_bits(t.cpu(), state[name]) for name, t in model.state_dict().items())


def test_version_counter_on_a_gpu_is_bumped(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 3, bias=False).cuda()
    before = model.weight._version
    folder = write_model(tmp_path / "c", {"weight": torch.ones(3, 3)}, count=1)
    windlass.load_sharded_checkpoint(model, folder)
    assert model.weight._version > before


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0])
@pytest.mark.parametrize("memory", ["mapped", "owned"])
def test_file_is_loaded_to_a_gpu(tmp_path: Path, device: Any, memory: Any) -> None:
    state = {"a": random_tensor((700, 700), torch.float32, 1), "e": torch.zeros(0, 3)}
    path = write_safe(tmp_path / "a.safetensors", state)
    loaded = windlass.load_file(path, device, memory=memory)
    assert all(tensor.is_cuda for tensor in loaded.values())
    assert all(same_bits(loaded[name].cpu(), tensor) for name, tensor in state.items())


def test_slices_come_to_a_gpu(tmp_path: Path) -> None:
    path = write_safe(tmp_path / "a.safetensors", {"a": torch.arange(12.0).view(3, 4)})
    with windlass.safe_open(path, "pt", device="cuda") as file:
        part = file.get_slice("a")[1:, ::2]
    assert part.is_cuda
    assert torch.equal(part.cpu(), torch.arange(12.0).view(3, 4)[1:, ::2])


def test_aliases_on_a_gpu_are_found() -> None:
    weight = torch.zeros(4, 3, device="cuda")
    state = {"weight": weight, "host": weight.cpu(), "transposed": weight.t()}
    groups = windlass.torch.find_aliases(state)
    assert groups == [(["weight", "transposed"], "same_bytes")]


def test_casts_on_the_way_are_those_of_torch(tmp_path: Path) -> None:
    state = {
        "grows": random_tensor((3000, 1700), torch.int16, 1).view(torch.bfloat16).nan_to_num(),
        "shrinks": random_tensor((3000, 1700), torch.int32, 2).to(torch.float32),
        "same": random_tensor((9_000_000,), torch.float16, 3),
    }
    wanted = {"grows": torch.float32, "shrinks": torch.bfloat16, "same": torch.float16}
    model = torch.nn.Module()
    for name, tensor in state.items():
        model.register_buffer(name, torch.zeros_like(tensor, dtype=wanted[name], device="cuda"))
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state, 2))
    for name, tensor in state.items():
        assert same_bits(model.get_buffer(name).cpu(), tensor.to(wanted[name])), name


def test_work_of_the_caller_comes_before_and_after(tmp_path: Path) -> None:
    state = {"a": random_tensor((20_000_000,), torch.int32, 1)}
    folder = write_model(tmp_path / "c", state, 1)
    model = torch.nn.Module()
    model.register_buffer("a", torch.zeros(20_000_000, dtype=torch.int32, device="cuda"))
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(50):
            model.a.add_(1)
        windlass.load_sharded_checkpoint(model, folder)
        doubled = model.a * 2
    torch.cuda.synchronize()
    assert torch.equal(doubled.cpu(), state["a"] * 2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_are_filled_at_once(tmp_path: Path) -> None:
    state = {f"t{n}": random_tensor((3_000_000,), torch.float32, n) for n in range(8)}
    model = torch.nn.Module()
    for n, (name, tensor) in enumerate(state.items()):
        model.register_buffer(name, torch.zeros_like(tensor, device=f"cuda:{n % 2}"))
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state, 3))
    assert all(same_bits(t.cpu(), state[name]) for name, t in model.state_dict().items())
