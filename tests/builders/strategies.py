"""Generated files and slices for tests that compare with safetensors."""

from __future__ import annotations

from math import prod
from typing import Any

from hypothesis import strategies as st

from builders.files import Entry

#: Bits per element of what torch and safetensors both know.
TORCH_BITS = {
    "BOOL": 8,
    "F4": 4,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
#: The same for numpy without help.
NUMPY_BITS = {
    name: bits
    for name, bits in TORCH_BITS.items()
    if not name.startswith(("F8", "F4")) and name != "BF16"
}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def example_bytes(dtype: str, count: int, seed: int = 0) -> bytes:
    """Return `count` bytes that are valid for the dtype: any bits, or truth values."""
    top = 2 if dtype == "BOOL" else 256
    return bytes((seed + 37 * number * number + 11 * number) % top for number in range(count))


@st.composite
def entries(draw: st.DrawFn, bits: dict[str, int]) -> list[Entry]:
    """Draw the tensors of a file, in file order."""
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    return [_entry(draw, name, bits) for name in names]


def _entry(draw: st.DrawFn, name: str, bits: dict[str, int]) -> Entry:
    dtype = draw(st.sampled_from(sorted(bits)))
    shape = draw(SHAPES)
    if dtype == "F4":
        shape = (*shape, 2)  # Half a byte does not exist, nor does torch have it.
    count = prod(shape) * bits[dtype] // 8
    return Entry(name, dtype, shape, example_bytes(dtype, count, draw(st.integers(0, 255))))


def _bounds(size: int) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.integers(-size - 2, size + 2))


def indices(size: int, *, allow_negative_step: bool = True) -> st.SearchStrategy[Any]:
    """Draw what can stand for one axis: a number or a slice."""
    steps = st.sampled_from([None, None, 1, 2, 3, *([-1, 0] if allow_negative_step else [])])
    slices = st.builds(slice, _bounds(size), _bounds(size), steps)
    return st.one_of(st.integers(-size - 1, size), slices)


@st.composite
def selections(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Draw an index expression: one thing or a tuple, with `...`, None and surplus at times."""
    axes: list[Any] = [draw(indices(size)) for size in shape]
    axes = axes[: draw(st.integers(0, len(axes)))]
    for extra in draw(st.lists(st.sampled_from([..., None, 0, slice(None)]), max_size=1)):
        axes.insert(draw(st.integers(0, len(axes))), extra)
    return axes[0] if len(axes) == 1 and draw(st.booleans()) else tuple(axes)
