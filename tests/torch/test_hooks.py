"""Modules with their own loading go through torch's path and end as torch's path ends."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import contents, fingerprint, random_tensor
from builders.oracle import load_merged
from builders.sharded import write_model
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from windlass.errors import IncompatibleKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    State = dict[str, torch.Tensor]


class PackedLinear(nn.Module):
    """Quantises on load, as int8 layers do: the checkpoint has `weight`, the module has two."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("packed", torch.zeros(4, 3, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(4, 1))
        self.bias = nn.Parameter(torch.zeros(4))

    def _load_from_state_dict(self, state: State, prefix: str, *args: Any) -> None:
        weight = state.pop(prefix + "weight", None)
        if weight is not None:
            scale = weight.abs().amax(dim=1, keepdim=True) / 127
            state[prefix + "scale"] = scale
            state[prefix + "packed"] = (weight / scale).round().to(torch.int8)
        super()._load_from_state_dict(state, prefix, *args)


class Counted(nn.Linear):
    """Keeps extra state beside its tensors."""

    steps = 0

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.steps)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.steps = int(state)


class Doubling(nn.Module):
    """A parametrization whose right inverse is not the identity."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value * 2

    def right_inverse(self, value: torch.Tensor) -> torch.Tensor:
        return value / 2


def _renamed(state: State, prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + "old_")]:
        state[prefix + key.removeprefix(prefix + "old_")] = state.pop(key)


def _with_renaming_hook() -> nn.Module:
    model = nn.Linear(3, 4)
    model._register_load_state_dict_pre_hook(_renamed)
    return model


def _with_scaling_hook() -> nn.Module:
    def scaled(_: nn.Module, state: State, prefix: str, *__: Any) -> None:
        state[prefix + "weight"] = state[prefix + "weight"] * 3

    model = nn.Linear(3, 4)
    model.register_load_state_dict_pre_hook(scaled)
    return model


def _with_post_hook() -> nn.Module:
    def forgive_and_mark(module: nn.Module, keys: Any) -> None:
        keys.missing_keys.clear()
        keys.unexpected_keys.clear()
        with torch.no_grad():
            module.weight[0, 0] = 99

    model = nn.Linear(3, 4)
    model.register_load_state_dict_post_hook(forgive_and_mark)
    return model


def _random(shapes: dict[str, tuple[int, ...]]) -> State:
    return {
        name: random_tensor(shape, torch.int16, seed).to(torch.float32)
        for seed, (name, shape) in enumerate(shapes.items())
    }


LINEAR = {"weight": (4, 3), "bias": (4,)}
BATCH = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (4,))
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "own _load_from_state_dict": (PackedLinear, LINEAR),
    "own names of a packed layer": (
        PackedLinear,
        {"packed": (4, 3), "scale": (4, 1), "bias": (4,)},
    ),
    "batch norm of old": (lambda: nn.BatchNorm1d(4), BATCH),
    "batch norm without statistics": (
        lambda: nn.BatchNorm1d(4, track_running_stats=False),
        {"weight": (4,), "bias": (4,)},
    ),
    "old weight_norm names": (
        lambda: parametrizations.weight_norm(nn.Linear(3, 4)),
        {"weight_g": (4, 1), "weight_v": (4, 3), "bias": (4,)},
    ),
    "new weight_norm names": (
        lambda: parametrizations.weight_norm(nn.Linear(3, 4)),
        {
            "bias": (4,),
            "parametrizations.weight.original0": (4, 1),
            "parametrizations.weight.original1": (4, 3),
        },
    ),
    "parametrized module": (
        lambda: parametrize.register_parametrization(nn.Linear(3, 4), "weight", Doubling()),
        {"bias": (4,), "parametrizations.weight.original": (4, 3)},
    ),
    "pre-hook that renames": (_with_renaming_hook, {"old_weight": (4, 3), "bias": (4,)}),
    "pre-hook that computes": (_with_scaling_hook, LINEAR),
    "post-hook that forgives and writes": (_with_post_hook, {"weight": (4, 3), "alien": (1,)}),
    "lazy layer": (lambda: nn.LazyLinear(4), LINEAR),
    "lazy convolution": (lambda: nn.LazyConv1d(4, 2), {"weight": (4, 3, 2), "bias": (4,)}),
    "extra state": (lambda: Counted(3, 4), {**LINEAR, "_extra_state": ()}),
}
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "": lambda module: module,
    "middle.": lambda module: nn.ModuleDict(
        {"first": nn.Linear(2, 2), "middle": module, "last": nn.BatchNorm1d(2)}
    ),
    "0.deep.": lambda module: nn.Sequential(nn.ModuleDict({"deep": module}), nn.Linear(2, 2)),
}


def _case(case: str, prefix: str) -> tuple[nn.Module, nn.Module, State]:
    build, shapes = CASES[case]
    torch.manual_seed(0)
    ours = WRAPPERS[prefix](build())
    reference = copy.deepcopy(ours)
    inside = {prefix + name: tensor for name, tensor in _random(shapes).items()}
    around = {
        name: random_tensor(tuple(tensor.shape), tensor.dtype, 9)
        for name, tensor in ours.state_dict().items()
        if not name.startswith(prefix) and prefix
    }
    return ours, reference, {**around, **inside}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize("case", CASES)
def test_result_is_that_of_load_state_dict(
    tmp_path: Path, case: str, prefix: str, *, strict: bool
) -> None:
    """Where the 4.46 rule reports keys that torch's hooks have dealt with, torch is right."""
    ours, reference, state = _case(case, prefix)
    folder = write_model(tmp_path / "c", state, count=2)
    expected = load_merged(reference, folder, strict=strict)
    assert windlass.load_sharded_checkpoint(ours, folder, strict=strict) == expected
    assert contents(ours) == contents(reference)
    assert ours.state_dict().keys() == reference.state_dict().keys()


