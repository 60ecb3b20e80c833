"""Generated state dicts: storages of their own and shared, views, meta tensors, texts."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st

from builders.plain_states import DTYPES, VIEWS

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
