"""Values are cast to the model's dtype by every pair that `copy_` allows, whatever the strides."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import contents, fingerprint, small_tensor
from builders.oracle import load_merged
from builders.sharded import write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float4_e2m1fn_x2,
)
MODEL_DTYPES = (*FILE_DTYPES, torch.complex32, torch.complex128)
LAYOUTS: dict[str, Callable[[torch.dtype], torch.Tensor]] = {
    "contiguous": lambda dtype: _zeros(5, 7, dtype),
    "transposed": lambda dtype: _zeros(7, 5, dtype).t(),
    "strided": lambda dtype: _zeros(5, 14, dtype)[:, ::2],
    "offset": lambda dtype: _zeros(8, 7, dtype)[3:],
}


def _zeros(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(rows, columns * dtype.itemsize, dtype=torch.uint8).view(dtype)


def _values(dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.float4_e2m1fn_x2:
        return small_tensor((5, 7), torch.uint8, 3).view(dtype)
    return small_tensor((5, 7), torch.float32, 3).to(dtype)


def _model(dtype: torch.dtype, layout: str) -> torch.nn.Module:
    model = torch.nn.Module()
    model.register_buffer("weight", LAYOUTS[layout](dtype))
    return model


def _attempt(load: Callable[..., Any], *args: Any) -> bool:
    """Load; the casts that drop an imaginary part or use complex32 warn, for torch as for us."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load(*args)
        except RuntimeError:
            return False
    return True


@pytest.mark.parametrize("model_dtype", MODEL_DTYPES)
@pytest.mark.parametrize("file_dtype", FILE_DTYPES)
def test_cast_is_that_of_copy(
    tmp_path: Path, file_dtype: torch.dtype, model_dtype: torch.dtype
) -> None:
    ours, reference = _model(model_dtype, "contiguous"), _model(model_dtype, "contiguous")
    folder = write_model(tmp_path / "c", {"weight": _values(file_dtype)}, count=1)
    before = fingerprint(ours)
    is_allowed = _attempt(load_merged, reference, folder)
    assert _attempt(windlass.load_sharded_checkpoint, ours, folder) == is_allowed
    assert contents(ours) == contents(reference)
    assert is_allowed or fingerprint(ours) == before


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("file_dtype", "model_dtype"),
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float16),
        (torch.int64, torch.bool),
        (torch.float8_e5m2, torch.float64),
        (torch.float32, torch.complex64),
        (torch.complex64, torch.complex128),
    ],
)
def test_strides_do_not_change_a_cast(
    tmp_path: Path, file_dtype: torch.dtype, model_dtype: torch.dtype, layout: str
) -> None:
    ours, reference = _model(model_dtype, layout), _model(model_dtype, layout)
    folder = write_model(tmp_path / "c", {"weight": _values(file_dtype)}, count=1)
    windlass.load_sharded_checkpoint(ours, folder)
    load_merged(reference, folder)
    assert contents(ours) == contents(reference)


def test_large_cast_is_that_of_copy_over_all_its_length(tmp_path: Path) -> None:
    values = torch.linspace(-7, 7, 3_000_001, dtype=torch.float32).to(torch.bfloat16)
    ours, reference = torch.nn.Module(), torch.nn.Module()
    for model in (ours, reference):
        model.register_buffer("weight", torch.zeros(3_000_001))
    folder = write_model(tmp_path / "c", {"weight": values}, count=1)
    windlass.load_sharded_checkpoint(ours, folder)
    load_merged(reference, folder)
    assert contents(ours) == contents(reference)


def test_file_shape_of_one_fills_a_scalar_as_torch_lets_it(tmp_path: Path) -> None:
    model = torch.nn.Module()
    model.register_buffer("scale", torch.zeros(()))
    folder = write_model(tmp_path / "c", {"scale": torch.tensor([4.0])}, count=1)
    windlass.load_sharded_checkpoint(model, folder)
    assert torch.equal(model.scale, torch.tensor(4.0))


def test_packed_four_bit_parameter_is_filled(tmp_path: Path) -> None:
    values = torch.arange(12, dtype=torch.uint8).mul(19).view(3, 4).view(torch.float4_e2m1fn_x2)
    model = torch.nn.Module()
    model.register_buffer("weight", torch.zeros(3, 4, dtype=torch.uint8).view(values.dtype))
    folder = write_model(tmp_path / "c", {"weight": values}, count=1)
    windlass.load_sharded_checkpoint(model, folder)
    assert torch.equal(model.weight.view(torch.uint8), values.view(torch.uint8))
