"""State dicts that are hard to save, what a file must hold of them, and what a folder holds."""

from __future__ import annotations

import json
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
import windlass
from hypothesis import settings
from hypothesis import strategies as st

from builders.bits import random_tensor, same_bits
from builders.sharded import SAFE_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.complex64,
    torch.int64,
    torch.uint16,
    torch.int8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
SHAPES = ((), (1,), (3,), (2, 3), (4, 4), (3, 1, 2), (0,), (2, 0, 3))
#: Less than the profile asks for: each case is several saves.
FEW = settings(max_examples=max(1, settings.default.max_examples // 3))
#: What a name may show of a base tensor.
VIEWS = {
    "itself": lambda base: base,
    "parameter": lambda base: torch.nn.Parameter(base, requires_grad=False),
    "transposed": lambda base: base.transpose(0, -1) if base.dim() else base,
    "flat": lambda base: base.reshape(-1),
    "first row": lambda base: base[:1] if base.dim() else base,
    "every other": lambda base: base[..., ::2] if base.dim() else base,
    "one element": lambda base: base.reshape(-1)[0] if base.numel() else base,
    "expanded": lambda base: base.unsqueeze(0).expand(3, *base.shape),
    "conjugated": lambda base: base.conj(),
    "negated": lambda base: base.conj().imag if base.is_complex() else base,
    "bytes": lambda base: base.view(torch.uint8) if base.dim() else base,
    "nothing": lambda base: base[:0] if base.dim() else base,
    "slice of more": lambda base: torch.cat([base.reshape(-1)] * 2)[: base.numel()],
    "copy": lambda base: base.clone(),
}
#: Views that share no memory with anything, in the order that a file has.
APART = ("copy",)
CASTS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)


@st.composite
def hard_dicts(
    draw: st.DrawFn, *, kinds: tuple[str, ...] = tuple(VIEWS), dtypes: Any = DTYPES
) -> dict[str, torch.Tensor]:
    """Draw tensors by name, one in some way out of a few bases each."""
    plans = draw(
        st.lists(
            st.tuples(st.sampled_from(SHAPES), st.sampled_from(dtypes)), min_size=1, max_size=4
        )
    )
    bases = [random_tensor(shape, dtype, seed) for seed, (shape, dtype) in enumerate(plans)]
    picks = draw(st.lists(st.tuples(st.sampled_from(bases), st.sampled_from(kinds)), max_size=8))
    order = draw(st.permutations(range(len(picks))))
    return {
        f"layer.{number}": VIEWS[kind](base)
        for number, (base, kind) in zip(order, picks, strict=True)
    }


def stored_value(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return what a file must hold of a tensor: its values, cast if it is of floats."""
    plain = tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    plain = plain.clone(memory_format=torch.contiguous_format)
    return plain.to(dtype) if dtype is not None and plain.is_floating_point() else plain


def holds(
    found: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
) -> bool:
    """Whether tensors that were loaded are those of the state dict, bit by bit."""
    return found.keys() == state.keys() and all(
        same_bits(found[name], stored_value(state[name], dtype)) for name in state
    )


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes; what is no file has none."""
    paths = sorted(Path(folder).rglob("*"))
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in paths
    }


def file_names(folder: Path) -> list[str]:
    """Return the names in a folder, in order."""
    return sorted(path.name for path in Path(folder).iterdir())


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of the safetensors checkpoint in a folder."""
    index = Path(folder, SAFE_INDEX)
    if not index.exists():
        return windlass.load_file(Path(folder, "model.safetensors"))
    weight_map = json.loads(index.read_text())["weight_map"]
    files = {name: windlass.load_file(Path(folder, name)) for name in {*weight_map.values()}}
    assert sum(map(len, files.values())) == len(weight_map)
    return {tensor: files[name][tensor] for tensor, name in weight_map.items()}


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, or of an index."""
    if path.suffix == ".json":
        index: dict[str, str] = json.loads(path.read_text())["metadata"]
        return index
    with safetensors.safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def data_bytes(path: Path) -> int:
    """Return how many bytes of a safetensors file are data."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, as another process that saves there would."""
    path = folder / ".windlass.lock"
    with path.open("w") as file:
        flock(file, LOCK_EX)
        file.write("4711\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink()
