"""`find_aliases`: who shares memory with whom, and how."""

from __future__ import annotations

import gc
import itertools
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from windlass import _rust
from windlass.torch import AliasGroup, find_aliases

if TYPE_CHECKING:
    from collections.abc import Callable

MATRIX = torch.arange(12.0).view(4, 3)
COMPLEX = torch.view_as_complex(torch.arange(12.0).view(3, 2, 2))


class Tagged(torch.Tensor):
    """A subclass with memory like any tensor's."""


class Special(nn.Parameter):
    """A parameter subclass, as bitsandbytes has."""


class Wrapper(torch.Tensor):
    """A subclass that has no memory itself, as DTensor and quantized weights of torchao."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls: type[Wrapper], inner: torch.Tensor) -> Wrapper:  # noqa: PYI034 (torch's own)
        made: Wrapper = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise NotImplementedError


def _pairs(state_dict: dict[str, Any]) -> list[tuple[list[str], str]]:
    return [tuple(group) for group in find_aliases(state_dict)]


def _relation(one: torch.Tensor, other: torch.Tensor) -> str | None:
    groups = find_aliases({"one": one, "other": other})
    assert all(group.names == ["one", "other"] for group in groups)
    return groups[0].relation if groups else None


RELATED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str | None]] = {
    "itself": (lambda tensor: tensor, "identical"),
    "detached": (lambda tensor: tensor.detach(), "identical"),
    "parameter": (nn.Parameter, "identical"),
    "viewed as it is": (lambda tensor: tensor.view(4, 3), "identical"),
    "flattened": (lambda tensor: tensor.view(-1), "same_bytes"),
    "transposed": (lambda tensor: tensor.t(), "same_bytes"),
    "expanded": (lambda tensor: tensor.expand(5, 4, 3), "same_bytes"),
    "sliding windows": (lambda tensor: tensor.view(-1).unfold(0, 3, 1), "same_bytes"),
    "another dtype": (lambda tensor: tensor.view(torch.int32), "same_bytes"),
    "bytes": (lambda tensor: tensor.view(torch.uint8), "same_bytes"),
    "negated": (torch._neg_view, "same_bytes"),
    "first rows": (lambda tensor: tensor[:2], "nested"),
    "last columns": (lambda tensor: tensor[:, 1:], "nested"),
    "every other row": (lambda tensor: tensor[::2], "nested"),
    "one element": (lambda tensor: tensor[3, 2], "nested"),
    "one byte": (lambda tensor: tensor.view(torch.uint8)[0, :1], "nested"),
    "no element": (lambda tensor: tensor[:0], None),
    "a copy": (torch.clone, None),
    "on the meta device": (lambda tensor: tensor.to("meta"), None),
}


@pytest.mark.parametrize("view", RELATED)
def test_tensor_and_a_view_of_it_are_related_as_the_table_says(view: str) -> None:
    make, relation = RELATED[view]
    assert _relation(MATRIX, make(MATRIX)) == relation
    assert _relation(make(MATRIX), MATRIX) == relation


APART: dict[str, tuple[torch.Tensor, torch.Tensor]] = {
    "halves": (MATRIX[:2], MATRIX[2:]),
    "columns": (MATRIX[:, :1], MATRIX[:, 1:]),
    "even and odd rows": (MATRIX[::2], MATRIX[1::2]),
    "even and odd elements": (MATRIX.view(-1)[::2], MATRIX.view(-1)[1::2]),
    "real and imaginary part": (COMPLEX.real, COMPLEX.imag),
    "two that are empty": (torch.empty(0, 3), torch.empty(0, 3)),
    "the same that is empty": (MATRIX[:0], MATRIX[:0]),
    "two on the meta device": (torch.empty(4, device="meta"), torch.empty(4, device="meta")),
}


@pytest.mark.parametrize("pair", APART)
def test_tensors_without_a_common_byte_are_in_no_group(pair: str) -> None:
    assert _relation(*APART[pair]) is None


def test_columns_of_a_long_matrix_are_told_apart() -> None:
    column = torch.empty(1 << 22, 2, dtype=torch.uint8)
    assert find_aliases({"left": column[:, :1], "right": column[:, 1:]}) == []


def test_rows_that_reach_into_each_other_overlap() -> None:
    assert _relation(MATRIX[:3], MATRIX[1:]) == "overlapping"


def test_tensors_connected_by_way_of_another_are_one_group() -> None:
    state = {"top": MATRIX[:2], "apart": MATRIX.clone(), "bottom": MATRIX[2:], "mid": MATRIX[1:3]}
    assert _pairs(state) == [(["top", "bottom", "mid"], "overlapping")]


def test_a_whole_among_its_halves_makes_them_nested() -> None:
    state = {"top": MATRIX[:2], "bottom": MATRIX[2:], "whole": MATRIX.t()}
    assert _pairs(state) == [(["top", "bottom", "whole"], "nested")]


def test_groups_stand_in_order_of_first_appearance_and_names_in_dict_order() -> None:
    low, high = torch.zeros(2, 8)
    later = torch.zeros(3)
    state = {"c": later, "b": high, "z": low, "a": later[:1], "y": high, "x": low.detach()}
    assert _pairs(state) == [
        (["c", "a"], "nested"),
        (["b", "y"], "identical"),
        (["z", "x"], "identical"),
    ]


def test_one_storage_is_no_reason_to_be_a_group() -> None:
    flat = torch.zeros(100)
    state = {f"slice.{start}": flat[start : start + 10] for start in range(0, 100, 10)}
    assert find_aliases(state) == []


def test_lone_view_of_a_bigger_storage_is_in_no_group() -> None:
    """safetensors refuses to save it."""
    assert find_aliases({"view": torch.zeros(100)[10:20], "other": torch.zeros(10)}) == []


def test_two_storages_over_one_buffer_are_aliases() -> None:
    """Their storages differ, so that everything that compares storages misses it."""
    buffer = bytearray(64)
    one = torch.frombuffer(buffer, dtype=torch.float32, count=8)
    state = {"one": one, "other": torch.frombuffer(buffer, dtype=torch.float32, offset=16)}
    assert _pairs(state) == [(["one", "other"], "overlapping")]
    state["other"] = torch.frombuffer(buffer, dtype=torch.float32, offset=32)
    assert find_aliases(state) == []


def test_conjugate_is_not_the_same_value_though_the_same_bytes() -> None:
    """safetensors 0.8 writes the bytes unconjugated."""
    assert _relation(COMPLEX, COMPLEX.conj()) == "same_bytes"
    assert _relation(COMPLEX.conj(), COMPLEX.conj()) == "identical"
    assert _relation(COMPLEX.imag, COMPLEX.conj().imag) == "same_bytes"
    assert _relation(COMPLEX, torch.view_as_real(COMPLEX)) == "same_bytes"
    assert _relation(COMPLEX, COMPLEX.real) == "nested"


def test_names_of_a_tied_model_are_one_group() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["embed"].weight
    expected = [AliasGroup(["embed.weight", "head.weight"], "identical")]
    assert find_aliases(model.state_dict()) == expected
    assert find_aliases(dict(model.named_parameters(remove_duplicate=False))) == expected


def test_what_is_no_tensor_is_passed_over() -> None:
    shared = [1.0]
    state = {
        "text": "x",
        "nothing": None,
        "also": None,
        "list": shared,
        "same": shared,
        "t": MATRIX,
    }
    assert find_aliases(state) == []
    assert find_aliases({}) == []


def test_subclass_with_memory_is_judged_by_its_memory() -> None:
    tagged = MATRIX.as_subclass(Tagged)
    assert _relation(MATRIX, tagged) == "identical"
    assert _relation(nn.Parameter(tagged), MATRIX[1:]) == "nested"


def test_lazy_parameter_has_no_memory_yet() -> None:
    lazy = nn.parameter.UninitializedParameter()
    assert _relation(lazy, lazy) is None


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(MATRIX, 0.1, 0, torch.qint8)


def test_quantized_tensors_are_judged_by_their_memory() -> None:
    quantized = _quantized()
    assert _relation(quantized, quantized[1:]) == "nested"


def _nested() -> torch.Tensor:
    """Rows of different lengths: a strided tensor, torch says, but without strides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