@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case != "post-hook that forgives and writes"]
)
def test_missing_and_unexpected_names_are_those_of_load_state_dict(
    tmp_path: Path, case: str, prefix: str
) -> None:
    ours, reference, state = _case(case, prefix)
    del state[prefix + "bias"]
    state[prefix + "alien"] = torch.ones(1)
    folder = write_model(tmp_path / "c", state, count=2)
    expected = load_merged(reference, folder, strict=False)
    assert windlass.load_sharded_checkpoint(ours, folder, strict=False) == expected
    assert contents(ours) == contents(reference)


@pytest.mark.parametrize("prefix", WRAPPERS)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case != "post-hook that forgives and writes"]
)
def test_strict_error_leaves_the_model_untouched(tmp_path: Path, case: str, prefix: str) -> None:
    ours, _, state = _case(case, prefix)
    before = fingerprint(ours)
    state[prefix + "alien"] = torch.ones(1)
    with pytest.raises(IncompatibleKeys, match="alien"):
        windlass.load_sharded_checkpoint(ours, write_model(tmp_path / "c", state))
    assert fingerprint(ours) == before


def test_extra_state_reaches_its_module(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Counted(2, 2))
    state = {**model.state_dict(), "1._extra_state": torch.tensor(41)}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert model[1].steps == 41


def test_missing_extra_state_is_missing(tmp_path: Path) -> None:
    model = Counted(2, 2)
    state = {name: tensor for name, tensor in model.state_dict().items() if "extra" not in name}
    folder = write_model(tmp_path / "c", state)
    assert windlass.load_sharded_checkpoint(model, folder, strict=False) == (["_extra_state"], [])


def test_hooks_of_a_module_run_once(tmp_path: Path) -> None:
    calls: list[str] = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].register_load_state_dict_pre_hook(lambda *_: calls.append("pre"))
    model[0].register_load_state_dict_post_hook(lambda *_: calls.append("post"))
    folder = write_model(tmp_path / "c", model.state_dict(), count=4)
    windlass.load_sharded_checkpoint(model, folder)
    assert calls == ["pre", "post"]


def test_post_hook_sees_the_whole_filled_module(tmp_path: Path) -> None:
    seen: list[float] = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.register_load_state_dict_post_hook(
        lambda module, _: seen.append(sum(p.detach().sum().item() for p in module.parameters()))
    )
    state = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state))
    assert seen == [12.0]


def test_plain_modules_beside_a_hooked_one_keep_their_memory(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), _with_scaling_hook(), nn.LazyLinear(4))
    state = {
        **{f"0.{name}": tensor for name, tensor in nn.Linear(2, 2).state_dict().items()},
        **{f"1.{name}": tensor for name, tensor in _random(LINEAR).items()},
        **{f"2.{name}": tensor for name, tensor in _random(LINEAR).items()},
    }
    addresses = [model[0].weight.data_ptr(), model[1].weight.data_ptr()]
    windlass.load_sharded_checkpoint(model, write_model(tmp_path / "c", state, count=3))
    assert [model[0].weight.data_ptr(), model[1].weight.data_ptr()] == addresses


def test_tie_between_a_plain_and_a_hooked_module_stays(tmp_path: Path) -> None:
    hooked = _with_scaling_hook()
    model = nn.ModuleDict({"plain": nn.Linear(3, 4), "hooked": hooked})
    model["plain"].weight = hooked.weight
    reference = copy.deepcopy(model)
    state = {f"{part}.{name}": t for part in model for name, t in _random(LINEAR).items()}
    folder = write_model(tmp_path / "c", state)
    load_merged(reference, folder)
    with pytest.warns(UserWarning, match=r"plain\.weight"):
        windlass.load_sharded_checkpoint(model, folder)
    assert model["plain"].weight is model["hooked"].weight
    assert contents(model) == contents(reference)
