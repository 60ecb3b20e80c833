"""Tied names: what covers a missing name, which of two different values wins, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import windlass
import windlass.torch.fill
from builders.bits import fingerprint, same_bits
from builders.sharded import write_bin, write_model, write_shards
from torch import nn
from windlass.errors import IncompatibleKeys
from windlass.torch.ties import Claim, find_ties

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VALUES = torch.arange(12.0).view(4, 3)


class Tied(nn.Module):
    """A model with `first` and a view of its memory as `second`."""

    def __init__(self, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(4, 3))
        self.second = nn.Parameter(view(self.first.detach()))


class LanguageModel(nn.Module):
    """The usual tie: one parameter object under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight


COVERED = {
    "same": lambda tensor: tensor,
    "reshaped": lambda tensor: tensor.view(2, 6),
    "transposed": lambda tensor: tensor.t(),
    "first rows": lambda tensor: tensor[:2],
    "last rows": lambda tensor: tensor[2:],
    "columns": lambda tensor: tensor[:, 1:],
    "every other row": lambda tensor: tensor[::2],
    "one element": lambda tensor: tensor[3, 2],
}


@pytest.mark.parametrize("view", COVERED)
def test_name_whose_memory_is_filled_by_another_is_not_missing(tmp_path: Path, view: str) -> None:
    model = Tied(COVERED[view])
    folder = write_model(tmp_path / "c", {"first": VALUES}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert same_bits(model.first, VALUES)
    assert same_bits(model.second, COVERED[view](VALUES).contiguous())


@pytest.mark.parametrize("view", ["same", "reshaped", "transposed"])
def test_earlier_name_is_covered_by_a_later_one(tmp_path: Path, view: str) -> None:
    model = Tied(COVERED[view])
    folder = write_model(tmp_path / "c", {"second": COVERED[view](VALUES)}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert same_bits(model.first, VALUES)


@pytest.mark.parametrize("view", ["first rows", "last rows", "columns", "every other row"])
def test_name_that_is_filled_in_part_is_missing(tmp_path: Path, view: str) -> None:
    model = Tied(COVERED[view])
    before = fingerprint(model)
    folder = write_model(tmp_path / "c", {"second": COVERED[view](VALUES)}, count=1)
    with pytest.raises(IncompatibleKeys) as caught:
        windlass.load_sharded_checkpoint(model, folder)
    assert caught.value.missing_keys == ["first"]
    assert fingerprint(model) == before
    assert windlass.load_sharded_checkpoint(model, folder, strict=False) == (["first"], [])
    assert same_bits(model.second, COVERED[view](VALUES).contiguous())


def _interleaved() -> nn.Module:
    memory = torch.zeros(8)
    model = nn.Module()
    model.even = nn.Parameter(memory[::2])
    model.odd = nn.Parameter(memory[1::2])
    return model


def test_name_between_the_elements_of_another_is_missing(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", {"even": torch.ones(4)}, count=1)
    model = _interleaved()
    assert windlass.load_sharded_checkpoint(model, folder, strict=False) == (["odd"], [])
    assert torch.equal(model.odd, torch.zeros(4))


def test_interleaved_names_do_not_disturb_each_other(tmp_path: Path) -> None:
    model = _interleaved()
    state = {"even": torch.ones(4), "odd": torch.full((4,), 2.0)}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert torch.equal(model.even, state["even"])
    assert torch.equal(model.odd, state["odd"])


def test_name_covered_by_two_slices_together_is_not_missing(tmp_path: Path) -> None:
    model = nn.Module()
    model.whole = nn.Parameter(torch.zeros(4, 3))
    model.top = nn.Parameter(model.whole.detach()[:2])
    model.bottom = nn.Parameter(model.whole.detach()[2:])
    folder = write_model(tmp_path / "c", {"top": VALUES[:2], "bottom": VALUES[2:]})
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert same_bits(model.whole, VALUES)


@pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
def test_tied_model_loads_its_own_deduplicated_checkpoint_strictly(
    tmp_path: Path, name: str
) -> None:
    model = LanguageModel()
    folder = write_model(tmp_path / "c", {name: VALUES}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert model.head.weight is model.embedding.weight
    assert same_bits(model.head.weight, VALUES)


def test_buffer_can_cover_a_parameter(tmp_path: Path) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(4, 3))
    model.register_buffer("cache", model.weight.detach())
    folder = write_model(tmp_path / "c", {"cache": VALUES}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert same_bits(model.weight, VALUES)


def test_non_persistent_buffer_never_counts_as_missing(tmp_path: Path) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(4, 3))
    model.register_buffer("cache", torch.full((2,), 9.0), persistent=False)
    folder = write_model(tmp_path / "c", {"weight": VALUES}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder) == ([], [])
    assert torch.equal(model.cache, torch.full((2,), 9.0))


def test_name_of_a_non_persistent_buffer_is_unexpected(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_buffer("cache", torch.full((2,), 9.0), persistent=False)
    folder = write_model(tmp_path / "c", {"cache": torch.zeros(2)}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder, strict=False) == ([], ["cache"])
    assert torch.equal(model.cache, torch.full((2,), 9.0))


def test_empty_name_that_is_absent_is_missing(tmp_path: Path) -> None:
    """Torch reports it too: no memory cannot be covered by another's memory."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(4, 3))
    model.empty = nn.Parameter(torch.zeros(0, 3))
    folder = write_model(tmp_path / "c", {"weight": VALUES}, count=1)
    assert windlass.load_sharded_checkpoint(model, folder, strict=False) == (["empty"], [])


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("shard_of_first", ["a.safetensors", "b.safetensors"])
def test_later_name_in_model_order_wins_and_both_are_named(
    tmp_path: Path, shard_of_first: str, threads: int, *, strict: bool
) -> None:
    model = Tied(COVERED["same"])
    shards = {"a.safetensors": {"second": VALUES}, "b.safetensors": {"other": VALUES}}
    shards.setdefault(shard_of_first, {})["first"] = -VALUES
    model.other = nn.Parameter(torch.zeros(4, 3))
    folder = write_shards(tmp_path / "c", shards)
    with pytest.warns(UserWarning, match=r"(?s)first.*second|second.*first"):
        windlass.load_sharded_checkpoint(model, folder, strict=strict, threads=threads)
    assert same_bits(model.first, VALUES)


@pytest.mark.parametrize("view", ["transposed", "reshaped", "last rows", "columns"])
def test_later_view_wins_over_an_earlier_whole(tmp_path: Path, view: str) -> None:
    model, expected = Tied(COVERED[view]), Tied(COVERED[view])
    state = {"first": VALUES, "second": torch.full_like(COVERED[view](VALUES), 50.0)}
    expected.load_state_dict(state)
    with pytest.warns(UserWarning, match=r"(?s)first.*second|second.*first"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert same_bits(model.first, expected.first)


@pytest.mark.parametrize(
    ("one", "other"),
    [(0.0, -0.0), (float("nan"), 1.0)],
    ids=["signed zeros", "nan and a number"],
)
def test_ties_are_compared_by_their_bytes(tmp_path: Path, one: float, other: float) -> None:
    model = Tied(COVERED["same"])
    state = {"first": torch.full((4, 3), one), "second": torch.full((4, 3), other)}
    with pytest.warns(UserWarning, match="second"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert same_bits(model.first, state["second"])


@pytest.mark.parametrize("view", COVERED)
@pytest.mark.parametrize("value", [VALUES, torch.full((4, 3), float("nan"))], ids=["", "nan"])
def test_ties_that_agree_are_loaded_without_a_warning(
    tmp_path: Path, view: str, value: torch.Tensor
) -> None:
    model = Tied(COVERED[view])
    state = {"first": value, "second": COVERED[view](value)}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert same_bits(model.first, value)


@pytest.mark.parametrize("size", [1, 7, 64, 1001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2])
@pytest.mark.parametrize("stored", [torch.float32, torch.float64, torch.float16], ids=str)
def test_ties_that_agree_in_a_nan_that_is_cast_do_not_differ(
    tmp_path: Path, stored: torch.dtype, dtype: torch.dtype, size: int
) -> None:
    """Which NaN comes out of a cast depends on who casts, and how many at once."""
    model = nn.Module()
    model.register_buffer("first", torch.zeros(size, dtype=dtype))
    model.register_buffer("second", model.first)
    value = torch.full((size,), float("nan"), dtype=stored)
    folder = write_model(tmp_path / "c", {"first": value, "second": value.clone()})
    windlass.load_sharded_checkpoint(model, folder)
    assert model.first.float().isnan().all()


def test_ties_that_differ_beside_a_nan_that_is_cast_are_told(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_buffer("first", torch.zeros(9, dtype=torch.bfloat16))
    model.register_buffer("second", model.first)
    value = torch.full((9,), float("nan"))
    other = value.clone()
    value[3], other[3] = 0.0, -0.0
    folder = write_model(tmp_path / "c", {"first": value, "second": other})
    with pytest.warns(UserWarning, match="second"):
        windlass.load_sharded_checkpoint(model, folder)


def test_ties_of_one_element_with_an_odd_stride_are_compared(tmp_path: Path) -> None:
    """Torch calls a single element contiguous whatever its stride, but will not view its bytes."""
    model = nn.Module()
    model.first = nn.Parameter(torch.zeros(2)[::2])
    model.second = nn.Parameter(model.first.detach())
    state = {"first": torch.ones(1), "second": torch.ones(1)}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert torch.equal(model.first, torch.ones(1))


def test_ties_of_a_bin_file_keep_working(tmp_path: Path) -> None:
    source, model = LanguageModel(), LanguageModel()
    write_bin(tmp_path / "pytorch_model.bin", source.state_dict())
    assert windlass.load_sharded_checkpoint(model, tmp_path) == ([], [])
    assert same_bits(model.embedding.weight, source.embedding.weight)


def test_differing_ties_of_a_bin_file_warn(tmp_path: Path) -> None:
    model = LanguageModel()
    state = {"embedding.weight": -VALUES, "head.weight": VALUES}
    write_bin(tmp_path / "pytorch_model.bin", state)
    with pytest.warns(UserWarning, match=r"(?s)embedding\.weight.*head\.weight"):
        windlass.load_sharded_checkpoint(model, tmp_path)
    assert same_bits(model.embedding.weight, VALUES)


def test_shared_module_is_filled_through_either_of_its_names(tmp_path: Path) -> None:
    inner = nn.Linear(3, 4)
    model = nn.ModuleDict({"one": inner, "two": inner})
    state = {"one.weight": VALUES, "two.bias": torch.ones(4)}
    assert windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state)) == ([], [])
    assert same_bits(inner.weight, VALUES)
    assert torch.equal(inner.bias, torch.ones(4))


def test_parameters_whose_storage_was_freed_are_not_tied() -> None:
    """Torch gives them all the address 0, or an offset from it."""
    freed = [torch.zeros(8), torch.zeros(8), torch.zeros(8)[2:]]
    for tensor in freed:
        tensor.untyped_storage().resize_(0)
    claims = [Claim(str(i), tensor, present=True) for i, tensor in enumerate(freed)]
    assert find_ties(claims).groups == []


def test_tied_scalars_saved_with_one_dimension_are_compared_too(tmp_path: Path) -> None:
    model = nn.Module()
    scalar = torch.zeros(())
    model.register_buffer("a", scalar)
    model.register_buffer("b", scalar)
    folder = write_model(tmp_path / "c", {"a": torch.ones(1), "b": torch.full((1,), 2.0)})
    with pytest.warns(UserWarning, match="`a` and `b` share memory"):
        windlass.load_sharded_checkpoint(model, folder)
    assert model.a == 2


def _many_tied(count: int, size: int) -> nn.Module:
    """Return a model in which `a.n` and `b.n` are one, of other shapes than their neighbours."""
    model = nn.Module()
    model.a, model.b = nn.ParameterList(), nn.ParameterList()
    for number in range(count):
        # Every fourth has no elements.
        weight = nn.Parameter(torch.zeros(0 if number % 4 == 3 else size + number, 3))
        model.a.append(weight)
        model.b.append(weight)
    return model


@pytest.mark.parametrize("write", ["safetensors", "pickle"])
@pytest.mark.parametrize(("count", "size"), [(40, 1), (6, 600_000)])
def test_of_many_ties_those_that_differ_are_told_and_no_other(
    tmp_path: Path, write: str, count: int, size: int
) -> None:
    """Also where a tensor goes over from one read to the next."""
    model = _many_tied(count, size)
    state = {name: torch.ones_like(one) for name, one in model.state_dict().items()}
    differing = [f"a.{n}" for n in range(count) if n % 3 == 1]
    for name in differing:
        state[name].view(-1)[-1:] = 2.0  # Of one without elements there is nothing to differ.
    expected = {(name, f"b.{name[2:]}") for name in differing if state[name].numel()}
    if write == "pickle":
        path = write_bin(tmp_path / "pytorch_model.bin", state).parent
    else:
        path = write_model(tmp_path / "c", state, count=1)
    with pytest.warns(UserWarning, match="share memory") as warned:
        windlass.load_sharded_checkpoint(model, path)
    found = {tuple(str(one.message).split("`")[1:4:2]) for one in warned}
    assert found == expected


def test_many_ties_are_compared_through_one_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _many_tied(40, 1)
    state = {name: torch.ones_like(one) for name, one in model.state_dict().items()}
    folder = write_model(tmp_path / "c", state, count=1)
    made: list[torch.Tensor] = []
    new_staging = windlass.torch.fill.new_staging

    def count() -> torch.Tensor:
        made.append(new_staging())
        return made[-1]

    monkeypatch.setattr(windlass.torch.fill, "new_staging", count)
    windlass.load_sharded_checkpoint(model, folder)
    assert len(made) == 1