def _freed() -> torch.Tensor:
    """What FSDP leaves of a parameter between two uses."""
    tensor = torch.zeros(8)[2:]
    tensor.untyped_storage().resize_(0)
    return tensor


WITHOUT_ADDRESS: dict[str, Callable[[], torch.Tensor]] = {
    "wrapper": lambda: Wrapper(MATRIX),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse parameter": lambda: nn.Parameter(torch.eye(3).to_sparse()),
    "sparse subclass": lambda: Special(torch.eye(3).to_sparse()),
    "nested": _nested,
    "freed": _freed,
    "of zeros that are nowhere": lambda: torch._efficientzerotensor((4, 3)),
}


@pytest.mark.parametrize("kind", WITHOUT_ADDRESS)
def test_tensor_without_an_address_is_an_alias_of_itself_only(kind: str) -> None:
    one, other = WITHOUT_ADDRESS[kind](), WITHOUT_ADDRESS[kind]()
    assert _relation(one, other) is None
    state = {"one": one, "plain": MATRIX, "again": one, "other": other, "rows": MATRIX[:2]}
    assert _pairs(state) == [(["one", "again"], "identical"), (["plain", "rows"], "nested")]


def test_wrapper_on_the_meta_device_is_in_no_group() -> None:
    meta = torch.empty(2, device="meta").as_subclass(Tagged)
    assert _relation(meta, meta) is None


def test_tensors_are_left_as_they_are() -> None:
    """A storage that numpy has seen cannot be resized again, which FSDP does."""
    weight = nn.Parameter(MATRIX.clone())
    tagged = torch.zeros(4, requires_grad=True).as_subclass(Tagged)
    state = {"weight": weight, "rows": weight[1:], "tagged": tagged}
    before = [(one.tolist(), one._version, one.grad_fn) for one in (weight, tagged)]
    find_aliases(state)
    assert before == [(one.tolist(), one._version, one.grad_fn) for one in (weight, tagged)]
    weight.untyped_storage().resize_(1024)


