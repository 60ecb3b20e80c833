"""CPU tensors that are strided or cast are saved by the engine; the rest as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
import windlass
from builders.bits import bits, random_tensor, same_bits
from windlass import _rust
from windlass.errors import DestinationError
from windlass.torch import engine, output
from windlass.torch.tensors import destination

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.t(),
    "columns": lambda tensor: tensor[:, 3:60],
    "every third row": lambda tensor: tensor[1::3],
    "expanded": lambda tensor: tensor[:, :1].expand(70, 9),
    "windows": lambda tensor: tensor.reshape(-1).unfold(0, 50, 7),
    "permuted": lambda tensor: tensor.view(7, 10, 90).permute(2, 0, 1),
}


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of tensors that go through the staging buffer."""
    names: list[str] = []
    original = output._write_staged

    def spy(save: Any, placed: list[output.Placed], *rest: Any) -> None:
        names.extend(one.name for one in placed)
        original(save, placed, *rest)

    monkeypatch.setattr(output, "_write_staged", spy)
    return names


def _values(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return random_tensor((70, 90), torch.int16, 3).to(dtype)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float64])
def test_engine_gathers_and_casts(
    tmp_path: Path, view: str, dtype: torch.dtype | None, staged: list[str]
) -> None:
    tensor = VIEWS[view](_values())
    path = tmp_path / "a.safetensors"
    windlass.save_file({"x": tensor, "y": torch.ones(3)}, path, dtype=dtype)
    expected = tensor.to(dtype or tensor.dtype)
    assert same_bits(safetensors.torch.load_file(path)["x"], expected.contiguous())
    assert staged == []


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint16, torch.int64, torch.float8_e8m0fnu])
def test_engine_gathers_tensors_of_every_size(
    tmp_path: Path, dtype: torch.dtype, staged: list[str]
) -> None:
    tensor = _values().abs().to(dtype).t()
    windlass.save_file({"x": tensor}, tmp_path / "a")
    assert same_bits(windlass.load_file(tmp_path / "a")["x"], tensor)
    assert staged == []


def test_checksums_are_those_of_what_is_written(tmp_path: Path) -> None:
    state = {"x": _values().t(), "y": _values(torch.float16)}
    windlass.save_torch_state_dict(state, tmp_path, dtype=torch.bfloat16, checksums=True)
    assert windlass.verify(tmp_path) == []


def test_large_tensor_is_gathered_in_parts(tmp_path: Path) -> None:
    tensor = random_tensor((1501, 3003), torch.int16, 1).t()
    calls: list[int] = []
    windlass.save_torch_state_dict(
        {"x": tensor}, tmp_path, progress=lambda done, _: calls.append(done)
    )
    (path,) = tmp_path.glob("*.safetensors")
    assert path.read_bytes().endswith(bits(tensor))
    assert calls == sorted(calls)


@pytest.mark.parametrize("view", ["strided", "conjugated"])
def test_complex_tensors_are_left_to_torch(tmp_path: Path, view: str, staged: list[str]) -> None:
    tensor = torch.complex(_values(), _values() + 1)
    tensor = tensor.t() if view == "strided" else tensor.conj()
    windlass.save_file({"x": tensor}, tmp_path / "a")
    assert same_bits(windlass.load_file(tmp_path / "a")["x"], tensor.resolve_conj().contiguous())
    assert staged == ["x"]


def test_negated_view_is_left_to_torch(tmp_path: Path, staged: list[str]) -> None:
    tensor = torch.complex(_values(), _values()).conj().imag
    assert tensor.is_neg()
    windlass.save_file({"x": tensor}, tmp_path / "a", dtype=torch.bfloat16)
    expected = tensor.resolve_neg().to(torch.bfloat16)
    assert same_bits(windlass.load_file(tmp_path / "a")["x"], expected)
    assert staged == ["x"]


def test_eight_bit_floats_are_torchs_where_torch_does_not_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staged: list[str]
) -> None:
    engine.casts.cache_clear()
    monkeypatch.setattr(engine, "_saturates", lambda: False)
    windlass.save_file({"x": _values()}, tmp_path / "a", dtype=torch.float8_e4m3fn)
    engine.casts.cache_clear()
    assert staged == ["x"]


def test_nan_of_a_strided_tensor_is_that_of_a_contiguous_one(tmp_path: Path) -> None:
    """Torch makes another NaN of a strided one, which the engine does not tell apart."""
    nan = torch.full((64, 64), torch.nan)
    windlass.save_file({"x": nan.t()}, tmp_path / "a", dtype=torch.bfloat16)
    assert same_bits(windlass.load_file(tmp_path / "a")["x"], nan.to(torch.bfloat16))


def test_sources_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    new = ("", [("x", "C64", (12,))], None, False)
    with _rust.Save.file(tmp_path / "a", new, durable=False) as save:
        strided = destination(torch.zeros(24)[::2])
        with pytest.raises(DestinationError, match="expected C-contiguous memory"):
            save.write([0], ["x"], [strided], threads=1)
        with pytest.raises(DestinationError, match="F32 cannot be cast to C64"):
            save.write([0], ["x"], [strided], dtypes=["F32"], threads=1)
        with pytest.raises(ValueError, match="unknown dtype `f32`"):
            save.write([0], ["x"], [strided], dtypes=["f32"], threads=1)
