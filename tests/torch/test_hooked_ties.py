"""Hooked modules beside plain ones: ties between them, options, and what an error brings back."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import fingerprint
from builders.sharded import write_model
from torch import nn
from windlass.errors import UnsupportedParameter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Silent(nn.Module):
    """Loads nothing and reports nothing."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def _load_from_state_dict(self, *_: Any) -> None:
        return


class Tied(nn.Module):
    def __init__(self, head: type[nn.Module] | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = head(self.embed.weight) if head else nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


def _hooked_head() -> Tied:
    model = Tied()
    model.head.register_load_state_dict_pre_hook(lambda *_: None)
    return model


def _ones(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.full((4, 3), float(i + 1)) for i, name in enumerate(names)}


def test_name_that_a_silent_module_claims_is_loaded_all_the_same(tmp_path: Path) -> None:
    model = Tied(Silent)
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", _ones("embed.weight")))
    assert model.embed.weight.eq(1).all()


def test_plain_name_after_a_hooked_one_has_the_last_word_over_it(tmp_path: Path) -> None:
    model = _hooked_head()
    model.last = nn.Linear(3, 4, bias=False)
    model.last.weight = model.embed.weight
    folder = write_model(tmp_path / "c", _ones("embed.weight", "head.weight", "last.weight"))
    with pytest.warns(UserWarning, match=r"share memory") as warnings:
        windlass.load_sharded_checkpoint(model, folder)
    assert model.embed.weight.eq(3).all()
    assert all("`last.weight`" in str(warning.message) for warning in warnings)


def test_plain_names_before_and_after_a_hooked_one_keep_their_order(tmp_path: Path) -> None:
    model = nn.Module()
    whole = torch.zeros(4, 3)
    for name, values in (("first", whole[:2]), ("hooked", whole), ("last", whole[2:])):
        model.add_module(name, nn.Module())
        model.get_submodule(name).weight = nn.Parameter(values)
    model.hooked.register_load_state_dict_pre_hook(lambda *_: None)
    names = {
        "first.weight": torch.full((2, 3), 1.0),
        "hooked.weight": torch.full((4, 3), 2.0),
        "last.weight": torch.full((2, 3), 3.0),
    }
    with pytest.warns(UserWarning, match=r"share memory"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", names))
    assert whole[:2].eq(2).all()
    assert whole[2:].eq(3).all()


class Own(nn.Module):
    """Loads itself, as torch would, and counts how often."""

    loads = 0

    def _load_from_state_dict(self, *args: Any) -> None:
        self.loads += 1
        super()._load_from_state_dict(*args)


def _with_buffers(module: nn.Module, **buffers: torch.Tensor) -> nn.Module:
    for name, values in buffers.items():
        module.register_buffer(name, values)
    return module


def _part_of_a_plain_name() -> nn.Module:
    memory = torch.zeros(10)
    model = _with_buffers(nn.Module(), a=memory)
    model.add_module("h", _with_buffers(Own(), w=memory[:5]))
    model.add_module("z", _with_buffers(nn.Module(), c=memory[7:]))
    return model


def _two_hooked_names() -> nn.Module:
    first, second = torch.zeros(3), torch.zeros(3)
    model = _with_buffers(nn.Module(), a=first)
    model.add_module("h1", _with_buffers(Own(), w=first, v=second))
    model.add_module("h2", _with_buffers(Own(), v=second))
    return model


@pytest.mark.parametrize("make", [_part_of_a_plain_name, _two_hooked_names])
def test_several_names_of_one_memory_end_as_torch_would_leave_them(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    model, expected = make(), make()
    names = enumerate(model.state_dict().items())
    state = {name: torch.full_like(value, float(i + 1)) for i, (name, value) in names}
    expected.load_state_dict(state)
    with pytest.warns(UserWarning, match="share memory"):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert {one.loads for one in model.modules() if isinstance(one, Own)} == {1}


def test_later_hooked_name_has_the_last_word_and_a_warning_names_both(tmp_path: Path) -> None:
    model = _hooked_head()
    folder = write_model(tmp_path / "c", _ones("embed.weight", "head.weight"))
    with pytest.warns(UserWarning, match=r"`embed.weight` and `head.weight` share memory"):
        windlass.load_sharded_checkpoint(model, folder)
    assert model.embed.weight.eq(2).all()


def test_earlier_hooked_name_that_differs_is_warned_about(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.LayerNorm(3))
    model[1].weight = model[0].weight
    state = {name: torch.zeros(3) for name in ("0.bias", "1.bias")}
    state |= {"0.weight": torch.full((3,), 5.0), "1.weight": torch.full((3,), 6.0)}
    folder = write_model(tmp_path / "c", state)
    with pytest.warns(UserWarning, match=r"`0.weight` and `1.weight` share memory"):
        windlass.load_sharded_checkpoint(model, folder)
    assert model[0].weight.eq(6).all()


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("names", [("embed.weight",), ("embed.weight", "head.weight")])
def test_assign_refuses_a_tie_with_a_hooked_module(
    tmp_path: Path, device: str, names: tuple[str, ...]
) -> None:
    with torch.device(device):
        model = _hooked_head()
    folder = write_model(tmp_path / "c", _ones(*names))
    with pytest.raises(UnsupportedParameter, match=r"share memory"):
        windlass.load_sharded_checkpoint(model, folder, strict=False, assign=True)
    assert model.embed.weight.device.type == device


@pytest.mark.parametrize(
    "option", [{"io": "tape"}, {"threads": 0}, {"threads": -1}, {"threads": 10**6}]
)
def test_bad_option_is_a_value_error_before_any_hook(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    model = nn.BatchNorm1d(3)
    folder = write_model(tmp_path / "c", nn.BatchNorm1d(3).double().state_dict())
    before = fingerprint(model)
    with pytest.raises(ValueError, match="should be"):
        windlass.load_sharded_checkpoint(model, folder, **option)
    with pytest.raises(ValueError, match="should be"):
        windlass.load_file(next(folder.glob("*.safetensors")), **option)
    assert fingerprint(model) == before


@pytest.mark.parametrize("shape", [(2, 2), (7,)])
def test_error_after_a_hook_swapped_data_keeps_its_words_and_the_model(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    view = model[0].weight.detach()

    def swap(module: nn.Module, _: object) -> None:
        module.weight.data = torch.zeros(shape)
        module.weight.requires_grad_(False)  # noqa: FBT003  (torch's signature)
        raise KeyError("the hook's own error")

    model[0].register_load_state_dict_post_hook(swap)
    folder = write_model(
        tmp_path / "c", nn.Sequential(*map(nn.Linear, (2, 2), (2, 2))).state_dict()
    )
    before = fingerprint(model)
    with pytest.raises(KeyError, match="own error"):
        windlass.load_sharded_checkpoint(model, folder)
    assert fingerprint(model) == before
    assert model[0].weight.data_ptr() == view.data_ptr()
    assert model[0].weight.requires_grad


def test_override_without_assign_that_returns_nothing_is_used(tmp_path: Path) -> None:
    class Old(nn.Linear):
        def load_state_dict(self, state_dict: Any, strict: bool = True) -> None:  # noqa: FBT001, FBT002
            super().load_state_dict(state_dict, strict)

    model, other = Old(2, 2), nn.Linear(2, 2)
    result = windlass.load_sharded_checkpoint(
        model, write_model(tmp_path / "c", other.state_dict())
    )
    assert result == ([], [])
    assert torch.equal(model.weight, other.weight)


def test_owned_assign_leaves_no_map_behind(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(3)
    folder = write_model(tmp_path / "c", nn.BatchNorm1d(3).state_dict())
    windlass.load_sharded_checkpoint(model, folder, assign=True, memory="owned")
    with open("/proc/self/maps") as maps:
        assert str(folder) not in maps.read()


def test_live_mapped_tensors_hold_no_file_open(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", _ones("a", "b"))
    path = next(folder.glob("*.safetensors"))
    before = len(os.listdir("/proc/self/fd"))
    kept = [windlass.load_file(path) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 20


def test_destinations_in_the_same_memory_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "c", _ones("a", "b"), count=1)
    table = windlass.Checkpoint(folder)._table
    memory = bytearray(48)
    with pytest.raises(windlass.DestinationError, match=r"`a` and `b` overlap"):
        table.read_into(["a", "b"], [memory, memory], threads=2, io="auto")


class Replacing(nn.Linear):
    """Puts a new parameter in the place of the one that others may be tied to."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
        self.weight = nn.Parameter(state_dict[f"{prefix}weight"].clone())


def test_name_tied_to_a_replaced_parameter_is_missing(tmp_path: Path) -> None:
    model = nn.Sequential(Replacing(3, 4, bias=False), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    folder = write_model(tmp_path / "c", _ones("0.weight"))
    assert windlass.load_sharded_checkpoint(model, folder, strict=False).missing_keys == [
        "1.weight"
    ]


@pytest.mark.parametrize("kind", ["expanded", "sparse"])
def test_rollback_beside_an_unusual_buffer_restores_the_rest(tmp_path: Path, kind: str) -> None:
    inner = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    unusual = torch.ones(1).expand(4) if kind == "expanded" else torch.eye(2).to_sparse()
    inner[0].register_buffer("unusual", unusual, persistent=False)
    inner.register_load_state_dict_post_hook(lambda *_: None)
    model = nn.Sequential(inner, nn.Linear(2, 2))
    state = {f"0.1.{name}": torch.zeros_like(t) for name, t in nn.Linear(2, 2).state_dict().items()}
    weight = inner[1].weight.detach().clone()
    with pytest.raises(windlass.IncompatibleKeys):
        windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert torch.equal(inner[1].weight, weight)


def test_assign_keeps_one_parameter_that_is_buffer_and_parameter(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Module(), nn.Module())
    model[1].weight = nn.Parameter(torch.zeros(4, 3))
    model[0].register_buffer("weight", model[1].weight)
    folder = write_model(tmp_path / "c", _ones("0.weight"))
    windlass.load_sharded_checkpoint(model, folder, assign=True)
    assert model[0].weight is model[1].weight
    assert model[1].weight.eq(1).all()
    assert "weight" in model[0]._buffers


def test_hook_that_reshapes_a_tied_name_is_not_compared(tmp_path: Path) -> None:
    model = Tied()

    def cut(state: Any, prefix: str, *_: Any) -> None:
        state[f"{prefix}weight"] = state[f"{prefix}weight"][:4]

    model.head._register_load_state_dict_pre_hook(cut)
    padded = {"embed.weight": torch.ones(4, 3), "head.weight": torch.ones(5, 3)}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", padded))
    assert model.embed.weight.eq(1).all()


def test_unlisted_warning_as_error_comes_before_any_hook(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(3)
    folder = write_model(tmp_path / "c", nn.BatchNorm1d(3).state_dict(), count=1)
    index = folder / "model.safetensors.index.json"
    index.write_text(re.sub(r'"bias": "[^"]*",?', "", index.read_text()))
    before = fingerprint(model)
    with pytest.raises(UserWarning, match=r"`bias`"):
        windlass.load_sharded_checkpoint(model, folder, strict=False)
    assert fingerprint(model) == before
