"""State dicts from plain descriptions, that two processes can agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from random import Random

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

#: `[rows and position of the dtype of each base, position of a base and view of each name]`.
Description = list[list[list[Any]]]


def make_state(description: Description) -> dict[str, Any]:
    """Make the tensors of a description, by name."""
    bases = [torch.zeros(rows, 2, dtype=DTYPES[dtype]) for rows, dtype in description[0]]
    return {f"t{n}": VIEWS[view](bases[base]) for n, (base, view) in enumerate(description[1])}


def describe(random: Random) -> Description:
    """Draw a description."""
    bases = [
        [random.randrange(6), random.randrange(len(DTYPES))] for _ in range(random.randint(1, 5))
    ]
    picks = [
        [random.randrange(len(bases)), random.choice(list(VIEWS))]
        for _ in range(random.randrange(15))
    ]
    return [bases, picks]
