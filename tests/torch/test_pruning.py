"""Pruned layers, `Conv1D` and chunks, compared with transformers 4.46.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle.client import assert_same
from torch import nn
from windlass.modeling_utils import (
    Conv1D,
    apply_chunking_to_forward,
    find_pruneable_heads_and_indices,
    prune_layer,
    prune_linear_layer,
)

if TYPE_CHECKING:
    from oracle.client import Oracle

_sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))


def _layer(kind: str, outputs: int, inputs: int, *, bias: bool) -> nn.Module:
    if kind == "norm":
        return nn.LayerNorm(outputs)
    return nn.Linear(inputs, outputs, bias=bias) if kind == "linear" else Conv1D(outputs, inputs)


def _values(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in layer.state_dict().items()}


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_equal(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    return bool(ours == theirs)


@given(
    st.sampled_from(["linear", "conv1d", "norm"]),
    _sizes,
    st.booleans(),
    st.sampled_from([None, 0, 1]),
    st.data(),
)
def test_layers_are_pruned_as_by_446(  # noqa: PLR0917
    oracle: Oracle,
    kind: str,
    sizes: tuple[int, int],
    bias: Any,
    dim: int | None,
    data: st.DataObject,
) -> None:
    layer = _layer(kind, *sizes, bias=bias)
    is_output = (dim in {None, 0}) if kind == "linear" else (dim in {None, 1})
    length = sizes[0] if is_output else sizes[1]
    index = torch.tensor(sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1))))
    case = {"kind": kind, "sizes": sizes, "bias": bias, "dim": dim, "index": index}
    answer = oracle.ask_one("layers.prune", {**case, "values": _values(layer)})

    def ours() -> list[Any]:
        pruned = prune_layer(layer, index, dim)  # type: ignore[arg-type]
        return [_values(pruned), repr(pruned), pruned.weight.requires_grad]

    assert_same(answer, ours, same=_equal)


def test_pruned_layer_keeps_its_dtype() -> None:
    pruned = prune_linear_layer(nn.Linear(4, 3, dtype=torch.float16), torch.tensor([0]))
    assert (pruned.weight.dtype, pruned.bias.dtype) == (torch.float16, torch.float16)


def test_pruned_layer_shares_no_memory() -> None:
    layer = nn.Linear(4, 3)
    pruned = prune_linear_layer(layer, torch.tensor([0, 1, 2]))
    pruned.weight.data.zero_()
    assert layer.weight.any()


@given(
    st.sets(st.integers(0, 6), max_size=4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sets(st.integers(0, 6), max_size=3),
)
def test_heads_are_found_as_by_446(
    oracle: Oracle, heads: set[int], count: int, size: int, pruned: set[int]
) -> None:
    arguments = [sorted(heads), count, size, pruned]
    assert_same(
        oracle.ask_one("layers.heads", arguments),
        lambda: list(find_pruneable_heads_and_indices(*arguments)),
        same=_equal,
    )


@given(_sizes, st.lists(st.integers(1, 3), max_size=2))
def test_conv1d_computes_what_that_of_446_does(
    oracle: Oracle, sizes: tuple[int, int], batch: list[int]
) -> None:
    layer = Conv1D(*sizes)
    nn.init.normal_(layer.bias)
    given_states = torch.randn([*batch, sizes[1]])
    case = {"sizes": sizes, "values": _values(layer), "input": given_states}
    theirs = oracle.ask_one("layers.conv1d", case).value
    torch.testing.assert_close(layer(given_states).detach(), theirs.detach())


def test_conv1d_is_initialised_as_that_of_gpt2() -> None:
    layer = Conv1D(100, 100)
    assert 0.018 < layer.weight.std() < 0.022
    assert not layer.bias.any()


@given(
    st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=2), max_size=2),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(1, 2),
)
def test_chunks_are_applied_as_by_446(
    oracle: Oracle, shapes: list[list[int]], size: int, dim: int, takes: int
) -> None:
    inputs = [torch.randn(shape) for shape in shapes]
    case = {"takes": takes, "size": size, "dim": dim, "inputs": inputs}
    answer = oracle.ask_one("layers.chunked", case)
    if answer.error[:1] == ("AssertionError",):  # Without any input; see docs/differences.md.
        assert not inputs
        with pytest.raises(ValueError, match="one or more"):
            apply_chunking_to_forward(lambda x: x, size, dim)
        return
    functions: dict[int, Any] = {1: lambda x: x * 2, 2: lambda x, y: x + y}
    assert_same(
        answer,
        lambda: apply_chunking_to_forward(functions[takes], size, dim, *inputs),
        same=_equal,
    )
