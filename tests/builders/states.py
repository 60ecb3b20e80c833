"""Generated state dicts: storages of their own and shared, views, meta tensors, texts."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st

DTYPES = (torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.float8_e4m3fn)
#: What a name may show of a base tensor of some rows and two columns.
VIEWS = {
    "itself": lambda base: base,
    "parameter": lambda base: torch.nn.Parameter(base, requires_grad=False),
    "transposed": lambda base: base.t(),
    "flat": lambda base: base.view(-1),
    "first row": lambda base: base[:1],
    "other rows": lambda base: base[1:],
    "column": lambda base: base[:, :1],
    "bytes": lambda base: base.view(torch.uint8),
    "nothing": lambda base: base[:0],
    "copy": lambda base: base.clone(),
    "meta": lambda base: base.to("meta"),
    "text": lambda base: f"{base.shape}",
}
#: More than the profile asks for: many cases are small.
MANY = settings(max_examples=max(500, settings.default.max_examples))


@st.composite
def state_dicts(draw: st.DrawFn, *, kinds: tuple[str, ...] = tuple(VIEWS)) -> dict[str, Any]:
    """Draw tensors by name; one in some way out of a few bases each."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
    bases = [torch.zeros(length, 2, dtype=draw(st.sampled_from(DTYPES))) for length in lengths]
    picks = draw(st.lists(st.tuples(st.sampled_from(bases), st.sampled_from(kinds)), max_size=14))
    return {f"t{number}": VIEWS[kind](base) for number, (base, kind) in enumerate(picks)}


def limits() -> st.SearchStrategy[int | str]:
    """Draw a largest size that some tensors fit, as a number or a text."""
    numbers = st.integers(0, 100)
    texts = numbers.map(lambda number: f"{number / 1000} kB")
    return st.one_of(numbers, texts, st.just("5GB"))