def test_nothing_of_the_state_dict_is_kept_alive() -> None:
    tensor = torch.zeros(4)
    referrers = len(gc.get_referrers(tensor))
    find_aliases({"one": tensor, "other": tensor[1:]})
    assert len(gc.get_referrers(tensor)) == referrers


def test_engine_wants_one_space_start_and_end_for_each() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 1\)"):
        _rust.find_touching([0], [0, 1], [4])


# The oracle: every tensor as the set of its byte addresses.


def _bytes(tensor: torch.Tensor) -> frozenset[int]:
    if tensor.is_meta:
        return frozenset()
    size = tensor.element_size()
    steps = [
        [i * stride * size for i in range(length)]
        for length, stride in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    starts = {tensor.data_ptr() + sum(position) for position in itertools.product(*steps)}
    return frozenset(start + byte for start in starts for byte in range(size))


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    kind = (tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return (*kind, tensor.data_ptr(), tensor.shape, tensor.stride())


def _naive_relation(tensors: list[torch.Tensor]) -> str:
    sets = [_bytes(tensor) for tensor in tensors]
    if len({_layout(tensor) for tensor in tensors}) == 1:
        return "identical"
    if len(set(sets)) == 1:
        return "same_bytes"
    return "nested" if frozenset.union(*sets) in sets else "overlapping"


def _naive_aliases(state_dict: dict[str, torch.Tensor]) -> list[tuple[list[str], str]]:
    groups: list[tuple[list[str], frozenset[int]]] = []
    for name, tensor in state_dict.items():
        names, held = [name], _bytes(tensor)
        for group in [group for group in groups if group[1] & held]:
            groups.remove(group)
            names, held = [*group[0], *names], held | group[1]
        groups.append((names, held))
    order = list(state_dict)
    sorted_names = sorted(sorted(map(order.index, names)) for names, _ in groups if len(names) > 1)
    return [
        ([order[i] for i in names], _naive_relation([state_dict[order[i]] for i in names]))
        for names in sorted_names
    ]


DTYPES = [torch.uint8, torch.float32, torch.int16, torch.complex64, torch.bfloat16]


def _slice(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    dim = draw(st.integers(0, tensor.dim() - 1)) if tensor.dim() else None
    if dim is None:
        return tensor
    start = draw(st.integers(0, tensor.shape[dim]))
    stop = draw(st.integers(start, tensor.shape[dim]))
    return tensor[(slice(None),) * dim + (slice(start, stop, draw(st.integers(1, 3))),)]


def _as_strided(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    """Return any view of the storage, rows that overlap or repeat among them."""
    room = tensor.untyped_storage().nbytes() // tensor.element_size()
    if not room:
        return tensor
    offset = draw(st.integers(0, room - 1))
    strides = draw(st.lists(st.integers(0, 5), max_size=3))
    shape = []
    left = room - 1 - offset
    for stride in strides:
        most = left // stride if stride else 3
        shape.append(draw(st.integers(0, min(most + 1, 4))))
        left -= max(shape[-1] - 1, 0) * stride
    return tensor.as_strided(shape, strides, offset)


def _other_dtype(draw: st.DrawFn, tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.resolve_conj().resolve_neg()
    try:
        return plain.view(draw(st.sampled_from(DTYPES)))
    except RuntimeError:  # Sizes or strides do not allow it.
        return tensor


STEPS: list[Callable[[st.DrawFn, torch.Tensor], torch.Tensor]] = [
    _slice,
    _slice,
    _as_strided,
    _other_dtype,
    lambda _, tensor: tensor,
    lambda _, tensor: tensor.detach(),
    lambda _, tensor: tensor.mT if tensor.dim() > 1 else tensor,
    lambda _, tensor: tensor.unsqueeze(0).expand(2, *tensor.shape),
    lambda _, tensor: tensor.reshape(-1),
    lambda _, tensor: tensor.conj(),
    lambda _, tensor: torch._neg_view(tensor) if tensor.dtype == torch.float32 else tensor,
    lambda _, tensor: nn.Parameter(tensor, requires_grad=False),
    lambda _, tensor: tensor.to("meta"),
]


@st.composite
def _state_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Draw tensors that are views of a few others: matrices, complex, two storages in one."""
    buffer = bytearray(48)
    pool = [
        torch.zeros(4, 6),
        torch.zeros(3, 2, dtype=torch.complex64),
        torch.frombuffer(buffer, dtype=torch.uint8, count=40),
        torch.frombuffer(buffer, dtype=torch.int16, offset=16),
    ]
    for _ in range(draw(st.integers(0, 7))):
        tensor = draw(st.sampled_from(pool))
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=3)):
            tensor = step(draw, tensor) if not tensor.is_meta else tensor
        pool.append(tensor)
    chosen = draw(st.lists(st.sampled_from(range(len(pool))), max_size=8))
    return {f"name.{i}": pool[choice] for i, choice in enumerate(chosen)}


@given(_state_dicts())
def test_groups_are_those_of_the_byte_addresses(state_dict: dict[str, torch.Tensor]) -> None:
    assert _pairs(state_dict) == _naive_aliases(state_dict)
