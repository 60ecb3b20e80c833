"""`load_file` gives what `safetensors.torch.load_file` gives, each tensor in its own storage."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import windlass
import windlass.torch
from builders.bits import bits, random_tensor, same_bits
from builders.files import Entry, write_entries
from builders.sharded import write_safe
from builders.strategies import TORCH_BITS, entries, example_bytes
from hypothesis import given
from hypothesis import strategies as st
from windlass.errors import UnsupportedDtype, WindlassError

MEMORIES = ("mapped", "owned")
TORCH_DTYPES = {
    "BOOL": torch.bool,
    "F4": torch.float4_e2m1fn_x2,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}


def _same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(same_bits(ours[n], theirs[n]) for n in theirs)


@given(entries(TORCH_BITS), st.sampled_from(MEMORIES), st.booleans())
def test_generated_file_is_read_as_safetensors_reads_it(
    file: list[Entry],
    memory: Any,
    misaligned: bool,  # noqa: FBT001 hypothesis passes by position
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_entries(Path(folder, "a.safetensors"), file, misaligned=misaligned)
        ours = windlass.load_file(path, memory=memory)
        theirs = safetensors.torch.load_file(path)
        assert _same(ours, theirs)


@given(entries(TORCH_BITS), st.sampled_from(MEMORIES))
def test_no_two_tensors_share_a_storage(file: list[Entry], memory: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tensors = windlass.load_file(write_entries(Path(folder, "a"), file), memory=memory)
        storages = [tensor.untyped_storage() for tensor in tensors.values() if tensor.numel()]
        assert len({storage.data_ptr() for storage in storages}) == len(storages)
        sizes = {name: t.untyped_storage().nbytes() for name, t in tensors.items()}
        assert sizes == {name: t.numel() * t.element_size() for name, t in tensors.items()}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_dtype_is_torchs_own(tmp_path: Path, dtype: str, memory: Any) -> None:
    data = example_bytes(dtype, 6 * TORCH_BITS[dtype] // 8)
    path = write_entries(tmp_path / "a", [Entry("x", dtype, (1, 3, 2), data)])
    tensor = windlass.load_file(path, memory=memory)["x"]
    assert tensor.dtype == TORCH_DTYPES[dtype]
    assert bits(tensor) == data
    assert tensor.is_contiguous()
    assert not tensor.requires_grad


def test_packed_four_bit_shape_is_that_of_torch(tmp_path: Path) -> None:
    """The header counts 4-bit elements; torch's dtype holds two in one byte."""
    path = write_entries(tmp_path / "a", [Entry("x", "F4", (3, 8), example_bytes("F4", 12))])
    assert windlass.load_file(path)["x"].shape == (3, 4)


@pytest.mark.parametrize(("dtype", "count"), [("F6_E2M3", 3), ("F6_E3M2", 3)])
def test_dtype_unknown_to_torch_is_named_with_its_tensor(
    tmp_path: Path, dtype: str, count: int
) -> None:
    entry = Entry("odd one", dtype, (4,), bytes(count))
    path = write_entries(tmp_path / "a.safetensors", [entry])
    with pytest.raises(
        UnsupportedDtype, match=rf"(?s)(odd one.*{dtype}|{dtype}.*odd one)"
    ) as caught:
        windlass.load_file(path)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("memory", MEMORIES)
def test_order_of_the_dict_is_that_of_safetensors(tmp_path: Path, memory: Any) -> None:
    names = ["b", "a", "h.10", "h.2", "C"]
    path = write_safe(tmp_path / "a", {name: torch.ones(n) for n, name in enumerate(names)})
    assert list(windlass.load_file(path, memory=memory)) == list(safetensors.torch.load_file(path))


@pytest.mark.parametrize("memory", MEMORIES)
def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path, memory: Any) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(5), "y": torch.ones(5)})
    content = path.read_bytes()
    tensors = windlass.load_file(path, memory=memory)
    tensors["x"].fill_(7)
    assert torch.equal(tensors["y"], torch.ones(5))
    assert path.read_bytes() == content
    assert torch.equal(windlass.load_file(path, memory=memory)["x"], torch.ones(5))


def test_owned_tensors_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(5)})
    tensors = windlass.load_file(path, memory="owned")
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(tensors["x"], torch.ones(5))


@pytest.mark.parametrize("memory", MEMORIES)
def test_tensors_outlive_a_replaced_and_a_removed_file(tmp_path: Path, memory: Any) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(5)})
    tensors = windlass.load_file(path, memory=memory)
    write_safe(tmp_path / "b", {"x": torch.zeros(5)}).replace(path)
    path.unlink()
    assert torch.equal(tensors["x"], torch.ones(5))


@pytest.mark.parametrize("memory", MEMORIES)
def test_one_tensor_outlives_the_others(tmp_path: Path, memory: Any) -> None:
    state = {str(n): random_tensor((1000,), torch.float32, n) for n in range(5)}
    tensors = windlass.load_file(write_safe(tmp_path / "a", state), memory=memory)
    last = tensors.pop("3")
    tensors.clear()
    assert same_bits(last, state["3"])


@pytest.mark.parametrize("threads", [None, 1, 7])
@pytest.mark.parametrize("memory", MEMORIES)
def test_threads_do_not_change_the_result(tmp_path: Path, memory: Any, threads: Any) -> None:
    state = {str(n): random_tensor((300, 1000), torch.float32, n) for n in range(9)}
    path = write_safe(tmp_path / "a", state)
    assert _same(windlass.load_file(path, memory=memory, threads=threads), state)


@pytest.mark.parametrize("spell", [str, lambda path: path])
def test_path_is_text_or_pathlike(tmp_path: Path, spell: Any) -> None:
    path = write_safe(tmp_path / "wörter", {"x": torch.ones(5)})
    assert torch.equal(windlass.load_file(spell(path))["x"], torch.ones(5))


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_device_is_a_name_or_torchs_device(tmp_path: Path, device: Any) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(5)})
    assert windlass.load_file(path, device)["x"].device.type == "cpu"


@pytest.mark.parametrize("device", ["bogus", "cpu0", "cpu:x"])
def test_unknown_device_is_named(tmp_path: Path, device: Any) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(5)})
    with pytest.raises((RuntimeError, ValueError, TypeError, WindlassError), match=str(device)):
        windlass.load_file(path, device)


def test_unknown_memory_is_a_value_error(tmp_path: Path) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(5)})
    with pytest.raises(ValueError, match="borrowed"):
        windlass.load_file(path, memory="borrowed")  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", MEMORIES)
def test_file_without_tensors_is_an_empty_dict(tmp_path: Path, memory: Any) -> None:
    assert windlass.load_file(write_entries(tmp_path / "a", []), memory=memory) == {}


def test_front_doors_are_one_function() -> None:
    assert windlass.load_file is windlass.torch.load_file


def test_signature_begins_with_that_of_safetensors() -> None:
    parameters = list(inspect.signature(windlass.load_file).parameters.values())
    assert parameters[1].name == "device"
    assert parameters[1].default == "cpu"
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[2:])


def test_mapped_file_of_holes_is_opened_without_reading_it(tmp_path: Path) -> None:
    """Lazy: 64 GiB that are a hole map at once."""
    path, size = tmp_path / "a", 1 << 36
    header = f'{{"x":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    code = (
        "import sys, windlass; x = windlass.load_file(sys.argv[1])['x']; print(len(x), int(x[-1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [str(size), "0"], done.stderr
